//! What the engine answers, why, and how that reads in an error, an audit event and the simulator.

use std::sync::Arc;

use serde::Serialize;

use super::document::PolicyKind;
use super::error::Position;

/// The answer, in the words of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Effect {
    /// The request may proceed.
    #[serde(rename = "allowed")]
    Allow,
    /// A statement forbids it, or something could not be evaluated.
    #[serde(rename = "explicitDeny")]
    ExplicitDeny,
    /// Nothing allows it.
    #[serde(rename = "implicitDeny")]
    ImplicitDeny,
}

impl Effect {
    /// Returns `allowed`, `explicitDeny` or `implicitDeny`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allowed",
            Self::ExplicitDeny => "explicitDeny",
            Self::ImplicitDeny => "implicitDeny",
        }
    }
}

/// The layer of policies that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Layer {
    /// Organization policies of the caller's account.
    Organization,
    /// Organization policies on resources, of the resource's account.
    ResourceControl,
    /// The resource's own policy.
    Resource,
    /// Policies of the user, its groups or the role.
    Identity,
    /// The permissions boundary.
    Boundary,
    /// Policies passed when the session was made.
    Session,
    /// The account's root, which needs no policy.
    AccountRoot,
    /// The engine itself: it could not evaluate the request.
    Engine,
}

/// What happened, as a stable code for programs (audit events, `explain`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Outcome {
    /// The caller's identity policies allow.
    AllowedByIdentityPolicy,
    /// The resource policy allows by naming the caller.
    AllowedByResourcePolicy,
    /// Identity and resource policy allow together (another account, or a mandatory resource policy).
    AllowedByIdentityAndResourcePolicy,
    /// The root of the account needs no policy.
    AllowedAsAccountRoot,
    /// An identity policy forbids.
    IdentityPolicyExplicitDeny,
    /// The permissions boundary forbids.
    BoundaryExplicitDeny,
    /// A session policy forbids.
    SessionPolicyExplicitDeny,
    /// The resource policy forbids.
    ResourcePolicyExplicitDeny,
    /// An organization policy forbids.
    OrganizationPolicyExplicitDeny,
    /// A resource control policy forbids.
    ResourceControlPolicyExplicitDeny,
    /// No identity policy allows.
    NoIdentityPolicyAllows,
    /// The permissions boundary is silent.
    BoundaryDoesNotAllow,
    /// No session policy that was passed allows.
    SessionPolicyDoesNotAllow,
    /// The resource policy lets neither the caller nor its account in.
    ResourcePolicyDoesNotAllow,
    /// A level of the organization is silent.
    OrganizationPolicyDoesNotAllow,
    /// A level of the resource control policies is silent.
    ResourceControlPolicyDoesNotAllow,
    /// A stored policy cannot be read; everything it takes part in is denied (T-56).
    PolicyUnreadable,
    /// The action or resource of the request is not well formed.
    RequestMalformed,
    /// The policies demand more work than one decision may take (T-56).
    EvaluationTooExpensive,
}

impl Outcome {
    /// Returns the answer and the layer this outcome stands for.
    pub const fn effect_and_layer(self) -> (Effect, Layer) {
        match self {
            Self::AllowedByIdentityPolicy => (Effect::Allow, Layer::Identity),
            Self::AllowedByResourcePolicy | Self::AllowedByIdentityAndResourcePolicy => {
                (Effect::Allow, Layer::Resource)
            }
            Self::AllowedAsAccountRoot => (Effect::Allow, Layer::AccountRoot),
            Self::IdentityPolicyExplicitDeny => (Effect::ExplicitDeny, Layer::Identity),
            Self::BoundaryExplicitDeny => (Effect::ExplicitDeny, Layer::Boundary),
            Self::SessionPolicyExplicitDeny => (Effect::ExplicitDeny, Layer::Session),
            Self::ResourcePolicyExplicitDeny => (Effect::ExplicitDeny, Layer::Resource),
            Self::OrganizationPolicyExplicitDeny => (Effect::ExplicitDeny, Layer::Organization),
            Self::ResourceControlPolicyExplicitDeny => (Effect::ExplicitDeny, Layer::ResourceControl),
            Self::NoIdentityPolicyAllows => (Effect::ImplicitDeny, Layer::Identity),
            Self::BoundaryDoesNotAllow => (Effect::ImplicitDeny, Layer::Boundary),
            Self::SessionPolicyDoesNotAllow => (Effect::ImplicitDeny, Layer::Session),
            Self::ResourcePolicyDoesNotAllow => (Effect::ImplicitDeny, Layer::Resource),
            Self::OrganizationPolicyDoesNotAllow => (Effect::ImplicitDeny, Layer::Organization),
            Self::ResourceControlPolicyDoesNotAllow => (Effect::ImplicitDeny, Layer::ResourceControl),
            Self::PolicyUnreadable | Self::RequestMalformed | Self::EvaluationTooExpensive => {
                (Effect::ExplicitDeny, Layer::Engine)
            }
        }
    }
}

/// A statement that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MatchedStatement {
    /// Name or ARN of the policy.
    pub policy_id: Arc<str>,
    /// What kind of policy it is.
    pub policy_kind: PolicyKind,
    /// The statement's `Sid`, if it has one.
    pub sid: Option<Arc<str>>,
    /// The statement's number in the policy, from 0.
    pub index: usize,
    /// Where it begins in the policy's text.
    pub start: Position,
    /// Where its last character stands.
    pub end: Position,
}

