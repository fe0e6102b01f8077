//! Groups, and who is in them.

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use munjigi_core::id::UniqueId;
use munjigi_core::time::Timestamp;

use super::row::{Columns, random_id, stored};
use super::{Kind, Page, Store, StoreError, User, fold, quota, users};

/// An IAM group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Unchanging id, `AGPA…` (T-57).
    pub id: UniqueId,
    /// Name, unique in the account without regard to case.
    pub name: String,
    /// Path, begins and ends with `/`.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Group {
    pub(super) fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self { id: row.parse("id")?, name: row.get("name")?, path: row.get("path")?, created: row.time("created")? })
    }
}

impl Store {
    /// Makes a group.
    pub async fn create_group(&self, name: &str, path: &str, now: Timestamp) -> Result<Group, StoreError> {
        let mut transaction = self.write().await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM user_groups").fetch_one(&mut *transaction).await?;
        if count >= stored(quota::GROUPS) {
            return Err(StoreError::Limit { what: "groups in an account", limit: quota::GROUPS });
        }
        let id: UniqueId = random_id::<_, 17>("AGPA")?;
        let group = Group { id, name: name.to_owned(), path: path.to_owned(), created: now };
        let made =
            sqlx::query("INSERT INTO user_groups (id, name, name_key, path, created) VALUES ($1, $2, $3, $4, $5)")
                .bind(group.id.as_str())
                .bind(name)
                .bind(fold(name))
                .bind(path)
                .bind(now.0)
                .execute(&mut *transaction)
                .await;
        taken(made, name)?;
        transaction.commit().await?;
        Ok(group)
    }

    /// Returns a group by name.
    pub async fn group(&self, name: &str) -> Result<Group, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, name).await
    }

    /// Lists groups whose path begins with `path_prefix`, in the order of their names, behind the name `after`.
    pub async fn list_groups(
        &self,
        path_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Group>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, path, created FROM user_groups
             WHERE substr(path, 1, length($1)) = $1 AND name_key > $2 ORDER BY name_key LIMIT $3",
        )
        .bind(path_prefix)
        .bind(fold(after.unwrap_or_default()))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let groups = rows.iter().map(Group::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(groups, limit, |last| last.name.clone()))
    }

    /// Renames or moves a group.
    pub async fn update_group(
        &self,
        name: &str,
        new_name: Option<&str>,
        new_path: Option<&str>,
    ) -> Result<Group, StoreError> {
        let mut transaction = self.write().await?;
        let mut group = find(&mut transaction, name).await?;
        if let Some(new_name) = new_name {
            new_name.clone_into(&mut group.name);
        }
        if let Some(new_path) = new_path {
            new_path.clone_into(&mut group.path);
        }
        let changed = sqlx::query("UPDATE user_groups SET name = $2, name_key = $3, path = $4 WHERE id = $1")
            .bind(group.id.as_str())
            .bind(&group.name)
            .bind(fold(&group.name))
            .bind(&group.path)
            .execute(&mut *transaction)
            .await;
        taken(changed, &group.name)?;
        transaction.commit().await?;
        Ok(group)
    }

    /// Deletes a group that has no users and policies any more.
    pub async fn delete_group(&self, name: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let group = find(&mut transaction, name).await?;
        let left: Option<String> = sqlx::query_scalar(
            "SELECT 'users' FROM memberships WHERE group_id = $1
             UNION ALL SELECT 'attached policies' FROM policy_attachments WHERE owner = $1
             UNION ALL SELECT 'inline policies' FROM inline_policies WHERE owner = $1 LIMIT 1",
        )
        .bind(group.id.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        let left = left.map(|left| match left.as_str() {
            "users" => "users",
            "attached policies" => "attached policies",
            _ => "inline policies",
        });
        if let Some(left) = left {
            return Err(StoreError::InUse { kind: Kind::Group, name: group.name, left });
        }
        sqlx::query("DELETE FROM user_groups WHERE id = $1").bind(group.id.as_str()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Puts a user into a group; nothing happens if it is there.
    pub async fn add_user_to_group(&self, group: &str, user: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let group = find(&mut transaction, group).await?;
        let user = users::find(&mut transaction, user).await?;
        let others: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM memberships WHERE user_id = $1 AND group_id <> $2")
            .bind(user.id.as_str())
            .bind(group.id.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        if others >= stored(quota::GROUPS_PER_USER) {
            return Err(StoreError::Limit { what: "groups per user", limit: quota::GROUPS_PER_USER });
        }
        sqlx::query("INSERT INTO memberships (user_id, group_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(user.id.as_str())
            .bind(group.id.as_str())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Takes a user out of a group; an error if it is not in it.
    pub async fn remove_user_from_group(&self, group: &str, user: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let group = find(&mut transaction, group).await?;
        let user = users::find(&mut transaction, user).await?;
        let removed = sqlx::query("DELETE FROM memberships WHERE user_id = $1 AND group_id = $2")
            .bind(user.id.as_str())
            .bind(group.id.as_str())
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::User, &format!("{} in group {}", user.name, group.name)));
        }
        Ok(transaction.commit().await?)
    }

    /// Lists the users in a group, in the order of their names, behind the name `after`.
    pub async fn users_in_group(
        &self,
        group: &Group,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<User>, StoreError> {
        let rows = sqlx::query(
            "SELECT u.id, u.name, u.path, u.created, u.boundary_arn
             FROM users u JOIN memberships m ON m.user_id = u.id
             WHERE m.group_id = $1 AND u.name_key > $2 ORDER BY u.name_key LIMIT $3",
        )
        .bind(group.id.as_str())
        .bind(fold(after.unwrap_or_default()))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let users = rows.iter().map(User::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(users, limit, |last| last.name.clone()))
    }

    /// Lists the groups that a user is in, in the order of their names, behind the name `after`.
    pub async fn groups_of_user(
        &self,
        user: &User,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Group>, StoreError> {
        let rows = sqlx::query(
            "SELECT g.id, g.name, g.path, g.created
             FROM user_groups g JOIN memberships m ON m.group_id = g.id
             WHERE m.user_id = $1 AND g.name_key > $2 ORDER BY g.name_key LIMIT $3",
        )
        .bind(user.id.as_str())
        .bind(fold(after.unwrap_or_default()))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let groups = rows.iter().map(Group::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(groups, limit, |last| last.name.clone()))
    }
}

pub(super) async fn find(connection: &mut SqliteConnection, name: &str) -> Result<Group, StoreError> {
    let row = sqlx::query("SELECT id, name, path, created FROM user_groups WHERE name_key = $1")
        .bind(fold(name))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(Group::read).transpose()?.ok_or_else(|| StoreError::not_found(Kind::Group, name))
}

fn taken<T>(result: Result<T, sqlx::Error>, name: &str) -> Result<T, StoreError> {
    result.map_err(|error| match error {
        error if StoreError::is_taken(&error) => StoreError::Exists { kind: Kind::Group, name: name.to_owned() },
        error => error.into(),
    })
}
