//! Keeps one recording: takes objects and rows out of its queue and puts them into the store.
//!
//! A store cannot append. While the recording runs its index is pages, `index-00000.jsonl` and so
//! on, of which the last is put anew with every batch of rows; at the end they become the one
//! `index.jsonl`.
//!
//! Invariants
//! - The index names no object that is not kept.
//! - A store that fails or hangs costs segments, each of which is a gap in the index, and nothing
//!   else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lamplight_media::broadcast::Broadcasts;
use lamplight_media::record::{Backlog, EndRow, Entry, GapCause, Row, Stored, read_rows};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::owner::{Owner, SEEN_EVERY};
use super::store::{Store, StoreError};
use super::{Live, UNFINISHED};

/// How long the store may take for one object.
pub(super) const STORE_WITHIN: Duration = Duration::from_secs(10);
/// Tries for one object, and how long after the first the second comes; then four times as long.
const TRIES: u32 = 3;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Rows of one page of the index.
const PAGE_ROWS: usize = 256;
/// Rows that are put at once at most while the queue is not empty.
const BATCH_ROWS: usize = 32;
/// Between two tries to give a recording its end, and how many there are in all: half an hour.
const END_AGAIN: Duration = Duration::from_secs(5);
const END_TRIES: u32 = 360;
/// Init sections that the store did not take, tried again before what needs them.
const INITS_MAX: usize = 8;
/// Bytes of rows that wait for a store that takes nothing; the rows beyond are holes.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// The writer of one recording.
pub(super) struct Keeper {
    store: Arc<Store>,
    name: String,
    live: Arc<Live>,
    media: Arc<Broadcasts>,
    owner: Owner,
    page: u32,
    rows: usize,
    text: BytesMut,
    /// Rows of the page that are not kept yet.
    unkept: usize,
    /// Without these the segments behind them cannot be played.
    inits: Vec<(Stored, Row)>,
    /// When its marker was put last.
    marked: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(
        store: Arc<Store>,
        name: &str,
        live: Arc<Live>,
        (media, owner): (&Arc<Broadcasts>, Owner),
    ) -> Self {
        Self {
            store,
            name: name.to_owned(),
            live,
            media: Arc::clone(media),
            owner,
            page: 0,
            rows: 0,
            text: BytesMut::new(),
            unkept: 0,
            inits: Vec::new(),
            marked: None,
        }
    }

    /// Runs until the recording is over and has its end. True when there is something to play.
    /// Dropped halfway it leaves the rest to the next start.
    pub(super) async fn run(mut self, mut backlog: Backlog) -> bool {
        while let Some(entry) = backlog.next().await {
            self.mark().await;
            match entry {
                Entry::Row(row) => self.note(&row),
                Entry::Object(stored, row) => {
                    self.keep_inits().await;
                    self.keep(stored, row).await;
                }
            }
            if backlog.is_empty() || self.unkept >= BATCH_ROWS {
                self.turn_page().await;
            }
        }
        // Rows that only this process has must not be passed over.
        for _ in 1..END_TRIES {
            if self.unkept == 0 || self.turn_page().await {
                break;
            }
            sleep(END_AGAIN).await;
        }
        end(&self.store, &self.name).await
    }

    /// Leaves a marker before the first object, by which a later start finds the recording, and
    /// says in it now and then that this node is there.
    async fn mark(&mut self) {
        let is_fresh = |at: Instant| at.elapsed() < SEEN_EVERY;
        if !self.marked.is_some_and(is_fresh) {
            let key = format!("{UNFINISHED}{}", self.name);
            let put = self.store.put(&key, self.owner.marker());
            if within(&key, put).await.is_ok() {
                self.marked = Some(Instant::now());
            }
        }
    }

    /// Tries again what segments cannot be played without.
    async fn keep_inits(&mut self) {
        for (stored, row) in std::mem::take(&mut self.inits) {
            let again = self.store.put(&stored.key, stored.bytes.clone());
            match within(&stored.key, again).await {
                Ok(()) => self.note(&row),
                Err(_) => self.inits.push((stored, row)),
            }
        }
    }

    async fn keep(&mut self, stored: Stored, row: Row) {
        let size = u64::try_from(stored.bytes.len()).unwrap_or(u64::MAX);
        let is_segment = matches!(row, Row::Segment(_));
        match put(&self.store, &stored.key, stored.bytes.clone()).await {
            Ok(()) => {
                self.media.stats().add("store_bytes_total", "kept", size);
                self.live.bytes.fetch_add(size, Ordering::Relaxed);
                let segments = u64::from(is_segment);
                self.live.segments.fetch_add(segments, Ordering::Relaxed);
                self.note(&row);
            }
            Err(err) => {
                let error = &err as &dyn std::error::Error;
                warn!(error, recording.id = self.name, "the store took no segment");
                self.media.stats().add("store_dropped_total", "failed", 1);
                self.live.failed.fetch_add(1, Ordering::Relaxed);
                if matches!(row, Row::Init(_)) && self.inits.len() < INITS_MAX {
                    self.inits.push((stored, row));
                } else if let Some(gap) = row.lost() {
                    self.note(&gap);
                }
            }
        }
    }

