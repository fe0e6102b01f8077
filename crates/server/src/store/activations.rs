//! Activations: what lets new nodes register. Of the code only its SHA-256 is kept, and each registration consumes one
//! use by one conditional write (T-28).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use munjigi_core::secret::Secret;
use munjigi_core::time::Timestamp;

use super::row::{Columns, random, stored};
use super::{Kind, Page, Store, StoreError, Tag, tags};

/// What an activation is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationRequest {
    /// What it is for.
    pub description: Option<String>,
    /// Name of the nodes that register with it and bring none.
    pub default_instance_name: Option<String>,
    /// The role named by the caller; stored and shown.
    pub iam_role: String,
    /// How many nodes may register with it.
    pub registration_limit: u64,
    /// Until when.
    pub expires: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Tags of the activation and of the nodes that register with it.
    pub tags: Vec<Tag>,
}

/// An activation as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its id.
    pub id: Uuid,
    /// What it was made of.
    pub request: ActivationRequest,
    /// How many nodes have registered with it.
    pub registrations: u64,
    /// When it was made.
    pub created: Timestamp,
}

/// An activation that was just made, with its code.
#[derive(Debug)]
pub struct NewActivation {
    /// Its id.
    pub id: Uuid,
    /// The code: 256 random bits in 43 characters. It cannot be asked for again.
    pub code: Secret<String>,
}

impl Activation {
    fn read(row: &SqliteRow, tags: Vec<Tag>) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            id: row.parse("id")?,
            request: ActivationRequest {
                description: row.get("description")?,
                default_instance_name: row.get("default_instance_name")?,
                iam_role: row.get("iam_role")?,
                registration_limit: row.count("registration_limit")?,
                expires: row.time("expires")?,
                created_by: row.get("created_by")?,
                tags,
            },
            registrations: row.count("registrations")?,
            created: row.time("created")?,
        })
    }
}

impl Store {
    /// Makes an activation.
    pub async fn create_activation(
        &self,
        request: &ActivationRequest,
        now: Timestamp,
    ) -> Result<NewActivation, StoreError> {
        let id = uuid::Builder::from_random_bytes(random()?).into_uuid();
        let code = Secret::new(URL_SAFE_NO_PAD.encode(random::<32>()?));
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO activations (id, code_hash, description, default_instance_name, iam_role, registration_limit,
                                      registrations, created, created_by, expires)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9)",
        )
        .bind(id.to_string())
        .bind(code_hash(code.expose()))
        .bind(&request.description)
        .bind(&request.default_instance_name)
        .bind(&request.iam_role)
        .bind(stored(request.registration_limit))
        .bind(now.0)
        .bind(&request.created_by)
        .bind(request.expires.0)
        .execute(&mut *transaction)
        .await?;
        tags::put(&mut transaction, &id.to_string(), &request.tags).await?;
        transaction.commit().await?;
        Ok(NewActivation { id, code })
    }

    /// Lists activations in the order of their ids, behind the id `after`.
    pub async fn list_activations(&self, after: Option<&str>, limit: usize) -> Result<Page<Activation>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let rows = sqlx::query("SELECT * FROM activations WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.unwrap_or_default())
            .bind(stored(limit as u64 + 1))
            .fetch_all(&mut *transaction)
            .await?;
        let mut activations = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: String = Columns::new(row)?.get("id")?;
            activations.push(Activation::read(row, tags::list(&mut transaction, &id).await?)?);
        }
        Ok(Page::cut(activations, limit, |last| last.id.to_string()))
    }

    /// Deletes an activation; the nodes that registered with it stay.
    pub async fn delete_activation(&self, id: &Uuid) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        tags::remove_all(&mut transaction, &id.to_string()).await?;
        let removed = sqlx::query("DELETE FROM activations WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::Activation, &id.to_string()));
        }
        Ok(transaction.commit().await?)
    }
}

/// Takes one use of an activation; `None` if it does not exist, the code is wrong, or it is expired or used up.
pub(super) async fn consume(
    connection: &mut SqliteConnection,
    id: &Uuid,
    code: &Secret<String>,
    now: Timestamp,
) -> Result<Option<Activation>, StoreError> {
    let row = sqlx::query(
        "UPDATE activations SET registrations = registrations + 1
         WHERE id = $1 AND code_hash = $2 AND expires > $3 AND registrations < registration_limit RETURNING *",
    )
    .bind(id.to_string())
    .bind(code_hash(code.expose()))
    .bind(now.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let tags = tags::list(connection, &id.to_string()).await?;
    Activation::read(&row, tags).map(Some)
}

/// Tells whether the code belongs to the activation, used up or not.
pub(super) async fn knows_code(
    connection: &mut SqliteConnection,
    id: &Uuid,
    code: &Secret<String>,
) -> Result<bool, StoreError> {
    let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM activations WHERE id = $1 AND code_hash = $2")
        .bind(id.to_string())
        .bind(code_hash(code.expose()))
        .fetch_optional(connection)
        .await?;
    Ok(known.is_some())
}

/// Hashes a code; it has 256 random bits, so a plain hash is enough and a lookup by it gives nothing away (T-37).
fn code_hash(code: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, code.as_bytes()).as_ref().to_vec()
}
