//! Instants as integer microseconds since 1970 in UTC; the clock itself lives outside this crate.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant: microseconds since 1970-01-01T00:00:00Z. Stored and sent as this integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Builds the instant from whole seconds since 1970.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Returns whole seconds since 1970, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns seconds since 1970 with millisecond fraction, the form of JSON answers of the AWS API.
    pub fn as_epoch_seconds(self) -> f64 {
        (self.0.div_euclid(1000) as f64) / 1000.0
    }

    /// Returns the instant `later` after this one, saturating.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns how long after `earlier` this instant is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns `2026-11-21T12:00:00Z`, whole seconds (CloudTrail, IAM answers).
    pub fn to_iso_seconds(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%SZ")
    }

    /// Returns `20261121T120000Z`, the basic form that Signature Version 4 uses.
    pub fn to_basic(self) -> String {
        self.format("%Y%m%dT%H%M%SZ")
    }

    /// Parses `20261121T120000Z`.
    pub fn parse_basic(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.is_ascii() {
            return None;
        }
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
        let instant = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some(Self(instant.as_microsecond()))
    }

    /// Parses an RFC 3339 instant such as `2026-11-21T12:00:00Z` or with an offset.
    pub fn parse_iso(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|instant| Self(instant.as_microsecond()))
    }

    /// Formats in UTC by a `strftime` pattern; an instant outside the calendar prints as its number.
    pub fn format(self, pattern: &str) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => instant.strftime(pattern).to_string(),
            Err(_) => self.0.to_string(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_iso_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_round_trip() {
        let instant = Timestamp::from_secs(1_795_262_400);
        assert_eq!(Timestamp::parse_basic(&instant.to_basic()), Some(instant));
        assert_eq!(Timestamp::parse_iso(&instant.to_iso_seconds()), Some(instant));
        assert_eq!(Timestamp::parse_basic("20261121T120000"), None);
        assert_eq!(Timestamp::parse_basic("2026112\u{ac00}20000Z"), None);
    }
}
