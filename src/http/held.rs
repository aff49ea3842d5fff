//! Requests that wait: how many of one connection may do so at once.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use tokio::sync::Semaphore;

use super::error::{ApiError, Code};

/// Requests of one connection that wait at once (media.md 6.5).
const HELD_MAX: usize = 32;
const RETRY: Duration = Duration::from_secs(1);

/// The places of one connection's waiting requests.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<Semaphore>);

impl Default for Held {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HELD_MAX)))
    }
}

impl Held {
    /// Waits for an answer; one that is there at once needs no place.
    ///
    /// # Errors
    /// 429 when too many requests of this connection wait already.
    pub(crate) async fn hold<F: Future>(&self, answer: F) -> Result<F::Output, ApiError> {
        let mut answer = pin!(answer);
        let at_once = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = at_once {
            return Ok(answer);
        }
        let Ok(_place) = self.0.try_acquire() else {
            let detail = format!("at most {HELD_MAX} requests of a connection wait at once");
            return Err(ApiError::new(Code::RateLimited, detail).after(RETRY));
        };
        Ok(answer.await)
    }
}

impl<S: Sync> FromRequestParts<S> for Held {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_connection_whose_places_are_taken_still_gets_what_is_there_at_once() {
        let held = Held::default();
        let mut waiting: Vec<_> = (0..HELD_MAX)
            .map(|_| Box::pin(held.hold(pending::<()>())))
            .collect();
        for request in &mut waiting {
            assert!(poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx).is_pending())).await);
        }
        assert_eq!(held.hold(ready(1)).await.ok(), Some(1));
        let refused = held.hold(pending::<()>()).await.unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        waiting.pop();
        let mut next = Box::pin(held.hold(pending::<()>()));
        assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
    }
}
