//! Making an operator, and taking a handle.

use super::keys::{self, NewKey, Owner};
use super::model::{Handle, HandleError};
use super::scopes::{Role, Scope};
use super::store;
use crate::app::App;
use crate::db::Tx;
use crate::ids::AccountId;

/// An operator and the one sight of its key.
#[derive(Clone)]
pub(crate) struct NewOperator {
    pub(crate) account: AccountId,
    pub(crate) handle: Handle,
    pub(crate) api_key: String,
}

/// Why no operator was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateOperatorError {
    #[error(transparent)]
    Handle(#[from] HandleError),
    #[error("the handle {0} is taken, or looks like one that is")]
    Taken(Handle),
    #[error("writing the operator")]
    Db(#[from] sqlx::Error),
}

/// Makes an account with the role of an operator and a key of the platform.
pub(crate) async fn create_operator(
    app: &App,
    handle: &str,
) -> Result<NewOperator, CreateOperatorError> {
    let handle = Handle::parse(handle)?;
    let now = app.clock.now();
    let account = AccountId::new(now);
    let mut tx = app.db.begin().await?;
    if !claim_handle(&mut tx, &handle, &account.to_string()).await? {
        return Err(CreateOperatorError::Taken(handle));
    }
    store::insert_account(&mut tx, account, &handle, now).await?;
    store::insert_role(&mut tx, account, Role::Operator).await?;
    let key = NewKey {
        owner: Owner::Platform(account),
        name: "operator".into(),
        scopes: Scope::ALL.iter().map(|it| it.as_str().into()).collect(),
        ip_allow: Vec::new(),
        creator: None,
        expires_at: None,
    };
    let api_key = keys::add_key(&mut tx, now, &key).await?.secret;
    tx.commit().await?;
    Ok(NewOperator {
        account,
        handle,
        api_key,
    })
}

/// Takes a handle for an account or creator; `false` if one that looks alike is taken.
pub(crate) async fn claim_handle(
    tx: &mut Tx,
    handle: &Handle,
    owner_id: &str,
) -> sqlx::Result<bool> {
    store::insert_handle(tx, handle, owner_id).await
}
