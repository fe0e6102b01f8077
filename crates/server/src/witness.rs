//! The database as a witness of the audit trail: it keeps the newest checkpoint, so that cutting the trail and its own
//! checkpoints together is noticed at the next start and by verification (T-67).

use std::path::Path;

use anyhow::Context as _;
use munjigi_core::audit::Checkpoint;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::{AuditLog, Settings};
use crate::keys::Keys;
use crate::store::Store;

/// Setting that holds the newest checkpoint, as its line of JSON.
const NEWEST: &str = "audit-checkpoint";

/// Opens the audit trail, compares it with the checkpoint in the database, and starts the task that stores newer ones.
/// The task ends when the trail is shut down.
pub(crate) async fn open_trail(
    directory: &Path,
    store: &Store,
    keys: &Keys,
) -> anyhow::Result<(AuditLog, JoinHandle<()>)> {
    let mirrored = newest(store).await?;
    // Sent by the trail's thread, received by the task below; only the newest matters.
    let (newest_tx, newest) = watch::channel(None);
    let settings = Settings {
        key: keys.checkpoint().1.clone(),
        trusted: keys.trusted().to_vec(),
        mirrored,
        on_checkpoint: Box::new(move |checkpoint| drop(newest_tx.send(Some(checkpoint.clone())))),
    };
    let shown = directory.display().to_string();
    let directory = directory.to_owned();
    let audit = tokio::task::spawn_blocking(move || AuditLog::open(&directory, settings))
        .await?
        .with_context(|| format!("failed to open the audit trail in {shown}"))?;
    Ok((audit, tokio::spawn(keep(store.clone(), newest))))
}

/// Returns the newest checkpoint that the database holds.
pub(crate) async fn newest(store: &Store) -> anyhow::Result<Option<Checkpoint>> {
    let Some(line) = store.setting(NEWEST).await? else { return Ok(None) };
    let line = std::str::from_utf8(&line).context("the checkpoint in the database is damaged")?;
    Ok(Some(Checkpoint::parse(line).context("the checkpoint in the database is damaged")?))
}

async fn keep(store: Store, mut newest: watch::Receiver<Option<Checkpoint>>) {
    while newest.changed().await.is_ok() {
        let Some(line) = newest.borrow_and_update().as_ref().map(Checkpoint::to_json) else { continue };
        if let Err(error) = store.set_setting(NEWEST, line.as_bytes()).await {
            tracing::error!(%error, "a checkpoint of the audit trail could not be kept in the database");
        }
    }
}
