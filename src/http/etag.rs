//! Versions of things that change: `ETag`, and `If-Match` on the writes that need it (*E*).

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

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

/// What a PUT may be made on.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// There is nothing yet: `If-None-Match: *`.
    Nothing,
    Version(IfMatch),
}

impl<S: Sync> FromRequestParts<S> for Expected {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let none = parts.headers.get(IF_NONE_MATCH);
        if none.is_some_and(|it| it.as_bytes().trim_ascii() == b"*") {
            return Ok(Self::Nothing);
        }
        let version = IfMatch::from_request_parts(parts, state).await;
        version.map(Self::Version).map_err(|_missing| {
            let detail = "send If-None-Match: * to make it, If-Match with its ETag to replace it";
            ApiError::new(Code::PreconditionRequired, detail)
        })
    }
}

/// Refuses to make what is there.
pub(crate) fn exists(version: i64) -> ApiError {
    let detail = "it is there already: send If-Match with its ETag to replace it";
    ApiError::new(Code::Stale, detail).with(ETAG, etag(version))
}

/// Whether the caller has what this tag stands for: `If-None-Match`.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let mut known = known
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .map(|it| it.trim().trim_start_matches("W/"));
    known.any(|it| it == "*" || it == tag)
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
    fn what_the_caller_has_is_known_by_any_of_its_tags() {
        let mut headers = HeaderMap::new();
        assert!(!is_known(&headers, "\"7\""));
        headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"6\", W/\"7\""));
        assert!(is_known(&headers, "\"7\"") && !is_known(&headers, "\"8\""));
    }

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
