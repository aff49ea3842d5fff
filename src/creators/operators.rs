//! Who operates a creator, over HTTP: invitations, changes, ends.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Grant, Operator, Standing};
use super::rights::{self, Bit, Bits, Preset};
use super::service::{self, Actor, OperatorError, Reply};
use super::store;
use crate::accounts::{Entry, Principal, audit};
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Call, Code, Cursor, IfMatch, NoBody, Page, Path,
    Problem, Query, Seek, Write, given, tagged,
};
use crate::ids::{AccountId, CreatorId, InviteId};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, invite))
        .routes(routes!(change, dismiss))
        .routes(routes!(accept))
        .routes(routes!(decline))
}

/// An account that operates a creator or is asked to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OperatorView {
    #[schema(value_type = String)]
    account_id: AccountId,
    handle: String,
    display_name: String,
    /// The set it started from, or `custom`
    preset: &'static str,
    bits: Vec<&'static str>,
    state: Standing,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = String)]
    invited_by: AccountId,
    /// For its answer, while it is pending
    #[schema(value_type = Option<String>)]
    invite_id: Option<InviteId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    invite_expires_at: Option<Timestamp>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl OperatorView {
    fn new(operator: Operator, now: Timestamp) -> Self {
        let state = operator.standing(now);
        let is_pending = state == Standing::Pending;
        Self {
            account_id: operator.account,
            handle: operator.handle,
            display_name: operator.display_name,
            preset: operator.preset.as_str(),
            bits: operator.bits.names(),
            state,
            expires_at: operator.expires_at,
            invited_by: operator.invited_by,
            invite_id: operator.invite.filter(|_| is_pending),
            invite_expires_at: operator.invite_until.filter(|_| is_pending),
            version: operator.version,
            created_at: operator.created_at,
            updated_at: operator.updated_at,
        }
    }
}

/// Where a walk over the operators stands.
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

/// Lists those who operate a creator and those who are asked to.
#[utoipa::path(get, path = "/creators/{id}/operators", operation_id = "list_operators",
    tag = "creators",
    params(("id" = String, Path), WalkQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<OperatorView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn list(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<CreatorId>,
    Query(query): Query<WalkQuery>,
) -> Result<Json<Page<OperatorView>>, ApiError> {
    rights::may_see(&app.db, &who, id, Bit::ManageOperators).await?;
    let limit = wire::limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("operators {id}"));
    let seek = cursor.seek::<String>(query.after.as_deref(), query.before.as_deref())?;
    let now = app.clock.now();
    let key = |it: &OperatorView| it.account_id.to_string();
    let all = store::operators(&app.db, id, now).await?;
    let mut views: Vec<_> = all
        .into_iter()
        .map(|it| OperatorView::new(it, now))
        .collect();
    match &seek {
        Seek::First => {}
        Seek::After(at) => views.retain(|it| key(it) > *at),
        Seek::Before(at) => {
            views.retain(|it| key(it) < *at);
            views.reverse();
        }
    }
    Ok(Json(cursor.page(views, limit, &seek, key)))
}

/// Somebody to be asked.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    account_id: String,
    /// A set of permissions; or give `bits`
    #[serde(default)]
    preset: Option<String>,
    /// Single permissions; or give `preset`
    #[serde(default)]
    bits: Option<Vec<String>>,
    /// RFC 3339; for good when missing
    #[serde(default)]
    expires_at: Option<String>,
}

/// Reads what is to be given: a preset or bits, one of them; `None` when neither is named.
fn granted(
    (preset, bits): (Option<&str>, Option<&[String]>),
    bounds: &mut Bounds,
) -> Option<(Preset, Bits)> {
    match (preset, bits) {
        (Some(_), Some(_)) => bounds.add("/bits", "one_of_preset_bits"),
        (Some(name), None) => match Preset::parse(name).filter(|it| *it != Preset::Custom) {
            Some(preset) => return Some((preset, preset.bits())),
            None => bounds.add("/preset", "unknown"),
        },
        (None, Some([])) => bounds.add("/bits", "length"),
        (None, Some(names)) => {
            let bits: Option<Bits> = names.iter().map(|name| Bit::parse(name)).collect();
            match bits {
                // Who may do everything is an owner, by whatever name it was asked for.
                Some(bits) if bits == Bits::ALL => return Some((Preset::Owner, bits)),
                Some(bits) => return Some((Preset::Custom, bits)),
                None => bounds.add("/bits", "unknown"),
            }
        }
        (None, None) => {}
    }
    None
}

