//! `Explain`: what would be decided for a principal, and by which statements.

use std::sync::Arc;

use munjigi_core::policy::{self, Layer, MatchedStatement, PolicyKind};
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::door;
use crate::identity::{Caller, Principal};

/// Most condition keys of one question.
const MAX_CONTEXT: usize = 100;

/// The operation.
pub struct Explain;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// A user's name or ARN.
    pub principal: String,
    /// For example `ssm:StartSession`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    /// Condition keys beside those of this very request.
    #[serde(default)]
    pub context: Vec<ContextEntry>,
}

/// A condition key with its values.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ContextEntry {
    /// The key.
    pub key: String,
    /// Its values; one stands for a single-valued key.
    pub values: Vec<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The reason for programs, e.g. `NoIdentityPolicyAllows`.
    pub code: &'static str,
    /// The reason for people.
    pub reason: String,
    /// The layer of policies that decided.
    pub layer: Layer,
    /// The statements that decided.
    pub statements: Vec<Statement>,
    /// Condition keys that statements ask for and that were not given.
    pub missing_context_keys: Vec<String>,
}

/// A statement that decided.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// The policy's ARN, or its owner's ARN, `/` and its name.
    pub policy: String,
    /// What kind of policy it is.
    pub policy_kind: PolicyKind,
    /// The statement's `Sid`, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Its place in the policy, from 0.
    pub index: usize,
    /// The line where it begins, from 1.
    pub line: u32,
}

impl Operation for Explain {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "Explain";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"Principal":"example","Action":"ssm:StartSession","Resource":"*"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("munjigi:Explain")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        if input.context.len() > MAX_CONTEXT {
            return Err(ApiError::Validation(format!("no more than {MAX_CONTEXT} condition keys")));
        }
        let principal = find(server, &input.principal).await?;
        let mut asked = door::question(server, &principal, &input.action, &input.resource, call.request());
        for entry in &input.context {
            match entry.values.as_slice() {
                [value] => asked.context.set(&entry.key, value.as_str()),
                values => asked.context.set_many(&entry.key, values.iter().map(String::as_str)),
            };
        }
        let decision = policy::evaluate(&principal.policies, &asked);
        Ok(Output {
            allowed: decision.is_allowed(),
            code: decision.code(),
            reason: decision.reason(principal.arn.as_str(), &input.action, &input.resource),
            layer: decision.layer,
            statements: decision.statements.iter().map(Statement::from).collect(),
            missing_context_keys: decision.missing_context_keys,
        })
    }
}

async fn find(server: &Server, name: &str) -> Result<Arc<Principal>, ApiError> {
    let found = match server.identities.by_arn(name) {
        Some(found) => Some(found),
        None => {
            let user = server.store.user(name).await.ok();
            user.and_then(|user| server.identities.by_unique_id(&user.id))
        }
    };
    found.ok_or_else(|| ApiError::bad("NoSuchEntity", format!("there is no user {}", name.escape_debug())))
}

impl From<&MatchedStatement> for Statement {
    fn from(found: &MatchedStatement) -> Self {
        Self {
            policy: found.policy_id.to_string(),
            policy_kind: found.policy_kind,
            sid: found.sid.as_deref().map(str::to_owned),
            index: found.index,
            line: found.start.line,
        }
    }
}
