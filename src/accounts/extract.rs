//! The principal of a request.
//!
//! Invariants
//! - Power over the platform comes from a role: by a session it is whole, by a key of the platform
//!   it is what the key lists and the role has, by any other key it is none.
//! - A write that a browser authenticates by itself, with a cookie, comes from an allowed origin.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::keys::{self, FoundKey, Owner};
use super::model::State;
use super::scopes::{Reach, Resource, Role, Scope, Verb};
use super::sessions;
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{ApiError, Client, Code};
use crate::ids::{AccountId, CreatorId, KeyId, MerchantId, SessionId};

pub(super) const COOKIE_NAME: &str = "lamplight_session";
/// How exact `last_used_us` and `last_seen_us` are.
const SEEN_EVERY: Duration = Duration::from_secs(600);

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// When the request was recognised.
    asked_at: Timestamp,
    credential: Credential,
    roles: Vec<Role>,
    /// Those that count, whatever the key lists.
    scopes: Vec<Scope>,
}

/// What the caller showed.
#[derive(Clone, Debug)]
enum Credential {
    Session(AccountId, SessionId),
    AccountKey {
        account: AccountId,
        key: KeyId,
        reaches: Vec<Reach>,
        creator: Option<CreatorId>,
    },
    PlatformKey(AccountId, KeyId),
    MerchantKey(MerchantId, KeyId),
}

impl Principal {
    /// Somebody who is logged in by this very request.
    pub(super) const fn of_session(now: Timestamp, account: AccountId, session: SessionId) -> Self {
        Self {
            asked_at: now,
            credential: Credential::Session(account, session),
            roles: Vec::new(),
            scopes: Vec::new(),
        }
    }

    /// Now, for grants that expire: one moment for the whole request.
    pub(crate) const fn asked_at(&self) -> Timestamp {
        self.asked_at
    }

    /// The account that asks, or for which a key asks; a merchant's key speaks for no account.
    pub(crate) fn account(&self) -> Result<AccountId, ApiError> {
        self.account_if_any().ok_or_else(|| {
            let detail = "a merchant's key cannot do this: use a session or an account's key";
            ApiError::new(Code::Forbidden, detail)
        })
    }

    const fn account_if_any(&self) -> Option<AccountId> {
        match self.credential {
            Credential::Session(account, _)
            | Credential::AccountKey { account, .. }
            | Credential::PlatformKey(account, _) => Some(account),
            Credential::MerchantKey(..) => None,
        }
    }

    /// The account and session of a person who logged in; keys are refused.
    pub(crate) fn session(&self) -> Result<(AccountId, SessionId), ApiError> {
        match self.credential {
            Credential::Session(account, session) => Ok((account, session)),
            _ => Err(ApiError::new(
                Code::Forbidden,
                "only a session may do this, no key",
            )),
        }
    }

    /// The name under which repeats of a write are recognised and the log knows the caller.
    pub(crate) fn name(&self) -> String {
        match &self.credential {
            Credential::Session(account, _) => account.to_string(),
            Credential::AccountKey { key, .. }
            | Credential::PlatformKey(_, key)
            | Credential::MerchantKey(_, key) => key.to_string(),
        }
    }

    /// The account or merchant that answers for what is done.
    pub(super) fn actor(&self) -> String {
        let account = self.account_if_any().map(|id| id.to_string());
        let merchant = self.merchant_key().map(|(id, _)| id.to_string());
        account.or(merchant).unwrap_or_default()
    }

    /// The roles of the account, as far as they count here.
    pub(super) fn roles(&self) -> &[Role] {
        &self.roles
    }

    pub(super) const fn key(&self) -> Option<KeyId> {
        match self.credential {
            Credential::Session(..) => None,
            Credential::AccountKey { key, .. }
            | Credential::PlatformKey(_, key)
            | Credential::MerchantKey(_, key) => Some(key),
        }
    }

    /// The merchant whose key this is, and what it may do in that shop.
    pub(crate) fn merchant_key(&self) -> Option<(MerchantId, &[Scope])> {
        match self.credential {
            Credential::MerchantKey(merchant, _) => Some((merchant, &self.scopes)),
            _ => None,
        }
    }

