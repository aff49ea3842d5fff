//! A body of many JSON objects, one a line (NDJSON), read while it comes.
//!
//! Invariant: a line, the lines and the whole have bounds; beyond one the answer is 413, and what
//! was done of the lines before stands.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use super::body::{BODY_WITHIN, Call, THROWN_AWAY_MAX};
use super::error::{ApiError, Code};
use crate::app::App;

const LINE_BYTES_MAX: usize = 64 * 1024;
const LINES_MAX: usize = 100_000;
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The lines of a request, and how it was called.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) call: Call,
    body: Body,
    /// Read, but not yet given out.
    held: BytesMut,
    /// Bytes of `held` in which there is no line break.
    searched: usize,
    bytes: usize,
    lines: usize,
    is_read: bool,
}

/// One line and its number, from 1 on.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: Bytes,
}

impl FromRequest<App> for Lines {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ApiError> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-ndjson") {
            let detail = "send one JSON object a line as Content-Type: application/x-ndjson";
            return Err(ApiError::new(Code::UnsupportedMediaType, detail));
        }
        Ok(Self {
            call: Call::of(&mut request, app).await?,
            body: request.into_body(),
            held: BytesMut::new(),
            searched: 0,
            bytes: 0,
            lines: 0,
            is_read: false,
        })
    }
}

impl Lines {
    /// The next line that is not blank; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, ApiError> {
        loop {
            let Some(text) = self.whole_line().await? else {
                return Ok(None);
            };
            self.lines += 1;
            if self.lines > LINES_MAX {
                return Err(self
                    .too_large(format!("a file has at most {LINES_MAX} lines"))
                    .await);
            }
            if !text.trim_ascii().is_empty() {
                let number = self.lines;
                return Ok(Some(Line { number, text }));
            }
        }
    }

    async fn whole_line(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let fresh = self.held.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.held.split_to(self.searched + at + 1);
                self.searched = 0;
                return self.bounded(line.freeze()).await.map(Some);
            }
            self.searched = self.held.len();
            if self.is_read {
                let rest = self.held.split();
                self.searched = 0;
                let is_over = rest.is_empty();
                return match is_over {
                    true => Ok(None),
                    false => self.bounded(rest.freeze()).await.map(Some),
                };
            }
            if self.held.len() > LINE_BYTES_MAX {
                return Err(self.line_too_large().await);
            }
            self.read_more().await?;
            if self.bytes > BYTES_MAX {
                return Err(self
                    .too_large(format!("a file has at most {BYTES_MAX} bytes"))
                    .await);
            }
        }
    }

    async fn bounded(&mut self, line: Bytes) -> Result<Bytes, ApiError> {
        if line.trim_ascii_end().len() > LINE_BYTES_MAX {
            return Err(self.line_too_large().await);
        }
        Ok(line)
    }

    async fn read_more(&mut self) -> Result<(), ApiError> {
        let frame = tokio::time::timeout(BODY_WITHIN, self.body.frame()).await;
        let frame = frame.map_err(|_elapsed| {
            ApiError::new(Code::Timeout, "the next bytes of the body came too slowly")
        })?;
        match frame {
            None => self.is_read = true,
            Some(Err(_broken)) => return Err(ApiError::new(Code::Malformed, "the body broke off")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.bytes = self.bytes.saturating_add(data.len());
                    self.held.extend_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    async fn line_too_large(&mut self) -> ApiError {
        let number = self.lines + 1;
        let detail = format!("line {number} is longer than {LINE_BYTES_MAX} bytes");
        self.too_large(detail).await
    }

    /// Reads a little more first: closing a socket with unread bytes in it would take the answer
    /// from a client that is still sending.
    async fn too_large(&mut self, detail: String) -> ApiError {
        let until = self.bytes.saturating_add(THROWN_AWAY_MAX);
        while !self.is_read && self.bytes < until {
            self.held.clear();
            if self.read_more().await.is_err() {
                break;
            }
        }
        ApiError::new(Code::TooLarge, detail)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn lines(chunks: &[&str]) -> Lines {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk.as_bytes())))
            .collect();
        Lines {
            call: Call {
                route: String::new(),
                path: String::new(),
                request_id: String::new(),
                fingerprint: String::new(),
                key: None,
            },
            body: Body::from_stream(stream::iter(chunks)),
            held: BytesMut::new(),
            searched: 0,
            bytes: 0,
            lines: 0,
            is_read: false,
        }
    }

    async fn read(chunks: &[&str]) -> Vec<(usize, String)> {
        let mut lines = lines(chunks);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            let text = String::from_utf8_lossy(&line.text).trim().to_owned();
            all.push((line.number, text));
        }
        all
    }

    #[tokio::test]
    async fn lines_are_the_same_however_the_bytes_are_cut() {
        let expected = [(1, "a"), (3, "bc"), (4, "d")].map(|(n, it)| (n, it.to_owned()));
        for chunks in [
            &["a\n\nbc\nd"][..],
            &["a", "\n", "\n", "b", "c\n", "d", "\n"],
            &["a\r\n \r\nbc", "", "\nd\n"],
        ] {
            assert_eq!(read(chunks).await, expected, "{chunks:?}");
        }
        assert_eq!(read(&[]).await, []);
        assert_eq!(read(&["\n\n"]).await, []);
    }

    #[tokio::test]
    async fn a_line_beyond_its_bound_is_too_large() {
        let full = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(read(&["a\n", &full, "\n"]).await.len(), 2);
        for chunks in [&["a\n", &full, "x\n"][..], &["a\n", &full, "x"]] {
            let mut lines = lines(chunks);
            assert!(lines.next().await.unwrap().is_some());
            let refused = lines.next().await.unwrap_err();
            assert_eq!(refused.code(), Code::TooLarge);
        }
    }

    #[tokio::test]
    async fn too_many_lines_are_too_large() {
        let many = "1\n".repeat(LINES_MAX + 1);
        let chunks = [many.as_str()];
        let mut lines = lines(&chunks);
        for _ in 0..LINES_MAX {
            assert!(lines.next().await.unwrap().is_some());
        }
        assert_eq!(lines.next().await.unwrap_err().code(), Code::TooLarge);
    }
}
