//! The simulator: the very evaluator of live decisions, asked about policies and circumstances that are given.

use std::sync::Arc;

use munjigi_core::policy::{
    self, Context, Decision, Effect, MatchedStatement, NamedPolicy, Policy, PolicyKind, PolicyList, PolicySet,
    PrincipalKind,
};
use serde::{Deserialize, Serialize};

use super::document::parse;
use super::names::PolicyDocument;
use crate::api::error::ApiError;

/// Most questions of one call: actions times resources.
const MAX_QUESTIONS: usize = 1000;

/// What both simulations are asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Questions<'i> {
    pub(super) actions: &'i [String],
    pub(super) resources: &'i [String],
    pub(super) resource_policy: Option<&'i PolicyDocument>,
    pub(super) resource_owner: Option<&'i str>,
    pub(super) caller: Option<&'i str>,
    pub(super) context: &'i [ContextEntry],
}

/// Who is simulated, with its policies.
pub(super) struct Subject {
    pub(super) arn: String,
    pub(super) unique_id: Option<String>,
    pub(super) context: Context,
    pub(super) policies: PolicySet,
}

/// One condition key of the simulated request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ContextEntry {
    /// The key.
    pub context_key_name: String,
    /// Its values.
    #[serde(default)]
    pub context_key_values: Vec<String>,
    /// Whether it holds one value or a list; the operators of policies read the values by themselves.
    pub context_key_type: ContextKeyType,
}

/// The types of condition keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ContextKeyType {
    /// One text.
    String,
    /// Texts.
    StringList,
    /// One number.
    Numeric,
    /// Numbers.
    NumericList,
    /// One truth value.
    Boolean,
    /// Truth values.
    BooleanList,
    /// One address or network.
    Ip,
    /// Addresses or networks.
    IpList,
    /// Bytes in base 64.
    Binary,
    /// Several of those.
    BinaryList,
    /// One instant.
    Date,
    /// Instants.
    DateList,
}

/// The answer for one action on one resource.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EvaluationResult {
    /// The action.
    pub eval_action_name: String,
    /// The resource.
    pub eval_resource_name: String,
    /// `allowed`, `explicitDeny` or `implicitDeny`.
    pub eval_decision: Effect,
    /// The statements that decided.
    pub matched_statements: Vec<Statement>,
    /// Condition keys that were asked for and not given.
    pub missing_context_values: Vec<String>,
    /// What the permissions boundary says, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_boundary_decision_detail: Option<BoundaryDetail>,
    /// The same for the one resource.
    pub resource_specific_results: [ResourceResult; 1],
}

/// The answer for one resource.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceResult {
    /// The resource.
    pub eval_resource_name: String,
    /// `allowed`, `explicitDeny` or `implicitDeny`.
    pub eval_resource_decision: Effect,
    /// The statements that decided.
    pub matched_statements: Vec<Statement>,
    /// Condition keys that were asked for and not given.
    pub missing_context_values: Vec<String>,
}

/// What the permissions boundary says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BoundaryDetail {
    /// Whether it allows.
    pub allowed_by_permissions_boundary: bool,
}

/// A statement that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// The policy.
    pub source_policy_id: String,
    /// Where the policy hangs.
    pub source_policy_type: &'static str,
    /// Where the statement begins.
    pub start_position: Position,
    /// Where its last character stands.
    pub end_position: Position,
}

/// A place in a policy's text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

impl Questions<'_> {
    /// Asks every action on every resource.
    pub(super) fn ask(&self, mut subject: Subject) -> Result<Vec<EvaluationResult>, ApiError> {
        let every = ["*".to_owned()];
        let resources = if self.resources.is_empty() { &every } else { self.resources };
        if self.actions.is_empty() || self.actions.len().saturating_mul(resources.len()) > MAX_QUESTIONS {
            return Err(invalid("ask for 1 to 1000 pairs of action and resource"));
        }
        for action in self.actions {
            if !(3..=128).contains(&action.len()) || action.contains(['*', '?']) || !action.contains(':') {
                return Err(invalid("an action name is a service, a colon and a name, without wildcards"));
            }
        }
        if let Some(document) = self.resource_policy {
            if self.caller.is_none() {
                return Err(invalid("a ResourcePolicy needs a CallerArn"));
            }
            let policy = parse(document, PolicyKind::Resource)?;
            let named = NamedPolicy::new("ResourcePolicy", Arc::new(policy));
            subject.policies.resource = Some(Arc::new(PolicyList::new([named])));
        }
        for entry in self.context {
            entry.add_to(&mut subject.context)?;
        }
        let mut results = Vec::new();
        for action in self.actions {
            for resource in resources {
                results.push(self.one(&subject, action, resource));
            }
        }
        Ok(results)
    }

    fn one(&self, subject: &Subject, action: &str, resource: &str) -> EvaluationResult {
        let arn = self.caller.unwrap_or(&subject.arn);
        let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
        let principal = policy::Principal {
            kind: if arn.ends_with(":root") { PrincipalKind::Root } else { PrincipalKind::User },
            arn: arn.to_owned(),
            account,
            source_arn: None,
            unique_id: subject.unique_id.clone().filter(|_| arn == subject.arn),
        };
        let mut asked = policy::Request::new(principal, action, resource);
        asked.context = subject.context.clone();
        asked.resource_account = self.resource_owner.and_then(|owner| owner.split(':').nth(4)).map(str::to_owned);
        let decision = policy::evaluate(&subject.policies, &asked);
        result(action, resource, &decision)
    }
}

