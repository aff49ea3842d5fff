//! What open pages are told beside the timeline: what is left of a variant whose stock changed.

use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use super::hub::{Hub, stock_hint};
use super::model::StockHint;
use crate::app::App;
use crate::events::Kind;
use crate::ids::VariantId;
use crate::rooms;

/// Runs for ever; what it misses is a hint that did not come.
pub(crate) async fn run(app: App) {
    let mut events = app.bus.subscribe();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let is_stock = matches!(
            event.kind,
            Kind::InventorySoldOut | Kind::InventoryRestocked | Kind::InventoryAdjusted
        );
        let variant = event.subject_id.parse::<VariantId>();
        let Some(variant) = variant.ok().filter(|_| is_stock) else {
            continue;
        };
        if let Err(err) = hint(&app, variant).await {
            let err = &err as &dyn std::error::Error;
            warn!(error = err, variant.id = %variant, "no hint of stock");
        }
    }
}

/// Tells the open pages of every room that sells a variant what is left.
pub(super) async fn hint(app: &App, variant: VariantId) -> sqlx::Result<()> {
    if Hub::of(app).is_empty() {
        return Ok(());
    }
    for (room, entry, left) in rooms::left(app, variant).await? {
        stock_hint(app, room, &StockHint { entry, left });
    }
    Ok(())
}
