//! A handler's way to bound what the kernel holds for a peer that reads slowly.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::FromRequestParts;
use http::Version;
use http::request::Parts;

/// The send buffer of a connection of HTTP/1.1. Of HTTP/2 it does nothing: other responses share
/// the connection, and each has a window of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct SendBuffer(Arc<AtomicUsize>);

impl SendBuffer {
    /// From the next write on the kernel holds at most so many bytes. It does not grow the buffer
    /// by itself any more, which a response of many bytes at once would miss.
    pub(crate) fn bound(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// The bound that was set since this was asked last.
    pub(crate) fn wish(&self) -> Option<usize> {
        if self.0.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.0.swap(0, Ordering::Relaxed))
    }
}

impl<S: Sync> FromRequestParts<S> for SendBuffer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let of_connection = parts.extensions.get::<Self>().cloned();
        let is_alone = parts.version < Version::HTTP_2;
        Ok(of_connection.filter(|_| is_alone).unwrap_or_default())
    }
}