    /// Whether the caller is of the platform's staff and has this role.
    pub(crate) fn is_platform(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the caller's key has the scope, or the caller's roles do. Of a merchant's key it
    /// holds for that merchant only: see [`Self::merchant_key`].
    pub(crate) fn holds(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Refuses unless the caller [`holds`](Self::holds) the scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.holds(scope) {
            return Ok(());
        }
        Err(ApiError::lacks(scope.as_str()))
    }

    /// Refuses a key that is not for this; persons and the platform pass, each as its own account.
    pub(crate) fn reach(&self, resource: Resource, verb: Verb) -> Result<(), ApiError> {
        let reach = Reach(resource, verb);
        match &self.credential {
            Credential::Session(..) | Credential::PlatformKey(..) => Ok(()),
            Credential::AccountKey { reaches, .. } if reaches.contains(&reach) => Ok(()),
            Credential::AccountKey { .. } => {
                let detail = format!("this key lacks the scope {reach}");
                Err(ApiError::new(Code::Forbidden, detail))
            }
            Credential::MerchantKey(..) => self.account().map(drop),
        }
    }

    /// Refuses the keys of accounts, of which none has a scope for this, and merchants'.
    pub(crate) fn whole(&self) -> Result<AccountId, ApiError> {
        match &self.credential {
            Credential::AccountKey { .. } => {
                let detail = "no key of an account may do this: use a session";
                Err(ApiError::new(Code::Forbidden, detail))
            }
            _ => self.account(),
        }
    }

    /// Whether the caller's key is for another creator only.
    pub(crate) fn is_kept_from(&self, creator: CreatorId) -> bool {
        match &self.credential {
            Credential::AccountKey { creator: only, .. } => only.is_some_and(|it| it != creator),
            _ => false,
        }
    }
}

impl FromRequestParts<App> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Shown::read(parts, app)? {
            Some(shown) => shown.recognise(parts, app).await,
            None => Err(unauthenticated()),
        }
    }
}

/// For routes that are open to all and show more to some. What is no credential of ours, and a
/// cookie of a session that is over, count as nothing.
impl OptionalFromRequestParts<App> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, ApiError> {
        let Some(shown) = Shown::read(parts, app)? else {
            return Ok(None);
        };
        let is_cookie = shown.is_cookie;
        match shown.recognise(parts, app).await {
            Err(err) if is_cookie && err.code() == Code::Unauthenticated => Ok(None),
            found => found.map(Some),
        }
    }
}

/// A secret that came with a request.
struct Shown {
    secret: String,
    is_cookie: bool,
}

impl Shown {
    fn read(parts: &Parts, app: &App) -> Result<Option<Self>, ApiError> {
        let header = parts.headers.get(AUTHORIZATION);
        if let Some(token) = header.and_then(|it| it.to_str().ok()).and_then(bearer) {
            return Ok(Some(Self {
                secret: token.into(),
                is_cookie: false,
            }));
        }
        let Some(token) = cookie(&parts.headers) else {
            return Ok(None);
        };
        let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
        if !is_read && !is_from_here(parts, &app.config().http.cors_origins) {
            let detail = "a write with the session's cookie must come from a page of this server, \
                          or of an origin that http.cors_origins lists";
            return Err(ApiError::new(Code::OriginRefused, detail));
        }
        Ok(Some(Self {
            secret: token.into(),
            is_cookie: true,
        }))
    }

    async fn recognise(self, parts: &Parts, app: &App) -> Result<Principal, ApiError> {
        let now = app.clock.now();
        let secret = self.secret.as_str();
        if secret.starts_with(sessions::PREFIX) {
            return by_session(app, secret, now).await;
        }
        let found = keys::find(&app.db, secret, now).await?;
        let found = found.ok_or_else(unauthenticated)?;
        let client = parts.extensions.get::<Client>();
        let is_allowed = |Client(ip): &Client| found.is_for(*ip);
        if !client.is_some_and(is_allowed) {
            let detail = "this key may not be used from this address";
            return Err(ApiError::new(Code::Forbidden, detail));
        }
        refuse_suspended(found.owner_state)?;
        if is_stale(found.last_used_us, now) {
            keys::set_used(&app.db, found.id, now).await?;
        }
        Ok(Principal::of_key(found, now))
    }
}

