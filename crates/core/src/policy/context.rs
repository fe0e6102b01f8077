//! The request context: condition keys and their values, found without regard to case.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextValue {
    /// A single-valued key; only these can stand for a policy variable.
    Single(String),
    /// A multi-valued key; an empty set counts as an absent key.
    Multi(Vec<String>),
}

impl ContextValue {
    /// Returns the values, one or several.
    pub fn values(&self) -> &[String] {
        match self {
            Self::Single(value) => std::slice::from_ref(value),
            Self::Multi(values) => values,
        }
    }
}

/// What is asked about a path and every path below it ([`Context::set_tree`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// Is the answer yes for all of them? What cannot be told is no.
    All,
    /// Could it be yes for one of them? What cannot be told is yes.
    Some,
}

/// The values a request brings for condition keys and variables. Key names fold case, tag names in them too, so that
/// `aws:resourcetag/ENV` finds `aws:ResourceTag/Env`; values are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    by_folded_name: HashMap<Box<str>, ContextValue, BuildHasherDefault<NameHasher>>,
    /// Folded names of keys whose value is not known yet; few.
    open: Vec<Box<str>>,
    /// Folded names of keys that stand for a path and everything below it, with that path; few.
    trees: Vec<(Box<str>, Box<str>, Tree)>,
}

impl Context {
    /// Returns a context without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a single-valued key, in place of an earlier value under any spelling of its name.
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.by_folded_name.insert(fold(key).into(), ContextValue::Single(value.into()));
        self
    }

    /// Sets a multi-valued key, in place of an earlier value; an empty set leaves the key absent.
    pub fn set_many<V: Into<String>>(&mut self, key: &str, values: impl IntoIterator<Item = V>) -> &mut Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if values.is_empty() {
            self.by_folded_name.remove(fold(key).as_str());
        } else {
            self.by_folded_name.insert(fold(key).into(), ContextValue::Multi(values));
        }
        self
    }

    /// Leaves a key open: it has a value that will only be known later, and the question is whether there is one with
    /// which the answer could be yes. A condition on it counts as true in an Allow and as false in a Deny, and the
    /// decision lists it among the missing keys. Whoever asks so must ask again once the value is known.
    pub fn leave_open(&mut self, key: &str) -> &mut Self {
        let folded = fold(key);
        self.by_folded_name.remove(folded.as_str());
        self.open.push(folded.into());
        self
    }

    /// Lets a key stand for a path and every path below it. For [`Tree::All`] a condition on it counts as true in an
    /// Allow if it certainly is for all of them, and in a Deny unless it certainly is for none; for [`Tree::Some`] it
    /// is the other way round.
    pub fn set_tree(&mut self, key: &str, path: &str, tree: Tree) -> &mut Self {
        let folded = fold(key);
        self.by_folded_name.remove(folded.as_str());
        self.trees.push((folded.into(), path.trim_end_matches('/').into(), tree));
        self
    }

    /// Returns what a key holds; `None` when it is absent.
    pub fn get(&self, key: &str) -> Option<&ContextValue> {
        self.get_folded(&fold(key))
    }

    /// Tells how many keys are present.
    pub fn len(&self) -> usize {
        self.by_folded_name.len()
    }

    /// Tells whether no key is present.
    pub fn is_empty(&self) -> bool {
        self.by_folded_name.is_empty()
    }

    pub(super) fn is_open(&self, folded: &str) -> bool {
        self.open.iter().any(|open| **open == *folded)
    }

    pub(super) fn tree(&self, folded: &str) -> Option<(&str, Tree)> {
        self.trees.iter().find(|(name, ..)| **name == *folded).map(|(_, path, tree)| (&**path, *tree))
    }

    pub(super) fn get_folded(&self, folded: &str) -> Option<&ContextValue> {
        self.by_folded_name.get(folded)
    }
}

/// The name of a condition key: as written, for people, and folded, for looking up.
#[derive(Debug, Clone)]
pub(super) struct Key {
    shown: std::sync::Arc<str>,
    folded: std::sync::Arc<str>,
}

impl Key {
    pub(super) fn new(name: &str) -> Self {
        Self { shown: name.into(), folded: fold(name).into() }
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn folded(&self) -> &str {
        &self.folded
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

/// A set of key names.
#[derive(Debug, Default)]
pub(super) struct Keys(HashSet<Key, BuildHasherDefault<NameHasher>>);

impl Keys {
    pub(super) fn insert(&mut self, key: &Key) {
        if !self.0.contains(key) {
            self.0.insert(key.clone());
        }
    }

    pub(super) fn names(self) -> Vec<String> {
        self.0.iter().map(|key| key.shown().to_owned()).collect()
    }
}

/// A fast hash of key names. A request has some dozens of keys, so that even names chosen to collide cost little, and
/// a decision looks keys up once per condition, so that the hash is most of its price.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    fn finish(&self) -> u64 {
        // The table takes its buckets from the low bits and its tags from the high ones; mix both.
        self.0 ^ (self.0 >> 32)
    }
}

/// Folds case as key names and the `…IgnoreCase` operators do.
pub(super) fn fold(text: &str) -> String {
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_empty_sets_are_absent() {
        let mut context = Context::new();
        context.set("aws:ResourceTag/Env", "Prod").set_many("aws:TagKeys", ["a", "b"]);
        assert_eq!(context.get("AWS:resourcetag/ENV"), Some(&ContextValue::Single("Prod".into())));
        assert_eq!(context.get("aws:tagkeys").map(|v| v.values().len()), Some(2));
        context.set_many("AWS:TAGKEYS", Vec::<String>::new());
        assert_eq!(context.get("aws:TagKeys"), None);
        assert_eq!((context.len(), context.is_empty()), (1, false));
    }
}
