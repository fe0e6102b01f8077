//! Instants as the two wire forms write them: epoch seconds in JSON services, ISO 8601 in query services.

use munjigi_core::time::Timestamp;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant in json 1.1 services: seconds since 1970 with up to millisecond fraction. Read also from text, as a
/// number or in ISO 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochTime(pub Timestamp);

/// An instant in query services: `2026-11-21T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IsoTime(pub Timestamp);

impl Serialize for EpochTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.0 % 1_000_000 == 0 {
            serializer.serialize_i64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_epoch_seconds())
        }
    }
}

impl<'de> Deserialize<'de> for EpochTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InstantVisitor).map(Self)
    }
}

impl Serialize for IsoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_iso_seconds())
    }
}

impl<'de> Deserialize<'de> for IsoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InstantVisitor).map(Self)
    }
}

/// Latest second accepted, the end of the year 9999: what lies behind it has no four-digit form.
const LATEST_SECONDS: i64 = 253_402_300_799;

struct InstantVisitor;

impl Visitor<'_> for InstantVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("seconds since 1970 or an ISO 8601 instant such as 2026-11-21T12:00:00Z")
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Timestamp, E> {
        if (0..=LATEST_SECONDS).contains(&seconds) {
            Ok(Timestamp::from_secs(seconds))
        } else {
            Err(E::custom("the instant lies outside the years 1970 to 9999"))
        }
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Timestamp, E> {
        self.visit_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Timestamp, E> {
        let whole = self.visit_i64::<E>(seconds.floor() as i64)?;
        let micros = ((seconds - seconds.floor()) * 1e6).round() as i64;
        Ok(Timestamp(whole.0.saturating_add(micros)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        if let Ok(seconds) = text.parse::<i64>() {
            return self.visit_i64(seconds);
        }
        if let Some(instant) = Timestamp::parse_iso(text) {
            return self.visit_i64::<E>(instant.as_secs()).map(|_| instant);
        }
        match text.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() => self.visit_f64(seconds),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_every_form_that_clients_send() {
        for text in [
            "1767225600",
            "1767225600.0",
            "\"1767225600\"",
            "\"2026-01-01T00:00:00Z\"",
            "\"2026-01-01T09:00:00+09:00\"",
        ] {
            let EpochTime(instant) = serde_json::from_str(text).unwrap();
            assert_eq!(instant.as_secs(), 1_767_225_600, "{text}");
        }
        let EpochTime(instant) = serde_json::from_str("1767225600.25").unwrap();
        assert_eq!(instant.0, 1_767_225_600_250_000);
        for bad in ["-1", "1e30", "\"soon\"", "\"NaN\"", "null", "[]", "9999999999999"] {
            assert!(serde_json::from_str::<EpochTime>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_wire_form_writes_its_own_shape() {
        let instant = Timestamp(1_767_225_600_250_000);
        assert_eq!(serde_json::to_string(&EpochTime(instant)).unwrap(), "1767225600.25");
        assert_eq!(serde_json::to_string(&EpochTime(Timestamp::from_secs(5))).unwrap(), "5");
        assert_eq!(serde_json::to_string(&IsoTime(instant)).unwrap(), "\"2026-01-01T00:00:00Z\"");
    }
}
