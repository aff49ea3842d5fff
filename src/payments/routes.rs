//! Wallets over HTTP.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::service::{self, TopUpError};
use crate::accounts::{Entry, Principal, Role, audit};
use crate::app::App;
use crate::http::{self as wire, ApiError, Begin, Bounds, Code, Path, Problem, Write};
use crate::ids::{AccountId, TransferId};
use crate::money::Money;

const REASON_CHARS: std::ops::RangeInclusive<usize> = 1..=200;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(top_up))
}

/// Money for a wallet.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct TopUpBody {
    /// 1 to 10 000 000 000 minor units
    amount: Money,
    /// For the audit log, 1 to 200 characters
    reason: String,
}

/// Money that was put into a wallet.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TopUpView {
    #[schema(value_type = String)]
    transfer_id: TransferId,
    #[schema(value_type = String)]
    account_id: AccountId,
    amount: Money,
}

/// Puts money into the wallet of an account, from the bank.
#[utoipa::path(post, path = "/wallets/{account_id}/top_ups", tag = "payments",
    params(("account_id" = String, Path), ("Idempotency-Key" = String, Header)),
    request_body = TopUpBody, security(("bearer" = [])),
    responses((status = 201, body = TopUpView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "payments.top_up", skip_all, fields(account.id = %account))]
async fn top_up(
    State(app): State<App>,
    who: Principal,
    Path(account): Path<AccountId>,
    Write { body, call }: Write<TopUpBody>,
) -> Result<Response, ApiError> {
    if !who.is_platform(Role::Operator) {
        let detail = "only an operator of the platform puts money into wallets";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    call.require_key()?;
    let mut bounds = Bounds::default();
    bounds.text("/reason", &body.reason, REASON_CHARS);
    bounds.check()?;
    let now = app.clock.now();
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let done = async {
        let amount = body.amount;
        let transfer_id = service::top_up(&mut run.tx, now, account, amount).await?;
        let entry = Entry {
            who: &who,
            call: &call,
            object_id: account.to_string(),
            diff: json!({ "top_up": amount, "transfer": transfer_id, "reason": body.reason }),
        };
        audit(&mut run.tx, now, entry).await?;
        let view = TopUpView {
            transfer_id,
            account_id: account,
            amount,
        };
        Ok::<_, TopUpError>((StatusCode::CREATED, view))
    };
    let done = done.await;
    run.finish(done).await
}
