//! Creators: the pages that stream and post, and who operates them.
//!
//! Invariant: a creator has at least one operator with every bit, from the transaction on in
//! which it is made.
//!
//! Not here: invitations, verification, followers; rooms ([`crate::rooms`]).

mod model;
mod routes;
mod service;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use self::model::{Kind, NewCreator};
pub(crate) use self::routes::routes;
pub(crate) use self::service::{CreateError, create};
pub(crate) use self::store::exists;
