//! What people do with their own account over HTTP: profile, sessions, password, keys.

use axum::Json;
use axum::extract::State as AppState;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::{Entry, audit};
use super::extract::Principal;
use super::keys::{self, Key, MadeKey, NewKey, Owner};
use super::model::{Account, Handle, Profile};
use super::password::Password;
use super::routes::{LOGIN_BY_HANDLE, check_profile, name, note};
use super::scopes::{Reach, Role};
use super::service::{self, LoginError};
use super::sessions::{self, Session};
use super::store;
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Code, Cursor, IfMatch, NoBody, Page, Path, Problem,
    Query, Seek, Write, given, tagged,
};
use crate::ids::{AccountId, CreatorId, KeyId, SessionId};

const KEY_NAME: std::ops::RangeInclusive<usize> = 1..=80;
const KEY_SCOPES: std::ops::RangeInclusive<usize> = 1..=32;
/// Valid keys of an account.
const KEYS_MAX: i64 = 20;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(me, change))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
        .routes(routes!(change_password))
        .routes(routes!(list_keys, add_key))
        .routes(routes!(delete_key))
}

/// An account as its owner sees it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct MeView {
    #[schema(value_type = String)]
    id: AccountId,
    handle: String,
    display_name: String,
    bio: String,
    avatar_id: Option<String>,
    locale: String,
    tz: String,
    birth_year: Option<i64>,
    /// `active` or `limited`
    state: &'static str,
    /// Roles of the platform
    roles: Vec<&'static str>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl MeView {
    pub(super) fn new(account: Account, roles: &[Role]) -> Self {
        Self {
            id: account.id,
            handle: account.handle,
            display_name: account.display_name,
            bio: account.bio,
            avatar_id: account.avatar_id,
            locale: account.locale,
            tz: account.tz,
            birth_year: account.birth_year,
            state: account.state.as_str(),
            roles: roles.iter().map(|role| role.as_str()).collect(),
            version: account.version,
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }
}

/// Shows the caller's own account.
#[utoipa::path(get, path = "/me", tag = "accounts", security(("bearer" = [])),
    responses((status = 200, body = MeView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn me(AppState(app): AppState<App>, who: Principal) -> Result<Response, ApiError> {
    let account = store::find(&app.db, who.account()?).await?;
    let account = account.ok_or_else(ApiError::not_found)?;
    let version = account.version;
    let view = Json(MeView::new(account, who.roles()));
    Ok(tagged(view.into_response(), version))
}

/// What changes of a profile; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeMeBody {
    /// 1 to 40 characters
    display_name: Option<String>,
    /// At most 1 000 characters
    bio: Option<String>,
    /// A language tag
    locale: Option<String>,
    /// A time zone's name
    tz: Option<String>,
    /// Null takes it away
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    birth_year: Option<Option<i64>>,
}

impl ChangeMeBody {
    fn apply(self, account: &mut Account, now: Timestamp) -> Result<(), ApiError> {
        let replace = |old: &mut String, new: Option<String>| {
            if let Some(new) = new {
                *old = new;
            }
        };
        replace(&mut account.display_name, self.display_name);
        replace(&mut account.bio, self.bio);
        replace(&mut account.locale, self.locale);
        replace(&mut account.tz, self.tz);
        if let Some(year) = self.birth_year {
            account.birth_year = year;
        }
        check_profile(
            &Profile {
                handle: Handle::stored(&account.handle),
                display_name: account.display_name.clone(),
                bio: account.bio.clone(),
                locale: account.locale.clone(),
                tz: account.tz.clone(),
                birth_year: account.birth_year,
            },
            now,
        )?;
        account.version += 1;
        account.updated_at = now;
        Ok(())
    }

    fn fields(&self) -> Vec<&'static str> {
        let all = [
            ("display_name", self.display_name.is_some()),
            ("bio", self.bio.is_some()),
            ("locale", self.locale.is_some()),
            ("tz", self.tz.is_some()),
            ("birth_year", self.birth_year.is_some()),
        ];
        let given = all.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(name, _)| name).collect()
    }
}

/// Changes the caller's own profile.
#[utoipa::path(patch, path = "/me", operation_id = "change_me",
    tag = "accounts", request_body = ChangeMeBody,
    params(("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 200, body = MeView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.change", skip_all, fields(principal.id = %who.name()))]
async fn change(
    AppState(app): AppState<App>,
    who: Principal,
    wanted: IfMatch,
    Write { body, call }: Write<ChangeMeBody>,
) -> Result<Response, ApiError> {
    let (id, session) = who.session()?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let account = store::find_locked(&mut tx, id).await?;
    let mut account = account.ok_or_else(ApiError::not_found)?;
    wanted.check(account.version)?;
    let diff = json!({ "changed": body.fields() });
    body.apply(&mut account, now)?;
    store::update(&mut tx, &account).await?;
    note(&mut tx, now, (&call, id, session), diff).await?;
    tx.commit().await?;
    let version = account.version;
    let view = Json(MeView::new(account, who.roles()));
    Ok(tagged(view.into_response(), version))
}

