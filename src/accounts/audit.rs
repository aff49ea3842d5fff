//! The audit log: who changed what, by which request.
//!
//! Invariant: rows are inserted in the transaction of the change and never altered.

use serde_json::Value;
use sqlx::Executor;

use super::extract::Principal;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::Call;
use crate::ids::AuditId;

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) who: &'a Principal,
    pub(crate) call: &'a Call,
    pub(crate) object_id: String,
    /// What became of it; never a secret.
    pub(crate) diff: Value,
}

/// Records a write.
pub(crate) async fn audit(tx: &mut Tx, now: Timestamp, entry: Entry<'_>) -> sqlx::Result<()> {
    let sql = "INSERT INTO audit_log (id, actor, key_id, route, object_id, diff, request_id, \
               at_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let query = sqlx::query(sql)
        .bind(AuditId::new(now).to_string())
        .bind(entry.who.actor())
        .bind(entry.who.key().map(|key| key.to_string()))
        .bind(&entry.call.route)
        .bind(entry.object_id)
        .bind(entry.diff.to_string())
        .bind(&entry.call.request_id)
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}
