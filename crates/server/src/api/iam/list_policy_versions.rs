//! `ListPolicyVersions`: lists the versions of a managed policy, the newest first.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::{Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct ListPolicyVersions;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How many entries at most; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The versions, the newest first.
    pub versions: Vec<shape::PolicyVersion>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for ListPolicyVersions {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListPolicyVersions";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_policy(server, "iam:ListPolicyVersions", &input.policy_arn).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let paging = begin(call, server, &[input.policy_arn.as_str()], input.marker.as_ref(), input.max_items)?;
        let versions = server.store.list_policy_versions(&input.policy_arn).await.map_err(refused)?;
        // The newest first: the key counts downwards.
        let page = paging.cut(versions, |version| format!("{:020}", u64::MAX - version.version));
        Ok(Output {
            versions: page.items.iter().map(|version| shape::PolicyVersion::new(version, false)).collect(),
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
