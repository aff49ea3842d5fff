//! The day close (payments.md 11 L9): what the books said at the end of a local day, in one row
//! that is never written again.
//!
//! Invariants
//! - Days follow each other without a gap from that of the first transfer on; a server that was
//!   away closes those it missed, in order.
//! - A day is closed once, and not before its transfers are all there: ten minutes after its end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use time::{Date, OffsetDateTime, UtcOffset};
use tokio::time::sleep;
use tracing::{error, info};

use super::model::Day;
use super::signer::Signer;
use super::store;
use crate::app::App;
use crate::clock::Timestamp;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};

/// After the end of a day.
const CLOSED_AFTER: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// Runs for ever; may be dropped at any time, since each close is one transaction.
pub(crate) async fn run(app: App) {
    loop {
        match close_due(&app).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(err) => {
                let error = &err as &dyn std::error::Error;
                error!(error, "closing a day of the ledger failed");
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Closes the oldest day that is due; false when none is.
pub(super) async fn close_due(app: &App) -> sqlx::Result<bool> {
    let now = app.clock.now();
    let offset = app.config().ledger.utc_offset;
    let mut tx = app.db.begin().await?;
    let before = store::last_day(&mut tx).await?;
    let date = match &before {
        Some(day) => day.date.next_day(),
        None => {
            let first = store::first_transfer_at(&mut tx).await?;
            first.map(|at| local(at, offset).date())
        }
    };
    let Some(date) = date else { return Ok(false) };
    let ends = end_of(date, offset);
    if now < ends.plus(CLOSED_AFTER) {
        return Ok(false);
    }
    let (from, mut totals) = before.map_or_else(Default::default, |day| (day.last_seq, day.totals));
    let (last_seq, hash) = store::last_before(&mut tx, ends, from).await?;
    store::add_totals(&mut tx, (from, last_seq), &mut totals).await?;
    let mut day = Day {
        date,
        last_seq,
        hash,
        totals,
        signature: None,
    };
    let signer: Arc<Signer> = app.parts.part();
    day.signature = signer.sign(&day.text());
    store::insert_day(&mut tx, now, &day).await?;
    let event = NewEvent {
        kind: Kind::LedgerDayClosed,
        subject_kind: SubjectKind::LedgerDay,
        subject_id: day.date.to_string(),
        streams: vec![Stream::Platform],
        data: json!({ "date": day.date.to_string(), "last_seq": last_seq, "hash": day.hash }),
    };
    events::append(&mut tx, now, event).await?;
    tx.commit().await?;
    info!(ledger.day = %day.date, ledger.seq = last_seq, "day closed");
    Ok(true)
}

fn local(at: Timestamp, offset: UtcOffset) -> OffsetDateTime {
    at.to_datetime().to_offset(offset)
}

fn end_of(date: Date, offset: UtcOffset) -> Timestamp {
    let begins = date.midnight().assume_offset(offset);
    Timestamp::from(begins).plus(DAY)
}
