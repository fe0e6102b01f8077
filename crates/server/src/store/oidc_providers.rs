//! OpenID Connect providers whose tokens may become role sessions.

use sqlx::SqliteConnection;

use munjigi_core::arn::Arn;
use munjigi_core::time::Timestamp;

use super::row::{Columns, json_text, stored};
use super::{Kind, Store, StoreError, Tag, quota, tags};

/// An OpenID Connect provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcProvider {
    /// Its resource name.
    pub arn: Arn,
    /// The issuer, `https://…`, as its tokens spell it.
    pub url: String,
    /// The audiences that tokens may have.
    pub client_ids: Vec<String>,
    /// What the caller said of the provider's certificates; stored and shown.
    pub thumbprints: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
}

impl OidcProvider {
    fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            arn: row.parse("id")?,
            url: row.get("url")?,
            client_ids: row.json("client_ids")?,
            thumbprints: row.json("thumbprints")?,
            created: row.time("created")?,
        })
    }
}

impl Store {
    /// Makes a provider.
    pub async fn create_oidc_provider(&self, new: &OidcProvider, new_tags: &[Tag]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM oidc_providers").fetch_one(&mut *transaction).await?;
        if count >= stored(quota::OIDC_PROVIDERS) {
            return Err(StoreError::Limit { what: "OIDC providers in an account", limit: quota::OIDC_PROVIDERS });
        }
        let made = sqlx::query(
            "INSERT INTO oidc_providers (id, url, client_ids, thumbprints, created) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(new.arn.as_str())
        .bind(&new.url)
        .bind(json_text("client ids", &new.client_ids)?)
        .bind(json_text("thumbprints", &new.thumbprints)?)
        .bind(new.created.0)
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match error {
            error if StoreError::is_taken(&error) => {
                StoreError::Exists { kind: Kind::OidcProvider, name: new.url.clone() }
            }
            error => error.into(),
        })?;
        tags::put(&mut transaction, new.arn.as_str(), new_tags).await?;
        Ok(transaction.commit().await?)
    }

    /// Returns a provider with its tags.
    pub async fn oidc_provider(&self, arn: &Arn) -> Result<(OidcProvider, Vec<Tag>), StoreError> {
        let mut transaction = self.readers().begin().await?;
        let provider = find(&mut transaction, arn).await?;
        let tags = tags::list(&mut transaction, arn.as_str()).await?;
        Ok((provider, tags))
    }

    /// Lists all providers in the order of their ARNs; their number is bounded.
    pub async fn oidc_providers(&self) -> Result<Vec<OidcProvider>, StoreError> {
        let rows = sqlx::query("SELECT id, url, client_ids, thumbprints, created FROM oidc_providers ORDER BY id")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(OidcProvider::read).collect()
    }

    /// Lets `change` alter the audiences of a provider.
    pub async fn change_client_ids(
        &self,
        arn: &Arn,
        change: impl FnOnce(&mut Vec<String>) + Send,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let mut provider = find(&mut transaction, arn).await?;
        change(&mut provider.client_ids);
        if provider.client_ids.len() > usize::try_from(quota::CLIENT_IDS_PER_PROVIDER).unwrap_or(usize::MAX) {
            let limit = quota::CLIENT_IDS_PER_PROVIDER;
            return Err(StoreError::Limit { what: "client ids per OIDC provider", limit });
        }
        sqlx::query("UPDATE oidc_providers SET client_ids = $2 WHERE id = $1")
            .bind(arn.as_str())
            .bind(json_text("client ids", &provider.client_ids)?)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a provider.
    pub async fn delete_oidc_provider(&self, arn: &Arn) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        find(&mut transaction, arn).await?;
        tags::remove_all(&mut transaction, arn.as_str()).await?;
        sqlx::query("DELETE FROM oidc_providers WHERE id = $1").bind(arn.as_str()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}

async fn find(connection: &mut SqliteConnection, arn: &Arn) -> Result<OidcProvider, StoreError> {
    let row = sqlx::query("SELECT id, url, client_ids, thumbprints, created FROM oidc_providers WHERE id = $1")
        .bind(arn.as_str())
        .fetch_optional(connection)
        .await?;
    row.as_ref()
        .map(OidcProvider::read)
        .transpose()?
        .ok_or_else(|| StoreError::not_found(Kind::OidcProvider, arn.as_str()))
}
