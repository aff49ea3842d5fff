//! Creators over HTTP.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{BIO_MAX, CATEGORY_MAX, Creator, Kind, NAME_MAX, NewCreator};
use super::operators;
use super::rights::{Bit, may};
use super::service::{self, CreateError};
use super::store;
use crate::accounts::{Entry, Handle, Principal, audit};
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Code, IfMatch, Path, Problem, Write, tagged,
};
use crate::ids::CreatorId;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(one, change))
        .merge(operators::routes())
}

/// A page to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateCreatorBody {
    kind: Kind,
    /// 3 to 30 letters, digits, `_`, `-` or `.`
    handle: String,
    /// 1 to 40 characters
    name: String,
    /// At most 1 000 characters
    #[serde(default)]
    bio: String,
    /// At most 40 characters
    #[serde(default)]
    category: String,
}

/// A creator's page.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CreatorView {
    #[schema(value_type = String)]
    id: CreatorId,
    handle: String,
    kind: Kind,
    name: String,
    bio: String,
    category: String,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Creator> for CreatorView {
    fn from(creator: Creator) -> Self {
        Self {
            id: creator.id,
            handle: creator.handle,
            kind: creator.kind,
            name: creator.name,
            bio: creator.bio,
            category: creator.category,
            version: creator.version,
            created_at: creator.created_at,
            updated_at: creator.updated_at,
        }
    }
}

impl CreateCreatorBody {
    fn parse(self, who: &Principal) -> Result<NewCreator, ApiError> {
        let handle = Handle::parse(&self.handle)?;
        let mut bounds = Bounds::default();
        bounds.text("/name", &self.name, 1..=NAME_MAX);
        bounds.text("/bio", &self.bio, 0..=BIO_MAX);
        bounds.text("/category", &self.category, 0..=CATEGORY_MAX);
        bounds.check()?;
        Ok(NewCreator {
            owner: who.account()?,
            handle,
            kind: self.kind,
            name: self.name,
            bio: self.bio,
            category: self.category,
        })
    }
}

/// Makes a creator owned by the caller's account.
#[utoipa::path(post, path = "/creators", operation_id = "create_creator",
    tag = "creators", request_body = CreateCreatorBody,
    security(("bearer" = [])),
    responses((status = 201, body = CreatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "creators.create", skip_all, fields(principal.id = %who.name()))]
async fn create(
    State(app): State<App>,
    who: Principal,
    Write { body, call }: Write<CreateCreatorBody>,
) -> Result<Response, ApiError> {
    who.whole()?;
    let wish = body.parse(&who)?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let created = async {
        let creator = service::create(&mut run.tx, now, wish).await?;
        let entry = Entry {
            who: &who,
            call: &call,
            object_id: creator.id.to_string(),
            diff: json!({ "handle": creator.handle, "name": creator.name }),
        };
        audit(&mut run.tx, now, entry).await?;
        Ok::<_, CreateError>((StatusCode::CREATED, CreatorView::from(creator)))
    };
    let created = created.await;
    run.finish(created).await
}

/// Shows a creator by id or handle.
#[utoipa::path(get, path = "/creators/{id}", operation_id = "show_creator", tag = "creators",
    params(("id" = String, Path, description = "id or handle")),
    responses((status = 200, body = CreatorView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let creator = store::find(&app.db, &id).await?;
    let creator = creator.ok_or_else(ApiError::not_found)?;
    Ok(shown(creator))
}

/// The page with its tag.
fn shown(creator: Creator) -> Response {
    let version = creator.version;
    tagged(Json(CreatorView::from(creator)).into_response(), version)
}

/// What changes of a page; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeCreatorBody {
    /// 1 to 40 characters
    name: Option<String>,
    /// At most 1 000 characters
    bio: Option<String>,
    /// At most 40 characters
    category: Option<String>,
}

impl ChangeCreatorBody {
    fn apply(self, creator: &mut Creator, now: Timestamp) -> Result<(), ApiError> {
        let replace = |old: &mut String, new: Option<String>| {
            if let Some(new) = new {
                *old = new;
            }
        };
        replace(&mut creator.name, self.name);
        replace(&mut creator.bio, self.bio);
        replace(&mut creator.category, self.category);
        let mut bounds = Bounds::default();
        bounds.text("/name", &creator.name, 1..=NAME_MAX);
        bounds.text("/bio", &creator.bio, 0..=BIO_MAX);
        bounds.text("/category", &creator.category, 0..=CATEGORY_MAX);
        bounds.check()?;
        creator.version += 1;
        creator.updated_at = now;
        Ok(())
    }
}

/// Changes a creator's page.
#[utoipa::path(patch, path = "/creators/{id}", operation_id = "change_creator",
    tag = "creators", request_body = ChangeCreatorBody,
    params(("id" = String, Path), ("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 200, body = CreatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "creators.change", skip_all, fields(creator.id = %id))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<CreatorId>,
    wanted: IfMatch,
    Write { body, call }: Write<ChangeCreatorBody>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let creator = store::lock(&mut tx, id).await?;
    let mut creator = creator.ok_or_else(ApiError::not_found)?;
    may(&mut tx, &who, id, Bit::EditPage).await?;
    wanted.check(creator.version)?;
    body.apply(&mut creator, now)?;
    store::update(&mut tx, &creator).await?;
    service::tell_changed(&mut tx, now, &creator).await?;
    let entry = Entry {
        who: &who,
        call: &call,
        object_id: id.to_string(),
        diff: json!({ "name": creator.name, "bio": creator.bio, "category": creator.category }),
    };
    audit(&mut tx, now, entry).await?;
    tx.commit().await?;
    Ok(shown(creator))
}

impl From<CreateError> for ApiError {
    fn from(err: CreateError) -> Self {
        match err {
            CreateError::HandleTaken(_) => Self::new(Code::HandleTaken, err.to_string()),
            CreateError::LimitReached => Self::new(Code::LimitReached, err.to_string()),
            CreateError::Db(err) => err.into(),
        }
    }
}
