//! One compiled statement and the question whether it speaks of a request.

use std::sync::Arc;

use super::action::{Action, ActionPattern};
use super::arn_match::ResourcePattern;
use super::condition::Condition;
use super::context::Tree;
use super::error::Position;
use super::pattern::Scope;
use super::principal::{Principal, PrincipalElement, Reach};

/// `Action` or `NotAction`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ActionElement {
    Any(Box<[ActionPattern]>),
    Not(Box<[ActionPattern]>),
}

/// `Resource`, `NotResource`, or neither (trust policies).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ResourceElement {
    Any(Box<[ResourcePattern]>),
    Not(Box<[ResourcePattern]>),
    Absent,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub(super) sid: Option<Arc<str>>,
    pub(super) allows: bool,
    /// Only in resource and trust policies.
    pub(super) principal: Option<PrincipalElement>,
    pub(super) action: ActionElement,
    pub(super) resource: ResourceElement,
    pub(super) conditions: Box<[Condition]>,
    /// Where the statement begins.
    pub(super) start: Position,
    /// Where its last character stands.
    pub(super) end: Position,
}

/// The request as statements look at it: checked, folded, with all names of the resource.
pub(super) struct Subject<'r> {
    pub(super) principal: &'r Principal,
    pub(super) action: Action,
    pub(super) resources: Vec<String>,
    pub(super) scope: Scope<'r>,
}

impl Statement {
    /// Tells how far the statement applies to the request: [`Reach::None`] when it does not. Statements of policies
    /// that are attached to the caller apply directly. `speaks_of_action` says that the action is known to match.
    pub(super) fn applies(&self, subject: &Subject<'_>, speaks_of_action: bool) -> Reach {
        let reach = self.principal.as_ref().map_or(Reach::Direct, |element| element.reach(subject.principal));
        let holds = reach != Reach::None
            && (speaks_of_action || self.speaks_of_action(subject))
            && self.speaks_of_resource(subject)
            && self.conditions.iter().all(|condition| self.fulfils(condition, &subject.scope));
        if holds { reach } else { Reach::None }
    }

    /// Tells whether a condition counts as true: of a key without a known value, so that the answer is on the safe side.
    fn fulfils(&self, condition: &Condition, scope: &Scope<'_>) -> bool {
        if scope.is_open(condition.key()) {
            return self.allows;
        }
        match scope.context.tree(condition.key().folded()) {
            None => condition.holds(scope),
            Some((path, tree)) if self.allows == (tree == Tree::All) => condition.holds_for_tree(path, scope),
            Some((path, _)) => condition.may_hold_in_tree(path, scope),
        }
    }

    /// Tells whether the request's action is among the statement's.
    pub(super) fn speaks_of_action(&self, subject: &Subject<'_>) -> bool {
        let any = |patterns: &[ActionPattern]| patterns.iter().any(|p| p.matches(&subject.action, &subject.scope));
        match &self.action {
            ActionElement::Any(patterns) => any(patterns),
            ActionElement::Not(patterns) => !any(patterns),
        }
    }

    /// Tells whether the request's resource, under one of its names, is among the statement's.
    pub(super) fn speaks_of_resource(&self, subject: &Subject<'_>) -> bool {
        let any = |patterns: &[ResourcePattern]| {
            patterns.iter().any(|pattern| subject.resources.iter().any(|name| pattern.matches(name, &subject.scope)))
        };
        match &self.resource {
            ResourceElement::Any(patterns) => any(patterns),
            ResourceElement::Not(patterns) => !any(patterns),
            ResourceElement::Absent => true,
        }
    }
}
