//! File descriptors: each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// With fewer a server is out of them at a few thousand viewers over LL-HLS.
pub(super) const WANTED: u64 = 4_096;
/// What to do about it.
pub(super) const ADVICE: &str = "raise the hard limit: LimitNOFILE=65536 in the systemd unit, \
                                 --ulimit nofile=65536 for docker, ulimit -Hn in a shell";

/// The most the process may ever have; `None` without a limit.
pub(super) fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Takes as many as the system lets this process have.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let raised = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(err) => {
            let err = &err as &dyn std::error::Error;
            warn!(error = err, "cannot raise the limit of file descriptors");
            limit.current
        }
    };
    // Without a limit there is no number to tell.
    let count = raised.unwrap_or(u64::MAX);
    info!(descriptors.max = count, "file descriptors");
    if count < WANTED {
        warn!("{count} file descriptors are few; {ADVICE}");
    }
}
