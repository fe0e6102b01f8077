//! Session documents: their versions, which of them is the default, and with whom they are shared.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use munjigi_core::time::Timestamp;

use super::row::{Columns, random, stored};
use super::{Kind, Page, Store, StoreError, Tag, quota, tags};

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// Unchanging id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its type; `Session`.
    pub document_type: String,
    /// What kind of resource it is for, as its author says.
    pub target_type: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// The version that is used when none is named.
    pub default_version: u64,
    /// The newest version there is.
    pub latest_version: u64,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// A version of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentVersion {
    /// Its number, from 1.
    pub version: u64,
    /// Its name, unique within the document.
    pub version_name: Option<String>,
    /// The document's name for people.
    pub display_name: Option<String>,
    /// Its text, as it was given.
    pub content: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A document to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewDocument<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub document_type: &'a str,
    /// What kind of resource it is for.
    pub target_type: Option<&'a str>,
    /// Who makes it.
    pub created_by: &'a str,
    /// Its first version.
    pub first: NewVersion<'a>,
    /// Its tags.
    pub tags: &'a [Tag],
}

/// A version to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewVersion<'a> {
    /// Its text, checked by the reader of documents.
    pub content: &'a str,
    /// Its name.
    pub version_name: Option<&'a str>,
    /// The document's name for people.
    pub display_name: Option<&'a str>,
}

/// Which version is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRef {
    /// The default one (`$DEFAULT`).
    Default,
    /// The newest one (`$LATEST`).
    Latest,
    /// The one of this number.
    Number(u64),
    /// The one of this name.
    Named(String),
}

impl std::fmt::Display for VersionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("$DEFAULT"),
            Self::Latest => f.write_str("$LATEST"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A change of sharing: each is twelve digits or `all`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sharing<'a> {
    /// Accounts to share with.
    pub add: &'a [String],
    /// Accounts to share with no longer.
    pub remove: &'a [String],
    /// The version that the added ones see.
    pub version: &'a str,
}

/// Reads documents with the number of their newest version.
macro_rules! select_documents {
    ($rest:literal) => {
        concat!(
            "SELECT documents.*, (SELECT MAX(version) FROM document_versions WHERE document_id = documents.id)
                AS latest_version FROM documents ",
            $rest
        )
    };
}

