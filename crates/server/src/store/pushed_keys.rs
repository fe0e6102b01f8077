//! Keys that were pushed to nodes, by fingerprint: what a login on a node is explained by.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;

use super::{Store, StoreError};

/// How long a push is remembered; a node that was away reports its logins later.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// A key that a node took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedKey {
    /// The node.
    pub node: NodeId,
    /// The only account it is good for.
    pub os_user: String,
    /// `SHA256:…` of the key.
    pub fingerprint: String,
    /// The request that brought it, as in the trail.
    pub request_id: String,
    /// Who pushed it.
    pub principal_arn: String,
    /// When.
    pub pushed: Timestamp,
    /// Until when sshd may accept it.
    pub expires: Timestamp,
}

impl PushedKey {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let node: String = row.try_get("node_id")?;
        Ok(Self {
            node: NodeId::parse(&node)
                .map_err(|_| StoreError::Unreadable { what: "node_id", row: "a pushed key".to_owned() })?,
            os_user: row.try_get("os_user")?,
            fingerprint: row.try_get("fingerprint")?,
            request_id: row.try_get("request_id")?,
            principal_arn: row.try_get("principal_arn")?,
            pushed: Timestamp(row.try_get("pushed")?),
            expires: Timestamp(row.try_get("expires")?),
        })
    }
}

impl Store {
    /// Remembers a push, and forgets those that are too old to explain anything.
    pub async fn remember_pushed_key(&self, key: &PushedKey) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let oldest = key.pushed.0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX));
        sqlx::query("DELETE FROM pushed_keys WHERE pushed < $1").bind(oldest).execute(&mut *transaction).await?;
        sqlx::query(
            "INSERT INTO pushed_keys (node_id, os_user, fingerprint, request_id, principal_arn, pushed, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.node.as_str())
        .bind(&key.os_user)
        .bind(&key.fingerprint)
        .bind(&key.request_id)
        .bind(&key.principal_arn)
        .bind(key.pushed.0)
        .bind(key.expires.0)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Returns the newest push of a key to a node's account whose life held the instant `at`, give or take `slack`.
    pub async fn pushed_key(
        &self,
        node: &NodeId,
        os_user: &str,
        fingerprint: &str,
        at: Timestamp,
        slack: Duration,
    ) -> Result<Option<PushedKey>, StoreError> {
        let slack = i64::try_from(slack.as_micros()).unwrap_or(i64::MAX);
        let row = sqlx::query(
            "SELECT * FROM pushed_keys
             WHERE node_id = $1 AND fingerprint = $2 AND os_user = $3 AND pushed <= $4 AND expires >= $5
             ORDER BY pushed DESC LIMIT 1",
        )
        .bind(node.as_str())
        .bind(fingerprint)
        .bind(os_user)
        .bind(at.0.saturating_add(slack))
        .bind(at.0.saturating_sub(slack))
        .fetch_optional(self.readers())
        .await?;
        row.as_ref().map(PushedKey::read).transpose()
    }
}
