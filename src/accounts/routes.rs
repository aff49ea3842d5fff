//! Registering, logging in and out, recovering, public profiles over HTTP.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State as AppState;
use axum::response::{IntoResponse, Response};
use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::{Entry, audit};
use super::extract::{COOKIE_NAME, Principal};
use super::me::{self, MeView};
use super::model::{
    BIO, BIRTH_YEAR_MIN, DISPLAY_NAME, Handle, HandleError, LOCALE_DEFAULT, Profile, State,
    TZ_DEFAULT, folded, is_locale, is_tz,
};
use super::password::{HashersBusy, Password, Weakness};
use super::scopes::Role;
use super::service::{self, LoginError, RegisterError};
use super::sessions::{self, NewSession, Origin};
use super::store;
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Call, Client, Code, NoBody, Path, Problem, Rate, Taken,
    Write,
};
use crate::ids::{AccountId, SessionId};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const REGISTER_BY_IP: Rate = Rate::new("register", 5, HOUR);
const LOGIN_BY_IP: Rate = Rate::new("login-ip", 30, MINUTE.saturating_mul(15));
/// Only wrong ones count.
pub(super) const LOGIN_BY_HANDLE: Rate = Rate::new("login", 5, MINUTE.saturating_mul(15));
const RECOVER_BY_IP: Rate = Rate::new("recover-ip", 5, HOUR);
const RECOVER_BY_HANDLE: Rate = Rate::new("recover", 5, HOUR);

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(one))
        .routes(routes!(recover))
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .merge(me::routes())
}

/// An account to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    /// 3 to 30 letters, digits, `_`, `-` or `.`
    handle: String,
    /// 10 to 128 characters
    #[schema(value_type = String)]
    password: Password,
    /// 1 to 40 characters; the handle when missing
    #[serde(default)]
    display_name: Option<String>,
    /// A language tag; `en` when missing
    #[serde(default)]
    locale: Option<String>,
    /// A time zone's name; `UTC` when missing
    #[serde(default)]
    tz: Option<String>,
    #[serde(default)]
    birth_year: Option<i64>,
}

impl RegisterBody {
    fn parse(self, now: Timestamp) -> Result<(Profile, Password), ApiError> {
        let handle = Handle::parse(&self.handle)?;
        let profile = Profile {
            display_name: self.display_name.unwrap_or_else(|| handle.to_string()),
            handle,
            bio: String::new(),
            locale: self.locale.unwrap_or_else(|| LOCALE_DEFAULT.into()),
            tz: self.tz.unwrap_or_else(|| TZ_DEFAULT.into()),
            birth_year: self.birth_year,
        };
        check_profile(&profile, now)?;
        self.password.check(&profile.handle)?;
        Ok((profile, self.password))
    }
}

/// Refuses what is beyond the bounds of a profile.
pub(super) fn check_profile(profile: &Profile, now: Timestamp) -> Result<(), ApiError> {
    let mut bounds = Bounds::default();
    bounds.text("/display_name", &profile.display_name, DISPLAY_NAME);
    bounds.text("/bio", &profile.bio, BIO);
    if !is_locale(&profile.locale) {
        bounds.add("/locale", "format");
    }
    if !is_tz(&profile.tz) {
        bounds.add("/tz", "format");
    }
    if let Some(year) = profile.birth_year {
        let this_year = i64::from(now.to_datetime().year());
        bounds.number("/birth_year", year, BIRTH_YEAR_MIN..=this_year);
    }
    bounds.check()
}

/// A session that was opened; the token is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct NewSessionView {
    #[schema(value_type = String)]
    id: SessionId,
    /// For `Authorization: Bearer`; a browser has it as a cookie too
    token: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl From<NewSession> for NewSessionView {
    fn from(session: NewSession) -> Self {
        Self {
            id: session.id,
            token: session.token,
            expires_at: session.expires_at,
        }
    }
}

/// An account that was made, logged in.
#[derive(Serialize, utoipa::ToSchema)]
struct RegisteredView {
    account: MeView,
    session: NewSessionView,
    /// Each lets the account in once without its password; shown this once
    recovery_codes: Vec<String>,
}

/// Somebody who is in.
#[derive(Serialize, utoipa::ToSchema)]
struct LoggedInView {
    account: MeView,
    session: NewSessionView,
}

/// Where a request to get in comes from.
struct Caller {
    ip: IpAddr,
    origin: Origin,
}

impl Caller {
    fn of(Client(ip): Client, headers: &HeaderMap) -> Self {
        let agent = headers.get(USER_AGENT).and_then(|it| it.to_str().ok());
        Self {
            ip,
            origin: Origin::new(ip, agent.unwrap_or_default()),
        }
    }
}

