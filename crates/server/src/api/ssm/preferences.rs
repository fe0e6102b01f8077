//! The account's preferences: the document `SSM-SessionManagerRunShell`, which every start keeps to. Read once, and again
//! when a document has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use munjigi_core::document::{Document, Preferences, ResolveError};

use super::document::PREFERENCES;
use crate::api::error::ApiError;
use crate::store::{Store, StoreError, VersionRef};

/// The preferences in memory.
#[derive(Default)]
pub(crate) struct PreferencesInForce {
    /// Counts changes of documents; each is counted after it is stored and before it is answered.
    changes: AtomicU64,
    /// What was read, and at which count the reading began.
    read: ArcSwapOption<(u64, Preferences)>,
}

impl PreferencesInForce {
    /// Takes note that a document has changed.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the preferences; those that demand nothing if the account has none.
    pub(crate) async fn get(&self, store: &Store) -> Result<Preferences, ApiError> {
        let count = self.changes.load(Ordering::Acquire);
        if let Some(read) = self.read.load().as_ref().filter(|read| read.0 == count) {
            return Ok(read.1.clone());
        }
        let preferences = read(store).await?;
        self.read.store(Some(Arc::new((count, preferences.clone()))));
        Ok(preferences)
    }
}

async fn read(store: &Store) -> Result<Preferences, ApiError> {
    let stored = match store.document(PREFERENCES, &VersionRef::Default).await {
        Ok((_, version)) => version.content,
        Err(StoreError::NotFound { .. }) => return Ok(Preferences::default()),
        Err(error) => return Err(ApiError::internal(error)),
    };
    // What was stored was good; if it no longer reads, nothing is known of what it demands (T-11).
    let resolved = Document::parse(&stored).map_err(ResolveError::from).and_then(|read| read.resolve(&BTreeMap::new()));
    let unreadable = |error| ApiError::bad("InvalidDocument", format!("{PREFERENCES} cannot be read: {error}"));
    Ok(resolved.map_err(unreadable)?.preferences)
}
