//! From what a session token says to the principal that holds now: its user or role as it is, with what the session adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use munjigi_core::id::NodeId;
use munjigi_core::policy::{NamedPolicy, PolicyKind, PolicyList, PolicySet, PrincipalKind};

use super::session_token::{RoleSession, SessionPolicies, StandsFor, Statement};
use super::{Identities, Principal, Session, load};

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
                    session: Some(Session { statement: statement.clone(), user_id: id.as_str().into(), role: None }),
                }
            }
            StandsFor::Role(session) => self.role_session(session, statement)?,
            StandsFor::Node(node) => self.node(node, statement),
        };
        Some(Arc::new(principal))
    }

    fn role_session(&self, session: &RoleSession, statement: &Arc<Statement>) -> Option<Principal> {
        let role = self.role(&session.role)?;
        let user_id = format!("{}:{}", role.id, session.name).into();
        Some(Principal {
            kind: PrincipalKind::AssumedRole,
            arn: self.deployment().assumed_role(&role.name, &session.name),
            unique_id: Some(role.id.clone()),
            name: session.name.as_str().into(),
            path: role.path.clone(),
            tags: role.tags_with(session.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str()))),
            policies: PolicySet {
                session: session.policies.as_ref().map(|policies| Arc::new(self.session_policies(policies))),
                ..role.policies.clone()
            },
            session: Some(Session { statement: statement.clone(), user_id, role: Some(role) }),
        })
    }

    /// Compiles the policies that were passed; a managed one that is gone denies, as one that cannot be read.
    fn session_policies(&self, policies: &SessionPolicies) -> PolicyList {
        let document = policies.document.iter().map(|text| load::named("session policy", text, PolicyKind::Session));
        let managed = policies
            .managed
            .iter()
            .map(|arn| self.managed_policy(arn.as_str()).unwrap_or_else(|| NamedPolicy::broken(arn.as_str())));
        PolicyList::new(document.chain(managed))
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
            session: Some(Session { statement: statement.clone(), user_id: node.as_str().into(), role: None }),
        }
    }
}
