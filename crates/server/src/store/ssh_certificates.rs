//! Certificates that were issued to people, and what was revoked. Keys are not kept; a certificate without a row here
//! is nobody's.

use std::collections::HashSet;
use std::time::Duration;

use ipnet::IpNet;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use munjigi_core::arn::Arn;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::time::Timestamp;

use super::row::{json_text, stored};
use super::{Page, Store, StoreError};

/// How long a certificate is remembered behind its end: a node that was away reports its logins later.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Certificates of one principal that have not ended (T-92).
const OUTSTANDING_PER_PRINCIPAL: u64 = 200;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Its serial number; unique in the deployment, below 2^53 so that every JSON reader has it exactly.
    pub serial: u64,
    /// Fingerprint of the authority that signed it.
    pub authority: Fingerprint,
    /// Its key id.
    pub key_id: String,
    /// Fingerprint of the key in it.
    pub fingerprint: Fingerprint,
    /// Whose it is, as named then.
    pub principal_arn: Arn,
    /// What its holder stands for: a statement of temporary credentials as JSON.
    pub statement: String,
    /// The OS users that it is good for.
    pub os_users: Vec<String>,
    /// From where; empty for anywhere.
    pub sources: Vec<IpNet>,
    /// The only command.
    pub force_command: Option<String>,
    /// Where it was asked for from.
    pub source_ip: String,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Why it was revoked, if it was, by whom, and when.
    pub revoked: Option<Revoked>,
}

/// That something was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Why, for people.
    pub reason: String,
    /// By whom: an ARN, or `munjigi`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What a revocation names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One certificate.
    Serial(u64),
    /// All certificates with a key id.
    KeyId(String),
    /// A key, in every certificate.
    Key(Fingerprint),
}

impl Revocation {
    fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Serial(serial) => ("serial", serial.to_string()),
            Self::KeyId(id) => ("key-id", id.clone()),
            Self::Key(key) => ("key", key.to_string()),
        }
    }

    fn read(kind: &str, value: &str) -> Option<Self> {
        match kind {
            "serial" => value.parse().ok().map(Self::Serial),
            "key-id" => Some(Self::KeyId(value.to_owned())),
            "key" => Fingerprint::parse(value).map(Self::Key),
            _ => None,
        }
    }
}

/// Everything that is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedSsh {
    /// As it was said.
    pub entries: Vec<Revocation>,
    /// The remembered certificates that this strikes, by serial number.
    pub serials: HashSet<u64>,
}

/// Builds a query for certificates, each with the first revocation that strikes it.
macro_rules! certificates {
    ($which:literal) => {
        concat!(
            "SELECT c.*, r.reason AS why, r.revoked_by AS revoker, r.revoked AS revoked_at
             FROM ssh_certificates c LEFT JOIN ssh_revocations r ON r.rowid = (
                 SELECT s.rowid FROM ssh_revocations s
                 WHERE (s.kind = 'serial' AND s.value = CAST(c.serial AS TEXT))
                    OR (s.kind = 'key-id' AND s.value = c.key_id)
                    OR (s.kind = 'key' AND s.value = c.fingerprint)
                 ORDER BY s.revoked LIMIT 1) ",
            $which
        )
    };
}

impl IssuedCertificate {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let serial: i64 = row.try_get("serial")?;
        let unreadable = |what: &'static str| StoreError::Unreadable { what, row: format!("certificate {serial}") };
        let print = |column: &'static str| {
            Fingerprint::parse(row.try_get::<&str, _>(column)?).ok_or_else(|| unreadable(column))
        };
        let json = |column: &'static str| {
            serde_json::from_str::<Vec<String>>(row.try_get(column)?).map_err(|_| unreadable(column))
        };
        let sources = json("sources")?;
        let sources = sources.iter().map(|text| text.parse::<IpNet>().map_err(|_| unreadable("sources"))).collect();
        let revoked = match row.try_get::<Option<String>, _>("why")? {
            Some(reason) => {
                let at = Timestamp(row.try_get("revoked_at")?);
                Some(Revoked { reason, by: row.try_get("revoker")?, at })
            }
            None => None,
        };
        Ok(Self {
            serial: u64::try_from(serial).map_err(|_| unreadable("serial"))?,
            authority: print("authority")?,
            key_id: row.try_get("key_id")?,
            fingerprint: print("fingerprint")?,
            principal_arn: Arn::parse(row.try_get("principal_arn")?).map_err(|_| unreadable("principal_arn"))?,
            statement: row.try_get("statement")?,
            os_users: json("os_users")?,
            sources: {
                let sources: Result<Vec<IpNet>, StoreError> = sources;
                sources?
            },
            force_command: row.try_get("force_command")?,
            source_ip: row.try_get("source_ip")?,
            issued: Timestamp(row.try_get("issued")?),
            expires: Timestamp(row.try_get("expires")?),
            revoked,
        })
    }
}

