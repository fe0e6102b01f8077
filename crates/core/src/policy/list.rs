//! The policies of one layer, indexed by action, so that a request meets only statements that may speak of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::action::{Action, ActionPattern};
use super::document::{Policy, PolicyKind};
use super::statement::{ActionElement, Statement};

/// A policy as it was found in the store.
#[derive(Debug, Clone)]
pub enum StoredPolicy {
    /// It was read.
    Readable(Arc<Policy>),
    /// It could not be read: it denies every request it takes part in (T-56), and the store should raise an alarm.
    Broken,
}

/// A policy and the name under which decisions report it.
#[derive(Debug, Clone)]
pub struct NamedPolicy {
    /// Name or ARN.
    pub id: Arc<str>,
    /// The policy itself.
    pub policy: StoredPolicy,
}

impl NamedPolicy {
    /// Names a policy.
    pub fn new(id: impl Into<Arc<str>>, policy: Arc<Policy>) -> Self {
        Self { id: id.into(), policy: StoredPolicy::Readable(policy) }
    }

    /// Names a stored policy that could not be read.
    pub fn broken(id: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), policy: StoredPolicy::Broken }
    }
}

/// Where a statement stands: policy and index in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    policy: u32,
    statement: u32,
}

/// The policies of one layer (a caller's identity policies, one organization level, …), compiled for repeated use.
/// Building costs a hash insertion per action pattern; cloning the `Arc` around it is how it is shared.
#[derive(Debug, Default)]
pub struct PolicyList {
    policies: Vec<NamedPolicy>,
    broken: Option<Arc<str>>,
    /// Statements by folded action, for patterns without wildcard.
    exact: HashMap<Box<str>, Vec<Place>>,
    /// Statements by service, for patterns with a wildcard in the name.
    service: HashMap<Box<str>, Vec<Place>>,
    /// Statements that may speak of any action: `*` and `NotAction`.
    every: Vec<Place>,
}

/// One statement of a list with what is known about its policy.
pub(super) struct Found<'l> {
    pub(super) id: &'l Arc<str>,
    pub(super) kind: PolicyKind,
    pub(super) index: usize,
    pub(super) statement: &'l Statement,
}

impl PolicyList {
    /// Indexes the policies of one layer.
    pub fn new(policies: impl IntoIterator<Item = NamedPolicy>) -> Self {
        let mut list = Self { policies: policies.into_iter().collect(), ..Self::default() };
        for (number, named) in list.policies.iter().enumerate() {
            let StoredPolicy::Readable(policy) = &named.policy else {
                list.broken.get_or_insert_with(|| named.id.clone());
                continue;
            };
            for (index, statement) in policy.statements().iter().enumerate() {
                let (Ok(policy), Ok(statement_number)) = (u32::try_from(number), u32::try_from(index)) else {
                    // More policies than a machine holds; what cannot be indexed must not be overlooked.
                    list.broken.get_or_insert_with(|| named.id.clone());
                    continue;
                };
                let place = Place { policy, statement: statement_number };
                match &statement.action {
                    ActionElement::Not(_) => list.every.push(place),
                    ActionElement::Any(patterns) => {
                        for pattern in patterns {
                            match pattern {
                                ActionPattern::Every => list.every.push(place),
                                ActionPattern::Exact(action) => {
                                    list.exact.entry(action.clone()).or_default().push(place);
                                }
                                ActionPattern::Service { prefix, .. } => {
                                    list.service.entry(prefix.clone()).or_default().push(place);
                                }
                            }
                        }
                    }
                }
            }
        }
        list
    }

    /// Tells how many policies the list holds.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Tells whether the list holds no policy.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Returns the policies, in the order they were given.
    pub fn policies(&self) -> &[NamedPolicy] {
        &self.policies
    }

    /// Returns the name of a policy that could not be read, if there is one.
    pub fn broken(&self) -> Option<&Arc<str>> {
        self.broken.as_ref()
    }

    /// Returns the statements that may speak of an action, in the order they were written, each once.
    pub(super) fn candidates(&self, action: &Action) -> impl Iterator<Item = Found<'_>> {
        let exact = self.exact.get(&action.folded).map(Vec::as_slice).unwrap_or_default();
        let service = self.service.get(action.prefix()).map(Vec::as_slice).unwrap_or_default();
        let mut places = [exact, service, &self.every].concat();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| self.found(place))
    }

    fn found(&self, place: Place) -> Option<Found<'_>> {
        let named = self.policies.get(place.policy as usize)?;
        let StoredPolicy::Readable(policy) = &named.policy else { return None };
        let index = place.statement as usize;
        Some(Found { id: &named.id, kind: policy.kind(), index, statement: policy.statements().get(index)? })
    }
}

impl FromIterator<NamedPolicy> for PolicyList {
    fn from_iter<I: IntoIterator<Item = NamedPolicy>>(policies: I) -> Self {
        Self::new(policies)
    }
}
