//! The decision itself: section 7 of the policy language, layer by layer.
//!
//! Each layer is asked once which of its statements apply; everything after that is the order of precedence, written
//! down as plainly as possible.

use std::sync::Arc;

use super::action::Action;
use super::decision::{Decision, Effect, Layer, MatchedStatement, Outcome};
use super::list::{Found, PolicyList};
use super::pattern::Scope;
use super::principal::{PrincipalKind, Reach};
use super::request::Request;
use super::statement::Subject;

/// All policies that take part in a decision. The lists are shared: a caller's identity policies are compiled once
/// and used until they change.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    /// The user's own, its groups' and attached policies, or the role's.
    pub identity: Arc<PolicyList>,
    /// The permissions boundary, a list of one; `None` when none is set.
    pub boundary: Option<Arc<PolicyList>>,
    /// The policies passed when the session was made. `None` when none were passed; an empty list allows nothing.
    pub session: Option<Arc<PolicyList>>,
    /// The resource's own policy, a list of one.
    pub resource: Option<Arc<PolicyList>>,
    /// Organization policies of the caller's account, a list per level from the root to the account; empty without
    /// an organization and for its management account.
    pub organization: Vec<Arc<PolicyList>>,
    /// Organization policies on resources, a list per level down to the resource's account; empty without any.
    pub resource_control: Vec<Arc<PolicyList>>,
}

impl PolicySet {
    /// Tells whether a condition of any of these policies is on the key, whatever it speaks of.
    pub fn asks_for(&self, key: &str) -> bool {
        let key = super::context::Key::new(key);
        self.layers().any(|(_, list)| list.statements().any(|one| one.conditions.iter().any(|one| *one.key() == key)))
    }

    /// Returns every list with the layer it stands for.
    fn layers(&self) -> impl Iterator<Item = (Layer, &PolicyList)> {
        let organization = self.organization.iter().map(|list| (Layer::Organization, list));
        let resource_control = self.resource_control.iter().map(|list| (Layer::ResourceControl, list));
        let resource = self.resource.iter().map(|list| (Layer::Resource, list));
        let identity = std::iter::once((Layer::Identity, &self.identity));
        let boundary = self.boundary.iter().map(|list| (Layer::Boundary, list));
        let session = self.session.iter().map(|list| (Layer::Session, list));
        let layers =
            organization.chain(resource_control).chain(resource).chain(identity).chain(boundary).chain(session);
        layers.map(|(layer, list)| (layer, list.as_ref()))
    }
}

/// Judges one request. Same input, same answer: the current time is a context key like any other.
pub fn evaluate(policies: &PolicySet, request: &Request) -> Decision {
    if let Some(broken) = policies.layers().find_map(|(_, list)| list.broken()) {
        let decision = Decision { unreadable_policy: Some(broken.clone()), ..decision(Outcome::PolicyUnreadable) };
        return decision;
    }
    let (Some(action), Some(resources)) = (Action::parse(&request.action), request.resource_names()) else {
        return decision(Outcome::RequestMalformed);
    };
    let principal = &request.principal;
    let subject = Subject { principal, action, resources, scope: Scope::new(&request.context) };
    let findings = Findings::collect(policies, &subject);
    let outcome =
        if subject.scope.steps.exhausted() { Outcome::EvaluationTooExpensive } else { findings.outcome(request) };
    Decision {
        statements: findings.deciding(outcome),
        missing_context_keys: subject.scope.into_missing(),
        boundary_allows: findings.boundary,
        organization_allows: findings.organization,
        ..decision(outcome)
    }
}

/// Tells whether an Allow among these policies covers the request's action and resource only on the condition that
/// the Boolean `key` be true. StartSession checks its default document only if a policy asks for that by
/// `ssm:SessionDocumentAccessCheck`.
pub fn allow_demands_true(policies: &PolicyList, request: &Request, key: &str) -> bool {
    let (Some(action), Some(resources)) = (Action::parse(&request.action), request.resource_names()) else {
        return false;
    };
    let key = super::context::Key::new(key);
    let subject = Subject { principal: &request.principal, action, resources, scope: Scope::new(&request.context) };
    policies.candidates(&subject.action).any(|found| {
        found.statement.allows
            && found.statement.conditions.iter().any(|condition| *condition.key() == key && condition.demands_true())
            && found.statement.speaks_of_action(&subject)
            && found.statement.speaks_of_resource(&subject)
    })
}

fn decision(outcome: Outcome) -> Decision {
    let (effect, layer) = outcome.effect_and_layer();
    Decision {
        effect,
        layer,
        outcome,
        statements: Vec::new(),
        missing_context_keys: Vec::new(),
        unreadable_policy: None,
        boundary_allows: None,
        organization_allows: None,
    }
}

