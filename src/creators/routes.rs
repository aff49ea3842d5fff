//! Creators over HTTP.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{BIO_MAX, CATEGORY_MAX, Creator, Kind, NAME_MAX, NewCreator};
use super::service::{self, CreateError};
use super::store;
use crate::accounts::{Entry, Handle, Principal, audit};
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{self as wire, ApiError, Begin, Bounds, Code, Path, Problem, Write};
use crate::ids::CreatorId;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(one))
}

/// A page to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateBody {
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

impl CreateBody {
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
#[utoipa::path(post, path = "/creators", tag = "creators", request_body = CreateBody,
    security(("bearer" = [])),
    responses((status = 201, body = CreatorView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "creators.create", skip_all, fields(principal.id = %who.name()))]
async fn create(
    State(app): State<App>,
    who: Principal,
    Write { body, call }: Write<CreateBody>,
) -> Result<Response, ApiError> {
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
#[utoipa::path(get, path = "/creators/{id}", tag = "creators",
    params(("id" = String, Path, description = "id or handle")),
    responses((status = 200, body = CreatorView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<CreatorView>, ApiError> {
    let creator = store::find(&app.db, &id).await?;
    creator
        .map(|creator| Json(creator.into()))
        .ok_or_else(ApiError::not_found)
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
