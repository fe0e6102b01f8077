//! Who somebody at the SSH door is: by a key that a user registered, by one that was pushed, by a certificate, or
//! because somebody approved the login.
//!
//! A key that is offered and one whose owner has proved to have it are different types, and only the second kind
//! becomes a caller (T-33). What the caller may do is not decided here. Whoever is refused reads nothing but SSH's own
//! sentence; the reason stands in the trail (event `AuthenticateSsh`).

pub mod approval;
mod certificate;
mod pushed;
#[cfg(test)]
mod tests;
mod too_many;

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;
use munjigi_core::id::{AccessKeyId, NodeId, SshKeyId};
use munjigi_core::ssh::certificate::Permits;
use munjigi_core::ssh::{Fingerprint, PublicKey, PublicKeyError};
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub use certificate::authenticate_certificate;
pub(crate) use pushed::{Push, Pushes};
pub(crate) use too_many::LoginFailures;

use super::{Caller, Identities, Principal};
use crate::api::error::{ApiError, Denial};
use crate::api::operation::{Effect, Service};
use crate::api::ssm::target::Target;
use crate::door::{Event, Outcome, RequestMeta, Via, Who, failures};
use crate::store::Node;
use crate::{Server, clock};

/// Purpose of the forward session that the SSH door opens for a connection's forwards.
pub(crate) const SSH_PURPOSE: &str = "ssh";
/// Name of the event of a login that was refused.
const EVENT: &str = "AuthenticateSsh";

/// What somebody proved themselves with at the SSH door, and what follows from it beyond their policies. Nothing in it
/// changes while the connection lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshProof {
    /// How.
    pub kind: SshProofKind,
    /// `SHA256:…` of the key, of a certificate that of the certified key; empty for an approved login.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// The only OS users that it is good for; `None` if policy alone decides. An empty list is nobody (T-22).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_users: Option<Vec<String>>,
    /// The only node that it is good for; `None` for all that policy allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Where it may be used from; empty for anywhere. Judged when it is used, an address does not change later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpNet>,
    /// The only command, whatever is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_command: Option<String>,
    /// What a certificate permits; `None` for what is no certificate and leaves it to policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<Permits>,
    /// Until when it is good for anything new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The access key that stands behind it: of who pushed the key or approved the login (T-104).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKeyId>,
}

/// The ways of proving oneself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum SshProofKind {
    /// A key that the user registered (`UploadSSHPublicKey`).
    Registered {
        /// The key's id.
        key_id: SshKeyId,
    },
    /// A key that the principal pushed (`SendSSHPublicKey`).
    Pushed {
        /// The request that pushed it.
        request_id: String,
    },
    /// A certificate of the deployment's authority.
    Certificate {
        /// Its serial number.
        serial: u64,
        /// Its key id, for people.
        key_id: String,
    },
    /// No key: the principal approved the login elsewhere (`ApproveSshLogin`).
    Approved {
        /// The request that approved it.
        request_id: String,
        /// Where it was approved from.
        from: IpAddr,
        /// Whether it was approved with a second factor.
        mfa: bool,
    },
}

impl SshProofKind {
    /// Returns the word for `authenticationMethod` in the trail.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Registered { .. } => "SshPublicKey",
            Self::Pushed { .. } => "SshPushedKey",
            Self::Certificate { .. } => "SshCertificate",
            Self::Approved { .. } => "SshApproval",
        }
    }
}

impl SshProof {
    /// Returns a proof that binds nothing but who it is.
    pub(super) fn new(kind: SshProofKind, fingerprint: String) -> Self {
        Self {
            kind,
            fingerprint,
            os_users: None,
            node: None,
            sources: Vec::new(),
            force_command: None,
            permits: None,
            expires: None,
            access_key: None,
        }
    }

    /// Tells whether it is good for nothing new any more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Returns the OS user, if it is good for exactly one: whoever names none gets that one.
    pub fn only_os_user(&self) -> Option<&str> {
        match self.os_users.as_deref() {
            Some([only]) => Some(only),
            _ => None,
        }
    }

    /// Judges a node, and the OS user if there is one, by what the proof is bound to.
    pub(crate) fn allows(&self, node: &NodeId, os_user: Option<&str>) -> Result<(), ApiError> {
        let denied = |message: String| Err(ApiError::Denied(Denial { reason: "ssh-proof", message }));
        if self.node.as_ref().is_some_and(|bound| bound != node) {
            return denied(format!("what proves the login is good for another node than {node}"));
        }
        match (&self.os_users, os_user) {
            (Some(bound), Some(os_user)) if !bound.iter().any(|user| user == os_user) => {
                denied(format!("what proves the login is not good for the OS user {os_user}"))
            }
            _ => Ok(()),
        }
    }

