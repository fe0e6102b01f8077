//! `SimulateCustomPolicy`: tells what given policies would decide.

use std::sync::Arc;

use munjigi_core::policy::{Context, PolicyList, PolicySet};
use serde::{Deserialize, Serialize};

use super::names::{Marker, MaxItems, PolicyDocument};
use super::page::begin;
use super::simulation::{ContextEntry, EvaluationResult, Questions, Subject, read_boundary, read_list};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct SimulateCustomPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The identity policies.
    pub policy_input_list: Vec<PolicyDocument>,
    /// The permissions boundary, at most one.
    #[serde(default)]
    pub permissions_boundary_policy_input_list: Vec<PolicyDocument>,
    /// The actions.
    pub action_names: Vec<String>,
    /// The resources; `*` if none are given.
    #[serde(default)]
    pub resource_arns: Vec<String>,
    /// The resources' own policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_policy: Option<PolicyDocument>,
    /// ARN of the account that owns the resources; the caller's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_owner: Option<String>,
    /// Who asks, for the resource policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_arn: Option<String>,
    /// Condition keys.
    #[serde(default)]
    pub context_entries: Vec<ContextEntry>,
    /// For resources of EC2; not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_handling_option: Option<String>,
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
    /// The answers.
    pub evaluation_results: Vec<EvaluationResult>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for SimulateCustomPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "SimulateCustomPolicy";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"PolicyInputList":["{}"],"ActionNames":["iam:GetUser"]}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("iam:SimulateCustomPolicy")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let parameters = serde_json::to_string(&input.policy_input_list).map_err(ApiError::internal)?;
        let paging = begin(call, server, &[&parameters], input.marker.as_ref(), input.max_items)?;
        let subject = Subject {
            arn: call.caller().principal().arn.to_string(),
            unique_id: None,
            context: Context::new(),
            policies: PolicySet {
                identity: Arc::new(PolicyList::new(read_list(&input.policy_input_list, "PolicyInputList")?)),
                boundary: read_boundary(&input.permissions_boundary_policy_input_list)?,
                ..PolicySet::default()
            },
        };
        let questions = Questions {
            actions: &input.action_names,
            resources: &input.resource_arns,
            resource_policy: input.resource_policy.as_ref(),
            resource_owner: input.resource_owner.as_deref(),
            caller: input.caller_arn.as_deref(),
            context: &input.context_entries,
        };
        let results = questions.ask(subject)?.into_iter().enumerate().collect();
        let page = paging.cut(results, |(number, _)| format!("{number:06}"));
        Ok(Output {
            evaluation_results: page.items.into_iter().map(|(_, result)| result).collect(),
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
