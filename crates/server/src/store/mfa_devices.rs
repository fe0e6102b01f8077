//! Virtual MFA devices: seeds for one-time codes, and the steps whose codes were used.

use sqlx::SqliteConnection;

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use munjigi_core::secret::{Place, Secret, open_secret, seal_secret};
use munjigi_core::time::Timestamp;

use super::row::{Columns, random, stored};
use super::{Kind, Store, StoreError, Tag, fold, quota, tags, users};

/// Bytes of a seed: as long as the hash that codes are made with.
const SEED_BYTES: usize = 20;

/// A virtual MFA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MfaDevice {
    /// Its serial number.
    pub serial: Arn,
    /// The user whose it is, and since when.
    pub assigned: Option<(UniqueId, Timestamp)>,
    /// The newest step whose code was used.
    pub last_step: u64,
    sealed_seed: Vec<u8>,
}

impl MfaDevice {
    fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        let user: Option<UniqueId> = row.parse_optional("user_id")?;
        let enabled: Option<i64> = row.get("enabled")?;
        Ok(Self {
            serial: row.parse("id")?,
            assigned: user.zip(enabled.map(Timestamp)),
            last_step: row.count("last_step")?,
            sealed_seed: row.get("sealed_seed")?,
        })
    }
}

impl Store {
    /// Makes a device and returns its seed, which cannot be asked for again.
    pub async fn create_mfa_device(
        &self,
        serial: &Arn,
        name: &str,
        new_tags: &[Tag],
        now: Timestamp,
    ) -> Result<Secret<Vec<u8>>, StoreError> {
        let seed = Secret::new(random::<SEED_BYTES>()?.to_vec());
        let sealed = seal_secret(self.master().current(), place(serial), seed.expose(), random()?)?;
        let mut transaction = self.write().await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM mfa_devices").fetch_one(&mut *transaction).await?;
        if count >= stored(quota::MFA_DEVICES) {
            return Err(StoreError::Limit { what: "MFA devices in an account", limit: quota::MFA_DEVICES });
        }
        let made = sqlx::query(
            "INSERT INTO mfa_devices (id, name_key, sealed_seed, created, user_id, enabled, last_step)
             VALUES ($1, $2, $3, $4, NULL, NULL, 0)",
        )
        .bind(serial.as_str())
        .bind(fold(name))
        .bind(sealed)
        .bind(now.0)
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match error {
            error if StoreError::is_taken(&error) => {
                StoreError::Exists { kind: Kind::MfaDevice, name: name.to_owned() }
            }
            error => error.into(),
        })?;
        tags::put(&mut transaction, serial.as_str(), new_tags).await?;
        transaction.commit().await?;
        Ok(seed)
    }

    /// Returns a device.
    pub async fn mfa_device(&self, serial: &Arn) -> Result<MfaDevice, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, serial).await
    }

    /// Lists all devices in the order of their serial numbers; their number is bounded.
    pub async fn mfa_devices(&self) -> Result<Vec<MfaDevice>, StoreError> {
        let rows = sqlx::query("SELECT id, user_id, enabled, last_step, sealed_seed FROM mfa_devices ORDER BY id")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(MfaDevice::read).collect()
    }

    /// Opens a device's seed.
    pub fn open_seed(&self, device: &MfaDevice) -> Result<Secret<Vec<u8>>, StoreError> {
        Ok(open_secret(self.master(), place(&device.serial), &device.sealed_seed)?)
    }

    /// Gives a device to a user, with the step of the second code that proved it.
    pub async fn enable_mfa_device(
        &self,
        serial: &Arn,
        user: &str,
        step: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let device = find(&mut transaction, serial).await?;
        if device.assigned.is_some() {
            return Err(StoreError::Exists { kind: Kind::MfaDevice, name: serial.to_string() });
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM mfa_devices WHERE user_id = $1")
            .bind(user.id.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        if count >= stored(quota::MFA_DEVICES_PER_USER) {
            let limit = quota::MFA_DEVICES_PER_USER;
            return Err(StoreError::Limit { what: "MFA devices per user", limit });
        }
        sqlx::query("UPDATE mfa_devices SET user_id = $2, enabled = $3, last_step = $4 WHERE id = $1")
            .bind(serial.as_str())
            .bind(user.id.as_str())
            .bind(now.0)
            .bind(stored(step))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Takes a device away from its user.
    pub async fn deactivate_mfa_device(&self, serial: &Arn, user: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = users::find(&mut transaction, user).await?;
        let changed =
            sqlx::query("UPDATE mfa_devices SET user_id = NULL, enabled = NULL WHERE id = $1 AND user_id = $2")
                .bind(serial.as_str())
                .bind(user.id.as_str())
                .execute(&mut *transaction)
                .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::MfaDevice, serial.as_str()));
        }
        Ok(transaction.commit().await?)
    }

    /// Deletes a device that nobody has.
    pub async fn delete_mfa_device(&self, serial: &Arn) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let device = find(&mut transaction, serial).await?;
        if device.assigned.is_some() {
            let (kind, left) = (Kind::MfaDevice, "a user; deactivate it");
            return Err(StoreError::InUse { kind, name: serial.to_string(), left });
        }
        tags::remove_all(&mut transaction, serial.as_str()).await?;
        sqlx::query("DELETE FROM mfa_devices WHERE id = $1").bind(serial.as_str()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Uses up a step and all before it. False if it was used already: a code works once (T-41).
    pub async fn use_mfa_step(&self, serial: &Arn, step: u64) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query("UPDATE mfa_devices SET last_step = $2 WHERE id = $1 AND last_step < $2")
            .bind(serial.as_str())
            .bind(stored(step))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(changed.rows_affected() == 1)
    }
}

async fn find(connection: &mut SqliteConnection, serial: &Arn) -> Result<MfaDevice, StoreError> {
    let row = sqlx::query("SELECT id, user_id, enabled, last_step, sealed_seed FROM mfa_devices WHERE id = $1")
        .bind(serial.as_str())
        .fetch_optional(connection)
        .await?;
    row.as_ref()
        .map(MfaDevice::read)
        .transpose()?
        .ok_or_else(|| StoreError::not_found(Kind::MfaDevice, serial.as_str()))
}

fn place(serial: &Arn) -> Place<'_> {
    Place { table: "mfa_devices", row: serial.as_str(), column: "seed" }
}