    /// Judges a terminal and forwards by what a certificate permits. Forwards are judged again one by one, as there are
    /// several kinds of them: [`Self::permits_forward`].
    pub(crate) fn permits(&self, pty: bool, forwards: bool) -> Result<(), ApiError> {
        let denied = |message: &str| Err(ApiError::Denied(Denial { reason: "ssh-proof", message: message.to_owned() }));
        match self.permits {
            Some(permits) if pty && !permits.pty => denied("the certificate permits no terminal"),
            Some(permits) if forwards && !permits.port_forwarding && !permits.agent_forwarding => {
                denied("the certificate permits no forwarding")
            }
            _ => Ok(()),
        }
    }

    /// Judges one forward by what a certificate permits: `agent` for that of the client's agent. The error is for people.
    pub(crate) fn permits_forward(&self, agent: bool) -> Result<(), &'static str> {
        match self.permits {
            Some(permits) if agent && !permits.agent_forwarding => {
                Err("the certificate permits no forwarding of an agent; get one by `munjigi login --permit` with \
                     permit-agent-forwarding")
            }
            Some(permits) if !agent && !permits.port_forwarding => Err("the certificate permits no forwarding"),
            _ => Ok(()),
        }
    }

    /// Returns the proof as the trail shows it.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        // The kind's members stand beside the others.
        if let Some(members) = shown.as_object_mut()
            && let Some(Value::Object(kind)) = members.remove("kind")
        {
            members.extend(kind);
        }
        shown
    }
}

/// What somebody wants at the SSH door, before it is known who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshWish {
    /// The node as the login names it; `None` for a jump, which names it later.
    pub node: Option<String>,
    /// The OS user, if the login names one.
    pub os_user: Option<String>,
    /// Where the connection comes from.
    pub source: IpAddr,
}

/// A key or certificate that somebody says is theirs; proves nothing (T-33).
#[derive(Debug, Clone)]
pub enum OfferedKey {
    /// A key; `None` if its kind or size is never let in.
    Key(Option<PublicKey>),
    /// A certificate: judged when it is proved, so that the trail says what is wrong with it.
    Certificate,
}

/// A key whose private half has signed this connection.
#[derive(Debug, Clone)]
pub struct ProvedKey {
    key: Result<PublicKey, PublicKeyError>,
    fingerprint: Fingerprint,
    presence: Presence,
}

/// A certificate whose key's private half has signed this connection. Whether the certificate is worth anything is
/// still to be judged.
#[derive(Debug, Clone)]
pub struct ProvedCertificate {
    certificate: russh::keys::Certificate,
    presence: Presence,
}

/// Whether somebody was there when a security key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The key is in software, or was touched.
    Shown,
    /// The security key signed without being touched.
    Missing,
}

impl Presence {
    /// Reads the flags of a security key's signature: behind the signature proper stand a byte of flags, of which the
    /// lowest says that a person was there, and a counter of four bytes (OpenSSH, `PROTOCOL.u2f`).
    fn of(signature: &russh::keys::ssh_key::Signature) -> Self {
        use russh::keys::Algorithm;
        const USER_PRESENT: u8 = 0x01;
        const TRAILER: usize = 5;
        if !matches!(signature.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
            return Self::Shown;
        }
        let bytes = signature.as_bytes();
        let flags = bytes.len().checked_sub(TRAILER).and_then(|at| bytes.get(at));
        if flags.is_some_and(|flags| flags & USER_PRESENT != 0) { Self::Shown } else { Self::Missing }
    }
}

impl OfferedKey {
    /// Takes what was offered.
    pub fn new(offer: &russh::server::PublicKeyOffer<'_>) -> Self {
        match offer.certificate {
            Some(_) => Self::Certificate,
            None => Self::Key(read(offer.public_key).ok()),
        }
    }
}

impl ProvedKey {
    /// Takes a key after its signature over this connection was verified: russh makes its argument of nothing else.
    pub fn new(proved: &russh::server::VerifiedPublicKey<'_>) -> Self {
        let fingerprint = Fingerprint::of(&proved.public_key.to_bytes().unwrap_or_default());
        Self { key: read(proved.public_key), fingerprint, presence: Presence::of(proved.signature) }
    }
}