/// What the layers say about one request.
#[derive(Default)]
struct Findings<'p> {
    denies: Vec<(Layer, Found<'p>)>,
    /// Allows of the two layers that can grant.
    grants: Vec<(Layer, Found<'p>)>,
    identity: bool,
    /// How far the resource policy's Allows reach for the caller.
    resource: Option<Reach>,
    boundary: Option<bool>,
    session: Option<bool>,
    organization: Option<bool>,
    resource_control: Option<bool>,
}

impl<'p> Findings<'p> {
    fn collect(policies: &'p PolicySet, subject: &Subject<'_>) -> Self {
        let mut findings = Self::default();
        for (layer, list) in policies.layers().filter(|(layer, _)| binds(*layer, subject.principal.kind)) {
            let mut reach = Reach::None;
            for found in list.candidates(&subject.action) {
                let applies = found.statement.applies(subject, found.speaks_of_action);
                if applies == Reach::None {
                    continue;
                }
                if !found.statement.allows {
                    findings.denies.push((layer, found));
                    continue;
                }
                reach = reach.max(applies);
                if matches!(layer, Layer::Identity | Layer::Resource) {
                    findings.grants.push((layer, found));
                }
            }
            findings.note(layer, reach);
        }
        findings
    }

    fn note(&mut self, layer: Layer, reach: Reach) {
        let allows = reach != Reach::None;
        match layer {
            Layer::Identity => self.identity = allows,
            Layer::Resource => self.resource = Some(reach),
            Layer::Boundary => self.boundary = Some(allows),
            Layer::Session => self.session = Some(allows),
            // Every level must allow.
            Layer::Organization => self.organization = Some(allows && self.organization != Some(false)),
            Layer::ResourceControl => self.resource_control = Some(allows && self.resource_control != Some(false)),
            Layer::AccountRoot | Layer::Engine => {}
        }
    }

    /// Applies the order of precedence.
    fn outcome(&self, request: &Request) -> Outcome {
        if let Some((layer, _)) = self.denies.first() {
            return explicit_deny(*layer);
        }
        if self.organization == Some(false) {
            return Outcome::OrganizationPolicyDoesNotAllow;
        }
        if self.resource_control == Some(false) {
            return Outcome::ResourceControlPolicyDoesNotAllow;
        }
        let reach = self.resource.unwrap_or(Reach::None);
        let kind = request.principal.kind;
        if !has_identity_policies(kind) {
            let allowed = reach == Reach::Direct;
            return if allowed { Outcome::AllowedByResourcePolicy } else { Outcome::ResourcePolicyDoesNotAllow };
        }
        let limit = self.limit();
        if !request.crosses_accounts() {
            match reach {
                Reach::Direct => return Outcome::AllowedByResourcePolicy,
                Reach::Limited => return limit.unwrap_or(Outcome::AllowedByResourcePolicy),
                Reach::None if request.resource_policy_required => return Outcome::ResourcePolicyDoesNotAllow,
                Reach::None | Reach::Account => {}
            }
        }
        if !self.identity && kind != PrincipalKind::Root {
            return Outcome::NoIdentityPolicyAllows;
        }
        if let Some(limit) = limit {
            return limit;
        }
        if !request.crosses_accounts() && !request.resource_policy_required {
            return if self.identity { Outcome::AllowedByIdentityPolicy } else { Outcome::AllowedAsAccountRoot };
        }
        match (reach, self.identity) {
            (Reach::None, _) => Outcome::ResourcePolicyDoesNotAllow,
            (_, true) => Outcome::AllowedByIdentityAndResourcePolicy,
            (_, false) => Outcome::AllowedByResourcePolicy,
        }
    }

    /// Returns which ceiling is in the way, if one is.
    fn limit(&self) -> Option<Outcome> {
        if self.boundary == Some(false) {
            Some(Outcome::BoundaryDoesNotAllow)
        } else if self.session == Some(false) {
            Some(Outcome::SessionPolicyDoesNotAllow)
        } else {
            None
        }
    }

    /// Returns the statements behind an outcome.
    fn deciding(&self, outcome: Outcome) -> Vec<MatchedStatement> {
        let granted_by = |layer: Layer| {
            matches!(
                (outcome, layer),
                (Outcome::AllowedByIdentityPolicy, Layer::Identity)
                    | (Outcome::AllowedByResourcePolicy, Layer::Resource)
                    | (Outcome::AllowedByIdentityAndResourcePolicy, _)
            )
        };
        match outcome.effect_and_layer() {
            (_, Layer::Engine) | (Effect::ImplicitDeny, _) => Vec::new(),
            (Effect::ExplicitDeny, _) => self.denies.iter().map(|(_, found)| matched(found)).collect(),
            (Effect::Allow, _) => {
                self.grants.iter().filter(|(layer, _)| granted_by(*layer)).map(|(_, found)| matched(found)).collect()
            }
        }
    }
}

/// Tells whether a layer has a say about a kind of caller: organization policies bind users, roles and the root of
/// member accounts; on resources they bind all but services.
fn binds(layer: Layer, kind: PrincipalKind) -> bool {
    match layer {
        Layer::Organization => has_identity_policies(kind),
        Layer::ResourceControl => kind != PrincipalKind::Service,
        _ => true,
    }
}

fn has_identity_policies(kind: PrincipalKind) -> bool {
    !matches!(kind, PrincipalKind::Service | PrincipalKind::WebIdentity | PrincipalKind::Anonymous)
}

fn explicit_deny(layer: Layer) -> Outcome {
    match layer {
        Layer::Identity => Outcome::IdentityPolicyExplicitDeny,
        Layer::Boundary => Outcome::BoundaryExplicitDeny,
        Layer::Session => Outcome::SessionPolicyExplicitDeny,
        Layer::Resource => Outcome::ResourcePolicyExplicitDeny,
        Layer::ResourceControl => Outcome::ResourceControlPolicyExplicitDeny,
        Layer::Organization | Layer::AccountRoot | Layer::Engine => Outcome::OrganizationPolicyExplicitDeny,
    }
}

fn matched(found: &Found<'_>) -> MatchedStatement {
    MatchedStatement {
        policy_id: found.id.clone(),
        policy_kind: found.kind,
        sid: found.statement.sid.clone(),
        index: found.index,
        start: found.statement.start,
        end: found.statement.end,
    }
}
