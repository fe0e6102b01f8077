//! `ec2:DescribeInstanceConnectEndpoints`: the one place where tunnels open, which is this server.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filter::{self, Filter};
use super::{dry_run, place::Place};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// Lists tunnel endpoints.
pub struct DescribeInstanceConnectEndpoints;

/// Members as in the AWS model.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EndpointsInput {
    /// Only these.
    #[serde(rename = "InstanceConnectEndpointId", default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Only those that fit all.
    #[serde(rename = "Filter", default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Length of a page; there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u16>,
    /// Where the page begins; there is only one, so none is ever given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// Only tell whether it would be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsOutput {
    /// The endpoint, unless it was filtered out.
    pub instance_connect_endpoint_set: Vec<Endpoint>,
}

/// The endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    owner_id: String,
    instance_connect_endpoint_id: String,
    instance_connect_endpoint_arn: String,
    state: &'static str,
    state_message: &'static str,
    dns_name: String,
    availability_zone: String,
    created_at: String,
    vpc_id: String,
    subnet_id: String,
    preserve_client_ip: bool,
    security_group_id_set: Vec<String>,
    network_interface_id_set: Vec<String>,
    tag_set: Vec<String>,
    ip_address_type: &'static str,
}

impl Endpoint {
    fn fits(&self, filter: &Filter) -> bool {
        match filter.name.as_str() {
            "instance-connect-endpoint-id" => filter.fits(&self.instance_connect_endpoint_id),
            "state" => filter.fits(self.state),
            "subnet-id" => filter.fits(&self.subnet_id),
            "vpc-id" => filter.fits(&self.vpc_id),
            // It has no tags.
            _ => false,
        }
    }
}

fn known(name: &str) -> bool {
    ["instance-connect-endpoint-id", "state", "subnet-id", "vpc-id", "tag-key", "tag-value"].contains(&name)
        || name.starts_with("tag:")
}

impl Operation for DescribeInstanceConnectEndpoints {
    const SERVICE: Service = Service::Ec2;
    const NAME: &'static str = "DescribeInstanceConnectEndpoints";
    const EFFECT: Effect = Effect::Read;
    type Input = EndpointsInput;
    type Output = EndpointsOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ec2:DescribeInstanceConnectEndpoints")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        dry_run(input.dry_run)?;
        filter::check(&input.filters, known)?;
        if input.next_token.is_some() {
            return Err(ApiError::Validation("the token belongs to no list of this kind".to_owned()));
        }
        let place = Place::of(&server.deployment);
        if let Some(other) = input.ids.iter().find(|id| **id != place.endpoint) {
            let shown: String = other.chars().take(64).flat_map(char::escape_default).collect();
            let message = format!("The Instance Connect Endpoint '{shown}' does not exist");
            return Err(ApiError::bad("InvalidInstanceConnectEndpointId.NotFound", message));
        }
        let endpoint = Endpoint {
            owner_id: server.deployment.account.to_string(),
            instance_connect_endpoint_arn: server.deployment.tunnel_endpoint(&place.endpoint).to_string(),
            instance_connect_endpoint_id: place.endpoint,
            state: "create-complete",
            state_message: "",
            dns_name: host(&call.request().host),
            availability_zone: place.zone,
            created_at: "2026-11-01T00:00:00Z".to_owned(),
            vpc_id: place.vpc,
            subnet_id: place.subnet,
            preserve_client_ip: false,
            security_group_id_set: Vec::new(),
            network_interface_id_set: Vec::new(),
            tag_set: Vec::new(),
            ip_address_type: "ipv4",
        };
        let fitting = input.filters.iter().all(|filter| endpoint.fits(filter));
        Ok(EndpointsOutput { instance_connect_endpoint_set: Vec::from_iter(fitting.then_some(endpoint)) })
    }
}

/// Returns the name under which the caller reached the server, without port: clients of tunnels always take 443.
fn host(header: &str) -> String {
    header.parse::<http::uri::Authority>().map_or_else(|_| header.to_owned(), |authority| authority.host().to_owned())
}
