//! `String…` and `Bool` operators.

use crate::policy::context::fold;
use crate::policy::error::shown;
use crate::policy::pattern::{Piece, Scope, Template};

/// How texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextComparison {
    /// Character by character.
    Exact,
    /// Character by character after folding case.
    Folded,
    /// With `*` and `?` over the whole value, line ends included.
    Like,
}

impl TextComparison {
    pub(super) fn holds(self, template: &Template, value: &str, scope: &Scope<'_>) -> bool {
        match self {
            // Templates of exact operators were compiled without wildcards.
            Self::Exact | Self::Like => template.matches(value, scope),
            Self::Folded => substituted(template, scope).is_some_and(|text| {
                scope.steps.take(text.len()) && (text.eq_ignore_ascii_case(value) || fold(&text) == fold(value))
            }),
        }
    }
}

impl TextComparison {
    /// Tells whether a path and everything below it certainly fits.
    pub(super) fn holds_for_tree(self, template: &Template, path: &str, scope: &Scope<'_>) -> bool {
        // What fits one text and ends in a run fits every longer one too. An empty path is the root.
        let root = if path.is_empty() { "/" } else { path };
        self == Self::Like && template.ends_in_run() && template.matches(root, scope)
    }

    /// Tells whether a path or something below it may fit.
    pub(super) fn may_hold_in_tree(self, template: &Template, path: &str, scope: &Scope<'_>) -> bool {
        let Some(mut head) = template.literal_head(scope) else { return false };
        let mut path = path.to_owned();
        if self == Self::Folded {
            (head, path) = (fold(&head), fold(&path));
        }
        let whole = self != Self::Like || !template.has_wildcards();
        match head.strip_prefix(path.as_str()) {
            Some(below) => below.is_empty() || below.starts_with('/'),
            None => !whole && path.starts_with(&head),
        }
    }
}

/// Returns the text of a template without wildcards.
fn substituted(template: &Template, scope: &Scope<'_>) -> Option<String> {
    let values = template.resolve(scope)?;
    let mut text = String::new();
    for index in 0..template.tokens().len() {
        if let Some(Piece::Literal(literal)) = template.piece(index, &values) {
            text.push_str(literal);
        }
    }
    Some(text)
}

/// A value of `Bool` in a policy.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BoolValue {
    Known(bool),
    /// Known when the request is.
    Variable(Template),
}

impl BoolValue {
    pub(super) fn parse(text: &str, template: Template) -> Result<Self, String> {
        match parse_bool(text) {
            Some(value) => Ok(Self::Known(value)),
            None if !template.variables().is_empty() => Ok(Self::Variable(template)),
            None => Err(format!("condition value `{}` is neither `true` nor `false`", shown(text))),
        }
    }

    pub(super) fn template(&self) -> Option<&Template> {
        if let Self::Variable(template) = self { Some(template) } else { None }
    }

    pub(super) fn value(&self, scope: &Scope<'_>) -> Option<bool> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Variable(template) => parse_bool(&substituted(template, scope)?),
        }
    }
}

/// Reads `true` or `false` in any case.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}
