//! How the client reached this server: for addresses that it is given.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::header::HOST;
use http::request::Parts;

use super::error::ApiError;
use super::request::Peer;
use crate::app::App;

const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Where the client said nothing that can be used.
const UNKNOWN: &str = "localhost";

/// What stands before the path in the client's address of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) scheme: &'static str,
    /// Without rubbish; with the port if it was named.
    pub(crate) host: String,
}

impl FromRequestParts<App> for Reached {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let config = app.config();
        Ok(Self::read(parts, &config.http.trusted_proxies))
    }
}

impl Reached {
    fn read(parts: &Parts, trusted: &[IpAddr]) -> Self {
        let peer = parts.extensions.get::<Peer>();
        let is_secure = peer.is_some_and(|peer| peer.is_secure);
        let is_told = peer.is_some_and(|peer| trusted.contains(&peer.addr.ip().to_canonical()));
        let said = parts.headers.get(FORWARDED_PROTO);
        let is_https = is_secure || (is_told && said.is_some_and(|proto| proto == "https"));
        // HTTP/2 has no Host: the name is in the address itself.
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(|name| name.as_str()));
        let is_plain = |host: &&str| {
            let mut bytes = host.bytes();
            !host.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b))
        };
        Self {
            scheme: if is_https { "https" } else { "http" },
            host: host.filter(is_plain).unwrap_or(UNKNOWN).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn reached(peer: (&str, bool), uri: &str, headers: &[(&str, &str)]) -> (&'static str, String) {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(Peer {
            addr: (peer.0.parse::<IpAddr>().unwrap(), 1).into(),
            is_secure: peer.1,
        });
        let Reached { scheme, host } = Reached::read(&parts, &[PROXY.parse().unwrap()]);
        (scheme, host)
    }

    #[test]
    fn the_name_comes_from_either_version_of_http_and_the_scheme_from_who_ends_tls() {
        let host = [("host", "live.example:8080")];
        let proto = ("x-forwarded-proto", "https");
        let named = "live.example:8080".to_owned();
        let stranger = "203.0.113.7";
        let cases = [
            ((stranger, false), "/x", &host[..], ("http", named.clone())),
            ((stranger, true), "/x", &host, ("https", named.clone())),
            (
                (PROXY, false),
                "/x",
                &[host[0], proto],
                ("https", named.clone()),
            ),
            (
                (stranger, false),
                "/x",
                &[host[0], proto],
                ("http", named.clone()),
            ),
            (
                (stranger, true),
                "https://live.example:8080/x",
                &[],
                ("https", named),
            ),
            (
                (stranger, false),
                "/x",
                &[("host", "a\"b")],
                ("http", UNKNOWN.into()),
            ),
        ];
        for (peer, uri, headers, expected) in cases {
            assert_eq!(reached(peer, uri, headers), expected, "{peer:?} {uri}");
        }
    }
}
