//! Targets: what each is, how its credential is sealed, and its tags.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use munjigi_core::secret::{Place, Secret, open_secret, seal_secret};
use munjigi_core::target::{TargetName, TargetSettings};
use munjigi_core::time::Timestamp;

use super::row::{Columns, json_text, random, stored};
use super::{Kind, Page, Store, StoreError, Tag, fold, quota, tags};

/// A target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTarget {
    /// Unchanging id; a namesake made later has another one.
    pub id: String,
    /// Its name.
    pub name: TargetName,
    /// What it is.
    pub settings: TargetSettings,
    /// The user that the gateway logs in as, where it does.
    pub user_name: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was put last.
    pub updated: Timestamp,
    sealed_password: Option<Vec<u8>>,
}

impl StoredTarget {
    /// Tells whether a password is stored.
    pub fn has_password(&self) -> bool {
        self.sealed_password.is_some()
    }
}

/// A target as it shall be.
#[derive(Debug)]
pub struct PutTarget<'a> {
    /// Its name.
    pub name: &'a TargetName,
    /// What it is.
    pub settings: &'a TargetSettings,
    /// What becomes of its credential.
    pub credential: CredentialChange<'a>,
    /// Its tags, instead of those it has; `None` leaves them.
    pub tags: Option<&'a [Tag]>,
}

/// What becomes of a target's credential.
#[derive(Debug, Clone, Copy)]
pub enum CredentialChange<'a> {
    /// It stays.
    Keep,
    /// There is none any more.
    Remove,
    /// It is this.
    Set {
        /// The user.
        user_name: &'a str,
        /// The password, if the user has one.
        password: Option<&'a Secret<String>>,
    },
}

impl Store {
    /// Makes a target, or makes one what it shall be. Doing it twice is doing it once.
    ///
    /// A stored password is for the place it was given for: if address, kind, nodes or TLS change while the credential
    /// is to stay, the change is refused, or whoever may change a target could have its password sent anywhere.
    pub async fn put_target(&self, put: &PutTarget<'_>, now: Timestamp) -> Result<StoredTarget, StoreError> {
        let mut transaction = self.write().await?;
        let old = match find(&mut transaction, put.name).await {
            Ok(old) => Some(old),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let id = match &old {
            Some(old) => old.id.clone(),
            None => {
                let count: i64 =
                    sqlx::query_scalar("SELECT COUNT(*) FROM targets").fetch_one(&mut *transaction).await?;
                if count >= stored(quota::TARGETS) {
                    return Err(StoreError::Limit { what: "targets", limit: quota::TARGETS });
                }
                uuid::Builder::from_random_bytes(random()?).into_uuid().to_string()
            }
        };
        let (user_name, sealed) = match put.credential {
            CredentialChange::Remove => (None, None),
            CredentialChange::Set { user_name, password } => {
                let seal = |password: &Secret<String>| {
                    let plain = password.expose().as_bytes();
                    Ok::<_, StoreError>(seal_secret(self.master().current(), place(&id), plain, random()?)?)
                };
                (Some(user_name.to_owned()), password.map(seal).transpose()?)
            }
            CredentialChange::Keep => match &old {
                Some(old) if old.has_password() && goes_elsewhere(&old.settings, put.settings) => {
                    return Err(StoreError::Refused(
                        "address, kind, nodes or TLS change: give the credential again, or remove it",
                    ));
                }
                Some(old) => (old.user_name.clone(), old.sealed_password.clone()),
                None => (None, None),
            },
        };
        sqlx::query(
            "INSERT INTO targets (id, name, name_key, settings, user_name, sealed_password, created, updated)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
             ON CONFLICT (id) DO UPDATE SET name = $2, settings = $4, user_name = $5, sealed_password = $6, updated = $7",
        )
        .bind(&id)
        .bind(put.name.as_str())
        .bind(fold(put.name.as_str()))
        .bind(json_text("settings", put.settings)?)
        .bind(user_name)
        .bind(sealed)
        .bind(now.0)
        .execute(&mut *transaction)
        .await?;
        if let Some(new) = put.tags {
            tags::remove_all(&mut transaction, &id).await?;
            tags::put(&mut transaction, &id, new).await?;
        }
        let made = find(&mut transaction, put.name).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Returns a target by its name, without regard to case.
    pub async fn target(&self, name: &TargetName) -> Result<StoredTarget, StoreError> {
        let mut transaction = self.readers().begin().await?;
        find(&mut transaction, name).await
    }

    /// Lists targets in the order of their names, behind the name `after`.
    pub async fn list_targets(&self, after: Option<&str>, limit: usize) -> Result<Page<StoredTarget>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let rows = sqlx::query("SELECT * FROM targets WHERE name_key > $1 ORDER BY name_key LIMIT $2")
            .bind(after.unwrap_or_default())
            .bind(stored(limit as u64 + 1))
            .fetch_all(&mut *transaction)
            .await?;
        let mut targets = Vec::with_capacity(rows.len());
        for row in &rows {
            targets.push(read(&mut transaction, row).await?);
        }
        Ok(Page::cut(targets, limit, |last| fold(last.name.as_str())))
    }

    /// Deletes a target with its credential.
    pub async fn delete_target(&self, name: &TargetName) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let target = find(&mut transaction, name).await?;
        tags::remove_all(&mut transaction, &target.id).await?;
        sqlx::query("DELETE FROM targets WHERE id = $1").bind(&target.id).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Opens a target's password, if it has one.
    pub fn target_password(&self, target: &StoredTarget) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let open = |sealed: &Vec<u8>| open_secret(self.master(), place(&target.id), sealed);
        Ok(target.sealed_password.as_ref().map(open).transpose()?)
    }
}

/// Tells whether a password that was given for the old settings would be sent somewhere else under the new ones.
fn goes_elsewhere(old: &TargetSettings, new: &TargetSettings) -> bool {
    old.address != new.address || old.kind != new.kind || old.through != new.through || old.tls != new.tls
}

pub(super) async fn find(connection: &mut SqliteConnection, name: &TargetName) -> Result<StoredTarget, StoreError> {
    let row = sqlx::query("SELECT * FROM targets WHERE name_key = $1")
        .bind(fold(name.as_str()))
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| StoreError::not_found(Kind::Target, name.as_str()))?;
    read(connection, &row).await
}

async fn read(connection: &mut SqliteConnection, row: &SqliteRow) -> Result<StoredTarget, StoreError> {
    let row = Columns::new(row)?;
    let id: String = row.get("id")?;
    Ok(StoredTarget {
        tags: tags::list(connection, &id).await?,
        id,
        name: row.parse("name")?,
        settings: row.json("settings")?,
        user_name: row.get("user_name")?,
        sealed_password: row.get("sealed_password")?,
        created: row.time("created")?,
        updated: row.time("updated")?,
    })
}

fn place(id: &str) -> Place<'_> {
    Place { table: "targets", row: id, column: "password" }
}
