//! Decision cases as JSON: policies, a request, and the answer that is expected.
//!
//! The form is `{"format": {"version": 1}, "cases": [...]}`; a case is `{"name", "policies": {"identity", "boundary",
//! "session", "resource", "organization"}, "request": {"principal", "action", "resource", "context", ...}, "expect"}`.
//! Cases are how policies are tested before they are attached, and how this engine itself is.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::context::Context;
use super::decision::{Decision, Effect};
use super::document::{Policy, PolicyKind};
use super::error::PolicyError;
use super::evaluate::{PolicySet, evaluate};
use super::list::{NamedPolicy, PolicyList};
use super::principal::{Principal, PrincipalKind};
use super::request::Request;

/// The version of the form this module reads.
const FORMAT_VERSION: u32 = 1;
/// Largest file of cases that is read, in bytes.
pub const LONGEST_FILE: usize = 16 * 1024 * 1024;

/// What came of one case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseOutcome {
    /// The case's name.
    pub name: String,
    /// The answer the case expects.
    pub expected: Effect,
    /// The engine's answer, with everything behind it.
    pub decision: Decision,
    /// The sentence a caller would read.
    pub reason: String,
    /// Why the case's author expects that, if the case says so.
    pub why: Option<String>,
}

impl CaseOutcome {
    /// Tells whether the answer is the expected one.
    pub fn passed(&self) -> bool {
        self.decision.effect == self.expected
    }
}

/// Why a file of cases cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// The file is larger than [`LONGEST_FILE`].
    #[error("the file of cases has {bytes} bytes, more than {LONGEST_FILE}")]
    TooLong {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The file is no JSON of the expected form.
    #[error("the file of cases cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// The file is of another version of the form.
    #[error("the file of cases is of format version {0}, this program reads version {FORMAT_VERSION}")]
    Version(u32),
    /// A policy in a case is malformed.
    #[error("case `{case}`: the {layer} policy is malformed at {error} (counted from the policy's first character)")]
    Policy {
        /// The case's name.
        case: String,
        /// The layer the policy stands in.
        layer: &'static str,
        /// What is wrong with it.
        error: PolicyError,
    },
    /// Two context keys of a case differ only in case.
    #[error("case `{case}`: the context key `{key}` stands twice")]
    RepeatedKey {
        /// The case's name.
        case: String,
        /// The key.
        key: String,
    },
}

/// Reads cases and judges each of them, in their order.
///
/// # Errors
/// The text is no file of cases, or a policy in it is malformed; nothing is judged then.
pub fn run(text: &str) -> Result<Vec<CaseOutcome>, CasesError> {
    if text.len() > LONGEST_FILE {
        return Err(CasesError::TooLong { bytes: text.len() });
    }
    let file: CasesFile<'_> = serde_json::from_str(text)?;
    if file.format.version != FORMAT_VERSION {
        return Err(CasesError::Version(file.format.version));
    }
    file.cases.into_iter().map(run_case).collect()
}

fn run_case(case: Case<'_>) -> Result<CaseOutcome, CasesError> {
    let policies = case.policies.compile(&case.name, &case.request)?;
    let request = case.request.into_request(&case.name)?;
    let decision = evaluate(&policies, &request);
    let reason = decision.reason(&request.principal.arn, &request.action, &request.resource);
    let expected = match case.expect {
        Expectation::Allow => Effect::Allow,
        Expectation::ExplicitDeny => Effect::ExplicitDeny,
        Expectation::ImplicitDeny => Effect::ImplicitDeny,
    };
    Ok(CaseOutcome { name: case.name, expected, decision, reason, why: case.why })
}

#[derive(Deserialize)]
struct CasesFile<'t> {
    format: Format,
    #[serde(borrow)]
    cases: Vec<Case<'t>>,
}

