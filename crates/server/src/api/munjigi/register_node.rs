//! `RegisterNode`: makes a node out of an activation and a key.
//!
//! Open to all, because a new node has no identity yet: the activation's code lets it in, once (T-28), and its signature
//! proves that it has the key whose hash becomes its id (T-31).

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::NodeId;
use munjigi_core::secret::Secret;
use munjigi_core::wire::enrol::register_message;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::names::{Fact, InstanceName, node_name};
use crate::api::ssm::refuse::refused;
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::ssh_authority::watch::HOST_NAMES_TAG;
use crate::store::{AgentKind, NewNode, NodeFacts, NodeName, RegisterError};

/// Bytes of a raw Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;
/// Longest code that is looked at; ours have 43 characters.
const MAX_CODE: usize = 250;

/// The operation.
pub struct RegisterNode;

/// Its input.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The activation.
    pub activation_id: String,
    /// Its code.
    pub activation_code: String,
    /// The node's raw Ed25519 public key in base 64.
    pub public_key: String,
    /// Signature by that key, in base 64, over the message of `wire::enrol`.
    pub public_key_signature: String,
    /// The name the node shall have; without one the activation's, or else the host's, with a number if it is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<InstanceName>,
    /// Tags, over those of the activation.
    #[serde(default)]
    pub tags: TagList,
    /// The host's own name.
    pub hostname: Fact,
    /// Its operating system.
    pub platform_name: Fact,
    /// Version of the operating system.
    pub platform_version: Fact,
    /// Always `Linux`.
    pub platform_type: PlatformType,
    /// Its processor.
    pub architecture: Fact,
    /// The agent's version.
    pub agent_version: Fact,
}

/// The kinds of operating system that an agent runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum PlatformType {
    /// Linux.
    Linux,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The node's id.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// The public half of the deployment's root in base 64; the agent pins it (T-20).
    pub root_public_key: String,
    /// The keys whose grants the agent may believe, signed by that root, in base 64.
    pub trust_bundle: String,
    /// The deployment's region.
    pub region: String,
    /// The deployment's account.
    pub account: String,
}

impl Operation for RegisterNode {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "RegisterNode";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Open;
    const SECRET_FIELDS: &'static [&'static str] = &["ActivationCode"];
    const EXAMPLE: &'static str = r#"{"ActivationId":"00000000-0000-0000-0000-000000000000","ActivationCode":"example",
        "PublicKey":"","PublicKeySignature":"","Hostname":"example","PlatformName":"Linux","PlatformVersion":"1",
        "PlatformType":"Linux","Architecture":"x86_64","AgentVersion":"0.1.0"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let public_key = input.proven_key()?;
        if input.tags.iter().any(|tag| tag.key == HOST_NAMES_TAG) {
            // The server vouches for these names; a node must not choose them.
            let message = format!("the tag {HOST_NAMES_TAG} is for administrators to set, on the registered node");
            return Err(ApiError::Validation(message));
        }
        let activation = Uuid::parse_str(&input.activation_id).map_err(|_| refusal(RegisterError::Activation))?;
        if input.activation_code.len() > MAX_CODE {
            return Err(refusal(RegisterError::Activation));
        }
        let code = Secret::new(input.activation_code.clone());
        let source = call.request().source_ip.to_canonical().to_string();
        let new = NewNode {
            agent: AgentKind::Munjigi,
            name: input.wished_name(&public_key),
            public_key,
            fingerprint: None,
            facts: input.facts(),
            ip_address: Some(source),
            tags: input.tags.to_vec(),
        };
        let registered = server.store.register_node(&activation, &code, &new, call.request().time).await;
        let node = registered.map_err(refusal)?;
        Ok(Output {
            node_id: node.id,
            name: node.name,
            root_public_key: STANDARD.encode(server.keys.root_public()),
            trust_bundle: STANDARD.encode(server.keys.signed_bundle()),
            region: server.deployment.region.to_string(),
            account: server.deployment.account.to_string(),
        })
    }
}

impl Input {
    /// Returns the public key, if the signature proves that the caller has the private one.
    fn proven_key(&self) -> Result<Vec<u8>, ApiError> {
        let invalid = || ApiError::bad("InvalidPublicKey", "the public key is not proved by its signature");
        let key = STANDARD.decode(&self.public_key).map_err(|_| invalid())?;
        let signature = STANDARD.decode(&self.public_key_signature).map_err(|_| invalid())?;
        if key.len() != PUBLIC_KEY_BYTES {
            return Err(invalid());
        }
        let message = register_message(&self.activation_id);
        UnparsedPublicKey::new(&ED25519, &key).verify(&message, &signature).map_err(|_| invalid())?;
        Ok(key)
    }

    /// Returns the name the node wishes for. A host name that is no name for a node gives way to the node's id.
    fn wished_name(&self, public_key: &[u8]) -> Option<NodeName> {
        match self.name.as_deref() {
            Some(name) if !name.is_empty() => Some(NodeName::Exact(name.to_owned())),
            _ if node_name(&self.hostname) => None,
            _ => Some(NodeName::Suggested(NodeId::from_public_key(public_key).as_str().replace("mi-", "node-"))),
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            hostname: self.hostname.to_string(),
            platform_name: self.platform_name.to_string(),
            platform_version: self.platform_version.to_string(),
            architecture: self.architecture.to_string(),
            agent_version: self.agent_version.to_string(),
        }
    }
}

/// Turns a refused registration into the error for it.
pub(crate) fn refusal(error: RegisterError) -> ApiError {
    match error {
        error @ RegisterError::Activation => ApiError::bad("InvalidActivation", error.to_string()),
        error @ RegisterError::NameTaken(_) => ApiError::bad("NameTaken", error.to_string()),
        RegisterError::Store(error) => refused(error),
    }
}
