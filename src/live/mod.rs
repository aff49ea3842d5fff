//! Live: what an open viewer page hears.
//!
//! A room's cards, as they are handed over, and hints that are no part of its timeline. What many
//! hear is rendered once per room ([`hub`]) and read by each stream at its own speed.
//!
//! Invariants
//! - A stream sends every card once and in the order of the numbers, whatever was missed: it reads
//!   from the database what it did not hear.
//! - A stream that is too far behind is closed; its client resumes by `Last-Event-ID`.
//! - What is rehearsed is heard by those who run the room, and by nobody else.
//!
//! Not here: the timeline itself ([`crate::rooms`]).

mod hub;
mod jobs;
mod model;
mod routes;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::jobs::run;
pub(crate) use self::routes::routes;