fn expiry(text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    match text.map(Timestamp::parse) {
        Some(None) => {
            let detail = "expires_at must be a time of RFC 3339";
            Err(ApiError::new(Code::Malformed, detail).at("/expires_at", "time"))
        }
        Some(Some(at)) if at <= now => Err(ApiError::bounds(Vec::new()).at("/expires_at", "range")),
        Some(at) => Ok(at),
        None => Ok(None),
    }
}

impl InviteBody {
    fn parse(self, now: Timestamp) -> Result<(AccountId, Grant), ApiError> {
        let expires_at = expiry(self.expires_at.as_deref(), now)?;
        let mut bounds = Bounds::default();
        let account = self.account_id.parse::<AccountId>().ok();
        if account.is_none() {
            bounds.add("/account_id", "unknown");
        }
        if self.preset.is_none() && self.bits.is_none() {
            bounds.add("/preset", "one_of_preset_bits");
        }
        let given = granted((self.preset.as_deref(), self.bits.as_deref()), &mut bounds);
        bounds.check()?;
        let (Some(account), Some((preset, bits))) = (account, given) else {
            return Err(ApiError::bounds(Vec::new()));
        };
        let grant = Grant {
            preset,
            bits,
            expires_at,
        };
        Ok((account, grant))
    }
}

/// Asks an account to operate a creator; the invitation stands for seven days.
#[utoipa::path(post, path = "/creators/{id}/operators", tag = "creators",
    params(("id" = String, Path)), request_body = InviteBody, security(("bearer" = [])),
    responses((status = 201, body = OperatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "creators.invite", skip_all, fields(creator.id = %id))]
async fn invite(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<CreatorId>,
    Write { body, call }: Write<InviteBody>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let (account, grant) = body.parse(now)?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let invited = async {
        let actor = manager(&mut run.tx, &who, id).await?;
        let operator = service::invite(&mut run.tx, now, actor, (id, account), grant).await?;
        note(&mut run.tx, now, (&who, &call), (&Value::Null, &operator)).await?;
        Ok::<_, ApiError>((StatusCode::CREATED, OperatorView::new(operator, now)))
    };
    let invited = invited.await;
    run.finish(invited).await
}

/// Other permissions; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeOperatorBody {
    /// A set of permissions; or give `bits`
    #[serde(default)]
    preset: Option<String>,
    /// Single permissions; or give `preset`
    #[serde(default)]
    bits: Option<Vec<String>>,
    /// RFC 3339; null is for good
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<String>>,
}

impl ChangeOperatorBody {
    fn parse(&self, old: &Operator, now: Timestamp) -> Result<Grant, ApiError> {
        let expires_at = match &self.expires_at {
            None => old.expires_at,
            Some(text) => expiry(text.as_deref(), now)?,
        };
        let mut bounds = Bounds::default();
        let given = granted((self.preset.as_deref(), self.bits.as_deref()), &mut bounds);
        bounds.check()?;
        let (preset, bits) = given.unwrap_or((old.preset, old.bits));
        Ok(Grant {
            preset,
            bits,
            expires_at,
        })
    }
}

/// Changes what an operator may do.
#[utoipa::path(patch, path = "/creators/{id}/operators/{account_id}",
    operation_id = "change_operator", tag = "creators",
    params(("id" = String, Path), ("account_id" = String, Path), ("If-Match" = String, Header)),
    request_body = ChangeOperatorBody, security(("bearer" = [])),
    responses((status = 200, body = OperatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "creators.change_operator", skip_all,
    fields(creator.id = %id, account.id = %account))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path((id, account)): Path<(CreatorId, AccountId)>,
    wanted: IfMatch,
    Write { body, call }: Write<ChangeOperatorBody>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let actor = manager(&mut tx, &who, id).await?;
    let operator = present(&mut tx, now, (id, account)).await?;
    wanted.check(operator.version)?;
    let grant = body.parse(&operator, now)?;
    let before = digest(&operator);
    let operator = service::regrant(&mut tx, now, actor, operator, grant).await?;
    note(&mut tx, now, (&who, &call), (&before, &operator)).await?;
    tx.commit().await?;
    let version = operator.version;
    let view = Json(OperatorView::new(operator, now));
    Ok(tagged(view.into_response(), version))
}

/// Sends an operator away, withdraws an invitation, or leaves.
#[utoipa::path(delete, path = "/creators/{id}/operators/{account_id}", tag = "creators",
    params(("id" = String, Path), ("account_id" = String, Path), ("If-Match" = String, Header)),
    security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "creators.dismiss", skip_all,
    fields(creator.id = %id, account.id = %account))]
