//! Files of products and prices over HTTP.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use sqlx::Executor;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::prices::{self, BulkPriceBody};
use super::products;
use crate::accounts::{Principal, Scope};
use crate::app::App;
use crate::catalog::access::Act;
use crate::catalog::merchants::hold;
use crate::catalog::routes::{ProductBody, named_merchant};
use crate::catalog::service::Saved;
use crate::db::Tx;
use crate::http::{ApiError, Bound, Code, Line, Lines, Problem, parse_json};
use crate::ids::MerchantId;

/// Lines of one commit: few enough that orders need not wait long for the one writer of SQLite.
const GROUP_MAX: usize = 100;
const NDJSON: &str = "application/x-ndjson";

pub(in crate::catalog) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(bulk_products))
        .routes(routes!(bulk_prices))
}

/// What became of a line.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct BulkLineView {
    /// From 1 on
    line: usize,
    status: LineStatus,
    /// Of the product or price
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Why it failed
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The fields at fault
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Bound>,
}

/// How a line ended.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum LineStatus {
    Created,
    Updated,
    Unchanged,
    Failed,
}

impl BulkLineView {
    fn of(line: usize, done: Result<(String, Saved), ApiError>) -> Self {
        match done {
            Ok((id, saved)) => Self {
                line,
                status: match saved {
                    Saved::Created => LineStatus::Created,
                    Saved::Updated => LineStatus::Updated,
                    Saved::Unchanged => LineStatus::Unchanged,
                },
                id: Some(id),
                code: None,
                errors: Vec::new(),
            },
            Err(err) => Self {
                line,
                status: LineStatus::Failed,
                id: None,
                code: Some(err.word()),
                errors: err.errors().to_vec(),
            },
        }
    }
}

/// Makes products what a file says: one JSON object a line, each with an `external_id`.
///
/// A repeat of the file changes nothing, so that one which broke off is simply sent again.
#[utoipa::path(post, path = "/bulk/products", tag = "products",
    request_body(content = ProductBody, content_type = "application/x-ndjson"),
    security(("bearer" = [])),
    responses((status = 200, body = BulkLineView, content_type = "application/x-ndjson",
        description = "One object a line, in the same order"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "bulk.products", skip_all)]
async fn bulk_products(
    State(app): State<App>,
    who: Principal,
    lines: Lines,
) -> Result<Response, ApiError> {
    save_all(&app, &who, (lines, What::Products)).await
}

/// Makes prices what a file says: one JSON object a line, each with the `external_id` of a variant.
///
/// A repeat of the file changes nothing, so that one which broke off is simply sent again.
#[utoipa::path(post, path = "/bulk/prices", tag = "prices",
    request_body(content = BulkPriceBody, content_type = "application/x-ndjson"),
    security(("bearer" = [])),
    responses((status = 200, body = BulkLineView, content_type = "application/x-ndjson",
        description = "One object a line, in the same order"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "bulk.prices", skip_all)]
async fn bulk_prices(
    State(app): State<App>,
    who: Principal,
    lines: Lines,
) -> Result<Response, ApiError> {
    save_all(&app, &who, (lines, What::Prices)).await
}

/// What a file holds.
#[derive(Clone, Copy, Debug)]
enum What {
    Products,
    Prices,
}

impl What {
    const fn scope(self) -> Scope {
        match self {
            Self::Products => Scope::ProductsWrite,
            Self::Prices => Scope::PricesWrite,
        }
    }

    fn read(self, text: &[u8], who: &Principal) -> Result<(MerchantId, Wish), ApiError> {
        match self {
            Self::Products => {
                let body: ProductBody = parse_json(text)?;
                let shop = body.merchant(who)?;
                Ok((shop, Wish::Product(Box::new(body))))
            }
            Self::Prices => {
                let body: BulkPriceBody = parse_json(text)?;
                let shop = named_merchant(body.merchant_id.as_deref(), who)?;
                Ok((shop, Wish::Price(body)))
            }
        }
    }
}

enum Wish {
    Product(Box<ProductBody>),
    Price(BulkPriceBody),
}

async fn save_all(
    app: &App,
    who: &Principal,
    (mut lines, what): (Lines, What),
) -> Result<Response, ApiError> {
    // A key that can write in no shop need not send its file; of people each line is judged.
    if who.session().is_err() {
        who.require(what.scope())?;
    }
    let call = lines.call.clone();
    let mut answer = Vec::new();
    let mut is_over = false;
    while !is_over {
        let mut group = Vec::new();
        while group.len() < GROUP_MAX {
            match lines.next().await? {
                Some(line) => group.push(line),
                None => {
                    is_over = true;
                    break;
                }
            }
        }
        let now = app.clock.now();
        let act = Act {
            who,
            call: &call,
            now,
        };
        for view in save_group(app, &act, (what, &group)).await {
            serde_json::to_writer(&mut answer, &view).map_err(|err| ApiError::internal(&err))?;
            answer.push(b'\n');
        }
    }
    Ok(([(CONTENT_TYPE, NDJSON)], answer).into_response())
}

/// Saves a group in one commit; if the database fails, each of its lines in one of its own.
async fn save_group(app: &App, act: &Act<'_>, (what, group): (What, &[Line])) -> Vec<BulkLineView> {
    if let Ok(views) = save_lines(app, act, (what, group)).await {
        return views;
    }
    let mut views = Vec::with_capacity(group.len());
    for line in group {
        let alone = std::slice::from_ref(line);
        match save_lines(app, act, (what, alone)).await {
            Ok(saved) => views.extend(saved),
            Err(err) => views.push(BulkLineView::of(line.number, Err(err))),
        }
    }
    views
}

async fn save_lines(
    app: &App,
    act: &Act<'_>,
    (what, group): (What, &[Line]),
) -> Result<Vec<BulkLineView>, ApiError> {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    let wishes: Vec<_> = group
        .iter()
        .map(|it| what.read(&it.text, act.who))
        .collect();
    let shops: BTreeSet<MerchantId> = wishes.iter().flatten().map(|(shop, _)| *shop).collect();
    let mut tx = app.db.begin().await?;
    // Two files with the same products in another order would wait for each other for ever.
    for shop in shops {
        hold(&mut tx, shop).await?;
    }
    let mut views = Vec::with_capacity(group.len());
    for (line, wish) in group.iter().zip(wishes) {
        let done = match wish {
            Ok(wish) => save_line(&mut tx, act, wish).await?,
            Err(err) => Err(err),
        };
        views.push(BulkLineView::of(line.number, done));
    }
    tx.commit().await?;
    Ok(views)
}

/// Saves a line, or leaves no trace of it. The outer error is the database's.
async fn save_line(
    tx: &mut Tx,
    act: &Act<'_>,
    (shop, wish): (MerchantId, Wish),
) -> Result<Result<(String, Saved), ApiError>, ApiError> {
    tx.execute("SAVEPOINT bulk_line").await?;
    let done = match wish {
        Wish::Product(body) => products::save(tx, act, (shop, *body)).await,
        Wish::Price(body) => prices::save(tx, act, (shop, body)).await,
    };
    match done {
        Err(err) if matches!(err.code(), Code::Internal | Code::Busy) => Err(err),
        Err(err) => {
            tx.execute("ROLLBACK TO SAVEPOINT bulk_line").await?;
            tx.execute("RELEASE SAVEPOINT bulk_line").await?;
            Ok(Err(err))
        }
        Ok(saved) => {
            tx.execute("RELEASE SAVEPOINT bulk_line").await?;
            Ok(Ok(saved))
        }
    }
}
