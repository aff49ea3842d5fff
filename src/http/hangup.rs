//! A handler's way to close the connection under a response that its peer does not take.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::Version;
use http::request::Parts;
use tokio_util::sync::CancellationToken;

/// Closes a connection of HTTP/1.1. Of HTTP/2 it does nothing: other requests share it, and a peer
/// that reads none of them is dropped by the connection itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hangup(CancellationToken);

impl Hangup {
    /// What handlers are given, and what the connection waits for.
    pub(crate) fn pair() -> (Self, CancellationToken) {
        let token = CancellationToken::new();
        (Self(token.clone()), token)
    }

    pub(crate) fn close(&self) {
        self.0.cancel();
    }
}

impl<S: Sync> FromRequestParts<S> for Hangup {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let of_connection = parts.extensions.get::<Self>().cloned();
        let is_alone = parts.version < Version::HTTP_2;
        Ok(of_connection.filter(|_| is_alone).unwrap_or_default())
    }
}
