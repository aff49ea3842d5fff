//! Requests of a strict player: no redirect is followed, no coding undone unseen.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use flate2::read::GzDecoder;
use tokio::time::Instant;

use super::rules::{self, Report};

/// Longer than any server may hold a request.
const WAIT_MAX: Duration = Duration::from_secs(40);
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Client {
    inner: reqwest::Client,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) status: u16,
    headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// From the first byte of the body to the last.
    pub(super) spread: Duration,
    /// From the request to the head of the answer.
    pub(super) held: Duration,
}

impl Client {
    pub(super) fn new() -> anyhow::Result<Self> {
        let inner = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(WAIT_MAX)
            .build()?;
        Ok(Self { inner })
    }

    /// Media, as it is.
    pub(super) async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.get_with(url, &[]).await
    }

    /// A playlist, gzipped if the server can.
    pub(super) async fn playlist(&self, url: &str) -> anyhow::Result<Answer> {
        self.get_with(url, &[("accept-encoding", "gzip")]).await
    }

    pub(super) async fn get_with(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let mut request = self.inner.get(url).header("origin", "http://player.test");
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let asked = Instant::now();
        let mut response = request
            .send()
            .await
            .with_context(|| format!("asking for {url}"))?;
        let held = asked.elapsed();
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            })
            .collect();
        let mut body = Vec::new();
        let (mut first, mut spread) = (None, Duration::ZERO);
        while let Some(chunk) = response.chunk().await.with_context(|| url.to_owned())? {
            let now = Instant::now();
            spread = now - *first.get_or_insert(now);
            body.extend_from_slice(&chunk);
            anyhow::ensure!(body.len() <= BODY_BYTES_MAX, "{url} is over 64 MiB");
        }
        Ok(Answer {
            url: url.to_owned(),
            status: response.status().as_u16(),
            headers,
            body,
            spread,
            held,
        })
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The text of a playlist, its coding undone; what is wrong with either is noted.
    pub(super) fn text(&self, report: &mut Report) -> Option<String> {
        let kind = self.header("content-type").split(';').next().unwrap_or("");
        let is_playlist = ["application/vnd.apple.mpegurl", "audio/mpegurl"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(kind.trim()));
        report.expect(is_playlist, rules::TYPE_PLAYLIST, &self.url, kind);
        let coding = self.header("content-encoding");
        let body = match coding {
            "gzip" => {
                let varies = self.header("vary").to_ascii_lowercase();
                let varies_well = varies == "*" || varies.contains("accept-encoding");
                let seen = format!("Vary: {varies}");
                report.expect(varies_well, rules::VARY, &self.url, seen);
                let mut out = Vec::new();
                let limit = BODY_BYTES_MAX as u64;
                if let Err(error) = GzDecoder::new(&self.body[..])
                    .take(limit)
                    .read_to_end(&mut out)
                {
                    report.broken(rules::GZIP_INVALID, &self.url, error);
                    return None;
                }
                out
            }
            _ => {
                report.broken(
                    rules::GZIP_MISSING,
                    &self.url,
                    format!("Content-Encoding: {coding}"),
                );
                self.body.clone()
            }
        };
        let text = String::from_utf8(body);
        if text.is_err() {
            report.broken(rules::SYNTAX, &self.url, "not UTF-8");
        }
        report.playlists += 1;
        text.ok()
    }

    /// What every answer of ours has.
    pub(super) fn judge_common(&self, report: &mut Report) {
        let origin = self.header("access-control-allow-origin");
        let exposed = self
            .header("access-control-expose-headers")
            .to_ascii_lowercase();
        let is_open = origin == "*" && (exposed == "*" || exposed.contains("content-length"));
        let seen = format!("Access-Control-Allow-Origin: {origin}, exposed: {exposed}");
        report.expect(is_open, rules::CORS, &self.url, seen);
        let is_plain = self.header("set-cookie").is_empty() && !(300..400).contains(&self.status);
        report.expect(is_plain, rules::COOKIE, &self.url, self.status);
    }

    pub(super) fn judge_cache(&self, rule: rules::Rule, wanted: &str, report: &mut Report) {
        let found = self.header("cache-control").replace(' ', "");
        let seen = format!("Cache-Control: {found}, not {wanted}");
        report.expect(found == wanted, rule, &self.url, seen);
    }
}

/// A URI against the URL of its playlist; without a query of its own it has none.
pub(super) fn resolve(base: &str, uri: &str) -> String {
    let joined = reqwest::Url::parse(base).and_then(|base| base.join(uri));
    joined.map_or_else(|_| uri.to_owned(), |url| url.to_string())
}

/// An URL with more directives behind it.
pub(super) fn with(url: &str, directives: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    if directives.is_empty() {
        url.to_owned()
    } else {
        format!("{url}{mark}{directives}")
    }
}

/// An URL without its query.
pub(super) fn path(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
