//! A role: what its sessions may do, and who may begin one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use munjigi_core::policy::{PolicyList, PolicySet};

/// A role with its policies compiled.
#[derive(Debug)]
pub struct Role {
    /// Its unchanging id.
    pub id: UniqueId,
    /// Its name.
    pub name: Box<str>,
    /// Its path, `/` or `/…/`.
    pub path: Box<str>,
    /// Its name as a resource.
    pub arn: Arn,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its identity policies and boundary.
    pub policies: PolicySet,
    /// Its trust policy, a list of one.
    pub trust: Arc<PolicyList>,
    /// How long its sessions may last.
    pub max_session: Duration,
}

impl Role {
    /// Returns a role's tags with a session's over them; keys are the same without regard to case.
    pub(super) fn tags_with<'t>(&self, session: impl Iterator<Item = (&'t str, &'t str)>) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        for (key, value) in session {
            tags.retain(|own, _| own.to_lowercase() != key.to_lowercase());
            tags.insert(key.to_owned(), value.to_owned());
        }
        tags
    }
}
