//! `SimulatePrincipalPolicy`: tells what the policies of a user or group would decide, with more of them if wanted.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use munjigi_core::policy::{Context, NamedPolicy, PolicyList, PolicySet};
use serde::{Deserialize, Serialize};

use super::names::{Marker, MaxItems, PolicyDocument};
use super::page::begin;
use super::refuse::refused;
use super::simulation::{ContextEntry, EvaluationResult, Questions, Subject, read_boundary, read_list};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::{Caller, Compiler};
use crate::store::IdentityRows;

/// The operation.
pub struct SimulatePrincipalPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user or group.
    pub policy_source_arn: Arn,
    /// Further identity policies.
    #[serde(default)]
    pub policy_input_list: Vec<PolicyDocument>,
    /// The permissions boundary in the place of the user's own, at most one.
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

impl Operation for SimulatePrincipalPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "SimulatePrincipalPolicy";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str =
        r#"{"PolicySourceArn":"arn:aws:iam::000000000000:user/example","ActionNames":["iam:GetUser"]}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::new("iam:SimulatePrincipalPolicy", &input.policy_source_arn)])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let paging = begin(call, server, &[input.policy_source_arn.as_str()], input.marker.as_ref(), input.max_items)?;
        let rows = server.store.load_identities().await.map_err(refused)?;
        let mut subject = subject(&rows, server, &input.policy_source_arn)?;
        subject.identity.extend(read_list(&input.policy_input_list, "PolicyInputList")?);
        let boundary = read_boundary(&input.permissions_boundary_policy_input_list)?.or(subject.boundary);
        let subject = Subject {
            arn: input.policy_source_arn.to_string(),
            unique_id: subject.unique_id,
            context: subject.context,
            policies: PolicySet {
                identity: Arc::new(PolicyList::new(subject.identity)),
                boundary,
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

/// The policies of the source, and the condition keys that its identity brings.
struct Source {
    unique_id: Option<String>,
    context: Context,
    identity: Vec<NamedPolicy>,
    boundary: Option<Arc<PolicyList>>,
}

fn subject(rows: &IdentityRows, server: &Server, arn: &Arn) -> Result<Source, ApiError> {
    let here = &server.deployment;
    let compiler = Compiler::new(rows, here);
    if let Some(user) = rows.users.iter().find(|user| here.user(&user.path, &user.name) == *arn) {
        let mut context = Context::new();
        context
            .set("aws:username", user.name.as_str())
            .set("aws:userid", user.id.as_str())
            .set("aws:PrincipalType", "User")
            .set("aws:PrincipalArn", arn.as_str())
            .set("aws:PrincipalAccount", here.account.as_str());
        for tag in rows.owner_tags.get(&user.id).into_iter().flatten() {
            context.set(&format!("aws:PrincipalTag/{}", tag.key), tag.value.as_str());
        }
        return Ok(Source {
            unique_id: Some(user.id.to_string()),
            context,
            identity: compiler.identity_policies(user),
            boundary: compiler.boundary(user.boundary.as_ref()),
        });
    }
    let group = rows.groups.iter().find(|group| here.group(&group.path, &group.name) == *arn);
    let group = group.ok_or_else(|| ApiError::no_such_entity(format!("There is no user or group {arn}.")))?;
    let identity = compiler.owner_policies(&group.id).collect();
    Ok(Source { unique_id: None, context: Context::new(), identity, boundary: None })
}
