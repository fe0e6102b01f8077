//! Roles of the account.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use munjigi_core::time::Timestamp;

use super::row::{Columns, json_text, random_id, stored};
use super::{Kind, Page, Store, StoreError, Tag, fold, policies, quota, tags};

/// An IAM role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Unchanging id, `AROA…` (T-57).
    pub id: UniqueId,
    /// Name, unique in the account without regard to case.
    pub name: String,
    /// Path, begins and ends with `/`.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
    /// What it is for.
    pub description: Option<String>,
    /// Who may assume it.
    pub trust: Trust,
    /// How long its sessions may last.
    pub max_session: Duration,
    /// The managed policy that bounds its permissions.
    pub boundary: Option<Arn>,
}

/// A trust policy, and whom the names in it meant when it was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Its text, checked by the policy engine.
    pub document: String,
    /// The unique id behind each user's and role's ARN in it.
    pub ids: BTreeMap<String, UniqueId>,
}

/// A role to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewRole<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its path.
    pub path: &'a str,
    /// What it is for.
    pub description: Option<&'a str>,
    /// Who may assume it.
    pub trust: &'a Trust,
    /// How long its sessions may last.
    pub max_session: Duration,
    /// The managed policy that bounds it.
    pub boundary: Option<&'a Arn>,
    /// Its tags.
    pub tags: &'a [Tag],
}

impl Role {
    pub(super) fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            id: row.parse("id")?,
            name: row.get("name")?,
            path: row.get("path")?,
            created: row.time("created")?,
            description: row.get("description")?,
            trust: Trust { document: row.get("trust")?, ids: row.json("trust_ids")? },
            max_session: Duration::from_secs(row.count("max_session")?),
            boundary: row.parse_optional("boundary_arn")?,
        })
    }
}

impl Store {
    /// Makes a role.
    pub async fn create_role(&self, new: &NewRole<'_>, now: Timestamp) -> Result<Role, StoreError> {
        let mut transaction = self.write().await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM roles").fetch_one(&mut *transaction).await?;
        if count >= stored(quota::ROLES) {
            return Err(StoreError::Limit { what: "roles in an account", limit: quota::ROLES });
        }
        if let Some(boundary) = new.boundary {
            policies::id_of(&mut transaction, boundary).await?;
        }
        let id: UniqueId = random_id::<_, 17>("AROA")?;
        let made = sqlx::query(
            "INSERT INTO roles (id, name, name_key, path, created, description, trust, trust_ids, max_session,
                                boundary_arn)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(id.as_str())
        .bind(new.name)
        .bind(fold(new.name))
        .bind(new.path)
        .bind(now.0)
        .bind(new.description)
        .bind(&new.trust.document)
        .bind(json_text("ids of a trust policy", &new.trust.ids)?)
        .bind(stored(new.max_session.as_secs()))
        .bind(new.boundary.map(Arn::as_str))
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match error {
            error if StoreError::is_taken(&error) => StoreError::Exists { kind: Kind::Role, name: new.name.to_owned() },
            error => error.into(),
        })?;
        tags::put(&mut transaction, id.as_str(), new.tags).await?;
        let role = find(&mut transaction, new.name).await?;
        transaction.commit().await?;
        Ok(role)
    }

    /// Returns a role by name.
    pub async fn role(&self, name: &str) -> Result<Role, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, name).await
    }

    /// Lists roles whose path begins with `path_prefix`, in the order of their names, behind the name `after`.
    pub async fn list_roles(
        &self,
        path_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Role>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM roles WHERE substr(path, 1, length($1)) = $1 AND name_key > $2 ORDER BY name_key LIMIT $3",
        )
        .bind(path_prefix)
        .bind(fold(after.unwrap_or_default()))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let roles = rows.iter().map(Role::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(roles, limit, |last| last.name.clone()))
    }

    /// Changes what a role is for and how long its sessions may last; what is `None` stays.
    pub async fn update_role(
        &self,
        name: &str,
        description: Option<&str>,
        max_session: Option<Duration>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let role = find(&mut transaction, name).await?;
        sqlx::query("UPDATE roles SET description = $2, max_session = $3 WHERE id = $1")
            .bind(role.id.as_str())
            .bind(description.or(role.description.as_deref()))
            .bind(stored(max_session.unwrap_or(role.max_session).as_secs()))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Changes who may assume a role.
    pub async fn set_trust(&self, name: &str, trust: &Trust) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let role = find(&mut transaction, name).await?;
        sqlx::query("UPDATE roles SET trust = $2, trust_ids = $3 WHERE id = $1")
            .bind(role.id.as_str())
            .bind(&trust.document)
            .bind(json_text("ids of a trust policy", &trust.ids)?)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a role that has no policies any more.
    pub async fn delete_role(&self, name: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let role = find(&mut transaction, name).await?;
        let attached: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM policy_attachments WHERE owner = $1")
            .bind(role.id.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let inline: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM inline_policies WHERE owner = $1")
            .bind(role.id.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let left = match (attached, inline) {
            (1.., _) => Some("attached policies"),
            (_, 1..) => Some("inline policies"),
            _ => None,
        };
        if let Some(left) = left {
            return Err(StoreError::InUse { kind: Kind::Role, name: role.name, left });
        }
        tags::remove_all(&mut transaction, role.id.as_str()).await?;
        sqlx::query("DELETE FROM roles WHERE id = $1").bind(role.id.as_str()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Sets or takes away a role's permissions boundary.
    pub async fn set_role_boundary(&self, name: &str, boundary: Option<&Arn>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let role = find(&mut transaction, name).await?;
        match boundary {
            Some(boundary) => {
                policies::id_of(&mut transaction, boundary).await?;
            }
            None if role.boundary.is_none() => return Err(StoreError::not_found(Kind::Boundary, &role.name)),
            None => {}
        }
        sqlx::query("UPDATE roles SET boundary_arn = $2 WHERE id = $1")
            .bind(role.id.as_str())
            .bind(boundary.map(Arn::as_str))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

/// Reads all roles.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Role>, StoreError> {
    let rows = sqlx::query("SELECT * FROM roles ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(Role::read).collect()
}

pub(super) async fn find(connection: &mut SqliteConnection, name: &str) -> Result<Role, StoreError> {
    let row =
        sqlx::query("SELECT * FROM roles WHERE name_key = $1").bind(fold(name)).fetch_optional(connection).await?;
    row.as_ref().map(Role::read).transpose()?.ok_or_else(|| StoreError::not_found(Kind::Role, name))
}
