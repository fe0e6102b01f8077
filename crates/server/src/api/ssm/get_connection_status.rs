//! `ssm:GetConnectionStatus`: whether a node's link is up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// Tells whether a node is connected.
pub struct GetConnectionStatus;

/// Members as in the AWS model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetConnectionStatusInput {
    /// The node.
    pub target: String,
}

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetConnectionStatusOutput {
    /// The node's id, or the text that was asked for.
    pub target: String,
    /// `connected` or `notconnected`.
    pub status: &'static str,
}

impl Operation for GetConnectionStatus {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "GetConnectionStatus";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"Target": "web-1"}"#;
    type Input = GetConnectionStatusInput;
    type Output = GetConnectionStatusOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:GetConnectionStatus")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let text = &call.input().target;
        match Target::resolve(server, text).await? {
            Target::Unknown => Ok(GetConnectionStatusOutput { target: text.clone(), status: "notconnected" }),
            target => {
                let node = target.into_node(text)?;
                let status = if server.gateway.node_online(&node.id) { "connected" } else { "notconnected" };
                Ok(GetConnectionStatusOutput { target: node.id.to_string(), status })
            }
        }
    }
}