    fn note(&mut self, row: &Row) {
        if let Row::Gap(gap) = row
            && gap.cause == GapCause::Store
        {
            (self.live.lose)(gap.rendition, gap.msn);
        }
        if self.text.len() >= PAGE_BYTES_MAX {
            self.media.stats().add("store_dropped_total", "row", 1);
            return;
        }
        self.text.extend_from_slice(row.line().as_bytes());
        self.rows += 1;
        self.unkept += 1;
    }

    /// Keeps the page as it is; a full one is followed by the next. One that the store does not
    /// take is tried again with the next rows: false.
    async fn turn_page(&mut self) -> bool {
        let key = page_key(&self.name, self.page);
        let text = Bytes::copy_from_slice(&self.text);
        if let Err(err) = put(&self.store, &key, text).await {
            let error = &err as &dyn std::error::Error;
            warn!(error, recording.id = self.name, "the store took no index");
            return false;
        }
        self.unkept = 0;
        if self.rows >= PAGE_ROWS {
            self.page += 1;
            self.rows = 0;
            self.text.clear();
        }
        true
    }
}

/// Gives a recording its end, as soon as the store lets it. False when there is nothing to play,
/// or the store does not answer for half an hour: then the next start tries.
pub(super) async fn end(store: &Store, name: &str) -> bool {
    for left in (0..END_TRIES).rev() {
        match finish(store, name).await {
            Ok(is_kept) => return is_kept,
            Err(err) => {
                let error = &err as &dyn std::error::Error;
                warn!(
                    error,
                    recording.id = name,
                    left,
                    "cannot end a recording yet"
                );
            }
        }
        sleep(END_AGAIN).await;
    }
    false
}

/// Gives a recording its end and its one index. True when there is something to play; one without
/// a segment leaves nothing.
async fn finish(store: &Store, name: &str) -> Result<bool, StoreError> {
    let pages = within(name, store.list(&format!("{name}/index-"))).await?;
    let whole = index_key(name);
    let mut has_media = true;
    if !is_there(store, &whole).await? {
        let mut text = BytesMut::new();
        for page in &pages {
            text.extend_from_slice(&within(page, store.get(page, None)).await?);
            if !text.is_empty() && !text.ends_with(b"\n") {
                // Torn: the line is ignored, and what follows begins a new one.
                text.extend_from_slice(b"\n");
            }
        }
        let (mut is_ended, mut t_us) = (false, 0);
        has_media = false;
        for row in read_rows(&text) {
            is_ended |= matches!(row, Row::End(_));
            has_media |= matches!(row, Row::Segment(_));
            t_us = t_us.max(row.reaches_us().unwrap_or(0));
        }
        if !is_ended {
            let end = Row::End(EndRow { t_us });
            text.extend_from_slice(end.line().as_bytes());
        }
        if has_media {
            put(store, &whole, text.freeze()).await?;
        }
    }
    for page in &pages {
        within(page, store.delete(page)).await?;
    }
    within(name, store.sweep(name)).await?;
    let marker = format!("{UNFINISHED}{name}");
    within(&marker, store.delete(&marker)).await?;
    Ok(has_media)
}

/// Where the index of a recording with an end is.
pub(super) fn index_key(name: &str) -> String {
    format!("{name}/index.jsonl")
}

/// Five digits and more, so that pages sort as they were written for 59 days of two-second
/// segments.
fn page_key(name: &str, page: u32) -> String {
    format!("{name}/index-{page:05}.jsonl")
}

async fn is_there(store: &Store, key: &str) -> Result<bool, StoreError> {
    match within(key, store.get(key, Some(0..1))).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound(_)) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Puts an object, again if it must be.
async fn put(store: &Store, key: &str, bytes: Bytes) -> Result<(), StoreError> {
    let mut wait = TRY_AGAIN;
    for _ in 1..TRIES {
        if within(key, store.put(key, bytes.clone())).await.is_ok() {
            return Ok(());
        }
        sleep(wait).await;
        wait *= 4;
    }
    within(key, store.put(key, bytes)).await
}

pub(super) async fn within<T>(
    key: &str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(STORE_WITHIN, answer).await;
    answer.unwrap_or_else(|_elapsed| Err(StoreError::TooSlow(key.into())))
}
