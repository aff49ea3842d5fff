//! Stream keys: pure rules.

use crate::clock::Timestamp;
use crate::ids::KeyId;

/// What every stream key begins with.
pub(crate) const KEY_PREFIX: &str = "live_";
/// Valid keys of one room: one in use, one to change to.
pub(crate) const VALID_KEYS_MAX: i64 = 2;

/// A fresh stream key, the one time its secret is seen.
#[derive(Clone)]
pub(crate) struct NewPublishKey {
    pub(crate) id: KeyId,
    pub(crate) secret: String,
}

/// Why no key was added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddKeyError {
    #[error("a room has at most {VALID_KEYS_MAX} valid stream keys; delete one first")]
    LimitReached,
    #[error("writing the stream key")]
    Db(#[from] sqlx::Error),
}

/// Media that comes in for a room now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) instance: String,
    /// The wall time of the instance's T = 0.
    pub(crate) first_at: Timestamp,
}

/// Who may watch a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Public,
    /// Holders of a playback token.
    Token,
    Closed,
}

/// The secret in what an encoder sends: it may carry a query, or stand in the application's name
/// as `live/KEY` with an empty stream name.
pub(super) fn secret_of<'a>(app: &'a str, stream_name: &'a str) -> &'a str {
    let bare = |text: &'a str| text.split('?').next().unwrap_or_default().trim();
    let name = bare(stream_name);
    if !name.is_empty() {
        return name;
    }
    app.split_once('/').map_or("", |(_, key)| bare(key))
}
