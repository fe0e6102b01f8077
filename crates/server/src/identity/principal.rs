//! A principal, and a caller: a principal together with what it proved itself with.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use munjigi_core::arn::Arn;
use munjigi_core::id::{AccessKeyId, NodeId, UniqueId};
use munjigi_core::policy::PolicySet;
pub use munjigi_core::policy::PrincipalKind;

use super::Role;
use super::session_token::{RoleSession, StandsFor, Statement};
use super::ssh::SshProof;
use super::web_identity::WebCaller;

/// Somebody who can act.
#[derive(Debug)]
pub struct Principal {
    /// What kind it is.
    pub kind: PrincipalKind,
    /// Its name as a resource.
    pub arn: Arn,
    /// Its unchanging id, of role sessions that of the role; `None` for nodes and the anonymous principal.
    pub unique_id: Option<UniqueId>,
    /// Its name for people: the user name, or the name of a role session.
    pub name: Box<str>,
    /// Its path, `/` or `/…/`.
    pub path: Box<str>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its compiled policies: identity policies, boundary, and those passed when its session was made.
    pub policies: PolicySet,
    /// What temporary credentials stand on; `None` for a principal with its long-term key.
    pub session: Option<Session>,
}

/// What temporary credentials stand on.
#[derive(Debug, Clone)]
pub struct Session {
    /// What was sealed in the token.
    pub statement: Arc<Statement>,
    /// `aws:userid`.
    pub user_id: Box<str>,
    /// The role, of role sessions.
    pub role: Option<Arc<Role>>,
}

impl Principal {
    /// Returns `aws:userid`: the unique id of a user, `AROA…:name` of a role session.
    pub fn user_id(&self) -> &str {
        match &self.session {
            Some(session) => &session.user_id,
            None => self.unique_id.as_ref().map_or("ANONYMOUS", UniqueId::as_str),
        }
    }

    /// Returns what its temporary credentials stand for.
    pub fn statement(&self) -> Option<&Arc<Statement>> {
        self.session.as_ref().map(|session| &session.statement)
    }

    /// Returns the node, if AWS's agent on a node is the principal.
    pub fn node(&self) -> Option<&NodeId> {
        match self.statement()?.who {
            StandsFor::Node(ref node) => Some(node),
            StandsFor::User(_) | StandsFor::Role(_) => None,
        }
    }

    /// Returns the role, of role sessions.
    pub fn role(&self) -> Option<&Arc<Role>> {
        self.session.as_ref()?.role.as_ref()
    }

    /// Returns what is special to a role session.
    pub fn role_session(&self) -> Option<&RoleSession> {
        match self.statement()?.who {
            StandsFor::Role(ref session) => Some(session),
            StandsFor::User(_) | StandsFor::Node(_) => None,
        }
    }
}

/// Who makes a request, after authentication.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Arc<Principal>,
    proof: Proof,
}

/// What a caller proved itself with.
#[derive(Debug, Clone)]
enum Proof {
    /// Nothing, or a node's own key.
    Nothing,
    /// A signature with an access key.
    AccessKey(AccessKeyId),
    /// A token of an OpenID Connect provider.
    WebIdentity(Arc<WebCaller>),
    /// Something at the SSH door.
    Ssh(Arc<SshProof>),
}

impl Caller {
    pub(crate) fn new(principal: Arc<Principal>, access_key: Option<AccessKeyId>) -> Self {
        Self { principal, proof: access_key.map_or(Proof::Nothing, Proof::AccessKey) }
    }

    /// Returns a caller that an OpenID Connect provider vouches for.
    pub(super) fn of_web_identity(principal: Arc<Principal>, web_identity: WebCaller) -> Self {
        Self { principal, proof: Proof::WebIdentity(Arc::new(web_identity)) }
    }

    /// Returns a caller that proved itself at the SSH door.
    pub(super) fn of_ssh(principal: Arc<Principal>, proof: Arc<SshProof>) -> Self {
        Self { principal, proof: Proof::Ssh(proof) }
    }

    /// Returns what it proved itself with at the SSH door, if it came there.
    pub fn ssh(&self) -> Option<&Arc<SshProof>> {
        match &self.proof {
            Proof::Ssh(proof) => Some(proof),
            Proof::Nothing | Proof::AccessKey(_) | Proof::WebIdentity(_) => None,
        }
    }

    /// Returns whom a provider vouched for, of a caller that proved itself so.
    pub fn web_identity(&self) -> Option<&WebCaller> {
        match &self.proof {
            Proof::WebIdentity(web) => Some(web),
            Proof::Nothing | Proof::AccessKey(_) | Proof::Ssh(_) => None,
        }
    }

    /// Returns the caller of operations that are open to all.
    #[expect(clippy::expect_used, reason = "the name in view is a resource name")]
    pub(crate) fn anonymous() -> Self {
        static ANONYMOUS: LazyLock<Arc<Principal>> = LazyLock::new(|| {
            Arc::new(Principal {
                kind: PrincipalKind::Anonymous,
                arn: Arn::parse("arn:aws:iam:::anonymous").expect("six parts"),
                unique_id: None,
                name: "anonymous".into(),
                path: "/".into(),
                tags: BTreeMap::new(),
                policies: PolicySet::default(),
                session: None,
            })
        });
        Self::new(ANONYMOUS.clone(), None)
    }

    /// Returns the caller with the same proof as another view of its principal: with temporary credentials that stand on
    /// it, for example.
    pub(crate) fn again_as(&self, principal: Arc<Principal>) -> Self {
        Self { principal, proof: self.proof.clone() }
    }

    /// Returns the principal.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Returns the access key it proved itself with, or that stands behind its proof at the SSH door.
    pub fn access_key(&self) -> Option<&AccessKeyId> {
        match &self.proof {
            Proof::AccessKey(key) => Some(key),
            Proof::Ssh(proof) => proof.access_key.as_ref(),
            Proof::Nothing | Proof::WebIdentity(_) => None,
        }
    }
}
