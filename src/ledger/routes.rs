//! The ledger over HTTP, for reading.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Day, Row};
use super::signer::Signer;
use super::store::{self, Stored};
use crate::accounts::{Principal, Scope};
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{ApiError, Bounds, Cursor, Page, Path, Problem, Query, limit};
use crate::ids::{LedgerAccountId, TransferId};
use crate::money::Money;

const PREFIX_CHARS: std::ops::RangeInclusive<usize> = 0..=160;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(accounts))
        .routes(routes!(account))
        .routes(routes!(transfers))
        .routes(routes!(transfer))
        .routes(routes!(day))
}

/// An account of the ledger. Amounts are minor units.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LedgerAccountView {
    #[schema(value_type = String)]
    id: LedgerAccountId,
    /// Where in the chart of accounts, for example `wallet:acc_…`
    path: String,
    currency: String,
    debits_posted: i64,
    credits_posted: i64,
    /// Held
    debits_pending: i64,
    /// Held
    credits_pending: i64,
    /// What may still be debited; null for an account without that bound
    available: Option<i64>,
    is_closed: bool,
}

impl LedgerAccountView {
    fn of(id: LedgerAccountId, stored: Stored) -> Self {
        let (flags, balances) = (stored.account.flags, stored.account.balances);
        let taken = balances
            .debits_posted
            .saturating_add(balances.debits_pending);
        let available = balances.credits_posted.saturating_sub(taken);
        Self {
            id,
            path: stored.path,
            currency: stored.account.currency.as_str().into(),
            debits_posted: balances.debits_posted,
            credits_posted: balances.credits_posted,
            debits_pending: balances.debits_pending,
            credits_pending: balances.credits_pending,
            available: flags.debits_within_credits.then_some(available),
            is_closed: flags.is_closed,
        }
    }
}

/// One movement. Written once, never changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LedgerTransferView {
    #[schema(value_type = String)]
    id: TransferId,
    /// 1, 2, 3 … over the whole ledger
    seq: i64,
    /// Transfers of one chain were made together
    chain: String,
    /// `posted`, `pending`, `post`, `void` or `expire`
    kind: &'static str,
    #[schema(value_type = String)]
    debit: LedgerAccountId,
    #[schema(value_type = String)]
    credit: LedgerAccountId,
    amount: Money,
    /// Why: `top_up`, `capture` and so on
    code: String,
    /// The object it is about
    subject: String,
    /// The hold that it posts or frees
    #[schema(value_type = Option<String>)]
    pending_id: Option<TransferId>,
    /// When a hold is given up
    #[schema(value_type = Option<String>, format = DateTime)]
    timeout_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Over this transfer and the hash of the one before, hex
    hash: String,
}

impl From<Row> for LedgerTransferView {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            seq: row.seq,
            chain: row.chain,
            kind: row.kind.as_str(),
            debit: row.debit,
            credit: row.credit,
            amount: row.amount,
            code: row.code,
            subject: row.subject,
            pending_id: row.pending,
            timeout_at: row.timeout,
            created_at: row.created_at,
            hash: row.hash,
        }
    }
}

/// Which part of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct AccountsQuery {
    /// The beginning of the path, for example `wallet:`
    path_prefix: Option<String>,
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
}

