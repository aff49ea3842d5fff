//! Every route of the product, on one page.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::http::{self, ApiError, BODY_BYTES_MAX, Code, Cors, around, asset, index, openapi};
use crate::{accounts, broadcasts, catalog, creators, ledger, live, orders, payments, rooms};

const API: &str = "/api/v1";

/// The routes of the main port.
pub(crate) fn routes(app: &App) -> Router {
    let (routes, document) = described().split_for_parts();
    let text = openapi::text(&document);
    routes
        .route(
            "/api/v1/openapi.json",
            get(move || std::future::ready(openapi::served(text.clone()))),
        )
        .merge(broadcasts::media_routes())
        .route("/", get(index))
        .route("/rooms/{room}", get(index))
        .route("/{*path}", get(asset))
        .fallback(|| std::future::ready(ApiError::not_found()))
        .method_not_allowed_fallback(|| std::future::ready(method_not_allowed()))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), Cors::around))
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app.clone())
}

/// The routes of the admin port.
pub(crate) fn admin_routes(app: &App) -> Router {
    Router::new()
        .route("/metrics", get(broadcasts::metrics))
        .fallback(|| std::future::ready(ApiError::not_found()))
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app.clone())
}

/// The API document, as it is served and kept in `docs/openapi.json`.
pub(crate) fn document() -> String {
    openapi::text(&described().split_for_parts().1)
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(http::routes())
        .nest(API, api())
}

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(accounts::routes())
        .merge(catalog::routes())
        .merge(catalog::stock_routes())
        .merge(creators::routes())
        .merge(rooms::routes())
        .merge(live::routes())
        .merge(broadcasts::routes())
        .merge(orders::routes())
        .merge(ledger::routes())
        .merge(payments::routes())
}

fn method_not_allowed() -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        "this path takes other methods; see Allow",
    )
}

fn panicked(_cause: Box<dyn std::any::Any + Send>) -> Response {
    // The panic itself was logged by its hook.
    ApiError::new(Code::Internal, "the fault is logged under the request id").into_response()
}
