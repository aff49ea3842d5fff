//! The ring and what it measures, as they are in the core.

#[path = "../../../src/broadcast/facts.rs"]
mod facts;
#[path = "../../../src/broadcast/ring.rs"]
pub(crate) mod ring;
