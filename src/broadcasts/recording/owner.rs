//! Who keeps a recording that has no end yet. A store may be shared by several processes, and none
//! may end what another still writes.
//!
//! The marker of an unfinished recording names its node and when that was last seen. A node ends
//! its own at its next start, and those of others once they were not seen for [`LEASE`].
//!
//! Not here: when a marker is written.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::app::new_secret;
use crate::clock::{Clock, Timestamp};

/// How often a node says that it is there.
pub(super) const SEEN_EVERY: Duration = Duration::from_secs(60);
/// A node that was not seen for so long is gone.
const LEASE: Duration = Duration::from_secs(600);
const NODE_FILE: &str = "node.id";
const NODE_CHARS: usize = 16;

/// This node, as it stands in markers.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    node: String,
    clock: Clock,
}

impl Owner {
    /// The node of a data directory, named at its first start.
    pub(super) fn of(dir: &Path, clock: Clock) -> io::Result<Self> {
        let path = dir.join(NODE_FILE);
        let known = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let node = name();
                std::fs::write(&path, format!("{node}\n"))?;
                node
            }
            Err(err) => return Err(err),
        };
        let node = known.trim().to_owned();
        Ok(Self { node, clock })
    }

    /// One that is another at its next start.
    pub(super) fn unnamed(clock: Clock) -> Self {
        let node = name();
        Self { node, clock }
    }

    /// What a marker says now.
    pub(super) fn marker(&self) -> Bytes {
        let seen_us = self.clock.now().as_micros();
        format!("{} {seen_us}\n", self.node).into()
    }

    /// Whether this node is to end the recording of a marker. One that cannot be read was written
    /// whole by nobody who is still there.
    pub(super) fn ends(&self, marker: &[u8]) -> bool {
        let text = std::str::from_utf8(marker).unwrap_or_default();
        let Some((node, seen_us)) = text.trim().split_once(' ') else {
            return true;
        };
        let seen = seen_us.parse().map(Timestamp::from_micros);
        let is_gone = seen.is_ok_and(|at| self.clock.now().since(at) >= LEASE);
        node == self.node || is_gone
    }
}

fn name() -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric();
    let secret = new_secret("");
    secret.chars().filter(is_plain).take(NODE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Folder, NOON};

    #[test]
    fn a_node_ends_its_own_at_once_and_those_of_others_when_they_are_gone() {
        let (here, there) = (Folder::new(), Folder::new());
        let clock = Clock::standing_at(NOON);
        let of = |folder: &Folder| Owner::of(folder.path(), clock.clone()).unwrap();
        let (one, other) = (of(&here), of(&there));
        let marker = other.marker();
        assert!(
            other.ends(&marker) && of(&there).ends(&marker),
            "also after a new start"
        );
        assert!(!one.ends(&marker));
        clock.advance(LEASE - Duration::from_secs(1));
        assert!(!one.ends(&marker));
        clock.advance(Duration::from_secs(1));
        assert!(one.ends(&marker));
        assert!(!one.ends(&other.marker()), "it was seen again");
        assert!(one.ends(b"") && one.ends(b"\xff"));
    }
}
