//! Matching of resource names: patterns of `Resource` and of the `Arn…` operators.
//!
//! The two differ: a resource pattern is compared over the whole text, with limits on what its wildcards may cross
//! in the first five segments; an `Arn…` operator compares six components one by one.

use super::pattern::{Piece, Scope, Syntax, Template, Token, matches};

/// How many colon-separated parts an ARN has; the last one may hold further colons.
const PARTS: usize = 6;

/// A compiled element of `Resource` or `NotResource`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ResourcePattern {
    /// A lone `*`: everything, the pseudo resource `*` too.
    Every,
    /// One resource.
    Exact(Box<str>),
    Arn(Template),
}

impl ResourcePattern {
    /// Compiles a pattern; the error is a sentence.
    pub(super) fn parse(text: &str, variables: bool) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Every);
        }
        let mut template = Template::parse(text, Syntax { wildcards: true, variables })?;
        let colons = limit_wildcards(template.tokens_mut());
        if colons + 1 < PARTS {
            return Err(format!(
                "resource `{}` is neither `*` nor an ARN of six parts, `arn:partition:service:region:account:resource`",
                super::error::shown(text)
            ));
        }
        Ok(match template.as_literal() {
            Some(exact) => Self::Exact(exact.into()),
            None => Self::Arn(template),
        })
    }

    /// Returns the template of a pattern that may hold variables.
    pub(super) fn template(&self) -> Option<&Template> {
        if let Self::Arn(template) = self { Some(template) } else { None }
    }

    pub(super) fn matches(&self, resource: &str, scope: &Scope<'_>) -> bool {
        match self {
            Self::Every => true,
            Self::Exact(exact) => scope.steps.take(exact.len()) && **exact == *resource,
            Self::Arn(template) => template.matches(resource, scope),
        }
    }
}

/// Keeps wildcards of the first five segments from crossing colons, except a star that ends its segment; returns how
/// many colons the pattern's own text has, up to five. Colons in variables are not counted: their values are opaque.
fn limit_wildcards(tokens: &mut [Token]) -> usize {
    let mut colons = 0;
    let mut index = 0;
    while colons + 1 < PARTS {
        let ends_segment = matches!(tokens.get(index + 1), Some(Token::Literal(text)) if text.starts_with(':'));
        match tokens.get_mut(index) {
            None => break,
            Some(Token::Literal(text)) => colons += text.matches(':').count(),
            Some(token @ Token::Run) if !ends_segment => *token = Token::SegmentRun,
            Some(token @ Token::One) => *token = Token::SegmentOne,
            Some(_) => {}
        }
        index += 1;
    }
    colons.min(PARTS - 1)
}

/// Tells whether a request's value equals the pattern of an `Arn…` operator, component by component.
pub(super) fn arn_equals(pattern: &Template, value: &str, scope: &Scope<'_>) -> bool {
    let Some(values) = pattern.resolve(scope) else { return false };
    let mut rest_of_value = value;
    let mut components = Components { pattern, values: &values, token: 0, offset: 0 };
    for part in 1..=PARTS {
        let last = part == PARTS;
        let Some(pieces) = components.next(last) else { return false };
        let component = match rest_of_value.split_once(':') {
            Some((component, rest)) if !last => {
                rest_of_value = rest;
                component
            }
            None if !last => return false,
            _ => rest_of_value,
        };
        if !matches(|index| pieces.get(index).copied(), component, &scope.steps) {
            return false;
        }
    }
    true
}

/// Tells whether a pattern without variables has too few parts to equal any ARN.
pub(super) fn never_an_arn(pattern: &Template) -> bool {
    let colons = |token: &Token| if let Token::Literal(text) = token { text.matches(':').count() } else { 0 };
    pattern.variables().is_empty() && pattern.tokens().iter().map(colons).sum::<usize>() + 1 < PARTS
}

/// Cuts a pattern at its colons, those in substituted values included.
struct Components<'a> {
    pattern: &'a Template,
    values: &'a [&'a str],
    token: usize,
    /// Bytes of the current token that belong to earlier components.
    offset: usize,
}

impl<'a> Components<'a> {
    /// Returns the next component's pieces; `None` when a colon is missing behind it.
    fn next(&mut self, last: bool) -> Option<Vec<Piece<'a>>> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.pattern.piece(self.token, self.values) {
            let Piece::Literal(text) = piece else {
                pieces.push(piece);
                self.token += 1;
                continue;
            };
            let text = text.get(self.offset..).unwrap_or_default();
            if let Some((before, _)) = text.split_once(':').filter(|_| !last) {
                pieces.push(Piece::Literal(before));
                self.offset += before.len() + 1;
                return Some(pieces);
            }
            pieces.push(Piece::Literal(text));
            (self.token, self.offset) = (self.token + 1, 0);
        }
        last.then_some(pieces)
    }
}