/// Where a walk over a short list stands.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct WalkQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
}

impl WalkQuery {
    /// One page of a list that is bounded, newest first.
    fn page<T>(
        &self,
        app: &App,
        (list, mut all): (&str, Vec<T>),
        key: impl Fn(&T) -> String,
    ) -> Result<Page<T>, ApiError> {
        let limit = wire::limit(self.limit)?;
        let cursor = Cursor::of(&app.secrets, list);
        let seek = cursor.seek::<String>(self.after.as_deref(), self.before.as_deref())?;
        match &seek {
            Seek::First => {}
            Seek::After(at) => all.retain(|row| key(row) < *at),
            Seek::Before(at) => {
                all.retain(|row| key(row) > *at);
                all.reverse();
            }
        }
        Ok(cursor.page(all, limit, &seek, key))
    }
}

/// A login that is open.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OpenSessionView {
    #[schema(value_type = String)]
    id: SessionId,
    /// The network it was opened from
    ip_prefix: String,
    /// What the browser said it was
    agent: String,
    /// Whether it is the one that asks
    is_current: bool,
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl OpenSessionView {
    fn new(session: Session, current: SessionId) -> Self {
        Self {
            is_current: session.id == current,
            id: session.id,
            ip_prefix: session.ip_prefix,
            agent: session.agent,
            last_seen_at: session.last_seen_at,
            expires_at: session.expires_at,
            created_at: session.created_at,
        }
    }
}

/// Lists the caller's open sessions, newest first.
#[utoipa::path(get, path = "/me/sessions", tag = "accounts", params(WalkQuery),
    security(("bearer" = [])),
    responses((status = 200, body = Page<OpenSessionView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn list_sessions(
    AppState(app): AppState<App>,
    who: Principal,
    Query(query): Query<WalkQuery>,
) -> Result<Json<Page<OpenSessionView>>, ApiError> {
    let (account, current) = who.session()?;
    let all = sessions::list(&app.db, account, app.clock.now()).await?;
    let views = all.into_iter().map(|it| OpenSessionView::new(it, current));
    let list = format!("sessions {account}");
    let page = query.page(&app, (&list, views.collect()), |it| it.id.to_string())?;
    Ok(Json(page))
}

/// Ends one of the caller's sessions.
#[utoipa::path(delete, path = "/me/sessions/{id}", tag = "accounts",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.end_session", skip_all, fields(session.id = %id))]
async fn end_session(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<SessionId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let (account, session) = who.session()?;
    let mut tx = app.db.begin().await?;
    if !sessions::close(&mut tx, account, id).await? {
        return Err(ApiError::not_found());
    }
    let diff = json!({ "session_ended": id });
    note(&mut tx, app.clock.now(), (&call, account, session), diff).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Another password.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    #[schema(value_type = String)]
    current: Password,
    /// 10 to 128 characters
    #[schema(value_type = String)]
    password: Password,
}

/// Changes the caller's password; every other session ends.
#[utoipa::path(post, path = "/me/password", tag = "accounts", request_body = PasswordBody,
    security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.change_password", skip_all,
    fields(principal.id = %who.name()))]
async fn change_password(
    AppState(app): AppState<App>,
    who: Principal,
    Write { body, call }: Write<PasswordBody>,
) -> Result<StatusCode, ApiError> {
    let (id, session) = who.session()?;
    let account = store::find(&app.db, id).await?;
    let account = account.ok_or_else(ApiError::not_found)?;
    let taken = LOGIN_BY_HANDLE.take(&app, &name(&account.handle))?;
    let handle = Handle::stored(&account.handle);
    body.password.check(&handle)?;
    let recognised = service::recognise(&app, Some(&handle), &body.current).await?;
    if recognised != id {
        return Err(LoginError::Wrong.into());
    }
    taken.give_back();
    let phc = body.password.hash(&app).await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    service::change_password(&mut tx, now, (id, session), &phc).await?;
    let diff = json!({ "password": "changed" });
    note(&mut tx, now, (&call, id, session), diff).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A key to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    /// 1 to 80 characters
    name: String,
    /// 1 to 32 of `<resource>:<read|write|manage>`, over posts, rooms, communities, meetups, chat,
    /// analytics, ads, support and orders; none holds another
    scopes: Vec<String>,
    /// The one creator it is for
    #[serde(default)]
    creator_id: Option<String>,
    /// RFC 3339
    #[serde(default)]
    expires_at: Option<String>,
}

