//! Offers (commerce.md 8): which price is in force, the tokens that promise it, and what a buyer
//! who shows one is charged.
//!
//! Invariants
//! - Never is more charged than the wish says.
//! - A token says the same to all viewers, so that what shows it can be cached.

mod keys;
mod rules;
mod token;