#[derive(Deserialize)]
struct Format {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<'t> {
    name: String,
    #[serde(borrow)]
    policies: CasePolicies<'t>,
    request: CaseRequest,
    expect: Expectation,
    #[serde(default)]
    why: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Expectation {
    #[serde(alias = "allowed")]
    Allow,
    ExplicitDeny,
    ImplicitDeny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CasePolicies<'t> {
    #[serde(borrow, default)]
    identity: Vec<&'t RawValue>,
    #[serde(borrow, default)]
    boundary: Option<&'t RawValue>,
    #[serde(borrow, default)]
    session: Option<Vec<&'t RawValue>>,
    #[serde(borrow, default)]
    resource: Option<&'t RawValue>,
    #[serde(borrow, default)]
    organization: Vec<Vec<&'t RawValue>>,
    #[serde(borrow, default)]
    resource_control: Vec<Vec<&'t RawValue>>,
}

impl CasePolicies<'_> {
    fn compile(&self, case: &str, request: &CaseRequest) -> Result<PolicySet, CasesError> {
        let list = |documents: &[&RawValue], layer: &'static str, kind: PolicyKind| {
            let parse = |(index, document): (usize, &&RawValue)| {
                let policy = Policy::parse(document.get(), kind).map_err(|error| CasesError::Policy {
                    case: case.to_owned(),
                    layer,
                    error,
                })?;
                Ok::<_, CasesError>(NamedPolicy::new(format!("{layer}[{index}]"), Arc::new(policy)))
            };
            let policies: Vec<NamedPolicy> = documents.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
            Ok::<_, CasesError>(Arc::new(PolicyList::new(policies)))
        };
        let levels = |levels: &[Vec<&RawValue>], layer| {
            let lists = levels.iter().map(|level| list(level, layer, PolicyKind::Organization));
            lists.collect::<Result<Vec<_>, _>>()
        };
        let resource_kind = if request.asks_for_role() { PolicyKind::Trust } else { PolicyKind::Resource };
        Ok(PolicySet {
            identity: list(&self.identity, "identity", PolicyKind::Identity)?,
            boundary: self.boundary.map(|one| list(&[one], "boundary", PolicyKind::Boundary)).transpose()?,
            session: self.session.as_ref().map(|all| list(all, "session", PolicyKind::Session)).transpose()?,
            resource: self.resource.map(|one| list(&[one], "resource", resource_kind)).transpose()?,
            organization: levels(&self.organization, "organization")?,
            resource_control: levels(&self.resource_control, "resourceControl")?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CaseRequest {
    principal: CasePrincipal,
    action: String,
    resource: String,
    #[serde(default)]
    resource_aliases: Vec<String>,
    #[serde(default)]
    context: HashMap<String, CaseValue>,
    #[serde(default)]
    resource_account: Option<String>,
    #[serde(default)]
    resource_policy_required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CasePrincipal {
    #[serde(rename = "type")]
    kind: PrincipalKind,
    #[serde(default)]
    arn: String,
    #[serde(default)]
    account: String,
    #[serde(default)]
    role_arn: Option<String>,
    #[serde(default)]
    user_arn: Option<String>,
    #[serde(default)]
    unique_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CaseValue {
    Single(String),
    Multi(Vec<String>),
}

impl CaseRequest {
    /// Tells whether the resource policy of the case is a role's trust policy.
    fn asks_for_role(&self) -> bool {
        self.action.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sts:"))
    }

    fn into_request(self, case: &str) -> Result<Request, CasesError> {
        let mut context = Context::new();
        for (key, value) in self.context {
            if context.get(&key).is_some() {
                return Err(CasesError::RepeatedKey { case: case.to_owned(), key });
            }
            match value {
                CaseValue::Single(value) => context.set(&key, value),
                CaseValue::Multi(values) => context.set_many(&key, values),
            };
        }
        let principal = Principal {
            kind: self.principal.kind,
            arn: self.principal.arn,
            account: self.principal.account,
            source_arn: self.principal.role_arn.or(self.principal.user_arn),
            unique_id: self.principal.unique_id,
        };
        Ok(Request {
            resource_aliases: self.resource_aliases,
            context,
            resource_account: self.resource_account,
            resource_policy_required: self.resource_policy_required,
            ..Request::new(principal, self.action, self.resource)
        })
    }
}
