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
    /// Statements that speak of every action: `*`.
    every: Vec<Place>,
    /// Statements with `NotAction`.
    not: Vec<Place>,
}

/// One statement of a list with what is known about its policy.
pub(super) struct Found<'l> {
    pub(super) id: &'l Arc<str>,
    pub(super) kind: PolicyKind,
    pub(super) index: usize,
    pub(super) statement: &'l Statement,
    /// The index alone proves that the statement speaks of the action.
    pub(super) speaks_of_action: bool,
}

impl PolicyList {
    /// Indexes the policies of one layer.
    pub fn new(policies: impl IntoIterator<Item = NamedPolicy>) -> Self {
        let mut list = Self { policies: policies.into_iter().collect(), ..Self::default() };
        for number in 0..list.policies.len() {
            list.index(number);
        }
        list
    }

    /// Enters the statements of one policy.
    fn index(&mut self, number: usize) {
        let Some(NamedPolicy { id, policy }) = self.policies.get(number).cloned() else { return };
        let StoredPolicy::Readable(policy) = policy else {
            self.broken.get_or_insert(id);
            return;
        };
        for (index, statement) in policy.statements().iter().enumerate() {
            let (Ok(policy), Ok(statement_number)) = (u32::try_from(number), u32::try_from(index)) else {
                // More policies than memory holds; what cannot be indexed must not be overlooked.
                self.broken.get_or_insert(id);
                return;
            };
            let place = Place { policy, statement: statement_number };
            let ActionElement::Any(patterns) = &statement.action else {
                self.not.push(place);
                continue;
            };
            for pattern in patterns {
                let places = match pattern {
                    ActionPattern::Every => &mut self.every,
                    ActionPattern::Exact(action) => self.exact.entry(action.clone()).or_default(),
                    ActionPattern::Service { prefix, .. } => self.service.entry(prefix.clone()).or_default(),
                };
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
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
        let sources = [(exact, true), (self.every.as_slice(), true), (service, false), (self.not.as_slice(), false)];
        Candidates { list: self, sources }
    }

    /// Returns the statements of all policies that could be read.
    pub(super) fn statements(&self) -> impl Iterator<Item = &Statement> {
        let readable = self.policies.iter().filter_map(|named| match &named.policy {
            StoredPolicy::Readable(policy) => Some(policy.statements()),
            StoredPolicy::Broken => None,
        });
        readable.flatten()
    }

    fn found(&self, place: Place, speaks_of_action: bool) -> Option<Found<'_>> {
        let named = self.policies.get(place.policy as usize)?;
        let StoredPolicy::Readable(policy) = &named.policy else { return None };
        let index = place.statement as usize;
        let statement = policy.statements().get(index)?;
        Some(Found { id: &named.id, kind: policy.kind(), index, statement, speaks_of_action })
    }
}

/// Merges the sorted places of the index; each source says whether being in it proves that the action matches.
struct Candidates<'l> {
    list: &'l PolicyList,
    sources: [(&'l [Place], bool); 4],
}

impl<'l> Iterator for Candidates<'l> {
    type Item = Found<'l>;

    fn next(&mut self) -> Option<Found<'l>> {
        let place = *self.sources.iter().filter_map(|(places, _)| places.first()).min()?;
        let mut proven = false;
        for (places, proves) in &mut self.sources {
            if let Some((_, rest)) = places.split_first().filter(|(first, _)| **first == place) {
                (*places, proven) = (rest, proven || *proves);
            }
        }
        self.list.found(place, proven)
    }
}

impl FromIterator<NamedPolicy> for PolicyList {
    fn from_iter<I: IntoIterator<Item = NamedPolicy>>(policies: I) -> Self {
        Self::new(policies)
    }
}
