//! Users of the account.

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use munjigi_core::time::Timestamp;

use super::row::{Columns, random_id, stored};
use super::{Kind, Page, Store, StoreError, Tag, fold, policies, quota, tags};

/// An IAM user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Unchanging id, `AIDA…` (T-57).
    pub id: UniqueId,
    /// Name, unique in the account without regard to case.
    pub name: String,
    /// Path, begins and ends with `/`.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
    /// The managed policy that bounds its permissions.
    pub boundary: Option<Arn>,
}

impl User {
    pub(super) fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            id: row.parse("id")?,
            name: row.get("name")?,
            path: row.get("path")?,
            created: row.time("created")?,
            boundary: row.parse_optional("boundary_arn")?,
        })
    }
}

impl Store {
    /// Makes a user with its tags and boundary.
    pub async fn create_user(
        &self,
        name: &str,
        path: &str,
        boundary: Option<&Arn>,
        tags: &[Tag],
        now: Timestamp,
    ) -> Result<User, StoreError> {
        let mut transaction = self.write().await?;
        let user = create(&mut transaction, name, path, boundary, tags, now).await?;
        transaction.commit().await?;
        Ok(user)
    }

    /// Returns a user by name.
    pub async fn user(&self, name: &str) -> Result<User, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, name).await
    }

    /// Lists users whose path begins with `path_prefix`, in the order of their names, behind the name `after`.
    pub async fn list_users(
        &self,
        path_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<User>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, path, created, boundary_arn FROM users
             WHERE substr(path, 1, length($1)) = $1 AND name_key > $2 ORDER BY name_key LIMIT $3",
        )
        .bind(path_prefix)
        .bind(fold(after.unwrap_or_default()))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let users = rows.iter().map(User::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(users, limit, |last| last.name.clone()))
    }

    /// Renames or moves a user.
    pub async fn update_user(
        &self,
        name: &str,
        new_name: Option<&str>,
        new_path: Option<&str>,
    ) -> Result<User, StoreError> {
        let mut transaction = self.write().await?;
        let mut user = find(&mut transaction, name).await?;
        if let Some(new_name) = new_name {
            new_name.clone_into(&mut user.name);
        }
        if let Some(new_path) = new_path {
            new_path.clone_into(&mut user.path);
        }
        let changed = sqlx::query("UPDATE users SET name = $2, name_key = $3, path = $4 WHERE id = $1")
            .bind(user.id.as_str())
            .bind(&user.name)
            .bind(fold(&user.name))
            .bind(&user.path)
            .execute(&mut *transaction)
            .await;
        taken(changed, &user.name)?;
        transaction.commit().await?;
        Ok(user)
    }

    /// Deletes a user that has no keys, groups, devices and policies any more.
    pub async fn delete_user(&self, name: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = find(&mut transaction, name).await?;
        let left: Option<&str> = sqlx::query_scalar(
            "SELECT 'access keys' FROM access_keys WHERE user_id = $1
             UNION ALL SELECT 'SSH public keys' FROM ssh_public_keys WHERE user_id = $1
             UNION ALL SELECT 'group memberships' FROM memberships WHERE user_id = $1
             UNION ALL SELECT 'MFA devices' FROM mfa_devices WHERE user_id = $1
             UNION ALL SELECT 'attached policies' FROM policy_attachments WHERE owner = $1
             UNION ALL SELECT 'inline policies' FROM inline_policies WHERE owner = $1 LIMIT 1",
        )
        .bind(user.id.as_str())
        .fetch_optional(&mut *transaction)
        .await?
        .map(|left: String| match left.as_str() {
            "access keys" => "access keys",
            "SSH public keys" => "SSH public keys",
            "group memberships" => "group memberships",
            "MFA devices" => "MFA devices",
            "attached policies" => "attached policies",
            _ => "inline policies",
        });
        if let Some(left) = left {
            return Err(StoreError::InUse { kind: Kind::User, name: user.name, left });
        }
        tags::remove_all(&mut transaction, user.id.as_str()).await?;
        sqlx::query("DELETE FROM users WHERE id = $1").bind(user.id.as_str()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Sets or takes away a user's permissions boundary.
    pub async fn set_boundary(&self, name: &str, boundary: Option<&Arn>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let user = find(&mut transaction, name).await?;
        match boundary {
            Some(boundary) => {
                policies::id_of(&mut transaction, boundary).await?;
            }
            None if user.boundary.is_none() => return Err(StoreError::not_found(Kind::Boundary, &user.name)),
            None => {}
        }
        sqlx::query("UPDATE users SET boundary_arn = $2 WHERE id = $1")
            .bind(user.id.as_str())
            .bind(boundary.map(Arn::as_str))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

/// Makes a user within a transaction.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    name: &str,
    path: &str,
    boundary: Option<&Arn>,
    tags: &[Tag],
    now: Timestamp,
) -> Result<User, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(&mut *connection).await?;
    if count >= stored(quota::USERS) {
        return Err(StoreError::Limit { what: "users in an account", limit: quota::USERS });
    }
    if let Some(boundary) = boundary {
        policies::id_of(connection, boundary).await?;
    }
    let id: UniqueId = random_id::<_, 17>("AIDA")?;
    let user = User { id, name: name.to_owned(), path: path.to_owned(), created: now, boundary: boundary.cloned() };
    let made = sqlx::query(
        "INSERT INTO users (id, name, name_key, path, created, boundary_arn) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(user.id.as_str())
    .bind(name)
    .bind(fold(name))
    .bind(path)
    .bind(now.0)
    .bind(boundary.map(Arn::as_str))
    .execute(&mut *connection)
    .await;
    taken(made, name)?;
    super::tags::put(connection, user.id.as_str(), tags).await?;
    Ok(user)
}

pub(super) async fn find(connection: &mut SqliteConnection, name: &str) -> Result<User, StoreError> {
    let row = sqlx::query("SELECT id, name, path, created, boundary_arn FROM users WHERE name_key = $1")
        .bind(fold(name))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(User::read).transpose()?.ok_or_else(|| StoreError::not_found(Kind::User, name))
}

fn taken<T>(result: Result<T, sqlx::Error>, name: &str) -> Result<T, StoreError> {
    result.map_err(|error| match error {
        error if StoreError::is_taken(&error) => StoreError::Exists { kind: Kind::User, name: name.to_owned() },
        error => error.into(),
    })
}
