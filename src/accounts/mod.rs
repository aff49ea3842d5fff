//! Accounts: who asks, and what they may do.
//!
//! Invariants
//! - No account exists until an operator is made on the machine itself.
//! - A key is shown once and stored as SHA-256; nothing here logs it.
//! - Handles are one namespace for accounts and creators, unique by what they look like.
//!
//! Not here: registration, sessions, passwords, blocks: they come with the social side.

mod audit;
mod extract;
mod keys;
mod model;
mod scopes;
mod service;
mod sessions;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use self::audit::{Entry, audit};
pub(crate) use self::extract::Principal;
pub(crate) use self::keys::key_is_valid;
pub(crate) use self::model::{Handle, HandleError};
pub(crate) use self::scopes::{Role, Scope};
pub(crate) use self::service::{CreateOperatorError, NewOperator, claim_handle, create_operator};
pub(crate) use self::store::exists;
