//! Tags of users, policies, documents, nodes, targets and activations. Keys keep their spelling and are unique without
//! regard to case, because policy conditions find them so.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use serde::{Deserialize, Serialize};

use munjigi_core::arn::Arn;
use munjigi_core::id::NodeId;

use super::row::stored;
use super::{Store, StoreError, documents, fold, nodes, policies, quota, roles, users};

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// Key, 1 to 128 characters.
    pub key: String,
    /// Value, at most 256 characters.
    pub value: String,
}

/// What carries tags.
#[derive(Debug, Clone, Copy)]
pub enum Tagged<'a> {
    /// A user, by name.
    User(&'a str),
    /// A role, by name.
    Role(&'a str),
    /// A managed policy.
    Policy(&'a Arn),
    /// A node.
    Node(&'a NodeId),
    /// A session document, by name.
    Document(&'a str),
}

impl Store {
    /// Returns a resource's tags in the order of their keys.
    pub async fn tags(&self, resource: Tagged<'_>) -> Result<Vec<Tag>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let id = id_of(&mut transaction, resource).await?;
        list(&mut transaction, &id).await
    }

    /// Sets tags over earlier ones of the same key.
    pub async fn put_tags(&self, resource: Tagged<'_>, tags: &[Tag]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let id = id_of(&mut transaction, resource).await?;
        put(&mut transaction, &id, tags).await?;
        Ok(transaction.commit().await?)
    }

    /// Removes tags by key; keys that are not there are passed over.
    pub async fn remove_tags(&self, resource: Tagged<'_>, keys: &[String]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let id = id_of(&mut transaction, resource).await?;
        for key in keys {
            sqlx::query("DELETE FROM tags WHERE resource = $1 AND fold_key = $2")
                .bind(&id)
                .bind(fold(key))
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}

async fn id_of(connection: &mut SqliteConnection, resource: Tagged<'_>) -> Result<String, StoreError> {
    match resource {
        Tagged::User(name) => Ok(users::find(connection, name).await?.id.as_str().to_owned()),
        Tagged::Role(name) => Ok(roles::find(connection, name).await?.id.as_str().to_owned()),
        Tagged::Policy(arn) => policies::own_id_of(connection, arn).await,
        Tagged::Document(name) => documents::find(connection, name).await.map(|document| document.id),
        Tagged::Node(node) => nodes::find(connection, node).await.map(|node| node.id.as_str().to_owned()),
    }
}

pub(super) fn read(row: &SqliteRow) -> Result<Tag, StoreError> {
    use sqlx::Row as _;
    Ok(Tag { key: row.try_get("tag_key")?, value: row.try_get("value")? })
}

pub(super) async fn list(connection: &mut SqliteConnection, resource: &str) -> Result<Vec<Tag>, StoreError> {
    let rows = sqlx::query("SELECT tag_key, value FROM tags WHERE resource = $1 ORDER BY fold_key")
        .bind(resource)
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn put(connection: &mut SqliteConnection, resource: &str, tags: &[Tag]) -> Result<(), StoreError> {
    for tag in tags {
        sqlx::query(
            "INSERT INTO tags (resource, tag_key, fold_key, value) VALUES ($1, $2, $3, $4)
             ON CONFLICT (resource, fold_key) DO UPDATE SET tag_key = $2, value = $4",
        )
        .bind(resource)
        .bind(&tag.key)
        .bind(fold(&tag.key))
        .bind(&tag.value)
        .execute(&mut *connection)
        .await?;
    }
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tags WHERE resource = $1")
        .bind(resource)
        .fetch_one(connection)
        .await?;
    if count > stored(quota::TAGS_PER_RESOURCE) {
        return Err(StoreError::Limit { what: "tags per resource", limit: quota::TAGS_PER_RESOURCE });
    }
    Ok(())
}

pub(super) async fn remove_all(connection: &mut SqliteConnection, resource: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tags WHERE resource = $1").bind(resource).execute(connection).await?;
    Ok(())
}