async fn dismiss(
    State(app): State<App>,
    who: Principal,
    Path((id, account)): Path<(CreatorId, AccountId)>,
    wanted: IfMatch,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let now = app.clock.now();
    let own = who.whole()?;
    let mut tx = app.db.begin().await?;
    // Everyone may leave.
    let actor = if own == account {
        lock(&mut tx, id).await?;
        Actor {
            account: own,
            bits: Bits::default(),
        }
    } else {
        manager(&mut tx, &who, id).await?
    };
    let operator = present(&mut tx, now, (id, account)).await?;
    wanted.check(operator.version)?;
    let before = digest(&operator);
    let operator = service::dismiss(&mut tx, now, actor, operator).await?;
    note(&mut tx, now, (&who, &call), (&before, &operator)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Becomes an operator, as asked.
#[utoipa::path(post, path = "/operator_invites/{id}/accept", tag = "creators",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = OperatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn accept(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<InviteId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    reply(&app, &who, &call, (id, Reply::Accept)).await
}

/// Does not become an operator.
#[utoipa::path(post, path = "/operator_invites/{id}/decline", tag = "creators",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = OperatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn decline(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<InviteId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    reply(&app, &who, &call, (id, Reply::Decline)).await
}

#[tracing::instrument(name = "creators.reply", skip_all, fields(invite.id = %id, ?reply))]
async fn reply(
    app: &App,
    who: &Principal,
    call: &Call,
    (id, reply): (InviteId, Reply),
) -> Result<Response, ApiError> {
    let account = who.whole()?;
    let now = app.clock.now();
    let mut run = match wire::begin(app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let replied = async {
        let operator = service::reply(&mut run.tx, now, (id, account), reply).await?;
        note(&mut run.tx, now, (who, call), (&Value::Null, &operator)).await?;
        Ok::<_, ApiError>((StatusCode::OK, OperatorView::new(operator, now)))
    };
    let replied = replied.await;
    run.finish(replied).await
}

/// The caller as one who may manage the operators of this creator, which is locked.
async fn manager(tx: &mut Tx, who: &Principal, id: CreatorId) -> Result<Actor, ApiError> {
    lock(tx, id).await?;
    let bits = rights::rights(&mut **tx, who, id, Bit::ManageOperators).await?;
    Ok(Actor {
        account: who.account()?,
        bits,
    })
}

async fn lock(tx: &mut Tx, id: CreatorId) -> Result<(), ApiError> {
    let creator = store::lock(tx, id).await?;
    creator.map(drop).ok_or_else(ApiError::not_found)
}

/// An operator who is active, or asked to be.
async fn present(
    tx: &mut Tx,
    now: Timestamp,
    (creator, account): (CreatorId, AccountId),
) -> Result<Operator, ApiError> {
    let operator = store::operator(tx, creator, account).await?;
    let is_there = |it: &Operator| matches!(it.standing(now), Standing::Active | Standing::Pending);
    operator.filter(is_there).ok_or_else(ApiError::not_found)
}

/// What the log says of an operator.
fn digest(operator: &Operator) -> Value {
    json!({
        "state": operator.state.as_str(),
        "preset": operator.preset.as_str(),
        "bits": operator.bits.names(),
        "expires_at": operator.expires_at,
    })
}

async fn note(
    tx: &mut Tx,
    now: Timestamp,
    (who, call): (&Principal, &Call),
    (before, operator): (&Value, &Operator),
) -> sqlx::Result<()> {
    let entry = Entry {
        who,
        call,
        object_id: operator.creator.to_string(),
        diff: json!({
            "operator": operator.account,
            "before": before,
            "after": digest(operator),
        }),
    };
    audit(tx, now, entry).await
}

impl From<OperatorError> for ApiError {
    fn from(err: OperatorError) -> Self {
        match err {
            OperatorError::NotFound => Self::not_found(),
            OperatorError::NoAccount => Self::bounds(Vec::new()).at("/account_id", "unknown"),
            OperatorError::GrantExceedsOwn => Self::new(Code::GrantExceedsOwn, err.to_string()),
            OperatorError::IsThere => Self::new(Code::InvalidState, err.to_string()),
            OperatorError::LimitReached => Self::new(Code::LimitReached, err.to_string()),
            OperatorError::LastOwner => Self::new(Code::LastOwner, err.to_string()),
            OperatorError::Gone => Self::new(Code::Gone, err.to_string()),
            OperatorError::Db(err) => err.into(),
        }
    }
}
