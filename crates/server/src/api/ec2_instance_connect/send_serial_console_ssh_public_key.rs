//! `ec2-instance-connect:SendSerialConsoleSSHPublicKey`: nodes have no serial console here; a shell needs no key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{instance, on_instance, public_key};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// Refuses a key for a serial console.
pub struct SendSerialConsoleSSHPublicKey;

/// Members as in the AWS model.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SerialConsoleInput {
    /// The node.
    pub instance_id: String,
    /// Only port 0 exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_port: Option<u32>,
    /// The key.
    #[serde(rename = "SSHPublicKey")]
    pub ssh_public_key: String,
}

impl Operation for SendSerialConsoleSSHPublicKey {
    const SERVICE: Service = Service::Ec2InstanceConnect;
    const NAME: &'static str = "SendSerialConsoleSSHPublicKey";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"InstanceId": "i-0123456789abcdef0", "SSHPublicKey":
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}"#;
    type Input = SerialConsoleInput;
    type Output = ();

    async fn requirements(input: &Self::Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        public_key(&input.ssh_public_key)?;
        if input.serial_port.is_some_and(|port| port != 0) {
            return Err(ApiError::Validation("SerialPort can only be 0".to_owned()));
        }
        let node = instance(&input.instance_id)?;
        Ok(vec![on_instance(server, "ec2-instance-connect:SendSerialConsoleSSHPublicKey", &node).await?])
    }

    async fn run(_: &Authorized<Self>, _: &Arc<Server>) -> Result<(), ApiError> {
        let message = "nodes have no serial console here; open a shell with `aws ssm start-session` or munjigi shell";
        Err(ApiError::bad("SerialConsoleAccessDisabledException", message))
    }
}
