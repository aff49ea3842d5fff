//! Many products or prices in one request, one JSON object a line (commerce.md 5.7).
//!
//! Invariants
//! - A line is written whole or not at all, and fails alone.
//! - What a line wishes is a state: the same file again changes nothing.
//! - Lines are committed in groups, in their order, while the file is still coming.
//!
//! Not here: stock, which its own writer decides.

mod prices;
mod products;
mod routes;

pub(super) use self::routes::routes;
