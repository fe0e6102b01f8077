//! Inline policies of users, groups and roles.

use sqlx::SqliteConnection;

use munjigi_core::id::UniqueId;

use super::{Kind, Store, StoreError, fold, groups, roles, users};

/// On whom policies hang, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A user.
    User(&'a str),
    /// A group.
    Group(&'a str),
    /// A role.
    Role(&'a str),
}

/// An inline policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlinePolicy {
    /// Its name, unique for its owner without regard to case.
    pub name: String,
    /// The policy's text as it was given.
    pub document: String,
}

impl Store {
    /// Stores an inline policy over one of the same name. `document` has been checked by the policy engine, and `fits`
    /// is asked, within the transaction, whether all of the owner's documents together are small enough.
    pub async fn put_inline_policy(
        &self,
        owner: Owner<'_>,
        name: &str,
        document: &str,
        fits: impl FnOnce(&[InlinePolicy]) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let owner = owner_id(&mut transaction, owner).await?;
        sqlx::query(
            "INSERT INTO inline_policies (owner, name, name_key, document) VALUES ($1, $2, $3, $4)
             ON CONFLICT (owner, name_key) DO UPDATE SET name = $2, document = $4",
        )
        .bind(owner.as_str())
        .bind(name)
        .bind(fold(name))
        .bind(document)
        .execute(&mut *transaction)
        .await?;
        fits(&list(&mut transaction, &owner).await?)?;
        Ok(transaction.commit().await?)
    }

    /// Returns an inline policy.
    pub async fn inline_policy(&self, owner: Owner<'_>, name: &str) -> Result<InlinePolicy, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let owner = owner_id(&mut transaction, owner).await?;
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT name, document FROM inline_policies WHERE owner = $1 AND name_key = $2")
                .bind(owner.as_str())
                .bind(fold(name))
                .fetch_optional(&mut *transaction)
                .await?;
        row.map(|(name, document)| InlinePolicy { name, document })
            .ok_or_else(|| StoreError::not_found(Kind::Policy, name))
    }

    /// Lists the inline policies of a user, group or role in the order of their names. Their size together is bounded.
    pub async fn inline_policies(&self, owner: Owner<'_>) -> Result<Vec<InlinePolicy>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let owner = owner_id(&mut transaction, owner).await?;
        list(&mut transaction, &owner).await
    }

    /// Deletes an inline policy.
    pub async fn delete_inline_policy(&self, owner: Owner<'_>, name: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let owner = owner_id(&mut transaction, owner).await?;
        let removed = sqlx::query("DELETE FROM inline_policies WHERE owner = $1 AND name_key = $2")
            .bind(owner.as_str())
            .bind(fold(name))
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::Policy, name));
        }
        Ok(transaction.commit().await?)
    }
}

pub(super) async fn owner_id(connection: &mut SqliteConnection, owner: Owner<'_>) -> Result<UniqueId, StoreError> {
    match owner {
        Owner::User(name) => Ok(users::find(connection, name).await?.id),
        Owner::Group(name) => Ok(groups::find(connection, name).await?.id),
        Owner::Role(name) => Ok(roles::find(connection, name).await?.id),
    }
}

async fn list(connection: &mut SqliteConnection, owner: &UniqueId) -> Result<Vec<InlinePolicy>, StoreError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT name, document FROM inline_policies WHERE owner = $1 ORDER BY name_key")
            .bind(owner.as_str())
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(|(name, document)| InlinePolicy { name, document }).collect())
}
