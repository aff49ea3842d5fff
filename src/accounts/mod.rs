//! Accounts: who asks, and what they may do.
//!
//! Invariants
//! - An account is one person's login. Power over the platform is given on the machine itself.
//! - Passwords are stored as argon2id; tokens, keys and recovery codes as SHA-256. Each is shown
//!   once, and nothing here logs one.
//! - Wrong password and unknown handle cannot be told apart, by the answer or by the time it takes.
//! - Handles are one namespace for accounts and creators, unique by what they look like.
//!
//! Not here: blocks, privacy, exports, closing an account: they come with the social side.

mod audit;
mod extract;
mod keys;
mod me;
mod model;
mod password;
mod routes;
mod scopes;
mod service;
mod sessions;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use self::audit::{Entry, audit};
pub(crate) use self::extract::Principal;
pub(crate) use self::keys::{
    Key, MadeKey, NewKey, Owner, add_key, count_keys, end_key, key_by_id, key_is_valid, keys_of,
    revoke_key,
};
pub(crate) use self::model::{Handle, HandleError, folded};
pub(crate) use self::routes::routes;
pub(crate) use self::scopes::{Resource, Role, Scope, Verb};
pub(crate) use self::service::{
    CreateAccountError, CreateOperatorError, GrantRoleError, NewOperator, claim_handle,
    create_account, create_operator, grant_role,
};
pub(crate) use self::store::{decode, exists, is_there, lock};
