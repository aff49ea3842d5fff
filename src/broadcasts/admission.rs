//! Whether this node has room for one more (media.md 8.4): how much it sends, and how much memory
//! it has in use.
//!
//! Invariant: who was let in is never put out to let in another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lamplight_media::broadcast::BroadcastKey;
use tokio::time::{Instant, sleep_until};

use crate::app::App;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of `limits.memory_bytes_max`: viewers stay out first.
const VIEWERS_PERCENT: u64 = 90;
const PUBLISHERS_PERCENT: u64 = 95;
/// Linux counts memory in pages of this size.
const PAGE_BYTES: u64 = 4_096;

/// What the node uses, a second ago at most.
#[derive(Debug, Default)]
struct Usage {
    egress_bps: AtomicU64,
    memory_bytes: AtomicU64,
}

/// Whether another viewer may come in.
pub(super) fn has_room_for_viewer(app: &App) -> bool {
    let usage: Arc<Usage> = app.parts.part();
    let config = app.config();
    let limits = &config.limits;
    let egress_bps = usage.egress_bps.load(Ordering::Relaxed);
    let is_sending_all = limits.egress_bps_max != 0 && egress_bps >= limits.egress_bps_max;
    !is_sending_all && !is_full(&usage, limits.memory_bytes_max, VIEWERS_PERCENT)
}

/// Whether a room has as many viewers as it may, over all outputs.
pub(super) fn is_room_full(app: &App, room: &str) -> bool {
    let live = app.media.find(&BroadcastKey::new(room));
    let counts = live.map(|live| live.audience().counts(Instant::now()));
    let max = u64::try_from(app.config().limits.room_viewers_max).unwrap_or(u64::MAX);
    counts.is_some_and(|counts| counts.sessions() >= max)
}

/// Whether another publisher may come in.
pub(super) fn has_room_for_publisher(app: &App) -> bool {
    let usage: Arc<Usage> = app.parts.part();
    let max = app.config().limits.memory_bytes_max;
    !is_full(&usage, max, PUBLISHERS_PERCENT)
}

fn is_full(usage: &Usage, max: u64, percent: u64) -> bool {
    let used = usage.memory_bytes.load(Ordering::Relaxed);
    max != 0 && used >= max / 100 * percent
}

/// Looks once a second, for the life of the server.
pub(crate) async fn watch(app: App) {
    let usage: Arc<Usage> = app.parts.part();
    let mut at = Instant::now();
    let mut sent = sent_bytes(&app);
    loop {
        if let Some(bytes) = memory_bytes() {
            usage.memory_bytes.store(bytes, Ordering::Relaxed);
        }
        at += LOOK_EVERY;
        sleep_until(at).await;
        let now = sent_bytes(&app);
        let bps = now.saturating_sub(sent).saturating_mul(8);
        usage.egress_bps.store(bps, Ordering::Relaxed);
        sent = now;
    }
}

fn sent_bytes(app: &App) -> u64 {
    app.media.stats().total("egress_bytes_total")
}

/// Memory this process has resident.
fn memory_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_stay_out_before_publishers_and_no_limit_keeps_nobody_out() {
        let usage = Usage::default();
        usage.memory_bytes.store(920, Ordering::Relaxed);
        assert!(is_full(&usage, 1_000, VIEWERS_PERCENT));
        assert!(!is_full(&usage, 1_000, PUBLISHERS_PERCENT));
        assert!(!is_full(&usage, 0, VIEWERS_PERCENT));
        usage.memory_bytes.store(950, Ordering::Relaxed);
        assert!(is_full(&usage, 1_000, PUBLISHERS_PERCENT));
    }

    #[test]
    fn the_memory_of_this_process_is_more_than_nothing() {
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
