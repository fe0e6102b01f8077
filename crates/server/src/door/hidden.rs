//! What a denied caller does not learn: whether a node or target of some name is there.
//!
//! Names are short and can be guessed, ids cannot. Whoever may list nodes (or targets) is told everything. Anybody else who
//! is denied one that exists is answered as if it did not, and what does not exist is "not allowed or not there" even where
//! policy would allow it: a Deny by a tag would show otherwise which of two names is taken. The trail has the true reason.

use super::judge::{Decided, judge};
use super::request::RequestMeta;
use crate::Server;
use crate::api::error::{ApiError, Denial};
use crate::api::operation::{Existence, Requirement};
use crate::identity::{Caller, Principal};

/// Word in the trail, and for programs, where a caller is not told whether it is the right that is missing or the resource.
pub(crate) const NOT_ALLOWED_OR_ABSENT: &str = "NotAllowedOrAbsent";

/// The action that lists nodes.
const LIST_NODES: &str = "ssm:DescribeInstanceInformation";

/// Tells whether a caller may know that a resource is there: it may list all of the kind, or is allowed one of these.
pub(crate) fn sees(server: &Server, caller: &Caller, wishes: Vec<Requirement>, request: &RequestMeta) -> bool {
    let principal = caller.principal();
    wishes
        .into_iter()
        .any(|wish| lists(server, principal, &wish, request) || judge(server, principal, vec![wish], request).1.is_ok())
}

/// Tells whether a caller may list nodes, and so may know which there are and which not.
pub(crate) fn lists_nodes(server: &Server, caller: &Caller, request: &RequestMeta) -> bool {
    judge(server, caller.principal(), vec![Requirement::any(LIST_NODES)], request).1.is_ok()
}

/// Returns the error of a call that names what is not there, though policy would allow it, for callers who may not know.
pub(super) fn absent(server: &Server, caller: &Caller, decided: &[Decided], request: &RequestMeta) -> Option<ApiError> {
    let allowed = decided.iter().filter(|one| one.decision.is_allowed()).map(|one| &one.requirement);
    let absent = allowed.into_iter().find(|one| matches!(one.existence, Existence::Absent))?;
    (!lists(server, caller.principal(), absent, request)).then(|| ambiguous(caller, absent))
}

/// Returns what a caller is told of a call that was refused with `error`.
pub(super) fn told(
    server: &Server,
    caller: &Caller,
    decided: &[Decided],
    request: &RequestMeta,
    error: ApiError,
) -> ApiError {
    let Some((last, before)) = decided.split_last() else { return error };
    let (ApiError::Denied(_), Existence::Named(arn)) = (&error, &last.requirement.existence) else { return error };
    // Who may do something with it knows that it is there.
    let known = before.iter().any(|one| one.requirement.resource == last.requirement.resource);
    if known || lists(server, caller.principal(), &last.requirement, request) {
        return error;
    }
    let absent = last.requirement.clone().without(arn);
    match judge(server, caller.principal(), vec![absent.clone()], request).1 {
        Err(denial) => ApiError::Denied(denial),
        Ok(()) => ambiguous(caller, &absent),
    }
}

/// Tells whether a principal may list what a requirement's resource is one of.
fn lists(server: &Server, principal: &Principal, of: &Requirement, request: &RequestMeta) -> bool {
    let action = match of.resource_type {
        Some(crate::targets::RESOURCE_TYPE) => "munjigi:DescribeTargets",
        _ => LIST_NODES,
    };
    judge(server, principal, vec![Requirement::any(action)], request).1.is_ok()
}

fn ambiguous(caller: &Caller, absent: &Requirement) -> ApiError {
    let (arn, action, resource) = (&caller.principal().arn, absent.action, &absent.resource);
    let message = format!(
        "User: {arn} is not authorized to perform: {action} on resource: {resource}, or there is no such resource"
    );
    ApiError::Denied(Denial { reason: NOT_ALLOWED_OR_ABSENT, message })
}