/// Lists accounts of the ledger, in the order of their ids.
#[utoipa::path(get, path = "/ledger/accounts", tag = "ledger", params(AccountsQuery),
    security(("bearer" = [])),
    responses((status = 200, body = Page<LedgerAccountView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn accounts(
    State(app): State<App>,
    who: Principal,
    Query(query): Query<AccountsQuery>,
) -> Result<Json<Page<LedgerAccountView>>, ApiError> {
    who.require(Scope::LedgerRead)?;
    let prefix = query.path_prefix.unwrap_or_default();
    let mut bounds = Bounds::default();
    bounds.text("/path_prefix", &prefix, PREFIX_CHARS);
    bounds.check()?;
    let size = limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("ledger accounts {prefix}"));
    let seek = cursor.seek::<LedgerAccountId>(query.after.as_deref(), query.before.as_deref())?;
    let found = store::list_accounts(&app.db, &prefix, &seek, size).await?;
    let views = found
        .into_iter()
        .map(|(id, stored)| LedgerAccountView::of(id, stored));
    Ok(Json(cursor.page(views.collect(), size, &seek, |view| {
        view.id.to_string()
    })))
}

/// Shows an account of the ledger.
#[utoipa::path(get, path = "/ledger/accounts/{id}", tag = "ledger",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = LedgerAccountView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn account(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<LedgerAccountId>,
) -> Result<Json<LedgerAccountView>, ApiError> {
    who.require(Scope::LedgerRead)?;
    let stored = store::find_account(&app.db, id).await?;
    let stored = stored.ok_or_else(ApiError::not_found)?;
    Ok(Json(LedgerAccountView::of(id, stored)))
}

/// Which part of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct TransfersQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
}

/// Lists the transfers of an account, newest first.
#[utoipa::path(get, path = "/ledger/accounts/{id}/transfers", tag = "ledger",
    params(("id" = String, Path), TransfersQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<LedgerTransferView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn transfers(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<LedgerAccountId>,
    Query(query): Query<TransfersQuery>,
) -> Result<Json<Page<LedgerTransferView>>, ApiError> {
    who.require(Scope::LedgerRead)?;
    if store::find_account(&app.db, id).await?.is_none() {
        return Err(ApiError::not_found());
    }
    let size = limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("ledger transfers {id}"));
    let seek = cursor.seek::<i64>(query.after.as_deref(), query.before.as_deref())?;
    let rows = store::list_transfers(&app.db, id, &seek, size).await?;
    let views = rows.into_iter().map(LedgerTransferView::from).collect();
    Ok(Json(
        cursor.page(views, size, &seek, |view| view.seq.to_string()),
    ))
}

/// Shows a transfer.
#[utoipa::path(get, path = "/ledger/transfers/{id}", tag = "ledger",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = LedgerTransferView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn transfer(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<TransferId>,
) -> Result<Json<LedgerTransferView>, ApiError> {
    who.require(Scope::LedgerRead)?;
    let row = store::find_transfer(&app.db, id).await?;
    let row = row.ok_or_else(ApiError::not_found)?;
    Ok(Json(row.into()))
}

/// What the books said at the end of a day. Written once, never changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LedgerDayView {
    /// `2026-11-25`
    date: String,
    /// The newest transfer of the day, or of a day before
    last_seq: i64,
    /// Of that transfer
    hash: String,
    /// By currency: all debits so far, which equal all credits, in minor units
    moved: BTreeMap<String, i64>,
    /// By currency and kind of account: credits less debits so far
    balances: BTreeMap<String, BTreeMap<String, i64>>,
    /// Ed25519 over `v1`, `date`, `last_seq`, `hash` and `{"moved":…,"balances":…}`, joined by line
    /// feeds; hex; null without a key
    signature: Option<String>,
    /// What verifies the signatures of this server, hex
    public_key: Option<String>,
}

/// Shows the close of a day.
#[utoipa::path(get, path = "/ledger/days/{date}", tag = "ledger",
    params(("date" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = LedgerDayView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn day(
    State(app): State<App>,
    who: Principal,
    Path(date): Path<String>,
) -> Result<Json<LedgerDayView>, ApiError> {
    who.require(Scope::LedgerRead)?;
    let day = store::find_day(&app.db, &date).await?;
    let Day {
        date,
        last_seq,
        hash,
        totals,
        signature,
    } = day.ok_or_else(ApiError::not_found)?;
    let signer: Arc<Signer> = app.parts.part();
    Ok(Json(LedgerDayView {
        date: date.to_string(),
        last_seq,
        hash,
        moved: totals.moved,
        balances: totals.balances,
        signature,
        public_key: signer.public_key(),
    }))
}
