//! Keys of a shop over HTTP: made, listed, replaced, deleted.
//!
//! Invariants
//! - Nobody hands out a scope that is not their own.
//! - A secret is shown once; while a key is replaced both are valid for the overlap.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use crate::accounts::{self, Key, MadeKey, NewKey, Owner, Principal, Scope};
use crate::app::App;
use crate::catalog::access::{Act, may};
use crate::catalog::model::check_name;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Code, Cursor, NoBody, Page, Path, Problem, Query, Seek,
    Write,
};
use crate::ids::{KeyId, MerchantId};

/// Keys of one shop (commerce.md 14), those in their overlap apart.
const KEYS_MAX: i64 = 32;
const SCOPES: RangeInclusive<usize> = 1..=32;
const IP_ALLOW_MAX: usize = 16;
const OVERLAP_S: RangeInclusive<u64> = 0..=604_800;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(rotate))
        .routes(routes!(delete))
}

/// A key to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct MerchantKeyBody {
    /// 1 to 80 characters
    name: String,
    /// 1 to 32, for example `products:write`
    scopes: Vec<String>,
    /// Addresses or blocks that it may be used from, at most 16; missing: any
    #[serde(default)]
    ip_allow: Vec<String>,
}

impl MerchantKeyBody {
    fn parse(self, shop: MerchantId) -> Result<NewKey, ApiError> {
        let mut bounds = Bounds::default();
        check_name(&mut bounds, "/name", &self.name);
        if !SCOPES.contains(&self.scopes.len()) {
            bounds.add("/scopes", "length");
        }
        for (n, scope) in self.scopes.iter().take(*SCOPES.end()).enumerate() {
            if !Scope::parse(scope).is_some_and(Scope::is_of_merchants) {
                bounds.add(&format!("/scopes/{n}"), "unknown");
            }
        }
        if self.ip_allow.len() > IP_ALLOW_MAX {
            bounds.add("/ip_allow", "length");
        }
        for (n, block) in self.ip_allow.iter().take(IP_ALLOW_MAX).enumerate() {
            if !is_block(block) {
                bounds.add(&format!("/ip_allow/{n}"), "format");
            }
        }
        bounds.check()?;
        Ok(NewKey {
            owner: Owner::Merchant(shop),
            name: self.name.trim().into(),
            scopes: self.scopes,
            ip_allow: self.ip_allow,
            creator: None,
            expires_at: None,
        })
    }
}

/// `203.0.113.7` or `2001:db8::/32`
fn is_block(text: &str) -> bool {
    let (base, bits) = match text.split_once('/') {
        Some((base, bits)) => (base, bits.parse::<u8>().ok()),
        None => (text, Some(0)),
    };
    let bits_max = match base.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_form) => return false,
    };
    bits.is_some_and(|bits| bits <= bits_max)
}

/// A shop's key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MerchantKeyView {
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
    prefix: String,
    /// The end of the secret
    last4: String,
    scopes: Vec<String>,
    ip_allow: Vec<String>,
    /// The end of its overlap, once it is replaced
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Key> for MerchantKeyView {
    fn from(key: Key) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            last4: key.last4,
            scopes: key.scopes,
            ip_allow: key.ip_allow,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
        }
    }
}

/// A key that was made; the secret is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct NewMerchantKeyView {
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
    /// For `Authorization: Bearer`
    secret: String,
    scopes: Vec<String>,
    ip_allow: Vec<String>,
}