impl Store {
    /// Makes a document with its first version, which is the default one.
    pub async fn create_document(&self, new: &NewDocument<'_>, now: Timestamp) -> Result<StoredDocument, StoreError> {
        let id = uuid::Builder::from_random_bytes(random()?).into_uuid().to_string();
        let mut transaction = self.write().await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM documents").fetch_one(&mut *transaction).await?;
        sqlx::query(
            "INSERT INTO documents (id, name, document_type, target_type, created, created_by, default_version, last_version)
             VALUES ($1, $2, $3, $4, $5, $6, 1, 1)",
        )
        .bind(&id)
        .bind(new.name)
        .bind(new.document_type)
        .bind(new.target_type)
        .bind(now.0)
        .bind(new.created_by)
        .execute(&mut *transaction)
        .await
        .map_err(|error| taken(error, Kind::Document, new.name))?;
        if count >= stored(quota::DOCUMENTS) {
            return Err(StoreError::Limit { what: "documents", limit: quota::DOCUMENTS });
        }
        insert_version(&mut transaction, &id, 1, &new.first, now).await?;
        tags::put(&mut transaction, &id, new.tags).await?;
        let made = find(&mut transaction, new.name).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Adds a version to a document. `newest`: the version that must be the newest one, if the caller named it. The
    /// default version stays what it is.
    pub async fn add_document_version(
        &self,
        name: &str,
        newest: Option<u64>,
        new: &NewVersion<'_>,
        now: Timestamp,
    ) -> Result<(StoredDocument, DocumentVersion), StoreError> {
        let mut transaction = self.write().await?;
        let document = find(&mut transaction, name).await?;
        if let Some(wrong) = newest.filter(|newest| *newest != document.latest_version) {
            return Err(StoreError::not_found(Kind::DocumentVersion, &wrong.to_string()));
        }
        let latest = version(&mut transaction, &document, &VersionRef::Latest).await?;
        if latest.content == new.content {
            return Err(StoreError::Exists { kind: Kind::DocumentContent, name: name.to_owned() });
        }
        let (count, last) = counts(&mut transaction, &document).await?;
        if count >= stored(quota::VERSIONS_PER_DOCUMENT) {
            return Err(StoreError::Limit { what: "versions per document", limit: quota::VERSIONS_PER_DOCUMENT });
        }
        insert_version(&mut transaction, &document.id, last + 1, new, now).await?;
        sqlx::query("UPDATE documents SET last_version = $1 WHERE id = $2")
            .bind(last + 1)
            .bind(&document.id)
            .execute(&mut *transaction)
            .await?;
        let document = find(&mut transaction, name).await?;
        let made = version(&mut transaction, &document, &VersionRef::Latest).await?;
        transaction.commit().await?;
        Ok((document, made))
    }

    /// Makes a version the default one and returns it.
    pub async fn set_default_document_version(
        &self,
        name: &str,
        number: u64,
    ) -> Result<(StoredDocument, DocumentVersion), StoreError> {
        let mut transaction = self.write().await?;
        let document = find(&mut transaction, name).await?;
        let chosen = version(&mut transaction, &document, &VersionRef::Number(number)).await?;
        sqlx::query("UPDATE documents SET default_version = $1 WHERE id = $2")
            .bind(stored(number))
            .bind(&document.id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok((StoredDocument { default_version: number, ..document }, chosen))
    }

    /// Returns a document and one of its versions.
    pub async fn document(
        &self,
        name: &str,
        wanted: &VersionRef,
    ) -> Result<(StoredDocument, DocumentVersion), StoreError> {
        let mut transaction = self.readers().begin().await?;
        let document = find(&mut transaction, name).await?;
        let version = version(&mut transaction, &document, wanted).await?;
        Ok((document, version))
    }

    /// Lists documents with their default versions in the order of their names, behind the name `after`.
    pub async fn list_documents(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<(StoredDocument, DocumentVersion)>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let rows = sqlx::query(select_documents!("WHERE name > $1 ORDER BY name LIMIT $2"))
            .bind(after.unwrap_or_default())
            .bind(stored(limit as u64 + 1))
            .fetch_all(&mut *transaction)
            .await?;
        let mut documents = Vec::with_capacity(rows.len());
        for row in &rows {
            let document = read(&mut transaction, row).await?;
            let default = version(&mut transaction, &document, &VersionRef::Default).await?;
            documents.push((document, default));
        }
        Ok(Page::cut(documents, limit, |(last, _)| last.name.clone()))
    }

    /// Lists a document's versions, newest first, behind the version `after`.
    pub async fn list_document_versions(
        &self,
        name: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(StoredDocument, Page<DocumentVersion>), StoreError> {
        let mut transaction = self.readers().begin().await?;
        let document = find(&mut transaction, name).await?;
        let rows = sqlx::query(
            "SELECT document_id AS id, * FROM document_versions WHERE document_id = $1 AND version < $2
             ORDER BY version DESC LIMIT $3",
        )
        .bind(&document.id)
        .bind(after.map_or(i64::MAX, stored))
        .bind(stored(limit as u64 + 1))
        .fetch_all(&mut *transaction)
        .await?;
        let versions = rows.iter().map(DocumentVersion::read).collect::<Result<Vec<_>, _>>()?;
        Ok((document, Page::cut(versions, limit, |last| last.version.to_string())))
    }

    /// Deletes a document, or one of its versions that is not the default one.
    pub async fn delete_document(&self, name: &str, wanted: Option<&VersionRef>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let document = find(&mut transaction, name).await?;
        let (count, _) = counts(&mut transaction, &document).await?;
        if let Some(wanted) = wanted {
            let found = version(&mut transaction, &document, wanted).await?;
            if count > 1 {
                if found.version == document.default_version {
                    return Err(StoreError::InUse {
                        kind: Kind::DocumentVersion,
                        name: found.version.to_string(),
                        left: "the use as default version",
                    });
                }
                sqlx::query("DELETE FROM document_versions WHERE document_id = $1 AND version = $2")
                    .bind(&document.id)
                    .bind(stored(found.version))
                    .execute(&mut *transaction)
                    .await?;
                return Ok(transaction.commit().await?);
            }
        }
        if !shares(&mut transaction, &document.id).await?.is_empty() {
            return Err(StoreError::InUse {
                kind: Kind::Document,
                name: name.to_owned(),
                left: "accounts it is shared with",
            });
        }
        tags::remove_all(&mut transaction, &document.id).await?;
        for sql in ["DELETE FROM document_versions WHERE document_id = $1", "DELETE FROM documents WHERE id = $1"] {
            sqlx::query(sql).bind(&document.id).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Changes with whom a document is shared.
    pub async fn share_document(&self, name: &str, sharing: &Sharing<'_>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let document = find(&mut transaction, name).await?;
        for account in sharing.remove {
            sqlx::query("DELETE FROM document_shares WHERE document_id = $1 AND account = $2")
                .bind(&document.id)
                .bind(account)
                .execute(&mut *transaction)
                .await?;
        }
        for account in sharing.add {
            sqlx::query(
                "INSERT INTO document_shares (document_id, account, shared_version) VALUES ($1, $2, $3)
                 ON CONFLICT (document_id, account) DO UPDATE SET shared_version = $3",
            )
            .bind(&document.id)
            .bind(account)
            .bind(sharing.version)
            .execute(&mut *transaction)
            .await?;
        }
        if shares(&mut transaction, &document.id).await?.len() as u64 > quota::SHARES_PER_DOCUMENT {
            let limit = quota::SHARES_PER_DOCUMENT;
            return Err(StoreError::Limit { what: "accounts that a document is shared with", limit });
        }
        Ok(transaction.commit().await?)
    }

    /// Returns with whom a document is shared and which version they see, in the order of the accounts.
    pub async fn document_shares(&self, name: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let document = find(&mut transaction, name).await?;
        shares(&mut transaction, &document.id).await
    }
}

impl DocumentVersion {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            version: row.count("version")?,
            version_name: row.get("version_name")?,
            display_name: row.get("display_name")?,
            content: row.get("content")?,
            created: row.time("created")?,
        })
    }
}

fn taken(error: sqlx::Error, kind: Kind, name: &str) -> StoreError {
    if StoreError::is_taken(&error) { StoreError::Exists { kind, name: name.to_owned() } } else { error.into() }
}

async fn read(connection: &mut SqliteConnection, row: &SqliteRow) -> Result<StoredDocument, StoreError> {
    let row = Columns::new(row)?;
    let id: String = row.get("id")?;
    Ok(StoredDocument {
        tags: tags::list(connection, &id).await?,
        id,
        name: row.get("name")?,
        document_type: row.get("document_type")?,
        target_type: row.get("target_type")?,
        created: row.time("created")?,
        created_by: row.get("created_by")?,
        default_version: row.count("default_version")?,
        latest_version: row.count("latest_version")?,
    })
}

pub(super) async fn find(connection: &mut SqliteConnection, name: &str) -> Result<StoredDocument, StoreError> {
    let row = sqlx::query(select_documents!("WHERE name = $1"))
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| StoreError::not_found(Kind::Document, name))?;
    read(connection, &row).await
}

async fn version(
    connection: &mut SqliteConnection,
    document: &StoredDocument,
    wanted: &VersionRef,
) -> Result<DocumentVersion, StoreError> {
    let (number, named) = match wanted {
        VersionRef::Default => (document.default_version, None),
        VersionRef::Latest => (document.latest_version, None),
        VersionRef::Number(number) => (*number, None),
        VersionRef::Named(name) => (0, Some(name)),
    };
    let row = sqlx::query(
        "SELECT document_id AS id, * FROM document_versions WHERE document_id = $1 AND (version = $2 OR version_name = $3)",
    )
    .bind(&document.id)
    .bind(stored(number))
    .bind(named)
    .fetch_optional(connection)
    .await?;
    DocumentVersion::read(&row.ok_or_else(|| StoreError::not_found(Kind::DocumentVersion, &wanted.to_string()))?)
}

/// Returns how many versions the document has, and the highest number ever used.
async fn counts(connection: &mut SqliteConnection, document: &StoredDocument) -> Result<(i64, i64), StoreError> {
    let counts = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM document_versions WHERE document_id = $1), last_version FROM documents WHERE id = $1",
    )
    .bind(&document.id);
    Ok(counts.fetch_one(connection).await?)
}

async fn insert_version(
    connection: &mut SqliteConnection,
    document: &str,
    version: i64,
    new: &NewVersion<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO document_versions (document_id, version, version_name, display_name, content, created)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(document)
    .bind(version)
    .bind(new.version_name)
    .bind(new.display_name)
    .bind(new.content)
    .bind(now.0)
    .execute(connection)
    .await
    .map_err(|error| taken(error, Kind::DocumentVersion, new.version_name.unwrap_or_default()))?;
    Ok(())
}

async fn shares(connection: &mut SqliteConnection, document: &str) -> Result<Vec<(String, String)>, StoreError> {
    let shares =
        sqlx::query_as("SELECT account, shared_version FROM document_shares WHERE document_id = $1 ORDER BY account");
    Ok(shares.bind(document).fetch_all(connection).await?)
}
