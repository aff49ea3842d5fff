//! Making accounts and operators, logging in, passwords, taking a handle.

use serde_json::json;

use super::keys::{self, NewKey, Owner};
use super::model::{CODES, Handle, HandleError, Profile, State, code_meant, new_code};
use super::password::{self, HashersBusy, Password};
use super::scopes::{Role, Scope};
use super::sessions::{self, NewSession, Origin};
use super::store;
use crate::app::{App, hash};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::ids::{AccountId, SessionId};

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
    store::insert_account(&mut tx, account, &Profile::of(handle.clone()), now).await?;
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

/// An account and the one sight of its recovery codes.
#[derive(Clone)]
pub(crate) struct NewAccount {
    pub(crate) id: AccountId,
    pub(crate) recovery_codes: Vec<String>,
}

/// Why no account was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the handle {0} is taken, or looks like one that is")]
    Taken(Handle),
    #[error("writing the account")]
    Db(#[from] sqlx::Error),
}

/// Makes an account that can log in with the password of this hash.
pub(super) async fn register(
    tx: &mut Tx,
    now: Timestamp,
    profile: &Profile,
    phc: &str,
) -> Result<NewAccount, RegisterError> {
    let id = AccountId::new(now);
    if !claim_handle(tx, &profile.handle, &id.to_string()).await? {
        return Err(RegisterError::Taken(profile.handle.clone()));
    }
    store::insert_account(tx, id, profile, now).await?;
    store::set_password(tx, id, phc, now).await?;
    let recovery_codes: Vec<String> = (0..CODES).map(|_| new_code()).collect();
    for code in &recovery_codes {
        store::insert_code(tx, id, &hash(&code_meant(code))).await?;
    }
    let data = json!({ "handle": profile.handle.as_str() });
    tell(tx, now, id, (Kind::AccountRegistered, data)).await?;
    Ok(NewAccount { id, recovery_codes })
}

/// Why the owner of the machine got no account.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateAccountError {
    #[error(transparent)]
    Handle(#[from] HandleError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Busy(#[from] HashersBusy),
    #[error("writing the account")]
    Db(#[from] sqlx::Error),
}

/// Makes an account with a password of the server's choice, which is shown this once.
pub(crate) async fn create_account(
    app: &App,
    handle: &str,
) -> Result<(NewAccount, String), CreateAccountError> {
    let profile = Profile::of(Handle::parse(handle)?);
    let password = new_code().to_lowercase();
    let phc = Password::new(&password).hash(app).await?;
    let mut tx = app.db.begin().await?;
    let made = register(&mut tx, app.clock.now(), &profile, &phc).await?;
    tx.commit().await?;
    Ok((made, password))
}

/// Why a role was not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantRoleError {
    #[error("there is no account {0}")]
    NoAccount(String),
    #[error("writing the role")]
    Db(#[from] sqlx::Error),
}

/// Gives an account a role of the platform.
pub(crate) async fn grant_role(
    app: &App,
    handle: &str,
    role: Role,
) -> Result<AccountId, GrantRoleError> {
    let found = store::find_named(&app.db, handle).await?;
    let account = found.ok_or_else(|| GrantRoleError::NoAccount(handle.into()))?;
    let mut tx = app.db.begin().await?;
    store::insert_role(&mut tx, account.id, role).await?;
    tx.commit().await?;
    Ok(account.id)
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    /// Whatever was wrong.
    #[error("handle and password do not belong together")]
    Wrong,
    #[error("this account is suspended")]
    Suspended,
    #[error(transparent)]
    Busy(#[from] HashersBusy),
    #[error("reading the login")]
    Db(#[from] sqlx::Error),
}

/// The account that this handle and password open. Takes as long for a handle nobody has.
pub(super) async fn recognise(
    app: &App,
    handle: Option<&Handle>,
    password: &Password,
) -> Result<AccountId, LoginError> {
    let login = match handle {
        Some(handle) => store::find_login(&app.db, handle).await?,
        None => None,
    };
    let phc = login.as_ref().and_then(|login| login.phc.clone());
    let is_right = password.is(app, phc.clone()).await?;
    let login = login.filter(|_| is_right).ok_or(LoginError::Wrong)?;
    admit(login.state)?;
    if let Some(old) = phc.filter(|phc| password::is_outdated(phc)) {
        let new = password.hash(app).await?;
        let mut tx = app.db.begin().await?;
        let now = app.clock.now();
        store::set_rehashed(&mut tx, login.account, (&old, &new), now).await?;
        tx.commit().await?;
    }
    Ok(login.account)
}

/// Whether an account in this state may come in.
const fn admit(state: State) -> Result<(), LoginError> {
    match state {
        State::Active | State::Limited => Ok(()),
        State::Suspended => Err(LoginError::Suspended),
        State::Closing | State::Closed => Err(LoginError::Wrong),
    }
}

/// Opens a session.
pub(super) async fn open_session(
    tx: &mut Tx,
    now: Timestamp,
    account: AccountId,
    origin: &Origin,
) -> sqlx::Result<NewSession> {
    let session = sessions::open(tx, now, account, origin).await?;
    let data = json!({ "session_id": session.id });
    tell(tx, now, account, (Kind::SessionStarted, data)).await?;
    Ok(session)
}

/// Sets a new password in exchange for a recovery code; every session ends.
pub(super) async fn recover(
    tx: &mut Tx,
    now: Timestamp,
    account: Option<(AccountId, State)>,
    (code, phc): (&str, &str),
) -> Result<AccountId, LoginError> {
    let (account, state) = account.ok_or(LoginError::Wrong)?;
    if !store::use_code(tx, account, &hash(&code_meant(code)), now).await? {
        return Err(LoginError::Wrong);
    }
    admit(state)?;
    store::set_password(tx, account, phc, now).await?;
    sessions::close_others(tx, account, None).await?;
    Ok(account)
}

/// Sets another password; every other session ends.
pub(super) async fn change_password(
    tx: &mut Tx,
    now: Timestamp,
    (account, session): (AccountId, SessionId),
    phc: &str,
) -> sqlx::Result<()> {
    store::set_password(tx, account, phc, now).await?;
    sessions::close_others(tx, account, Some(session)).await
}

async fn tell(
    tx: &mut Tx,
    now: Timestamp,
    account: AccountId,
    (kind, data): (Kind, serde_json::Value),
) -> sqlx::Result<()> {
    let event = NewEvent {
        kind,
        subject_kind: SubjectKind::Account,
        subject_id: account.to_string(),
        streams: vec![Stream::Social],
        data,
    };
    events::append(tx, now, event).await?;
    Ok(())
}
