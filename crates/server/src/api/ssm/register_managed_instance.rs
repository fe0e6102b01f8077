//! `RegisterManagedInstance`: AWS's agent makes its host a node out of an activation and an RSA key.
//!
//! Open to all like `RegisterNode`: the activation's code lets the node in, once (T-28). Whether it has the private key
//! shows with its first `RequestManagedInstanceRoleToken`; until then the registration is worth nothing.

use std::sync::Arc;

use munjigi_core::id::NodeId;
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::NodeKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::names::InstanceName;
use super::own_node::check_setting;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::munjigi::register_node::refusal;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::{AgentKind, NewNode, NodeFacts, RegisterError};

/// Longest code that is looked at; ours have 43 characters.
const MAX_CODE: usize = 250;
/// Longest fingerprint, bytes; the agent sends a UUID.
const MAX_FINGERPRINT: usize = 128;

/// The operation.
pub struct RegisterManagedInstance;

/// Its input. The agent's versions differ, so unknown members are let be.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Input {
    /// The activation.
    pub activation_id: String,
    /// Its code.
    pub activation_code: String,
    /// What the agent computes of its host's hardware.
    pub fingerprint: String,
    /// The node's public key: base 64 of its `SubjectPublicKeyInfo`.
    pub public_key: String,
    /// Always `Rsa`.
    #[serde(default)]
    pub public_key_type: String,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The node's id.
    pub instance_id: NodeId,
}

impl Operation for RegisterManagedInstance {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "RegisterManagedInstance";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Open;
    const SECRET_FIELDS: &'static [&'static str] = &["ActivationCode"];
    const EXAMPLE: &'static str = r#"{"ActivationId":"00000000-0000-0000-0000-000000000000","ActivationCode":"example",
        "Fingerprint":"00000000-0000-0000-0000-000000000000","PublicKey":"","PublicKeyType":"Rsa"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        check_setting(server)?;
        let input = call.input();
        let public_key = node_key(&input.public_key, &input.public_key_type)?;
        let fingerprint = Some(&input.fingerprint).filter(|text| is_fingerprint(text)).ok_or_else(|| {
            ApiError::Validation(format!("Fingerprint has 1 to {MAX_FINGERPRINT} printable characters"))
        })?;
        let activation = Uuid::parse_str(&input.activation_id).map_err(|_| refusal(RegisterError::Activation))?;
        if input.activation_code.len() > MAX_CODE {
            return Err(refusal(RegisterError::Activation));
        }
        let code = Secret::new(input.activation_code.clone());
        let id = NodeId::from_public_key(public_key.as_der());
        let new = NewNode {
            agent: AgentKind::Aws,
            public_key: public_key.as_der().to_vec(),
            fingerprint: Some(fingerprint.clone()),
            name: None,
            // The activation's name, or this until the agent tells the host's.
            facts: NodeFacts { hostname: provisional_name(&id), ..NodeFacts::default() },
            ip_address: Some(call.request().source_ip.to_canonical().to_string()),
            tags: Vec::new(),
        };
        let registered = server.store.register_node(&activation, &code, &new, call.request().time).await;
        Ok(Output { instance_id: registered.map_err(refusal)?.id })
    }
}

/// Returns the name of a node of which nothing but its id is known.
pub(super) fn provisional_name(node: &NodeId) -> String {
    node.as_str().replace("mi-", "node-")
}

/// Tells whether a host's name will do as the node's.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && serde_json::from_value::<InstanceName>(text.into()).is_ok()
}

/// Reads the public key of a node.
pub(super) fn node_key(text: &str, kind: &str) -> Result<NodeKey, ApiError> {
    let key = NodeKey::parse(text).filter(|_| kind.is_empty() || kind.eq_ignore_ascii_case("Rsa"));
    key.ok_or_else(|| {
        ApiError::bad("InvalidPublicKey", "the public key is not base 64 of an RSA key of 2048 to 4096 bits")
    })
}

fn is_fingerprint(text: &str) -> bool {
    (1..=MAX_FINGERPRINT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
