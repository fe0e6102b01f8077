//! Small values by name: the account, the proof that the master key fits, and what other rooms keep.

use sqlx::SqliteConnection;

use munjigi_core::id::AccountId;
use munjigi_core::secret::{EnvelopeError, MasterKeys, Place, Secret, open_secret, seal_secret};
use munjigi_core::time::Timestamp;

use super::{Store, StoreError, builtin, row};

const ACCOUNT: &str = "account";
/// A sealed constant: opening it proves the master key before anything depends on it.
const KEY_PROOF: &str = "master-key-proof";
const KEY_PROOF_TEXT: &[u8] = b"munjigi";

impl Store {
    /// Returns a setting.
    pub async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = sqlx::query_scalar("SELECT value FROM settings WHERE name = $1");
        Ok(found.bind(name).fetch_optional(self.readers()).await?)
    }

    /// Stores a setting over its earlier value.
    pub async fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        set(&mut transaction, name, value).await?;
        Ok(transaction.commit().await?)
    }

    /// Returns a sealed setting, opened.
    pub async fn secret_setting(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let Some(sealed) = self.setting(name).await? else { return Ok(None) };
        Ok(Some(open_secret(self.master(), place(name), &sealed)?))
    }

    /// Seals a setting and stores it over its earlier value (T-100).
    pub async fn set_secret_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let sealed = seal_secret(self.master().current(), place(name), value, row::random()?)?;
        self.set_setting(name, &sealed).await
    }
}

/// Writes what a new database begins with.
pub(super) async fn found(
    connection: &mut SqliteConnection,
    master: &MasterKeys,
    account: &AccountId,
    now: Timestamp,
) -> Result<(), StoreError> {
    set(connection, ACCOUNT, account.as_str().as_bytes()).await?;
    let proof = seal_secret(master.current(), place(KEY_PROOF), KEY_PROOF_TEXT, row::random()?)?;
    set(connection, KEY_PROOF, &proof).await?;
    builtin::refresh(connection, now).await
}

/// Returns the database's account, or `None` if it belongs to another master key.
pub(super) async fn prove(
    connection: &mut SqliteConnection,
    master: &MasterKeys,
) -> Result<Option<AccountId>, StoreError> {
    match open_secret(master, place(KEY_PROOF), &need(connection, KEY_PROOF).await?) {
        Ok(text) if text.expose() == KEY_PROOF_TEXT => {}
        Ok(_) | Err(EnvelopeError::Opened | EnvelopeError::UnknownMasterKey(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let account = need(connection, ACCOUNT).await?;
    let account = std::str::from_utf8(&account).ok().and_then(|text| AccountId::parse(text).ok());
    account.map(Some).ok_or_else(|| unreadable(ACCOUNT))
}

async fn need(connection: &mut SqliteConnection, name: &'static str) -> Result<Vec<u8>, StoreError> {
    let found = sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(name);
    found.fetch_optional(connection).await?.ok_or_else(|| unreadable(name))
}

async fn set(connection: &mut SqliteConnection, name: &str, value: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

fn place(name: &str) -> Place<'_> {
    Place { table: "settings", row: name, column: "value" }
}

fn unreadable(name: &str) -> StoreError {
    StoreError::Unreadable { what: "setting", row: name.to_owned() }
}
