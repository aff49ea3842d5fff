//! What time does to orders: what is not paid gives its stock back (commerce.md 11), what nobody
//! disputes is completed, and what is settled is released.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::warn;

use super::close::{self, CloseError};
use super::{complete, store};
use crate::app::App;
use crate::catalog::Released;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Checkouts of one pass.
const PASS_MAX: i64 = 1_000;

/// Runs for ever; may be dropped at any time, since each close is one transaction.
pub(crate) async fn run(app: App) {
    loop {
        if let Err(err) = pass(&app).await {
            warn!(
                error = &err as &dyn std::error::Error,
                "looking after orders failed"
            );
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Everything whose time has come.
async fn pass(app: &App) -> sqlx::Result<()> {
    expire_due(app).await?;
    while complete::confirm_due(app).await? > 0 {}
    while complete::release_due(app).await? > 0 {}
    Ok(())
}

/// Closes what is due; how many were closed.
pub(super) async fn expire_due(app: &App) -> sqlx::Result<usize> {
    let mut reader = app.db.readers().acquire().await?;
    let due = store::due(&mut reader, app.clock.now(), PASS_MAX).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let found = store::checkouts(&mut reader, "", due).await?;
    drop(reader);
    let closing = found.values();
    let closing = closing.map(|it| close::close(app, it, (Released::Expired, "system".into())));
    let mut closed = 0;
    for outcome in join_all(closing).await {
        match outcome {
            Ok(()) => closed += 1,
            // Paid or cancelled meanwhile.
            Err(CloseError::Moved) => {}
            Err(CloseError::Api(err)) => warn!(error.code = err.word(), "a checkout stays open"),
        }
    }
    Ok(closed)
}
