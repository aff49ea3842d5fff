//! Creators: the pages that stream and post, and who operates them.
//!
//! Invariants
//! - A creator has at least one owner for good, from the transaction on in which it is made.
//! - Nobody gives or takes a permission they lack themselves.
//!
//! Not here: second persons, verification, followers; rooms ([`crate::rooms`]).

mod model;
mod operators;
mod rights;
mod routes;
mod service;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use self::model::{Kind, NewCreator};
pub(crate) use self::rights::{Bit, may, may_see};
pub(crate) use self::routes::routes;
pub(crate) use self::service::{CreateError, create};
pub(crate) use self::store::{exists, operated_by};