/// The answer to one request, complete enough for the audit trail and the simulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Allow or deny.
    pub effect: Effect,
    /// The layer that decided.
    pub layer: Layer,
    /// Why, as a stable code.
    pub outcome: Outcome,
    /// The statements that decided: the Denies of an explicit deny, the Allows of an allow; none for an implicit deny.
    pub statements: Vec<MatchedStatement>,
    /// Condition keys that were asked for and are absent, in alphabetical order.
    pub missing_context_keys: Vec<String>,
    /// The stored policy that could not be read, when that is why.
    pub unreadable_policy: Option<Arc<str>>,
    /// Whether the permissions boundary allows; `None` without one.
    pub boundary_allows: Option<bool>,
    /// Whether every organization level of the caller's account allows; `None` without organization policies.
    pub organization_allows: Option<bool>,
}

impl Decision {
    /// Tells whether the request may proceed.
    pub fn is_allowed(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// Returns a stable machine-readable reason, for example `NoIdentityPolicyAllows`.
    pub const fn code(&self) -> &'static str {
        self.outcome.code()
    }

    /// Returns the sentence AWS users know from access-denied errors, or one that says what allowed the request.
    pub fn reason(&self, caller_arn: &str, action: &str, resource: &str) -> String {
        let because = match self.outcome {
            Outcome::PolicyUnreadable => {
                let id = self.unreadable_policy.as_deref().unwrap_or_default();
                format!("because the stored policy {id} cannot be read, and what cannot be evaluated is denied")
            }
            Outcome::RequestMalformed => "because the action or the resource is not well formed".to_owned(),
            Outcome::EvaluationTooExpensive => {
                "because its policies take too much work to evaluate, and what cannot be evaluated is denied".to_owned()
            }
            _ => match self.effect {
                Effect::Allow => {
                    return format!(
                        "User: {caller_arn} is authorized to perform: {action} on resource: {resource} {}",
                        self.granted_by()
                    );
                }
                Effect::ExplicitDeny => format!("with an explicit deny in {}", self.denying_policy()),
                Effect::ImplicitDeny => format!("because no {} allows the {action} action", self.layer_name()),
            },
        };
        format!("User: {caller_arn} is not authorized to perform: {action} on resource: {resource} {because}")
    }

    fn granted_by(&self) -> &'static str {
        match self.outcome {
            Outcome::AllowedByResourcePolicy => "because a resource-based policy allows it",
            Outcome::AllowedByIdentityAndResourcePolicy => {
                "because an identity-based policy and a resource-based policy allow it"
            }
            Outcome::AllowedAsAccountRoot => "because the root of the account needs no policy",
            _ => "because an identity-based policy allows it",
        }
    }

    fn denying_policy(&self) -> &'static str {
        match self.layer {
            Layer::Identity => "an identity-based policy",
            Layer::Boundary => "a permissions boundary policy",
            Layer::Session => "a session policy",
            Layer::Resource => "a resource-based policy",
            Layer::ResourceControl => "a resource control policy",
            _ => "a service control policy",
        }
    }

    fn layer_name(&self) -> &'static str {
        match self.layer {
            Layer::Boundary => "permissions boundary",
            Layer::Session => "session policy",
            Layer::Resource => "resource-based policy",
            Layer::Organization => "service control policy",
            Layer::ResourceControl => "resource control policy",
            _ => "identity-based policy",
        }
    }
}

impl Outcome {
    /// Returns the outcome's name, which does not change between releases.
    pub const fn code(self) -> &'static str {
        match self {
            Self::AllowedByIdentityPolicy => "AllowedByIdentityPolicy",
            Self::AllowedByResourcePolicy => "AllowedByResourcePolicy",
            Self::AllowedByIdentityAndResourcePolicy => "AllowedByIdentityAndResourcePolicy",
            Self::AllowedAsAccountRoot => "AllowedAsAccountRoot",
            Self::IdentityPolicyExplicitDeny => "IdentityPolicyExplicitDeny",
            Self::BoundaryExplicitDeny => "BoundaryExplicitDeny",
            Self::SessionPolicyExplicitDeny => "SessionPolicyExplicitDeny",
            Self::ResourcePolicyExplicitDeny => "ResourcePolicyExplicitDeny",
            Self::OrganizationPolicyExplicitDeny => "OrganizationPolicyExplicitDeny",
            Self::ResourceControlPolicyExplicitDeny => "ResourceControlPolicyExplicitDeny",
            Self::NoIdentityPolicyAllows => "NoIdentityPolicyAllows",
            Self::BoundaryDoesNotAllow => "BoundaryDoesNotAllow",
            Self::SessionPolicyDoesNotAllow => "SessionPolicyDoesNotAllow",
            Self::ResourcePolicyDoesNotAllow => "ResourcePolicyDoesNotAllow",
            Self::OrganizationPolicyDoesNotAllow => "OrganizationPolicyDoesNotAllow",
            Self::ResourceControlPolicyDoesNotAllow => "ResourceControlPolicyDoesNotAllow",
            Self::PolicyUnreadable => "PolicyUnreadable",
            Self::RequestMalformed => "RequestMalformed",
            Self::EvaluationTooExpensive => "EvaluationTooExpensive",
        }
    }
}
