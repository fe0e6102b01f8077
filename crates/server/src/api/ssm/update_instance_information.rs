//! `UpdateInstanceInformation`: the heartbeat of AWS's agent, with what it says of its host.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::Fact;
use super::own_node;
use super::refuse::refused;
use super::register_managed_instance::{is_name, provisional_name};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::NodeFacts;

/// The operation.
pub struct UpdateInstanceInformation;

/// Its input, as far as it is kept. The agent's versions send more, so unknown members are let be.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Input {
    /// The node.
    pub instance_id: String,
    /// The agent's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<Fact>,
    /// The host's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computer_name: Option<Fact>,
    /// The host's own address, which may differ from the one it comes from.
    #[serde(default, rename = "IPAddress", skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<Fact>,
    /// Its operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_name: Option<Fact>,
    /// Version of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<Fact>,
    /// `Linux`, `Windows` or `MacOS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_type: Option<Fact>,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {}

impl Operation for UpdateInstanceInformation {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "UpdateInstanceInformation";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Node;
    const EXAMPLE: &'static str = r#"{"InstanceId":"mi-00000000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        own_node::named(server, caller, Self::NAME, &input.instance_id).await?;
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, request) = (call.input(), call.request());
        let node = own_node::named(server, call.caller(), Self::NAME, &input.instance_id).await?;
        // The first form of the call says little: what is not said stays as it is.
        let kept = |said: &Option<Fact>, known: String| match said {
            Some(said) if !said.is_empty() => said.to_string(),
            _ => known,
        };
        let known = node.facts;
        let facts = NodeFacts {
            hostname: kept(&input.computer_name, known.hostname),
            platform_name: kept(&input.platform_name, known.platform_name),
            platform_version: kept(&input.platform_version, known.platform_version),
            architecture: known.architecture,
            agent_version: kept(&input.agent_version, known.agent_version),
        };
        let own = input.ip_address.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
        let seen = || node.ip_address.clone().unwrap_or_else(|| request.source_ip.to_canonical().to_string());
        let address = own.map_or_else(seen, |own| own.to_canonical().to_string());
        server.store.node_seen(&node.id, &facts, Some(&address), request.time).await.map_err(refused)?;
        let provisional = provisional_name(&node.id);
        if node.name == provisional && facts.hostname != provisional && is_name(&facts.hostname) {
            server.store.name_node(&node.id, &provisional, &facts.hostname).await.map_err(refused)?;
        }
        Ok(Output {})
    }
}
