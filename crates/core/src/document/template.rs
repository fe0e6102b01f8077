//! Placeholders `{{ name }}` in the strings of `inputs` and `properties`.
//!
//! A name begins with a letter, digit or underscore, so that text such as `{{.Names}}`, which other programs
//! understand, stays what it is. Values are put in once and not looked through again.

use super::error::DocumentError;
use super::parameter::Filled;
use crate::policy::json::{Member, Node, Value};

/// How many bytes of text may still come out.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), DocumentError> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| DocumentError::at("$", "becomes too large with these parameters"))?;
        Ok(())
    }
}

/// A piece of a text.
enum Piece<'t> {
    Plain(&'t str),
    Name(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut rest, mut plain_from) = (text, text);
    while let Some(at) = rest.find("{{") {
        let (Some(behind), before) = (rest.get(at + 2..), plain_from.len() - rest.len() + at) else { break };
        match name(behind) {
            Some((name, after)) => {
                pieces.push(Piece::Plain(plain_from.get(..before).unwrap_or_default()));
                pieces.push(Piece::Name(name));
                (rest, plain_from) = (after, after);
            }
            // One brace further: `{{{ name }}` holds a placeholder too.
            None => rest = rest.get(at + 1..).unwrap_or_default(),
        }
    }
    pieces.push(Piece::Plain(plain_from));
    pieces
}

/// Reads blanks, a name, blanks and `}}`; returns the name and what follows.
fn name(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let inside = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    let end = text.find(|c| !inside(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    let first = name.bytes().next()?;
    let rest = rest.trim_start_matches([' ', '\t']).strip_prefix("}}")?;
    (first.is_ascii_alphanumeric() || first == b'_').then_some((name, rest))
}

/// Tells whether the text holds a placeholder.
pub(super) fn has_placeholder(text: &str) -> bool {
    text.contains("{{") && pieces(text).iter().any(|piece| matches!(piece, Piece::Name(_)))
}

/// Calls `seen` with path and name of every placeholder below `node`.
pub(super) fn each(
    node: &Node,
    path: &str,
    seen: &mut dyn FnMut(&str, &str) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    match &node.value {
        Value::Text(text) => pieces(text).into_iter().try_for_each(|piece| match piece {
            Piece::Name(name) => seen(path, name),
            Piece::Plain(_) => Ok(()),
        }),
        Value::List(items) => {
            items.iter().enumerate().try_for_each(|(at, item)| each(item, &format!("{path}[{at}]"), seen))
        }
        Value::Object(members) => {
            members.iter().try_for_each(|member| each(&member.value, &format!("{path}.{}", member.name), seen))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Returns `node` with the values put in.
pub(super) fn fill(node: &Node, values: &[Filled], budget: &mut Budget) -> Result<Node, DocumentError> {
    let value = match &node.value {
        Value::Text(text) => Value::Text(fill_text(text, values, budget)?),
        Value::List(items) => {
            Value::List(items.iter().map(|item| fill(item, values, budget)).collect::<Result<_, _>>()?)
        }
        Value::Object(members) => {
            let filled = members.iter().map(|member| {
                let value = fill(&member.value, values, budget)?;
                Ok(Member { name: member.name.clone(), at: member.at, value })
            });
            Value::Object(filled.collect::<Result<_, DocumentError>>()?)
        }
        plain => plain.clone(),
    };
    Ok(Node { value, start: node.start, end: node.end })
}

fn fill_text(text: &str, values: &[Filled], budget: &mut Budget) -> Result<String, DocumentError> {
    let mut out = String::new();
    for piece in pieces(text) {
        let piece = match piece {
            Piece::Plain(plain) => plain,
            // Names without a parameter were refused when the document was read.
            Piece::Name(name) => values.iter().find(|value| value.name == name).map_or("", |value| &value.text),
        };
        budget.spend(piece.len())?;
        out.push_str(piece);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_placeholders_are_filled_and_values_are_not_looked_through() {
        let values = [Filled::new("a", "{{ b }}"), Filled::new("b", "값"), Filled::new("x.y-1:z", "!")];
        let check = |text: &str, expected: &str| {
            assert_eq!(fill_text(text, &values, &mut Budget::new(1000)).unwrap(), expected, "{text}");
        };
        check("", "");
        check("{{a}} {{\t b  }}", "{{ b }} 값");
        check("{{{ b }}}", "{값}");
        check("{{b}}{{b}}", "값값");
        check("{{x.y-1:z}}", "!");
        for same in ["{{", "}}", "{{ b }", "{ {b}}", "{{.Names}}", "{{ }}", "{{ b c }}", "{{b\n}}", "한{{글", "{{{{"]
        {
            check(same, same);
            assert!(!has_placeholder(same), "{same}");
        }
    }

    #[test]
    fn what_comes_out_is_bounded() {
        let values = [Filled::new("a", &"x".repeat(1000))];
        assert!(fill_text(&"{{a}}".repeat(10), &values, &mut Budget::new(10_000)).is_ok());
        assert!(fill_text(&"{{a}}".repeat(10), &values, &mut Budget::new(9_999)).is_err());
    }
}
