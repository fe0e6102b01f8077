//! The question put to the engine: who wants to do what to which resource, in which circumstances.

use super::context::Context;
use super::principal::Principal;

/// One action on one resource. A call that touches several resources asks once for each, and all must be allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The caller.
    pub principal: Principal,
    /// `service:Name`, in any case, without wildcards, at most 128 characters.
    pub action: String,
    /// The resource's ARN, at most 2048 bytes, or `*` for calls without a resource type.
    pub resource: String,
    /// Other ARNs of the same resource, for example of a node that also proved a cloud identity: a pattern that
    /// covers one of the names covers the resource, in Allow and Deny alike.
    pub resource_aliases: Vec<String>,
    /// Condition keys and variables.
    pub context: Context,
    /// The account that owns the resource; `None` means the caller's own.
    pub resource_account: Option<String>,
    /// True for resources nobody reaches unless their own policy lets the caller or its account in (role trust
    /// policies, keys).
    pub resource_policy_required: bool,
}

impl Request {
    /// Longest resource name that is judged, in bytes (IAM's limit of an ARN).
    pub const LONGEST_RESOURCE: usize = 2048;

    /// Builds a request within the caller's account, with an empty context.
    pub fn new(principal: Principal, action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            principal,
            action: action.into(),
            resource: resource.into(),
            resource_aliases: Vec::new(),
            context: Context::new(),
            resource_account: None,
            resource_policy_required: false,
        }
    }

    /// Returns all names of the resource, or `None` when one is too long or empty to be judged.
    pub(super) fn resource_names(&self) -> Option<Vec<String>> {
        let mut names = Vec::with_capacity(2 + self.resource_aliases.len());
        names.push(self.resource.clone());
        names.extend(self.resource_aliases.iter().cloned());
        let with_account = names.iter().filter_map(|name| built_in_document(name, &self.principal.account));
        let with_account: Vec<String> = with_account.collect();
        names.extend(with_account);
        names.iter().all(|name| (1..=Self::LONGEST_RESOURCE).contains(&name.len())).then_some(names)
    }

    /// Tells whether the resource belongs to another account than the caller.
    pub(super) fn crosses_accounts(&self) -> bool {
        self.resource_account.as_ref().is_some_and(|account| *account != self.principal.account)
    }
}

/// Returns the name of a built-in document as people write it who put their own account where there is none.
fn built_in_document(name: &str, account: &str) -> Option<String> {
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, "ssm", region, "", resource] if resource.starts_with("document/") && !account.is_empty() => {
            Some(format!("arn:{partition}:ssm:{region}:{account}:{resource}"))
        }
        _ => None,
    }
}
