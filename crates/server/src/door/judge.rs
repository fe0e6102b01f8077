//! The decision: the caller's policies against every requirement of a call, in the context of the request.
//!
//! The one decision function of the server (T-55): API, link and the re-judging of running sessions all come here.

use std::borrow::Cow;

use munjigi_core::policy::{self, Context, Decision};

use super::{RequestMeta, Via};
use crate::Server;
use crate::api::error::{ApiError, Denial};
use crate::api::operation::{Access, Requirement, Service, Values};
use crate::identity::session_token::StandsFor;
use crate::identity::{Caller, Principal, PrincipalKind};

/// A requirement and how it was decided.
#[derive(Debug, Clone)]
pub struct Decided {
    /// What had to be allowed.
    pub requirement: Requirement,
    /// The answer and its reasons.
    pub decision: Decision,
}

/// Judges requirements for a principal. All must be allowed; the first that is not ends the judging, and its reason
/// is the error. Usable at any time: a running session is judged again with its own request at the present time.
pub fn judge(
    server: &Server,
    principal: &Principal,
    requirements: Vec<Requirement>,
    request: &RequestMeta,
) -> (Vec<Decided>, Result<(), Denial>) {
    let mut decided = Vec::with_capacity(requirements.len());
    for requirement in requirements {
        let mut asked = question(server, principal, requirement.action, &requirement.resource, request);
        let mut policies = Cow::Borrowed(&principal.policies);
        if let Some(guard) = &requirement.guard {
            policies.to_mut().resource = Some(guard.clone());
            asked.resource_policy_required = true;
        }
        for (key, values, kind) in &requirement.context {
            match (kind, values.as_slice()) {
                (Values::Single, [value]) => asked.context.set(key, value.as_str()),
                _ => asked.context.set_many(key, values.iter().map(String::as_str)),
            };
        }
        for key in &requirement.open {
            asked.context.leave_open(key);
        }
        for (key, path, tree) in &requirement.trees {
            asked.context.set_tree(key, path, *tree);
        }
        let decision = policy::evaluate(&policies, &asked);
        let denial = (!decision.is_allowed()).then(|| Denial {
            reason: decision.code(),
            message: decision.reason(principal.arn.as_str(), requirement.action, &requirement.resource),
        });
        decided.push(Decided { requirement, decision });
        if let Some(denial) = denial {
            return (decided, Err(denial));
        }
    }
    (decided, Ok(()))
}

/// Builds the question whether a principal may do something, in the context of a request.
pub(crate) fn question(
    server: &Server,
    principal: &Principal,
    action: &str,
    resource: &str,
    request: &RequestMeta,
) -> policy::Request {
    let mut asked = policy::Request::new(asker(server, principal), action, resource);
    asked.context = context(principal, server.deployment.account.as_str(), request);
    asked
}

/// Tells whether an Allow for the action and resource demands that the Boolean condition key be true.
pub(crate) fn allow_demands(server: &Server, principal: &Principal, action: &str, resource: &str, key: &str) -> bool {
    let asked = policy::Request::new(asker(server, principal), action, resource);
    policy::allow_demands_true(&principal.policies.identity, &asked, key)
}

fn asker(server: &Server, principal: &Principal) -> policy::Principal {
    policy::Principal {
        kind: principal.kind,
        arn: principal.arn.to_string(),
        account: server.deployment.account.to_string(),
        source_arn: principal.role().map(|role| role.arn.to_string()),
        unique_id: principal.unique_id.as_ref().map(ToString::to_string),
    }
}

/// Decides whether an operation may run for a caller.
pub(super) fn decide(
    (access, name): (Access, &str),
    server: &Server,
    caller: &Caller,
    requirements: Vec<Requirement>,
    request: &RequestMeta,
) -> (Vec<Decided>, Result<(), ApiError>) {
    if requirements.is_empty() && access == Access::Policy {
        // T-11: an operation that forgot to say what it needs is not thereby open to everybody.
        let cause = anyhow::anyhow!("{name} requires nothing");
        return (Vec::new(), Err(ApiError::internal(cause)));
    }
    let (decided, verdict) = judge(server, caller.principal(), requirements, request);
    (decided, verdict.map_err(ApiError::Denied))
}