async fn by_session(app: &App, secret: &str, now: Timestamp) -> Result<Principal, ApiError> {
    let found = sessions::find(&app.db, secret, now).await?;
    let found = found.ok_or_else(unauthenticated)?;
    refuse_suspended(Some(found.state))?;
    if is_stale(Some(found.last_seen_us), now) {
        sessions::set_seen(&app.db, found.id, now).await?;
    }
    Ok(Principal {
        asked_at: now,
        credential: Credential::Session(found.account, found.id),
        scopes: Scope::ALL
            .into_iter()
            .filter(|scope| found.roles.iter().any(|role| role.has(*scope)))
            .collect(),
        roles: found.roles,
    })
}

impl Principal {
    fn of_key(found: FoundKey, now: Timestamp) -> Self {
        let listed = found.scopes.iter().filter_map(|text| Scope::parse(text));
        match found.owner {
            Owner::Platform(account) => Self {
                asked_at: now,
                credential: Credential::PlatformKey(account, found.id),
                scopes: listed
                    .filter(|scope| found.roles.iter().any(|role| role.has(*scope)))
                    .collect(),
                roles: found.roles,
            },
            Owner::Merchant(merchant) => Self {
                asked_at: now,
                credential: Credential::MerchantKey(merchant, found.id),
                scopes: listed.filter(|scope| scope.is_of_merchants()).collect(),
                roles: Vec::new(),
            },
            Owner::Account(account) => Self {
                asked_at: now,
                credential: Credential::AccountKey {
                    account,
                    key: found.id,
                    reaches: found
                        .scopes
                        .iter()
                        .filter_map(|t| Reach::parse(t))
                        .collect(),
                    creator: found.creator,
                },
                scopes: Vec::new(),
                roles: Vec::new(),
            },
        }
    }
}

fn unauthenticated() -> ApiError {
    let detail = "send Authorization: Bearer with a valid session (POST /api/v1/sessions) or API \
                  key (`lamplight admin create-operator` makes one)";
    ApiError::new(Code::Unauthenticated, detail)
}

fn refuse_suspended(state: Option<State>) -> Result<(), ApiError> {
    if state == Some(State::Suspended) {
        let detail = "this account is suspended";
        return Err(ApiError::new(Code::AccountSuspended, detail));
    }
    Ok(())
}

fn is_stale(last_us: Option<i64>, now: Timestamp) -> bool {
    last_us.is_none_or(|at| now.since(Timestamp::from_micros(at)) > SEEN_EVERY)
}

/// The token of a bearer header, if it is one of ours; the scheme in any case.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    let is_ours = [sessions::PREFIX]
        .iter()
        .chain(&keys::PREFIXES)
        .any(|prefix| token.starts_with(prefix));
    (scheme.eq_ignore_ascii_case("bearer") && is_ours).then_some(token)
}

/// The session in the cookies.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    token.starts_with(sessions::PREFIX).then_some(token)
}

/// Whether the page that makes the request is of this host, or of a listed origin. That every
/// origin may call the API ("*") does not let each use the cookie.
fn is_from_here(parts: &Parts, listed: &[String]) -> bool {
    let Some(origin) = parts.headers.get(ORIGIN).and_then(|it| it.to_str().ok()) else {
        return false;
    };
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has no Host: the name is in the address itself.
    let host = host.or_else(|| parts.uri.authority().map(|name| name.as_str()));
    let page = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    let is_own = page.is_some() && page == host;
    is_own || listed.iter().any(|it| it != "*" && it == origin)
}

/// An address or a block of addresses, as a key lists them: `203.0.113.7`, `2001:db8::/32`.
pub(super) fn is_within(ip: IpAddr, block: &str) -> bool {
    let (base, bits) = match block.split_once('/') {
        Some((base, bits)) => (base, bits.parse::<u32>().ok()),
        None => (block, Some(u128::BITS)),
    };
    let (Ok(base), Some(bits)) = (base.parse::<IpAddr>(), bits) else {
        return false;
    };
    let numbers = match (ip.to_canonical(), base.to_canonical()) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => {
            Some((u32::from(ip).into(), u32::from(base).into(), 32))
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) => Some((u128::from(ip), u128::from(base), 128)),
        _ => None,
    };
    numbers.is_some_and(|(ip, base, width): (u128, u128, u32)| {
        let shift = width.saturating_sub(bits);
        let differ = ip ^ base;
        differ.checked_shr(shift).unwrap_or(0) == 0
    })
}
