//! Tags as they come over the wire: their rules are the same for IAM and SSM (aws-api C.4).

use std::collections::HashSet;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::store::Tag;

/// Longest key in characters.
const MAX_KEY: usize = 128;
/// Longest value in characters.
const MAX_VALUE: usize = 256;
/// Most tags in one call; a resource holds no more.
const MAX_TAGS: usize = 50;

/// Tags with valid keys and values, each key once without regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TagList(Vec<Tag>);

/// Valid keys of tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TagKeys(Vec<String>);

impl TagList {
    /// Checks tags.
    pub fn new(tags: Vec<Tag>) -> Result<Self, String> {
        if tags.len() > MAX_TAGS {
            return Err(format!("no more than {MAX_TAGS} tags"));
        }
        let mut keys = HashSet::new();
        for tag in &tags {
            check_key(&tag.key)?;
            if tag.value.chars().count() > MAX_VALUE || !tag.value.chars().all(allowed) {
                return Err(format!(
                    "the value of the tag `{}` must have at most {MAX_VALUE} letters, digits, blanks or _.:/=+-@",
                    tag.key
                ));
            }
            if !keys.insert(tag.key.to_lowercase()) {
                return Err(format!("the tag key `{}` stands twice; keys differ without regard to case", tag.key));
            }
        }
        Ok(Self(tags))
    }

    /// Returns the tags as pairs, for conditions.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }
}

/// Returns tags as pairs, for conditions.
pub(crate) fn pairs(tags: &[Tag]) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str()))
}

impl Deref for TagList {
    type Target = [Tag];
    fn deref(&self) -> &[Tag] {
        &self.0
    }
}

impl Deref for TagKeys {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for TagList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for TagKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Vec::<String>::deserialize(deserializer)?;
        if keys.len() > MAX_TAGS {
            return Err(de::Error::custom(format!("no more than {MAX_TAGS} tag keys")));
        }
        keys.iter().try_for_each(|key| check_key(key)).map_err(de::Error::custom)?;
        Ok(Self(keys))
    }
}

fn check_key(key: &str) -> Result<(), String> {
    if !(1..=MAX_KEY).contains(&key.chars().count()) || !key.chars().all(allowed) {
        return Err(format!("a tag key must have 1 to {MAX_KEY} letters, digits, blanks or _.:/=+-@"));
    }
    if key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
        return Err("tag keys that begin with `aws:` are reserved".to_owned());
    }
    Ok(())
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]` of the service models.
fn allowed(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_as_the_models_say() {
        let read = |text: &str| serde_json::from_str::<TagList>(text);
        assert!(read(r#"[{"Key":"이름 1","Value":"값"},{"Key":"a:b/c=d+e-f@g.h_","Value":""}]"#).is_ok());
        for bad in [
            r#"[{"Key":"","Value":"x"}]"#,
            r#"[{"Key":"AWS:x","Value":"x"}]"#,
            r#"[{"Key":"a*","Value":"x"}]"#,
            r#"[{"Key":"a","Value":"a\nb"}]"#,
            r#"[{"Key":"a","Value":"1"},{"Key":"A","Value":"2"}]"#,
            r#"[{"Key":"a"}]"#,
            r#"[{"Key":"a","Value":"x","More":1}]"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let long = |n: usize| format!(r#"[{{"Key":"{}","Value":"{}"}}]"#, "가".repeat(n), "나".repeat(n * 2));
        assert!(read(&long(128)).is_ok());
        assert!(read(&long(129)).is_err());
        assert!(serde_json::from_str::<TagKeys>(r#"["a","b"]"#).is_ok());
        assert!(serde_json::from_str::<TagKeys>(r#"["a","b!"]"#).is_err());
    }
}
