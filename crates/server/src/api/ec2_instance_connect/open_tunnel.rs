//! `ec2-instance-connect:OpenTunnel`: decides about a tunnel and prepares the port session that carries it. Asked by
//! the door of tunnels alone; it is no call of the API.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::id::SessionId;
use munjigi_core::session::SessionKind;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Server;
use crate::api::ec2::place::Place;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::prepare;
use crate::api::tag;
use crate::gateway::facts::{Needs, SessionFacts};
use crate::identity::Caller;
use crate::store::{Node, StoreError};

/// What a tunnel needs to be allowed.
const ACTION: &str = "ec2-instance-connect:OpenTunnel";
/// A tunnel's duration if the caller names none, and the longest, in seconds (aws-api C.2).
const MAX_DURATION: u32 = 3600;
/// CloudFormation's name of what a tunnel opens at.
const ENDPOINT: &str = "AWS::EC2::InstanceConnectEndpoint";

/// Opens a tunnel.
pub struct OpenTunnel;

/// What stands in the URL, named as CloudTrail names it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct OpenTunnelInput {
    /// Where it opens: `eice-…`.
    pub instance_connect_endpoint_id: String,
    /// The port on the node.
    pub remote_port: u16,
    /// The node, by its address.
    pub private_ip_address: Ipv4Addr,
    /// How long it may stand, 1 to 3600 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tunnel_duration: Option<u32>,
}

/// The prepared session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenTunnelOutput {
    /// Its id; whoever opens the tunnel takes it.
    pub session_id: SessionId,
}

impl OpenTunnelInput {
    fn duration(&self) -> u32 {
        self.max_tunnel_duration.unwrap_or(MAX_DURATION)
    }

    fn check(&self) -> Result<(), ApiError> {
        let id = self.instance_connect_endpoint_id.strip_prefix("eice-").unwrap_or_default();
        if !(1..=64).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(ApiError::Validation("instanceConnectEndpointId is `eice-` and letters and digits".to_owned()));
        }
        if !(1..=MAX_DURATION).contains(&self.duration()) || self.remote_port == 0 {
            let message = "maxTunnelDuration is 1 to 3600 seconds and remotePort 1 to 65535";
            return Err(ApiError::Validation(message.to_owned()));
        }
        Ok(())
    }
}

/// Returns what a tunnel needs, on the endpoint, with the node's tags for conditions.
pub(crate) fn requirement(
    server: &Server,
    endpoint: &str,
    node: Option<&Node>,
    address: Ipv4Addr,
    port: u16,
    duration: u32,
) -> Requirement {
    let required = Requirement::new(ACTION, server.deployment.tunnel_endpoint(endpoint))
        .of_type(ENDPOINT)
        .with("ec2-instance-connect:remotePort", port.to_string())
        .with("ec2-instance-connect:privateIpAddress", address.to_string())
        .with("ec2-instance-connect:maxTunnelDuration", duration.to_string());
    match node {
        Some(node) => required.resource_tags(tag::pairs(&node.tags)),
        None => required,
    }
}

async fn node_at(server: &Server, address: Ipv4Addr) -> Result<Option<Node>, ApiError> {
    let Some(id) = server.store.node_by_address(address).await.map_err(ApiError::internal)? else { return Ok(None) };
    match server.store.node(&id).await {
        Ok(node) => Ok(Some(node)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(ApiError::internal(error)),
    }
}

impl Operation for OpenTunnel {
    const SERVICE: Service = Service::Ec2InstanceConnect;
    const NAME: &'static str = "OpenTunnel";
    const EFFECT: Effect = Effect::Write;
    type Input = OpenTunnelInput;
    type Output = OpenTunnelOutput;

    async fn requirements(input: &Self::Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        input.check()?;
        let node = node_at(server, input.private_ip_address).await?;
        let (endpoint, address) = (&input.instance_connect_endpoint_id, input.private_ip_address);
        Ok(vec![requirement(server, endpoint, node.as_ref(), address, input.remote_port, input.duration())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<OpenTunnelOutput, ApiError> {
        let input = call.input();
        let refused = |message: String| ApiError::Validation(message);
        if input.instance_connect_endpoint_id != Place::of(&server.deployment).endpoint {
            return Err(refused(format!("there is no endpoint {}", input.instance_connect_endpoint_id)));
        }
        let ports = &server.config.instance_connect.tunnel_ports;
        if !ports.contains(&input.remote_port) {
            let known: Vec<String> = ports.iter().map(ToString::to_string).collect();
            return Err(refused(format!(
                "tunnels reach the ports {} here, not {} (instance_connect.tunnel_ports)",
                known.join(", "),
                input.remote_port
            )));
        }
        let address = input.private_ip_address;
        let node =
            node_at(server, address).await?.ok_or_else(|| refused(format!("no node has the address {address}")))?;
        let link = server.gateway.nodes.get(&node.id);
        let epoch = link
            .ok_or_else(|| ApiError::bad("EC2InstanceUnavailableException", format!("{} is not connected.", node.id)))?
            .epoch;
        prepare::room(call, server, &node).await?;
        let facts = facts(call, server, &node, epoch)?;
        let id = facts.id.clone();
        prepare::begin(call, server, facts, json!({ "sessionId": id }), (None, None)).await?;
        Ok(OpenTunnelOutput { session_id: id })
    }
}

fn facts(
    call: &Authorized<OpenTunnel>,
    server: &Server,
    node: &Node,
    epoch: munjigi_core::grant::Epoch,
) -> Result<SessionFacts, ApiError> {
    let input = call.input();
    let duration = Duration::from_secs(u64::from(input.duration()));
    let mut limits = prepare::limits(&server.config.session);
    limits.maximum = Some(limits.maximum.map_or(duration, |most| most.min(duration)));
    // A tunnel is one connection of one client: nobody comes back to it.
    limits.resume_window = Duration::ZERO;
    limits.strict_recording = false;
    Ok(SessionFacts {
        endpoints: vec![Endpoint::Tcp(Destination::new("", input.remote_port).map_err(ApiError::internal)?)],
        needs: Needs { tunnel: Some((input.private_ip_address, input.duration())), ..Needs::default() },
        ..prepare::facts(call, node, epoch, SessionKind::Port, OpenTunnel::NAME.to_owned(), limits)
    })
}
