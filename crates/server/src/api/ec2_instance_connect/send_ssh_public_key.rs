//! `ec2-instance-connect:SendSSHPublicKey`: lets sshd on a node accept a key for one account for a minute. The answer
//! comes after the node has taken the key.

use std::sync::Arc;

use munjigi_core::grant::{AuthorizedKey, valid_os_user};
use munjigi_core::id::NodeId;
use munjigi_core::ssh::PublicKey;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{instance, on_instance, public_key};
use crate::Server;
use crate::api::ec2::place::Place;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::os_user::privileged_requirement;
use crate::gateway::push_key::{self, Push, PushError};
use crate::identity::{self, Caller};
use crate::store::{Node, PushedKey, StoreError};
use crate::{accounts, clock, door};

const ACTION: &str = "ec2-instance-connect:SendSSHPublicKey";

/// Sends a key.
pub struct SendSSHPublicKey;

/// Members as in the AWS model.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SendKeyInput {
    /// The node.
    pub instance_id: String,
    /// The account, 1 to 32 characters.
    #[serde(rename = "InstanceOSUser")]
    pub instance_os_user: String,
    /// The key: one line, or the form of RFC 4716.
    #[serde(rename = "SSHPublicKey")]
    pub ssh_public_key: String,
    /// Where the node is said to be.
    #[serde(default)]
    pub availability_zone: Option<String>,
}

/// As CloudTrail shows this call: `osUser` and `SSHKey`.
impl Serialize for SendKeyInput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Shown<'a> {
            public_key: &'a str,
        }
        let mut shown = serializer.serialize_struct("SendKeyInput", 4)?;
        shown.serialize_field("InstanceId", &self.instance_id)?;
        shown.serialize_field("OsUser", &self.instance_os_user)?;
        shown.serialize_field("SSHKey", &Shown { public_key: self.ssh_public_key.trim_end() })?;
        shown.serialize_field("AvailabilityZone", &self.availability_zone)?;
        shown.end()
    }
}

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SendKeyOutput {
    /// Id of the request.
    pub request_id: String,
    /// Whether the node took the key.
    pub success: bool,
}

/// The input after its checks.
struct Checked {
    node: NodeId,
    key: PublicKey,
}

impl SendKeyInput {
    fn check(&self) -> Result<Checked, ApiError> {
        let node = instance(&self.instance_id)?;
        // Stricter than the pattern of AWS: exactly the names that nodes start sessions for.
        if !valid_os_user(&self.instance_os_user) {
            let message = "InstanceOSUser has 1 to 32 characters of a-z, 0-9, _ . - and begins with a letter or _";
            return Err(ApiError::Validation(message.to_owned()));
        }
        if self.availability_zone.as_ref().is_some_and(|zone| !(6..=32).contains(&zone.chars().count())) {
            return Err(ApiError::Validation("AvailabilityZone has 6 to 32 characters".to_owned()));
        }
        Ok(Checked { node, key: public_key(&self.ssh_public_key)? })
    }
}

impl Operation for SendSSHPublicKey {
    const SERVICE: Service = Service::Ec2InstanceConnect;
    const NAME: &'static str = "SendSSHPublicKey";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"InstanceId": "i-0123456789abcdef0", "InstanceOSUser": "alice", "SSHPublicKey":
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}"#;
    type Input = SendKeyInput;
    type Output = SendKeyOutput;

    fn audit_extras(input: &Self::Input) -> Map<String, Value> {
        let fingerprint = public_key(&input.ssh_public_key).ok().map(|key| key.fingerprint().to_string());
        fingerprint.map(|print| ("keyFingerprint".to_owned(), print.into())).into_iter().collect()
    }

    async fn requirements(input: &Self::Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let Checked { node, .. } = input.check()?;
        Ok(vec![on_instance(server, ACTION, &node).await?.with("ec2:osuser", &input.instance_os_user)])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<SendKeyOutput, ApiError> {
        let input = call.input();
        let Checked { node, key } = input.check()?;
        let absent = || {
            let message = format!("there is no instance {}", input.instance_id);
            ApiError::bad("EC2InstanceNotFoundException", message)
        };
        let node = match server.store.node(&node).await {
            Ok(node) => node,
            Err(StoreError::NotFound { .. }) => return Err(absent()),
            Err(error) => return Err(ApiError::internal(error)),
        };
        let zone = input.availability_zone.as_deref();
        if zone.is_some_and(|zone| zone != Place::of(&server.deployment).zone) {
            return Err(absent());
        }
        let unavailable = |why: String| ApiError::bad("EC2InstanceUnavailableException", why);
        let (principal, os_user) = (call.caller().principal(), &input.instance_os_user);
        accounts::check_usable(server, &node, os_user, principal)
            .map_err(|error| ApiError::bad("AuthException", error.to_string()))?;
        let link = server.gateway.nodes.get(&node.id);
        let link = link.ok_or_else(|| unavailable(format!("{} is not connected.", input.instance_id)))?;
        let request_id = call.request().request_id.to_string();
        // T-62: the decision stands in the trail, and a login with the key can be explained, before the node knows it.
        call.record_granted(json!({ "requestId": request_id, "success": true })).await?;
        let pushed = remember(call, server, &node, &key).await?;
        let settings = &server.config.instance_connect;
        let fingerprint = key.fingerprint();
        let at_the_door = identity::ssh::Push {
            by: call.caller().clone(),
            node: node.id.clone(),
            os_user: input.instance_os_user.clone(),
            request_id: request_id.clone(),
            expires: pushed.expires,
            single_use: settings.single_use,
        };
        let push = Push {
            subject: pushed.principal_arn,
            label: call.caller().principal().name.to_string(),
            os_user: pushed.os_user,
            privileged: is_privileged(call, server, &node),
            policy_version: call.identities_version(),
            key: AuthorizedKey {
                key,
                life_secs: u32::try_from(settings.key_life.as_secs()).unwrap_or(60),
                single_use: settings.single_use,
                request_id: request_id.clone(),
            },
        };
        match push_key::push(server, &link, push).await {
            Ok(()) => {
                if !server.ssh_pushes.remember(fingerprint, at_the_door, clock::now()) {
                    tracing::warn!(node = %node.id, "too many pushed keys to remember one for the SSH door");
                }
                Ok(SendKeyOutput { request_id, success: true })
            }
            Err(PushError::Refused(message)) => Err(ApiError::bad("AuthException", message)),
            Err(PushError::Unavailable(message)) => Err(unavailable(message)),
        }
    }
}

/// Tells whether the caller may come in as a privileged account; the node refuses one otherwise (T-54).
fn is_privileged(call: &Authorized<SendSSHPublicKey>, server: &Server, node: &Node) -> bool {
    let asked = vec![privileged_requirement(server, node, &call.input().instance_os_user)];
    door::judge(server, call.caller().principal(), asked, call.request()).1.is_ok()
}

async fn remember(
    call: &Authorized<SendSSHPublicKey>,
    server: &Server,
    node: &Node,
    key: &PublicKey,
) -> Result<PushedKey, ApiError> {
    let pushed = clock::now();
    let row = PushedKey {
        node: node.id.clone(),
        os_user: call.input().instance_os_user.clone(),
        fingerprint: key.fingerprint().to_string(),
        request_id: call.request().request_id.to_string(),
        principal_arn: call.caller().principal().arn.to_string(),
        pushed,
        expires: pushed.plus(server.config.instance_connect.key_life),
    };
    server.store.remember_pushed_key(&row).await.map_err(ApiError::internal)?;
    Ok(row)
}
