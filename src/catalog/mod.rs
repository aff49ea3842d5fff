//! Catalog: what is sold, for how much, and how much of it is there.
//!
//! Invariants
//! - All stock is decided by one writer ([`sequencer`]); counters are a cache of movements.
//! - Price windows of one kind never overlap.
//!
//! Not here: what a viewer is offered in a room (`rooms`), orders (`orders`).

mod sequencer;
