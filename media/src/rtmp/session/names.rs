//! Keys and names of rooms as publishers and players send them, and the codes of their answers.

use super::KEY_BYTES_MAX;
use crate::request::RefusalCode;

/// The application and the bare key: a query on either is dropped, and a key put into the URL
/// (`live/KEY` with an empty name) counts.
pub(super) fn stream_key(app: &str, name: &str) -> (String, String) {
    let bare = |text: &str| text.split('?').next().unwrap_or_default().trim().to_owned();
    let (app, name) = (bare(app), bare(name));
    let app = app.trim_end_matches('/');
    if name.is_empty()
        && let Some((app, key)) = app.split_once('/')
    {
        return (app.to_owned(), key.to_owned());
    }
    (app.to_owned(), name)
}

/// What stands behind the `?` of a name, or else of the application: some clients put it there.
pub(super) fn query_of(app: &str, name: &str) -> String {
    let behind = |text: &str| {
        text.split_once('?')
            .map(|(_, query)| query.trim().to_owned())
    };
    behind(name).or_else(|| behind(app)).unwrap_or_default()
}

pub(super) const fn publish_code(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::UnknownKey | RefusalCode::UnknownRoom => "NetStream.Publish.BadName",
        RefusalCode::NotAllowed | RefusalCode::Busy => "NetStream.Publish.Denied",
        RefusalCode::TryAgain | RefusalCode::Unsupported | RefusalCode::NotLive => {
            "NetStream.Publish.Rejected"
        }
    }
}

pub(super) const fn play_code(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::UnknownKey | RefusalCode::UnknownRoom | RefusalCode::NotLive => {
            "NetStream.Play.StreamNotFound"
        }
        RefusalCode::NotAllowed
        | RefusalCode::Busy
        | RefusalCode::TryAgain
        | RefusalCode::Unsupported => "NetStream.Play.Failed",
    }
}

/// Why a text cannot be a stream key, as a sentence for the publisher.
pub(super) fn key_fault(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some(
            "There is no stream key. Put the room's stream key into OBS: Settings, Stream, \
             Stream Key.",
        );
    }
    if key.len() > KEY_BYTES_MAX {
        return Some(
            "The stream key is longer than any key. Copy the room's stream key again, and nothing \
             else, into OBS: Settings, Stream, Stream Key.",
        );
    }
    // U+FFFD stands where the key was not UTF-8.
    let is_bad = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    key.contains(is_bad).then_some(
        "The stream key holds characters that no key has. Copy the room's stream key again into \
         OBS: Settings, Stream, Stream Key.",
    )
}
