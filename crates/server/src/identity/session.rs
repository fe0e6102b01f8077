//! From what a session token says to the principal that holds now: its user as it is, with what the session adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use munjigi_core::id::NodeId;
use munjigi_core::policy::{PolicySet, PrincipalKind};

use super::session_token::{StandsFor, Statement};
use super::{Identities, Principal, Session};

impl Identities {
    /// Returns the principal of temporary credentials with its policies of this moment. `None` once the user, or the
    /// long-term key that they go back to, is gone, inactive or somebody else's (T-104). Whether a node is still
    /// registered is not known here: who serves nodes asks the store.
    pub fn of_statement(&self, statement: &Arc<Statement>) -> Option<Arc<Principal>> {
        if let Some(key) = &statement.source_key {
            self.by_access_key(key)?;
        }
        let principal = match &statement.who {
            StandsFor::User(id) => {
                let user = self.by_unique_id(id)?;
                Principal {
                    kind: PrincipalKind::User,
                    arn: user.arn.clone(),
                    unique_id: user.unique_id.clone(),
                    name: user.name.clone(),
                    path: user.path.clone(),
                    tags: user.tags.clone(),
                    policies: user.policies.clone(),
                    session: Some(Session { statement: statement.clone(), user_id: id.as_str().into() }),
                }
            }
            StandsFor::Node(node) => self.node(node, statement),
        };
        Some(Arc::new(principal))
    }

    /// Returns the principal of AWS's agent on a node. It has no policies: it may call what is made for nodes.
    fn node(&self, node: &NodeId, statement: &Arc<Statement>) -> Principal {
        Principal {
            kind: PrincipalKind::Service,
            arn: self.deployment().node(node),
            unique_id: None,
            name: node.as_str().into(),
            path: "/".into(),
            tags: BTreeMap::new(),
            policies: PolicySet::default(),
            session: Some(Session { statement: statement.clone(), user_id: node.as_str().into() }),
        }
    }
}
