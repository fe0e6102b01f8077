//! JSON bodies read strictly: bounded depth (T-93), no key twice. What the members mean is the operation's business.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deepest nesting of lists and objects (T-93).
pub(crate) const MAX_DEPTH: u8 = 32;

/// Reads a body. An empty one stands for `{}`; anything but an object is refused.
pub(crate) fn parse(body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Strict(MAX_DEPTH).deserialize(&mut deserializer).map_err(|cause| cause.to_string())?;
    deserializer.end().map_err(|cause| cause.to_string())?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err("the body must be a JSON object".to_owned()),
    }
}

/// Builds a value, counting the nesting that is left.
struct Strict(u8);

impl Strict {
    fn inner<E: de::Error>(&self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom(format_args!("nested deeper than {MAX_DEPTH}")))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if members.contains_key(&name) {
                let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
                return Err(de::Error::custom(format_args!("the member `{shown}` stands twice")));
            }
            members.insert(name, object.next_value_seed(self.inner()?)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_they_are() {
        assert_eq!(parse(b"").unwrap(), serde_json::json!({}));
        let text = r#"{"A":[1,-2,1.5,null,true,"\u115f\u0000"],"B":{"C":{}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_can_be_read_in_two_ways_or_without_end_is_refused() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(31).as_bytes()).is_ok());
        assert!(parse(deep(32).as_bytes()).unwrap_err().contains("deeper"));
        assert!(parse(deep(100_000).as_bytes()).unwrap_err().contains("deeper"));
        let twice = parse(br#"{"a":{"b":1,"b":2}}"#).unwrap_err();
        assert!(twice.contains("`b` stands twice"), "{twice}");
        for bad in ["[]", "1", "null", "{", "{}x", "{\"a\":}", "\u{feff}{}", "{\"a\":1e999}", "{\"a\":\"\\ud800\"}"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_body_makes_it_panic() {
        let seed = br#"{"Target":"mi-0123456789abcdef0","Parameters":{"a":["b","c"],"n":[1,2.5e3,null,true]}}"#;
        crate::api::mutate::each(seed, 0x6a73_6f6e, |body| {
            if let Ok(value) = parse(body) {
                assert!(value.is_object());
            }
        });
    }
}
