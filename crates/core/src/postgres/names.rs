//! The names that a client has given to prepared statements and portals, bounded.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

/// Longer names are known by their hash: a client may choose them as long as a message.
const LONGEST: usize = 64;

/// A name, at most 65 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Name(Arc<[u8]>);

impl Name {
    pub(super) fn new(name: &[u8]) -> Self {
        if name.len() <= LONGEST {
            return Self(name.into());
        }
        let mut hashed = digest(&SHA256, name).as_ref().to_vec();
        hashed.resize(LONGEST + 1, 0);
        Self(hashed.into())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name for people.
    pub(super) fn shown(&self) -> String {
        if self.0.len() > LONGEST {
            "a name of more than 64 bytes".to_owned()
        } else {
            String::from_utf8_lossy(&self.0).into_owned()
        }
    }
}

/// What names stand for. When there are too many, the oldest is forgotten.
#[derive(Debug)]
pub(super) struct Names<T> {
    map: HashMap<Name, (u64, T)>,
    most: usize,
    last: u64,
}

impl<T> Names<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { map: HashMap::new(), most, last: 0 }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&T> {
        self.map.get(name).map(|(_, value)| value)
    }

    /// Gives the name a meaning and returns the one it had.
    pub(super) fn insert(&mut self, name: Name, value: T) -> Option<T> {
        if self.map.len() >= self.most && !self.map.contains_key(&name) {
            let oldest = self.map.iter().min_by_key(|(_, (number, _))| *number).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.map.remove(&oldest));
        }
        self.last += 1;
        self.map.insert(name, (self.last, value)).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<T> {
        self.map.remove(name).map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.map.values_mut().map(|(_, value)| value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Name, &mut T)> {
        self.map.iter_mut().map(|(name, (_, value))| (name, value))
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}
