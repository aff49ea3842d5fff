//! The principal of a request.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::model::Scope;
use super::store;
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{ApiError, Code};
use crate::ids::{AccountId, KeyId};

/// How exact `last_used_us` is.
const USED_EVERY: Duration = Duration::from_secs(600);

/// Who asks: a valid key of the platform.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) account: AccountId,
    pub(crate) key: KeyId,
    scopes: Vec<Scope>,
}

impl Principal {
    /// Refuses unless the key holds the scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let detail = format!("this key lacks the scope {}", scope.as_str());
        Err(ApiError::new(Code::Forbidden, detail))
    }
}

impl FromRequestParts<App> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let unauthenticated = || {
            let detail = "send Authorization: Bearer with a valid API key; \
                          `lamplight admin create-operator` makes one";
            ApiError::new(Code::Unauthenticated, detail)
        };
        let header = parts.headers.get(AUTHORIZATION);
        let secret = header
            .and_then(|value| value.to_str().ok())
            .and_then(bearer)
            .ok_or_else(unauthenticated)?;
        let now = app.clock.now();
        let found = store::find_key(&app.db, secret, now).await?;
        let key = found.ok_or_else(unauthenticated)?;
        let is_stale = key
            .last_used_us
            .is_none_or(|at| now.since(Timestamp::from_micros(at)) > USED_EVERY);
        if is_stale {
            store::set_key_used(&app.db, key.id, now).await?;
        }
        Ok(Self {
            account: key.owner,
            key: key.id,
            scopes: key.scopes,
        })
    }
}

/// The token of a bearer header; the scheme in any case.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.starts_with("sk_")).then_some(token)
}
