//! SSH public keys of users. A key is registered once in the account, whoever registers it: it has to name one user.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use munjigi_core::id::{SshKeyId, UniqueId};
use munjigi_core::ssh::PublicKey;
use munjigi_core::time::Timestamp;

use super::row::{Columns, random_id, stored};
use super::{Kind, Store, StoreError, quota, users};

/// A registered key as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshPublicKey {
    /// Its id, `APKA…`.
    pub id: SshKeyId,
    /// Its user's name.
    pub user_name: String,
    /// The key, with its comment.
    pub key: PublicKey,
    /// Whether it lets anybody in.
    pub active: bool,
    /// When it was registered.
    pub uploaded: Timestamp,
}

/// A registered key as identities are built from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredKey {
    /// Its id.
    pub id: SshKeyId,
    /// The user it belongs to.
    pub owner: UniqueId,
    /// Whether it lets anybody in.
    pub active: bool,
    /// The key.
    pub key: PublicKey,
}

impl SshPublicKey {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            id: row.parse("id")?,
            user_name: row.get("user_name")?,
            key: key(&row)?,
            active: row.get::<i64>("active")? == 1,
            uploaded: row.time("uploaded")?,
        })
    }
}

fn key(row: &Columns<'_>) -> Result<PublicKey, StoreError> {
    PublicKey::parse(row.get("line")?).map_err(|_| row.unreadable("line"))
}

impl Store {
    /// Registers a key for a user. A key that is registered already, for whomever, is refused.
    pub async fn register_ssh_key(
        &self,
        user: &str,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<SshPublicKey, StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM ssh_public_keys WHERE user_id = $1")
            .bind(user.id.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        if count >= stored(quota::SSH_KEYS_PER_USER) {
            return Err(StoreError::Limit { what: "SSH public keys per user", limit: quota::SSH_KEYS_PER_USER });
        }
        let id: SshKeyId = random_id::<_, 16>("APKA")?;
        let fingerprint = key.fingerprint().to_string();
        let made = sqlx::query(
            "INSERT INTO ssh_public_keys (id, user_id, fingerprint, line, active, uploaded)
             VALUES ($1, $2, $3, $4, 1, $5)",
        )
        .bind(id.as_str())
        .bind(user.id.as_str())
        .bind(&fingerprint)
        .bind(format!("{} {}", key.line(), key.comment()))
        .bind(now.0)
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match StoreError::is_taken(&error) {
            true => StoreError::Exists { kind: Kind::SshKey, name: fingerprint },
            false => error.into(),
        })?;
        transaction.commit().await?;
        Ok(SshPublicKey { id, user_name: user.name, key: key.clone(), active: true, uploaded: now })
    }

    /// Lists a user's keys in the order of their ids; there are at most five.
    pub async fn list_ssh_keys(&self, user: &str) -> Result<Vec<SshPublicKey>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let user = users::find(&mut transaction, user).await?;
        let rows = sqlx::query(
            "SELECT k.id, u.name AS user_name, k.line, k.active, k.uploaded
             FROM ssh_public_keys k JOIN users u ON u.id = k.user_id WHERE k.user_id = $1 ORDER BY k.id",
        )
        .bind(user.id.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        rows.iter().map(SshPublicKey::read).collect()
    }

    /// Returns a user's key by its id.
    pub async fn ssh_key(&self, user: &str, id: &SshKeyId) -> Result<SshPublicKey, StoreError> {
        let keys = self.list_ssh_keys(user).await?;
        let found = keys.into_iter().find(|key| key.id == *id);
        found.ok_or_else(|| StoreError::not_found(Kind::SshKey, id.as_str()))
    }

    /// Switches a user's key on or off.
    pub async fn set_ssh_key_active(&self, user: &str, id: &SshKeyId, active: bool) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let changed = sqlx::query("UPDATE ssh_public_keys SET active = $3 WHERE id = $1 AND user_id = $2")
            .bind(id.as_str())
            .bind(user.id.as_str())
            .bind(i64::from(active))
            .execute(&mut *transaction)
            .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::SshKey, id.as_str()));
        }
        Ok(transaction.commit().await?)
    }

    /// Removes a user's key.
    pub async fn delete_ssh_key(&self, user: &str, id: &SshKeyId) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let removed = sqlx::query("DELETE FROM ssh_public_keys WHERE id = $1 AND user_id = $2")
            .bind(id.as_str())
            .bind(user.id.as_str())
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::SshKey, id.as_str()));
        }
        Ok(transaction.commit().await?)
    }
}

/// Reads all keys within a transaction.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<RegisteredKey>, StoreError> {
    let rows = sqlx::query("SELECT id, user_id, line, active FROM ssh_public_keys").fetch_all(connection).await?;
    let read = |row: &SqliteRow| {
        let row = Columns::new(row)?;
        Ok(RegisteredKey {
            id: row.parse("id")?,
            owner: row.parse("user_id")?,
            active: row.get::<i64>("active")? == 1,
            key: key(&row)?,
        })
    };
    rows.iter().map(read).collect()
}
