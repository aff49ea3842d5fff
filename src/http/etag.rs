//! Versions of things that change: `ETag`, and `If-Match` on the writes that need it (*E*).

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::HeaderValue;
use http::header::{ETAG, IF_MATCH};
use http::request::Parts;

use super::error::{ApiError, Code};

/// The version that a write is meant for.
#[derive(Clone, Debug)]
pub(crate) struct IfMatch(String);

impl IfMatch {
    /// Refuses when the thing has another version by now.
    pub(crate) fn check(&self, version: i64) -> Result<(), ApiError> {
        let current = etag(version);
        let mut wanted = self.0.split(',').map(str::trim);
        if wanted.any(|it| it == "*" || it == current) {
            return Ok(());
        }
        let detail = "it was changed since you read it: read it again, then decide anew";
        Err(ApiError::new(Code::Stale, detail).with(ETAG, current))
    }

    /// The version it names, for a test inside a statement; none when any will do.
    pub(crate) fn version(&self) -> Option<i64> {
        let text = self.0.trim();
        let digits = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let version = digits.and_then(|digits| digits.parse().ok());
        // No thing has version 0.
        (text != "*").then_some(version.unwrap_or(0))
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let given = parts.headers.get(IF_MATCH).and_then(|it| it.to_str().ok());
        given.map(|text| Self(text.into())).ok_or_else(|| {
            let detail = "send If-Match with the ETag of what you read";
            ApiError::new(Code::PreconditionRequired, detail)
        })
    }
}

/// The strong tag of a version.
pub(crate) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The answer with the tag of what it shows.
pub(crate) fn tagged(mut response: Response, version: i64) -> Response {
    let tag = HeaderValue::from_str(&etag(version)).expect("digits in quotes are a header");
    response.headers_mut().insert(ETAG, tag);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_passes_with_the_version_it_was_meant_for() {
        for good in ["\"7\"", "*", "\"6\", \"7\""] {
            assert!(IfMatch(good.into()).check(7).is_ok(), "{good}");
        }
        for bad in ["\"6\"", "7", "W/\"7\"", ""] {
            let refused = IfMatch(bad.into()).check(7).unwrap_err();
            assert_eq!(refused.code(), Code::Stale, "{bad}");
        }
    }
}