impl KeyBody {
    fn parse(self, account: AccountId, now: Timestamp) -> Result<NewKey, ApiError> {
        let mut bounds = Bounds::default();
        bounds.text("/name", &self.name, KEY_NAME);
        if !KEY_SCOPES.contains(&self.scopes.len()) {
            bounds.add("/scopes", "length");
        }
        for (index, scope) in self.scopes.iter().enumerate() {
            if Reach::parse(scope).is_none() {
                bounds.add(&format!("/scopes/{index}"), "unknown");
            }
        }
        let creator = match self.creator_id.as_deref().map(str::parse::<CreatorId>) {
            Some(Err(_)) => {
                bounds.add("/creator_id", "unknown");
                None
            }
            Some(Ok(id)) => Some(id),
            None => None,
        };
        let expires_at = match self.expires_at.as_deref().map(Timestamp::parse) {
            Some(None) => {
                let detail = "expires_at must be a time of RFC 3339";
                return Err(ApiError::new(Code::Malformed, detail).at("/expires_at", "time"));
            }
            Some(at) => at,
            None => None,
        };
        if expires_at.is_some_and(|at| at <= now) {
            bounds.add("/expires_at", "range");
        }
        bounds.check()?;
        Ok(NewKey {
            owner: Owner::Account(account),
            name: self.name.trim().into(),
            scopes: self.scopes,
            ip_allow: Vec::new(),
            creator,
            expires_at,
        })
    }
}

/// A key without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct KeyView {
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
    prefix: String,
    /// The end of the secret
    last4: String,
    scopes: Vec<String>,
    #[schema(value_type = Option<String>)]
    creator_id: Option<CreatorId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Key> for KeyView {
    fn from(key: Key) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            last4: key.last4,
            scopes: key.scopes,
            creator_id: key.creator,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
        }
    }
}

/// A fresh key; the secret is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct NewKeyView {
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
    /// For `Authorization: Bearer`
    secret: String,
    scopes: Vec<String>,
    #[schema(value_type = Option<String>)]
    creator_id: Option<CreatorId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl NewKeyView {
    fn new(made: MadeKey, key: NewKey) -> Self {
        Self {
            id: made.id,
            name: key.name,
            secret: made.secret,
            scopes: key.scopes,
            creator_id: key.creator,
            expires_at: key.expires_at,
        }
    }
}

/// Lists the caller's keys, newest first.
#[utoipa::path(get, path = "/me/api_keys", tag = "accounts", params(WalkQuery),
    security(("bearer" = [])),
    responses((status = 200, body = Page<KeyView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn list_keys(
    AppState(app): AppState<App>,
    who: Principal,
    Query(query): Query<WalkQuery>,
) -> Result<Json<Page<KeyView>>, ApiError> {
    let (account, _session) = who.session()?;
    let all = keys::keys_of(&app.db, Owner::Account(account), app.clock.now()).await?;
    let views = all.into_iter().map(KeyView::from).collect();
    let list = format!("keys {account}");
    let page = query.page(&app, (&list, views), |it| it.id.to_string())?;
    Ok(Json(page))
}

/// Makes a key of the caller's account: it may do what its scopes say and the account may.
#[utoipa::path(post, path = "/me/api_keys", operation_id = "add_api_key",
    tag = "accounts", request_body = KeyBody,
    security(("bearer" = [])),
    responses((status = 201, body = NewKeyView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.add_key", skip_all, fields(principal.id = %who.name()))]
async fn add_key(
    AppState(app): AppState<App>,
    who: Principal,
    Write { body, call }: Write<KeyBody>,
) -> Result<Response, ApiError> {
    let (account, _session) = who.session()?;
    let now = app.clock.now();
    let wish = body.parse(account, now)?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let made = async {
        store::lock(&mut run.tx, account).await?;
        if keys::count_keys(&mut run.tx, wish.owner, now).await? >= KEYS_MAX {
            let detail = format!("an account has at most {KEYS_MAX} keys; delete one first");
            return Err(ApiError::new(Code::LimitReached, detail));
        }
        let made = keys::add_key(&mut run.tx, now, &wish).await?;
        let entry = Entry {
            who: &who,
            call: &call,
            object_id: made.id.to_string(),
            diff: json!({ "key_added": made.id, "scopes": wish.scopes }),
        };
        audit(&mut run.tx, now, entry).await?;
        Ok((StatusCode::CREATED, NewKeyView::new(made, wish)))
    };
    let made = made.await;
    run.finish(made).await
}

/// Deletes one of the caller's keys.
#[utoipa::path(delete, path = "/me/api_keys/{id}", operation_id = "delete_api_key",
    tag = "accounts",    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.delete_key", skip_all, fields(key.id = %id))]
async fn delete_key(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<KeyId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let (account, _session) = who.session()?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !keys::revoke_key(&mut tx, now, Owner::Account(account), id).await? {
        return Err(ApiError::not_found());
    }
    let entry = Entry {
        who: &who,
        call: &call,
        object_id: id.to_string(),
        diff: json!({ "key_deleted": id }),
    };
    audit(&mut tx, now, entry).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