impl NewMerchantKeyView {
    fn new(made: MadeKey, key: NewKey) -> Self {
        Self {
            id: made.id,
            name: key.name,
            secret: made.secret,
            scopes: key.scopes,
            ip_allow: key.ip_allow,
        }
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct KeysQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
}

/// Lists the keys of a shop, newest first.
#[utoipa::path(get, path = "/merchants/{id}/api_keys", operation_id = "list_merchant_keys",
    tag = "merchants",
    params(("id" = String, Path), KeysQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<MerchantKeyView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn list(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<MerchantId>,
    Query(query): Query<KeysQuery>,
) -> Result<Json<Page<MerchantKeyView>>, ApiError> {
    let mut db = app.db.readers().acquire().await?;
    may(&mut db, &who, id, Scope::KeysManage).await?;
    drop(db);
    let limit = wire::limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("merchant keys {id}"));
    let seek = cursor.seek::<KeyId>(query.after.as_deref(), query.before.as_deref())?;
    let mut keys = accounts::keys_of(&app.db, Owner::Merchant(id), app.clock.now()).await?;
    // All are at hand: there are few.
    match seek {
        Seek::First => {}
        Seek::After(at) => keys.retain(|key| key.id < at),
        Seek::Before(at) => {
            keys.retain(|key| key.id > at);
            keys.reverse();
        }
    }
    let views = keys.into_iter().map(MerchantKeyView::from).collect();
    Ok(Json(
        cursor.page(views, limit, &seek, |view| view.id.to_string()),
    ))
}

/// Makes a key of a shop.
#[utoipa::path(post, path = "/merchants/{id}/api_keys", operation_id = "create_merchant_key",
    tag = "merchants",
    params(("id" = String, Path)), request_body = MerchantKeyBody, security(("bearer" = [])),
    responses((status = 201, body = NewMerchantKeyView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.add_key", skip_all, fields(merchant.id = %id))]
async fn create(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<MerchantId>,
    Write { body, call }: Write<MerchantKeyBody>,
) -> Result<Response, ApiError> {
    let wish = body.parse(id)?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let made = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let made = add(&mut run.tx, &act, (id, &wish)).await?;
        Ok::<_, ApiError>((StatusCode::CREATED, NewMerchantKeyView::new(made, wish)))
    };
    let made = made.await;
    run.finish(made).await
}

async fn add(
    tx: &mut Tx,
    act: &Act<'_>,
    (shop, wish): (MerchantId, &NewKey),
) -> Result<MadeKey, ApiError> {
    may(tx, act.who, shop, Scope::KeysManage).await?;
    refuse_beyond_own(act.who, &wish.scopes)?;
    // Locked, so that two wishes cannot both count.
    store::lock(tx, shop).await?;
    if accounts::count_keys(tx, wish.owner, act.now).await? >= KEYS_MAX {
        let detail = format!("a shop has at most {KEYS_MAX} keys; delete one first");
        return Err(ApiError::new(Code::LimitReached, detail));
    }
    let made = accounts::add_key(tx, act.now, wish).await?;
    let diff = json!({ "key_added": made.id, "scopes": wish.scopes });
    act.record(tx, shop.to_string(), diff).await?;
    Ok(made)
}

/// Owners and operators have every scope of their shops; a key has those it lists.
fn refuse_beyond_own(who: &Principal, scopes: &[String]) -> Result<(), ApiError> {
    let Some((_, own)) = who.merchant_key() else {
        return Ok(());
    };
    let is_own = |scope: &String| Scope::parse(scope).is_none_or(|it| own.contains(&it));
    match scopes.iter().find(|scope| !is_own(scope)) {
        None => Ok(()),
        Some(scope) => {
            let detail = format!("this key cannot hand out {scope}, which it lacks itself");
            Err(ApiError::new(Code::GrantExceedsOwn, detail))
        }
    }
}

/// How a key is replaced.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    /// Seconds that the old secret stays valid, 0 to 604 800
    overlap_s: u64,
}

/// Gives a key a new secret; the old one works until the overlap ends.
#[utoipa::path(post, path = "/api_keys/{id}/rotate", operation_id = "rotate_key",
    tag = "merchants",
    params(("id" = String, Path)), request_body = RotateBody, security(("bearer" = [])),
    responses((status = 201, body = NewMerchantKeyView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.rotate_key", skip_all, fields(key.id = %id))]
async fn rotate(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<KeyId>,
    Write { body, call }: Write<RotateBody>,
) -> Result<Response, ApiError> {
    let mut bounds = Bounds::default();
    bounds.number("/overlap_s", body.overlap_s, OVERLAP_S);
    bounds.check()?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let rotated = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let ends_at = now.plus(Duration::from_secs(body.overlap_s));
        let (made, wish) = replace(&mut run.tx, &act, (id, ends_at)).await?;
        Ok::<_, ApiError>((StatusCode::CREATED, NewMerchantKeyView::new(made, wish)))
    };
    let rotated = rotated.await;
    run.finish(rotated).await
}

async fn replace(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, ends_at): (KeyId, Timestamp),
) -> Result<(MadeKey, NewKey), ApiError> {
    let (owner, key) = own(tx, act, id).await?;
    refuse_beyond_own(act.who, &key.scopes)?;
    if !accounts::end_key(tx, act.now, (id, ends_at)).await? {
        let detail = "this key is being replaced already: use the new one";
        return Err(ApiError::new(Code::InvalidState, detail));
    }
    let wish = NewKey {
        owner,
        name: key.name,
        scopes: key.scopes,
        ip_allow: key.ip_allow,
        creator: None,
        expires_at: None,
    };
    let made = accounts::add_key(tx, act.now, &wish).await?;
    let diff = json!({ "replaced_by": made.id, "until": ends_at });
    act.record(tx, id.to_string(), diff).await?;
    Ok((made, wish))
}

/// Deletes a key; its secret is refused from now on.
#[utoipa::path(delete, path = "/api_keys/{id}", operation_id = "delete_merchant_key",
    tag = "merchants",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.delete_key", skip_all, fields(key.id = %id))]
async fn delete(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<KeyId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let act = Act {
        who: &who,
        call: &call,
        now,
    };
    let (owner, _) = own(&mut tx, &act, id).await?;
    if !accounts::revoke_key(&mut tx, now, owner, id).await? {
        return Err(ApiError::not_found());
    }
    act.record(&mut tx, id.to_string(), json!({ "key_deleted": id }))
        .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A valid key, if it is the caller's to manage: of a shop of theirs, or of the platform by their
/// own hand. Keys of accounts are managed by their people.
async fn own(tx: &mut Tx, act: &Act<'_>, id: KeyId) -> Result<(Owner, Key), ApiError> {
    let found = accounts::key_by_id(tx, act.now, id).await?;
    let (owner, key) = found.ok_or_else(ApiError::not_found)?;
    match owner {
        Owner::Merchant(shop) => may(tx, act.who, shop, Scope::KeysManage).await?,
        Owner::Platform(account) if act.who.account().is_ok_and(|own| own == account) => {
            act.who.require(Scope::KeysManage)?;
        }
        Owner::Platform(_) | Owner::Account(_) => return Err(ApiError::not_found()),
    }
    Ok((owner, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_block_may_be_listed_and_nothing_else() {
        for good in [
            "203.0.113.7",
            "203.0.113.0/24",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/0",
        ] {
            assert!(is_block(good), "{good}");
        }
        for bad in [
            "",
            "203.0.113",
            "203.0.113.0/33",
            "2001:db8::/129",
            "a.example",
            "1.2.3.4/x",
        ] {
            assert!(!is_block(bad), "{bad}");
        }
    }
}