/// Makes an account and logs it in.
#[utoipa::path(post, path = "/accounts", tag = "accounts", request_body = RegisterBody,
    responses((status = 201, body = RegisteredView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.register", skip_all)]
async fn register(
    AppState(app): AppState<App>,
    client: Client,
    headers: HeaderMap,
    Write { body, call }: Write<RegisterBody>,
) -> Result<Response, ApiError> {
    if !app.config().accounts.open {
        let detail = "this server makes accounts only by the hand of its owner";
        return Err(ApiError::new(Code::RegistrationClosed, detail));
    }
    let caller = Caller::of(client, &headers);
    let taken = REGISTER_BY_IP.take_by_ip(&app, caller.ip)?;
    let made = make(&app, &caller.origin, body, call).await;
    Ok(shown(made, [taken, None]))
}

async fn make(
    app: &App,
    origin: &Origin,
    body: RegisterBody,
    call: Call,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let (profile, password) = body.parse(now)?;
    let phc = password.hash(app).await?;
    let principal = format!("anonymous:{}", profile.handle);
    let mut run = match wire::begin(app, &principal, call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let mut token = String::new();
    let made = async {
        let made = service::register(&mut run.tx, now, &profile, &phc).await?;
        let session = service::open_session(&mut run.tx, now, made.id, origin).await?;
        let diff = json!({ "handle": profile.handle.as_str() });
        note(&mut run.tx, now, (&call, made.id, session.id), diff).await?;
        token.clone_from(&session.token);
        let account = store::find_locked(&mut run.tx, made.id).await?;
        let view = RegisteredView {
            account: MeView::new(account.ok_or(sqlx::Error::RowNotFound)?, &[]),
            session: session.into(),
            recovery_codes: made.recovery_codes,
        };
        Ok::<_, RegisterError>((StatusCode::CREATED, view))
    };
    let made = made.await;
    Ok(with_cookie(run.finish(made).await?, &token))
}

/// What opens an account.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct LogInBody {
    handle: String,
    #[schema(value_type = String)]
    password: Password,
}

/// Logs in.
#[utoipa::path(post, path = "/sessions", tag = "accounts", request_body = LogInBody,
    responses((status = 201, body = LoggedInView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.log_in", skip_all)]
async fn log_in(
    AppState(app): AppState<App>,
    client: Client,
    headers: HeaderMap,
    Write { body, call }: Write<LogInBody>,
) -> Result<Response, ApiError> {
    let caller = Caller::of(client, &headers);
    let by_ip = LOGIN_BY_IP.take_by_ip(&app, caller.ip)?;
    let taken = LOGIN_BY_HANDLE.take(&app, &name(&body.handle))?;
    let entered = enter(&app, &caller.origin, body, call).await;
    if entered.is_ok() {
        taken.give_back();
    }
    Ok(shown(entered, [by_ip, Some(taken)]))
}

async fn enter(
    app: &App,
    origin: &Origin,
    body: LogInBody,
    call: Call,
) -> Result<Response, ApiError> {
    let handle = Handle::parse(&body.handle).ok();
    let id = service::recognise(app, handle.as_ref(), &body.password).await?;
    open(app, origin, call, Way::Password(id)).await
}

/// What a session is opened for.
enum Way {
    Password(AccountId),
    /// A recovery code, and the hash of the new password.
    Code(Option<(AccountId, State)>, String, String),
}

async fn open(app: &App, origin: &Origin, call: Call, way: Way) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let principal = match &way {
        Way::Password(id) => id.to_string(),
        Way::Code(account, ..) => account.map_or_else(String::new, |(id, _)| id.to_string()),
    };
    let mut run = match wire::begin(app, &format!("login:{principal}"), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let mut token = String::new();
    let opened = async {
        let (id, diff) = match way {
            Way::Password(id) => (id, json!({ "session": "started" })),
            Way::Code(account, code, phc) => {
                let id = service::recover(&mut run.tx, now, account, (&code, &phc)).await?;
                (id, json!({ "password": "recovered" }))
            }
        };
        let session = service::open_session(&mut run.tx, now, id, origin).await?;
        note(&mut run.tx, now, (&call, id, session.id), diff).await?;
        token.clone_from(&session.token);
        let account = store::find_locked(&mut run.tx, id).await?;
        let roles = store::roles(&app.db, id).await?;
        let view = LoggedInView {
            account: MeView::new(account.ok_or(sqlx::Error::RowNotFound)?, &roles),
            session: session.into(),
        };
        Ok::<_, LoginError>((StatusCode::CREATED, view))
    };
    let opened = opened.await;
    Ok(with_cookie(run.finish(opened).await?, &token))
}

/// What opens an account whose password is lost.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct RecoverBody {
    handle: String,
    #[schema(value_type = String)]
    recovery_code: Password,
    /// The new password
    #[schema(value_type = String)]
    password: Password,
}

/// Sets a new password with a recovery code, ends every session and logs in.
#[utoipa::path(post, path = "/accounts/recover", tag = "accounts", request_body = RecoverBody,
    responses((status = 201, body = LoggedInView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.recover", skip_all)]
async fn recover(
    AppState(app): AppState<App>,
    client: Client,
    headers: HeaderMap,
    Write { body, call }: Write<RecoverBody>,
) -> Result<Response, ApiError> {
    let caller = Caller::of(client, &headers);
    let by_ip = RECOVER_BY_IP.take_by_ip(&app, caller.ip)?;
    let taken = RECOVER_BY_HANDLE.take(&app, &name(&body.handle))?;
    let entered = reenter(&app, &caller.origin, body, call).await;
    Ok(shown(entered, [by_ip, Some(taken)]))
}

async fn reenter(
    app: &App,
    origin: &Origin,
    body: RecoverBody,
    call: Call,
) -> Result<Response, ApiError> {
    let handle = Handle::parse(&body.handle).map_err(|_form| LoginError::Wrong)?;
    body.password.check(&handle)?;
    // Before it is known whether the code is right: either way it takes as long.
    let phc = body.password.hash(app).await?;
    let account = store::find_named(&app.db, handle.as_str()).await?;
    let code = body.recovery_code.reveal().to_owned();
    let account = account.map(|it| (it.id, it.state));
    open(app, origin, call, Way::Code(account, code, phc)).await
}

/// Logs out.
#[utoipa::path(delete, path = "/sessions/current", tag = "accounts", security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "accounts.log_out", skip_all, fields(principal.id = %who.name()))]
async fn log_out(
    AppState(app): AppState<App>,
    who: Principal,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    let (account, session) = who.session()?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    sessions::close(&mut tx, account, session).await?;
    let diff = json!({ "session": "ended" });
    note(&mut tx, now, (&call, account, session), diff).await?;
    tx.commit().await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let gone = format!("{COOKIE_NAME}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax");
    if let Ok(cookie) = HeaderValue::from_str(&gone) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What everyone sees of an account.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AccountView {
    #[schema(value_type = String)]
    id: AccountId,
    handle: String,
    display_name: String,
    bio: String,
    avatar_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// Shows an account by id or handle. One that is suspended or closing is shown to staff only.
#[utoipa::path(get, path = "/accounts/{id}", operation_id = "show_account", tag = "accounts",
    params(("id" = String, Path, description = "id or handle")),
    responses((status = 200, body = AccountView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    AppState(app): AppState<App>,
    who: Option<Principal>,
    Path(id): Path<String>,
) -> Result<Json<AccountView>, ApiError> {
    let account = store::find_named(&app.db, &id).await?;
    let account = account.ok_or_else(ApiError::not_found)?;
    let staff = [Role::Operator, Role::Moderator, Role::Auditor];
    let is_staff = who.is_some_and(|who| staff.iter().any(|role| who.is_platform(*role)));
    if !account.state.is_shown() && !is_staff {
        return Err(ApiError::not_found());
    }
    Ok(Json(AccountView {
        id: account.id,
        handle: account.handle,
        display_name: account.display_name,
        bio: account.bio,
        avatar_id: account.avatar_id,
        created_at: account.created_at,
    }))
}

/// Under what name tries for a handle are counted.
pub(super) fn name(handle: &str) -> String {
    // Of what is far too long to be a handle the beginning stands for all.
    folded(handle.get(..256).unwrap_or(handle))
        .chars()
        .take(64)
        .collect()
}

/// Records what somebody did with their own account.
pub(super) async fn note(
    tx: &mut Tx,
    now: Timestamp,
    (call, account, session): (&Call, AccountId, SessionId),
    diff: serde_json::Value,
) -> sqlx::Result<()> {
    let entry = Entry {
        who: &Principal::of_session(now, account, session),
        call,
        object_id: account.to_string(),
        diff,
    };
    audit(tx, now, entry).await
}

/// The answer, refused or not, with what is left of the rates.
fn shown(answer: Result<Response, ApiError>, taken: [Option<Taken>; 2]) -> Response {
    let all = taken.iter().flatten();
    all.fold(answer.into_response(), |response, taken| {
        taken.show(response)
    })
}

/// The answer with the session as a cookie, unless it repeats an earlier one.
fn with_cookie(mut response: Response, token: &str) -> Response {
    let age_s = sessions::AGE_MAX.as_secs();
    let cookie =
        format!("{COOKIE_NAME}={token}; Path=/; Max-Age={age_s}; HttpOnly; Secure; SameSite=Lax");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

impl From<RegisterError> for ApiError {
    fn from(err: RegisterError) -> Self {
        match err {
            RegisterError::Taken(_) => Self::new(Code::HandleTaken, err.to_string()),
            RegisterError::Db(err) => err.into(),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(err: LoginError) -> Self {
        match err {
            LoginError::Wrong => Self::new(Code::CredentialsWrong, err.to_string()),
            LoginError::Suspended => Self::new(Code::AccountSuspended, err.to_string()),
            LoginError::Busy(err) => err.into(),
            LoginError::Db(err) => err.into(),
        }
    }
}

impl From<HashersBusy> for ApiError {
    fn from(_: HashersBusy) -> Self {
        Self::busy(HashersBusy::RETRY_AFTER)
    }
}

impl From<Weakness> for ApiError {
    fn from(weakness: Weakness) -> Self {
        Self::new(Code::PasswordWeak, weakness.to_string()).at("/password", "weak")
    }
}

impl From<HandleError> for ApiError {
    fn from(err: HandleError) -> Self {
        let code = match err {
            HandleError::Invalid => Code::HandleInvalid,
            HandleError::Reserved => Code::HandleReserved,
        };
        Self::new(code, err.to_string()).at("/handle", "invalid")
    }
}