impl ProvedCertificate {
    /// Takes a certificate after the signature of its key over this connection was verified: russh makes its argument
    /// of nothing else.
    pub fn new(proved: &russh::server::VerifiedCertificate<'_>) -> Self {
        Self { certificate: proved.certificate.clone(), presence: Presence::of(proved.signature) }
    }

    /// Returns the certificate.
    pub fn certificate(&self) -> &russh::keys::Certificate {
        &self.certificate
    }

    /// Tells whether somebody was there when its key, a security key, signed.
    pub fn presence(&self) -> Presence {
        self.presence
    }
}

fn read(key: &russh::keys::PublicKey) -> Result<PublicKey, PublicKeyError> {
    let blob = key.to_bytes().map_err(|_| PublicKeyError::NotAKey)?;
    PublicKey::from_parts(key.algorithm().as_str(), &blob)
}

/// Why somebody was not let in. The code and the text stand in the trail; the client learns neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshRefusal {
    /// Nobody registered or pushed the key.
    #[error("nobody registered the key, and no push of it is good for this login")]
    UnknownKey,
    /// A key of a kind or size that is never let in.
    #[error("{0}")]
    KeyNotTaken(PublicKeyError),
    /// A security key signed, and nobody touched it.
    #[error("the security key signed without being touched, so nobody needs to have been there")]
    NoPresence,
    /// Its owner switched it off.
    #[error("the key {0} is inactive")]
    InactiveKey(SshKeyId),
    /// The key was pushed for another node or OS user.
    #[error("the key was pushed for another node or OS user")]
    PushedForOther,
    /// The user, or what it pushed or approved with, is gone.
    #[error("the principal, or the credentials that stand behind the proof, are gone")]
    PrincipalGone,
    /// A certificate was refused; the authority's own code and text.
    #[error("{message}")]
    Certificate {
        /// Its own code.
        code: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Too many logins from there wait for an approval, or began of late.
    #[error("too many logins wait for an approval, or began of late from this address or its network")]
    TooManyApprovals,
    /// Somebody said that it is not theirs.
    #[error("{0} denied the login")]
    ApprovalDenied(String),
    /// Nobody answered in time.
    #[error("nobody approved the login in time")]
    NotApproved,
    /// The client answered nothing to the question about it, as one does that nobody watches.
    #[error("the login was not approved yet, and nobody is there to wait for it")]
    NotAwaited,
    /// Too many proofs from there, or in all, were refused of late.
    #[error("too many logins from this address, its network, or altogether were refused of late")]
    TooManyFailures,
    /// The connection ended, or tried too often, and proved nobody.
    #[error("the connection proved nobody")]
    NobodyProved,
    /// The server could not find out.
    #[error("the login could not be judged: {0}")]
    Failed(String),
}

impl SshRefusal {
    /// Returns the code in the trail.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownKey => "UnknownKey",
            Self::KeyNotTaken(_) => "KeyNotTaken",
            Self::NoPresence => "NoUserPresence",
            Self::InactiveKey(_) => "InactiveKey",
            Self::PushedForOther => "PushedForOther",
            Self::PrincipalGone => "PrincipalGone",
            Self::Certificate { code, .. } => code,
            Self::TooManyApprovals => "TooManyApprovals",
            Self::ApprovalDenied(_) => "ApprovalDenied",
            Self::NotApproved => "NotApproved",
            Self::NotAwaited => "ApprovalNotAwaited",
            Self::TooManyFailures => "TooManyFailures",
            Self::NobodyProved => "NobodyProved",
            Self::Failed(_) => "Failed",
        }
    }
}

/// Tells whether it is worth asking for a signature with the key. Changes nothing, and the answer says no more than
/// that somebody can come in with it somewhere: it does not depend on the wish, so that nobody can probe for nodes and
/// OS users.
pub async fn would_take(server: &Server, key: &OfferedKey, _wish: &SshWish) -> bool {
    let fingerprint = match key {
        OfferedKey::Certificate => return true,
        OfferedKey::Key(None) => return false,
        OfferedKey::Key(Some(key)) => key.fingerprint(),
    };
    let registered = server.identities.ssh_key(&fingerprint).is_some_and(|(key, _)| key.active);
    registered || server.ssh_pushes.know(&fingerprint, clock::now())
}