/// Returns why a caller is kept from an operation whatever policies say: nodes from what is not made for them, and
/// everybody else from what is; sessions of users that proved no second factor from identities (aws-api B.5).
pub(super) fn kept_out((access, service, name): (Access, Service, &str), caller: &Caller) -> Option<Denial> {
    let principal = caller.principal();
    let because = match (access, principal.node(), principal.statement()) {
        (Access::Open, _, _) | (Access::Node | Access::NodeKey, Some(_), _) => return None,
        (Access::Node | Access::NodeKey, None, _) => "because it is for the agents of nodes alone",
        (_, Some(_), _) => "because a node may call only what is made for nodes",
        (_, None, Some(statement)) if matches!(statement.who, StandsFor::User(_)) && statement.mfa.is_none() => {
            match (service, name) {
                (Service::Iam, _) => "because credentials of GetSessionToken without MFA reach no identities",
                (Service::Sts, "AssumeRole" | "GetCallerIdentity") => return None,
                (Service::Sts, _) => "because credentials of GetSessionToken without MFA cannot make others",
                _ => return None,
            }
        }
        _ => return None,
    };
    let (arn, service) = (&principal.arn, service.signing_name());
    let message = format!("User: {arn} is not authorized to perform: {service}:{name} {because}");
    Some(Denial { reason: "KindOfCredentials", message })
}

/// Fills the global condition keys (iam-policy 8.3). Keys that do not apply stay absent.
fn context(principal: &Principal, account: &str, request: &RequestMeta) -> Context {
    let mut context = Context::new();
    match principal.kind {
        PrincipalKind::User => context.set("aws:username", &*principal.name).set("aws:PrincipalType", "User"),
        PrincipalKind::AssumedRole => context.set("aws:PrincipalType", "AssumedRole"),
        PrincipalKind::Service => context.set("aws:PrincipalType", "Service"),
        _ => context.set("aws:PrincipalType", "Anonymous"),
    };
    if let Some(statement) = principal.statement() {
        // Of temporary credentials alone: a condition on them does not match a long-term key.
        context
            .set("aws:TokenIssueTime", statement.issued.to_iso_seconds())
            .set("aws:MultiFactorAuthPresent", statement.mfa.is_some().to_string());
        if let Some(proved) = statement.mfa {
            context.set("aws:MultiFactorAuthAge", request.time.since(proved).as_secs().to_string());
        }
    }
    if let Some(session) = principal.role_session() {
        if let Some(source) = &session.source_identity {
            context.set("aws:SourceIdentity", source.as_str());
        }
        if let Some(web) = &session.web_identity {
            context.set("aws:FederatedProvider", web.provider.as_str());
        }
    }
    context
        .set("aws:userid", principal.user_id())
        .set("aws:PrincipalArn", principal.role().map_or(principal.arn.as_str(), |role| role.arn.as_str()))
        .set("aws:PrincipalAccount", account)
        .set("aws:PrincipalIsAWSService", "false")
        .set("aws:ViaAWSService", "false")
        .set("aws:SourceIp", request.source_ip.to_canonical().to_string())
        .set("aws:SecureTransport", (request.tls.is_some() || request.via == Via::Ssh).to_string())
        .set("aws:UserAgent", request.user_agent.as_str())
        .set("aws:CurrentTime", request.time.to_iso_seconds())
        .set("aws:EpochTime", request.time.as_secs().to_string())
        .set("aws:RequestedRegion", request.region.as_str());
    if let Some(referer) = &request.referer {
        context.set("aws:referer", referer.as_str());
    }
    for (key, value) in &principal.tags {
        context.set(&format!("aws:PrincipalTag/{key}"), value.as_str());
    }
    context
}