impl Store {
    /// Remembers a certificate before it is given out, and forgets those that ended long ago.
    pub async fn remember_certificate(&self, new: &IssuedCertificate) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let oldest = new.issued.0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX));
        sqlx::query("DELETE FROM ssh_certificates WHERE expires < $1").bind(oldest).execute(&mut *transaction).await?;
        let outstanding: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM ssh_certificates WHERE principal_arn = $1 AND expires > $2")
                .bind(new.principal_arn.as_str())
                .bind(new.issued.0)
                .fetch_one(&mut *transaction)
                .await?;
        if outstanding >= stored(OUTSTANDING_PER_PRINCIPAL) {
            return Err(StoreError::Limit { what: "SSH certificates", limit: OUTSTANDING_PER_PRINCIPAL });
        }
        let sources: Vec<String> = new.sources.iter().map(ToString::to_string).collect();
        sqlx::query(
            "INSERT INTO ssh_certificates (serial, authority, key_id, fingerprint, principal_arn, statement, os_users,
                                           sources, force_command, source_ip, issued, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(stored(new.serial))
        .bind(new.authority.to_string())
        .bind(&new.key_id)
        .bind(new.fingerprint.to_string())
        .bind(new.principal_arn.as_str())
        .bind(&new.statement)
        .bind(json_text("os_users", &new.os_users)?)
        .bind(json_text("sources", &sources)?)
        .bind(new.force_command.as_deref())
        .bind(&new.source_ip)
        .bind(new.issued.0)
        .bind(new.expires.0)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Returns a certificate by its serial number, if it is remembered.
    pub async fn certificate(&self, serial: u64) -> Result<Option<IssuedCertificate>, StoreError> {
        let row = sqlx::query(certificates!("WHERE c.serial = $1"))
            .bind(stored(serial))
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().map(IssuedCertificate::read).transpose()
    }

    /// Lists certificates, oldest first, behind a place; of one principal if one is named. With `ending_after`, only
    /// those that end later.
    pub async fn list_certificates(
        &self,
        principal: Option<&Arn>,
        ending_after: Timestamp,
        after: (Timestamp, u64),
        limit: usize,
    ) -> Result<Page<IssuedCertificate, (Timestamp, u64)>, StoreError> {
        let rows = sqlx::query(certificates!(
            "WHERE (c.issued, c.serial) > ($1, $2) AND c.expires > $3 AND ($4 IS NULL OR c.principal_arn = $4)
             ORDER BY c.issued, c.serial LIMIT $5"
        ))
        .bind(after.0.0)
        .bind(stored(after.1))
        .bind(ending_after.0)
        .bind(principal.map(Arn::as_str))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let certificates = rows.iter().map(IssuedCertificate::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(certificates, limit, |last| (last.issued, last.serial)))
    }

    /// Revokes; doing it twice is doing it once, and the first reason stays. Forgets revocations that no certificate
    /// can need any more; keys stay revoked for ever.
    pub async fn revoke_ssh(&self, revocations: &[Revocation], revoked: &Revoked) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let oldest = revoked.at.0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX).saturating_mul(2));
        sqlx::query("DELETE FROM ssh_revocations WHERE revoked < $1 AND kind <> 'key'")
            .bind(oldest)
            .execute(&mut *transaction)
            .await?;
        for revocation in revocations {
            let (kind, value) = revocation.columns();
            sqlx::query(
                "INSERT INTO ssh_revocations (kind, value, reason, revoked_by, revoked) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (kind, value) DO NOTHING",
            )
            .bind(kind)
            .bind(value)
            .bind(&revoked.reason)
            .bind(&revoked.by)
            .bind(revoked.at.0)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Reads everything that is revoked.
pub(super) async fn revoked(connection: &mut SqliteConnection) -> Result<RevokedSsh, StoreError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT kind, value FROM ssh_revocations").fetch_all(&mut *connection).await?;
    let read = |(kind, value): &(String, String)| {
        let unreadable = || StoreError::Unreadable { what: "revocation", row: value.clone() };
        Revocation::read(kind, value).ok_or_else(unreadable)
    };
    let entries = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let struck: Vec<i64> = sqlx::query_scalar(
        "SELECT serial FROM ssh_certificates WHERE CAST(serial AS TEXT) IN
             (SELECT value FROM ssh_revocations WHERE kind = 'serial')
         OR key_id IN (SELECT value FROM ssh_revocations WHERE kind = 'key-id')
         OR fingerprint IN (SELECT value FROM ssh_revocations WHERE kind = 'key')",
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(RevokedSsh { entries, serials: struck.into_iter().filter_map(|serial| u64::try_from(serial).ok()).collect() })
}
