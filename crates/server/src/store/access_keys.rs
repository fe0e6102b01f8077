//! Access keys of users. Secrets are stored sealed for their own row (T-100) and shown once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use munjigi_core::id::AccessKeyId;
use munjigi_core::secret::{MasterKeys, Place, Secret, open_secret, seal_secret};
use munjigi_core::time::Timestamp;

use super::row::{Columns, random, random_id, stored};
use super::{Kind, Store, StoreError, quota, users};

/// The secret half of an access key: 40 characters of base 64.
pub type KeySecret = Secret<String>;

/// An access key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id, `AKIA…`.
    pub id: AccessKeyId,
    /// Its user's name.
    pub user_name: String,
    /// Whether it can be used.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its latest use, if it was used.
    pub last_used: Option<LastUsed>,
}

/// When and for what an access key was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUsed {
    /// When; recorded at most once a minute.
    pub time: Timestamp,
    /// The service's signing name, e.g. `ssm`.
    pub service: String,
    /// The region of the signature's scope.
    pub region: String,
}

/// A key that was just made, with its secret.
#[derive(Debug)]
pub struct NewAccessKey {
    /// The key.
    pub key: AccessKey,
    /// Its secret; it cannot be asked for again.
    pub secret: KeySecret,
}

impl AccessKey {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        let last_used = match row.get::<Option<i64>>("last_used")? {
            Some(time) => Some(LastUsed {
                time: Timestamp(time),
                service: row.get::<Option<String>>("last_service")?.unwrap_or_default(),
                region: row.get::<Option<String>>("last_region")?.unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Self {
            id: row.parse("id")?,
            user_name: row.get("user_name")?,
            active: row.get::<i64>("active")? == 1,
            created: row.time("created")?,
            last_used,
        })
    }
}

impl Store {
    /// Makes an access key for a user.
    pub async fn create_access_key(&self, user: &str, now: Timestamp) -> Result<NewAccessKey, StoreError> {
        let mut transaction = self.write().await?;
        let made = create(&mut transaction, self.master(), user, now).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Lists a user's access keys; there are at most two.
    pub async fn list_access_keys(&self, user: &str) -> Result<Vec<AccessKey>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let user = users::find(&mut transaction, user).await?;
        let rows = sqlx::query(
            "SELECT k.id, u.name AS user_name, k.active, k.created, k.last_used, k.last_service, k.last_region
             FROM access_keys k JOIN users u ON u.id = k.user_id WHERE k.user_id = $1 ORDER BY k.id",
        )
        .bind(user.id.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        rows.iter().map(AccessKey::read).collect()
    }

    /// Returns an access key by its id.
    pub async fn access_key(&self, key: &AccessKeyId) -> Result<AccessKey, StoreError> {
        let row = sqlx::query(
            "SELECT k.id, u.name AS user_name, k.active, k.created, k.last_used, k.last_service, k.last_region
             FROM access_keys k JOIN users u ON u.id = k.user_id WHERE k.id = $1",
        )
        .bind(key.as_str())
        .fetch_optional(self.readers())
        .await?;
        row.as_ref()
            .map(AccessKey::read)
            .transpose()?
            .ok_or_else(|| StoreError::not_found(Kind::AccessKey, key.as_str()))
    }

    /// Switches a user's access key on or off.
    pub async fn set_access_key_active(&self, user: &str, key: &AccessKeyId, active: bool) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let changed = sqlx::query("UPDATE access_keys SET active = $3 WHERE id = $1 AND user_id = $2")
            .bind(key.as_str())
            .bind(user.id.as_str())
            .bind(i64::from(active))
            .execute(&mut *transaction)
            .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::AccessKey, key.as_str()));
        }
        Ok(transaction.commit().await?)
    }

    /// Deletes a user's access key.
    pub async fn delete_access_key(&self, user: &str, key: &AccessKeyId) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let removed = sqlx::query("DELETE FROM access_keys WHERE id = $1 AND user_id = $2")
            .bind(key.as_str())
            .bind(user.id.as_str())
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::AccessKey, key.as_str()));
        }
        Ok(transaction.commit().await?)
    }

    /// Records a use of an access key. Callers fold uses, so that not every request writes.
    pub async fn record_key_use(&self, key: &AccessKeyId, used: &LastUsed) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "UPDATE access_keys SET last_used = $2, last_service = $3, last_region = $4
             WHERE id = $1 AND (last_used IS NULL OR last_used < $2)",
        )
        .bind(key.as_str())
        .bind(used.time.0)
        .bind(&used.service)
        .bind(&used.region)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }
}

pub(super) async fn create(
    connection: &mut SqliteConnection,
    master: &MasterKeys,
    user: &str,
    now: Timestamp,
) -> Result<NewAccessKey, StoreError> {
    let user = users::find(connection, user).await?;
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM access_keys WHERE user_id = $1")
        .bind(user.id.as_str())
        .fetch_one(&mut *connection)
        .await?;
    if count >= stored(quota::ACCESS_KEYS_PER_USER) {
        return Err(StoreError::Limit { what: "access keys per user", limit: quota::ACCESS_KEYS_PER_USER });
    }
    let id: AccessKeyId = random_id::<_, 16>("AKIA")?;
    let secret = Secret::new(STANDARD.encode(random::<30>()?));
    let sealed = seal_secret(master.current(), place(&id), secret.expose().as_bytes(), random()?)?;
    sqlx::query("INSERT INTO access_keys (id, user_id, sealed_secret, active, created) VALUES ($1, $2, $3, 1, $4)")
        .bind(id.as_str())
        .bind(user.id.as_str())
        .bind(sealed)
        .bind(now.0)
        .execute(connection)
        .await?;
    let key = AccessKey { id, user_name: user.name, active: true, created: now, last_used: None };
    Ok(NewAccessKey { key, secret })
}

/// Opens a stored secret.
pub(super) fn open(master: &MasterKeys, key: &AccessKeyId, sealed: &[u8]) -> Result<KeySecret, StoreError> {
    let bytes = open_secret(master, place(key), sealed)?;
    let text = std::str::from_utf8(bytes.expose())
        .map_err(|_| StoreError::Unreadable { what: "secret", row: key.as_str().to_owned() })?;
    Ok(Secret::new(text.to_owned()))
}

fn place(key: &AccessKeyId) -> Place<'_> {
    Place { table: "access_keys", row: key.as_str(), column: "sealed_secret" }
}
