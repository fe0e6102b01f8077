//! Remarks on documents that are legal but probably do not mean what their author thinks.

use super::condition::{Condition, Quantifier};
use super::document::PolicyKind;
use super::error::{Warning, shown};
use super::statement::{ActionElement, ResourceElement, Statement};

/// Keys that hold sets, folded.
const SETS: [&str; 8] = [
    "aws:calledvia",
    "aws:principalorgpaths",
    "aws:principalservicenameslist",
    "aws:resourceorgpaths",
    "aws:sourceorgpaths",
    "aws:tagkeys",
    "ssm:documentcategories",
    "sts:transitivetagkeys",
];

/// Returns the remarks on all statements, in their order.
pub(super) fn on_statements(statements: &[Statement], kind: PolicyKind) -> Vec<Warning> {
    let remark = |statement: &Statement| {
        let messages = on_statement(statement, kind);
        messages.into_iter().map(|message| Warning { position: statement.start, message }).collect::<Vec<_>>()
    };
    statements.iter().flat_map(remark).collect()
}

fn on_statement(statement: &Statement, kind: PolicyKind) -> Vec<String> {
    let mut messages = Vec::new();
    let grants = statement.allows && !matches!(kind, PolicyKind::Boundary | PolicyKind::Organization);
    if grants && matches!(statement.action, ActionElement::Not(_)) {
        messages.push("`NotAction` with `Allow` grants every other action there is or will be".to_owned());
    }
    if let ResourceElement::Not(patterns) = &statement.resource {
        if grants {
            messages.push("`NotResource` with `Allow` grants every other resource there is or will be".to_owned());
        }
        let mut variables = patterns.iter().filter_map(|p| p.template()).flat_map(|template| template.variables());
        if let Some(variable) = variables.find(|variable| variable.default.is_none()) {
            messages.push(format!(
                "when `{0}` is absent, the `NotResource` with `${{{0}}}` excludes nothing; give the variable a default",
                shown(variable.key.shown())
            ));
        }
    }
    for condition in &statement.conditions {
        on_condition(condition, statement, &mut messages);
    }
    messages
}

fn on_condition(condition: &Condition, statement: &Statement, messages: &mut Vec<String>) {
    let key = shown(condition.key().shown());
    if condition.is_empty() {
        messages.push(format!("the list of values for `{key}` is empty, so nothing equals it"));
    }
    if !condition.key().shown().contains(':') {
        messages.push(format!("condition key `{key}` has no prefix and will always be absent"));
    }
    if condition.has_value_that_is_no_arn() {
        messages.push(format!("a value for `{key}` is no ARN of six parts and will match none"));
    }
    match condition.operator().quantifier {
        Some(Quantifier::All) => {
            let demanded = |other: &Condition| other.key() == condition.key() && other.demands_presence();
            if statement.allows && !statement.conditions.iter().any(demanded) {
                messages.push(format!(
                    "`ForAllValues` also holds when `{key}` is absent; add `\"Null\": {{\"{key}\": \"false\"}}`"
                ));
            }
        }
        Some(Quantifier::Any) => {}
        None if !condition.operator().is_null() && SETS.contains(&condition.key().folded()) => {
            messages
                .push(format!("`{key}` holds a set: say `ForAnyValue:` or `ForAllValues:` in front of the operator"));
        }
        None => {}
    }
}
