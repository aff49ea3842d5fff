//! Keyset pages: cursors that nobody can forge and that fit one filter only.
//!
//! Invariant: no OFFSET and no totals; a walk sees each row that stood throughout exactly once.

use std::fmt::Display;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::{ApiError, Code};
use crate::app::{Secrets, hex};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;
const CURSOR_BYTES_MAX: usize = 256;

/// One page of a list.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    pub(crate) page: Around,
}

/// The way to the neighbours of a page.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Around {
    /// For `after=`.
    next: Option<String>,
    /// For `before=`.
    prev: Option<String>,
    /// Whether there is more in the direction of the walk.
    has_more: bool,
}

/// Which way a walk goes, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek<K> {
    First,
    After(K),
    Before(K),
}

/// A place in one filtered list.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    secrets: &'a Secrets,
    filter: String,
}

impl<'a> Cursor<'a> {
    /// Cursors of the list `filter` describes.
    pub(crate) fn of(secrets: &'a Secrets, filter: &str) -> Self {
        let digest = hex(&Sha256::digest(filter.as_bytes()));
        let filter = digest.split_at(16).0.into();
        Self { secrets, filter }
    }

    /// Reads `after` and `before`, of which one may be given.
    pub(crate) fn seek<K: FromStr>(
        &self,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<Seek<K>, ApiError> {
        match (after, before) {
            (None, None) => Ok(Seek::First),
            (Some(after), None) => self.read(after).map(Seek::After),
            (None, Some(before)) => self.read(before).map(Seek::Before),
            (Some(_), Some(_)) => Err(ApiError::new(
                Code::Malformed,
                "give either after or before, not both",
            )),
        }
    }

    /// Shapes `rows`, of which there is one more than `limit` when the walk goes on. Rows come in
    /// the order of the walk: reversed for [`Seek::Before`].
    pub(crate) fn page<T, K: Display>(
        &self,
        mut rows: Vec<T>,
        limit: u32,
        seek: &Seek<K>,
        key: impl Fn(&T) -> String,
    ) -> Page<T> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let is_backward = matches!(seek, Seek::Before(_));
        if is_backward {
            rows.reverse();
        }
        let (has_next, has_prev) = match seek {
            Seek::First => (has_more, false),
            Seek::After(_) => (has_more, true),
            Seek::Before(_) => (true, has_more),
        };
        let next = rows.last().filter(|_| has_next);
        let prev = rows.first().filter(|_| has_prev);
        let page = Around {
            next: next.map(|row| self.write(&key(row))),
            prev: prev.map(|row| self.write(&key(row))),
            has_more,
        };
        Page { data: rows, page }
    }

    fn write(&self, key: &str) -> String {
        let text = format!("c1.{}.{}", self.filter, URL_SAFE_NO_PAD.encode(key));
        let mac = URL_SAFE_NO_PAD.encode(self.secrets.mac(text.as_bytes()));
        format!("{text}.{mac}")
    }

    fn read<K: FromStr>(&self, cursor: &str) -> Result<K, ApiError> {
        let bad = || ApiError::new(Code::BadCursor, "start the walk again without a cursor");
        if cursor.len() > CURSOR_BYTES_MAX {
            return Err(bad());
        }
        let (text, _mac) = cursor.rsplit_once('.').ok_or_else(bad)?;
        let (head, key) = text.rsplit_once('.').ok_or_else(bad)?;
        let key = URL_SAFE_NO_PAD.decode(key).map_err(|_shape| bad())?;
        let key = String::from_utf8(key).map_err(|_shape| bad())?;
        // Written anew it must be the same: that checks version, filter and MAC at once.
        let is_ours = head == format!("c1.{}", self.filter) && self.write(&key) == cursor;
        let key = key.parse().map_err(|_shape| bad());
        if is_ours { key } else { Err(bad()) }
    }
}

/// The size of a page.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::bounds(Vec::new()).at("/limit", "range_1_200"))
}
