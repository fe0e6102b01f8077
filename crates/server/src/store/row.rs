//! From columns to types, and random identifiers. A value that does not parse is an error, never a default (T-101).

use std::str::FromStr;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Type, sqlite::Sqlite};

use munjigi_core::id::base32_id;
use munjigi_core::time::Timestamp;

use super::StoreError;

/// A row with the name it is known by in errors.
pub(super) struct Columns<'a> {
    row: &'a SqliteRow,
    name: String,
}

impl<'a> Columns<'a> {
    /// Wraps a row whose column `id` is text.
    pub(super) fn new(row: &'a SqliteRow) -> Result<Self, StoreError> {
        Ok(Self { row, name: row.try_get("id")? })
    }

    /// Reads a column that needs no parsing.
    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'a, Sqlite> + Type<Sqlite>,
    {
        Ok(self.row.try_get(column)?)
    }

    /// Reads an instant.
    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        Ok(Timestamp(self.row.try_get(column)?))
    }

    /// Reads a count.
    pub(super) fn count(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.unreadable(column))
    }

    /// Reads text and parses it.
    pub(super) fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<&str>(column)?.parse().map_err(|_| self.unreadable(column))
    }

    /// Reads text that may be absent and parses it.
    pub(super) fn parse_optional<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| text.parse().map_err(|_| self.unreadable(column))).transpose()
    }

    /// Reads JSON text.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|_| self.unreadable(column))
    }

    /// Reads JSON text that may be absent.
    pub(super) fn json_optional<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| serde_json::from_str(text).map_err(|_| self.unreadable(column))).transpose()
    }

    /// Says that a column of this row holds something else than it should.
    pub(super) fn unreadable(&self, what: &'static str) -> StoreError {
        StoreError::Unreadable { what, row: self.name.clone() }
    }
}

/// Turns a count into what SQLite stores; no count of ours comes near the limit.
pub(super) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Turns a value into JSON text.
pub(super) fn json_text<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Unreadable { what, row: "a new row".into() })
}

/// Returns fresh bytes of the operating system's generator (T-41).
pub(super) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Refused("the operating system gives no random numbers"))?;
    Ok(bytes)
}

/// Returns a new random identifier with a prefix of four letters and `N` characters of base 32.
pub(super) fn random_id<T: FromStr, const N: usize>(prefix: &'static str) -> Result<T, StoreError> {
    let id = base32_id(prefix, &random::<N>()?);
    id.parse().map_err(|_| StoreError::Refused("an identifier could not be made"))
}
