//! The ring of the media core under every interleaving of its readers and its writer.
//!
//! The very files of the core are compiled here, against loom's primitives: [`sync`] in place of
//! the core's, and a stand-in for tokio's `watch`. The models are run by `tests/ring.rs`, so that
//! the core's own tests, which need more, are left out.
#![expect(dead_code, reason = "the files have more than is modelled")]

mod broadcast;
pub mod models;
mod sync;

#[path = "../../src/frame.rs"]
mod frame;
#[path = "../../src/time.rs"]
mod time;