impl ContextEntry {
    fn add_to(&self, context: &mut Context) -> Result<(), ApiError> {
        use ContextKeyType as T;
        let (name, values) = (&self.context_key_name, &self.context_key_values);
        if !(5..=256).contains(&name.len()) {
            return Err(invalid("a context key name has 5 to 256 characters"));
        }
        let list = matches!(
            self.context_key_type,
            T::StringList | T::NumericList | T::BooleanList | T::IpList | T::BinaryList | T::DateList
        );
        match values.as_slice() {
            _ if list => context.set_many(name, values.iter().map(String::as_str)),
            [value] => context.set(name, value.as_str()),
            _ => return Err(invalid("a context key whose type is no list has exactly one value")),
        };
        Ok(())
    }
}

/// Reads the policies of an input list; decisions name them by their number in it.
pub(super) fn read_list(documents: &[PolicyDocument], list: &str) -> Result<Vec<NamedPolicy>, ApiError> {
    let numbered = documents.iter().enumerate();
    let read = numbered.map(|(number, document)| {
        let policy: Policy = parse(document, PolicyKind::Identity)?;
        Ok(NamedPolicy::new(format!("{list}.{}", number + 1), Arc::new(policy)))
    });
    read.collect()
}

/// Reads the boundary of an input list of at most one.
pub(super) fn read_boundary(documents: &[PolicyDocument]) -> Result<Option<Arc<PolicyList>>, ApiError> {
    match documents {
        [] => Ok(None),
        [_] => Ok(Some(Arc::new(PolicyList::new(read_list(documents, "PermissionsBoundaryPolicyInputList")?)))),
        _ => Err(invalid("there can be only one permissions boundary")),
    }
}

/// Builds the error for an input that cannot be simulated.
pub(super) fn invalid(message: &str) -> ApiError {
    ApiError::bad("InvalidInput", message)
}

fn result(action: &str, resource: &str, decision: &Decision) -> EvaluationResult {
    let statements: Vec<Statement> = decision.statements.iter().map(statement).collect();
    let missing = decision.missing_context_keys.clone();
    EvaluationResult {
        eval_action_name: action.to_owned(),
        eval_resource_name: resource.to_owned(),
        eval_decision: decision.effect,
        matched_statements: statements.clone(),
        missing_context_values: missing.clone(),
        permissions_boundary_decision_detail: decision
            .boundary_allows
            .map(|allowed| BoundaryDetail { allowed_by_permissions_boundary: allowed }),
        resource_specific_results: [ResourceResult {
            eval_resource_name: resource.to_owned(),
            eval_resource_decision: decision.effect,
            matched_statements: statements,
            missing_context_values: missing,
        }],
    }
}

fn statement(found: &MatchedStatement) -> Statement {
    let id = &*found.policy_id;
    let source_policy_type = match id {
        "ResourcePolicy" => "resource",
        id if id.starts_with("arn:aws:iam::aws:policy/") => "aws-managed",
        id => match id.splitn(6, ':').nth(5) {
            Some(resource) if resource.starts_with("policy/") => "user-managed",
            Some(resource) if resource.starts_with("user/") => "user",
            Some(resource) if resource.starts_with("group/") => "group",
            _ => "none",
        },
    };
    let position = |at: policy::Position| Position { line: at.line, column: at.column };
    Statement {
        source_policy_id: id.to_owned(),
        source_policy_type,
        start_position: position(found.start),
        end_position: position(found.end),
    }
}