/// Finds whom a key names: the user who registered it, else who pushed it for this login. A pushed key for single use
/// is used up. A refusal is in the trail when this returns.
pub async fn authenticate_key(server: &Server, proved: ProvedKey, wish: &SshWish) -> Result<Caller, SshRefusal> {
    let identified = identify(server, &proved, wish).await;
    let identified = identified.map_err(|refusal| server.ssh_failures.judge(refusal, wish.source, clock::now()));
    if let Err(refusal) = &identified {
        refused(server, wish, Some(&proved.fingerprint.to_string()), refusal).await;
    }
    identified
}

async fn identify(server: &Server, proved: &ProvedKey, wish: &SshWish) -> Result<Caller, SshRefusal> {
    let fingerprint = proved.key.as_ref().map_err(|error| SshRefusal::KeyNotTaken(error.clone()))?.fingerprint();
    if proved.presence == Presence::Missing {
        return Err(SshRefusal::NoPresence);
    }
    match server.identities.ssh_key(&fingerprint) {
        Some((key, owner)) if key.active => {
            let kind = SshProofKind::Registered { key_id: key.id };
            Ok(Caller::of_ssh(owner, Arc::new(SshProof::new(kind, fingerprint.to_string()))))
        }
        registered => match pushed::identify(server, &fingerprint, wish).await {
            Err(SshRefusal::UnknownKey) => {
                Err(registered.map_or(SshRefusal::UnknownKey, |(key, _)| SshRefusal::InactiveKey(key.id)))
            }
            identified => identified,
        },
    }
}

/// Returns the caller that a login becomes which somebody approved with a request: good for what the approver was shown
/// and for nothing else. A login that names no node there is only jumps, and each login inside proves itself.
pub(crate) fn approved(by: &Caller, request: &RequestMeta, wish: &SshWish, node: Option<NodeId>) -> Caller {
    let kind = SshProofKind::Approved {
        request_id: request.request_id.to_string(),
        from: request.source_ip,
        mfa: by.principal().statement().is_some_and(|statement| statement.mfa.is_some()),
    };
    let os_users = wish.os_user.as_ref().map(|os_user| vec![os_user.clone()]);
    let access_key = by.access_key().cloned();
    let proof = SshProof { access_key, os_users, node, ..SshProof::new(kind, String::new()) };
    Caller::of_ssh(by.principal().clone(), Arc::new(proof))
}

/// Writes a refused login into the trail; of a flood the first of each kind at once, the rest as their number.
pub async fn refused(server: &Server, wish: &SshWish, fingerprint: Option<&str>, refusal: &SshRefusal) {
    let request = RequestMeta {
        request_id: Uuid::new_v4(),
        time: clock::now(),
        source_ip: wish.source,
        user_agent: "ssh".to_owned(),
        referer: None,
        tls: None,
        host: String::new(),
        region: server.deployment.region.to_string(),
        invocation_id: None,
        via: Via::Ssh,
    };
    let error = ApiError::refused(refusal.code(), StatusCode::FORBIDDEN, refusal.to_string());
    let parameters = json!({ "node": wish.node, "osUser": wish.os_user });
    let extras = fingerprint.map(|print| ("keyFingerprint".to_owned(), print.into())).into_iter().collect();
    let event = Event::named(server, &request, Who::Unknown(None), Service::Munjigi, EVENT, Effect::Write);
    let record = event.parameters(&parameters).extras(&extras).complete(Outcome::Failure(&error));
    failures::record(server, wish.source, record).await;
}

impl Identities {
    /// Tells whether what somebody proved themselves with still names the principal; its age is not asked for. The
    /// credentials behind it are the caller's to judge.
    pub(crate) fn ssh_proof_holds(&self, proof: &SshProof, principal: &Principal) -> bool {
        match &proof.kind {
            SshProofKind::Registered { key_id } => {
                let found = Fingerprint::parse(&proof.fingerprint).and_then(|print| self.ssh_key(&print));
                found.is_some_and(|(key, owner)| {
                    key.active && key.id == *key_id && owner.unique_id == principal.unique_id
                })
            }
            SshProofKind::Certificate { serial, .. } => certificate::holds(self, *serial),
            // They are worth what the credentials behind them are worth.
            SshProofKind::Pushed { .. } | SshProofKind::Approved { .. } => true,
        }
    }
}

/// Returns the node that a wish names; what names none or several is none.
pub(crate) async fn node_of(server: &Server, wish: &SshWish) -> Result<Option<Node>, ApiError> {
    let Some(name) = &wish.node else { return Ok(None) };
    match Target::resolve(server, name).await? {
        Target::Node(node) => Ok(Some(*node)),
        Target::Ambiguous(_) | Target::Unknown => Ok(None),
    }
}
