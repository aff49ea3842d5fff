//! Broadcasts: who may publish and watch, and the only door to the media core.
//!
//! A publisher's key is looked up ([`decide`]); its broadcast is opened in the hub under the id of
//! its room. That it came or went is told to whoever waits on [`changes`].
//!
//! Invariants
//! - A stream key is stored as SHA-256 and never logged.
//! - This module never asks upwards: `rooms` writes keys and access through it, in its own
//!   transactions.
//!
//! Not here: the state of a room ([`crate::rooms`]), any byte of media.

mod admission;
mod cues;
mod flv;
mod hls;
mod metrics;
mod model;
mod outputs;
mod play;
mod playback;
mod recording;
mod routes;
mod running;
mod service;
mod signal;
mod store;
#[cfg(test)]
mod tests;
mod thumb;
mod whep;
mod whip;

pub(crate) use self::admission::watch as watch_usage;
pub(crate) use self::cues::{
    HeldCue, NewCue, PlaceCueError, RunningT, end_cue, hold_cue, playhead, running,
};
pub(crate) use self::metrics::metrics;
pub(crate) use self::model::{AddKeyError, NewPublishKey, Sending};
pub(crate) use self::play::decide as decide_play;
#[cfg(feature = "s3")]
pub(crate) use self::recording::{open_store, probe_store};
pub(crate) use self::recording::{recorded, recover, stretches};
pub(crate) use self::routes::{media_routes, routes};
pub(crate) use self::service::{changes, cut, decide, end, has_publisher, news, sending};
pub(crate) use self::signal::{set_public, use_port};
pub(crate) use self::store::{add_key, close_publishing, has_key, open_access, revoke_key};
