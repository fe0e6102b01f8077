//! Which endpoints the node knows from grants that a session may reach.

use std::collections::VecDeque;
use std::sync::Mutex;

use munjigi_core::endpoint::Endpoint;

use crate::lock;

/// Most endpoints that later grants added and that are remembered; as many as the node remembers. Whoever forgets first,
/// the other one's word makes a new grant.
const MAX_ADDED: usize = 1024;

/// The endpoints of one session.
#[derive(Debug)]
pub struct Granted {
    first: Vec<Endpoint>,
    /// Newest last.
    added: Mutex<VecDeque<Endpoint>>,
}

impl Granted {
    /// Begins with those of the grant that started the session.
    pub(in crate::gateway) fn new(first: Vec<Endpoint>) -> Self {
        Self { first, added: Mutex::default() }
    }

    pub(super) fn contains(&self, endpoint: &Endpoint) -> bool {
        self.first.contains(endpoint) || lock(&self.added).contains(endpoint)
    }

    pub(super) fn add(&self, endpoint: &Endpoint) {
        if self.contains(endpoint) {
            return;
        }
        let mut added = lock(&self.added);
        added.push_back(endpoint.clone());
        if added.len() > MAX_ADDED {
            added.pop_front();
        }
    }
}
