//! Values of a document with their places, so that every refusal names its path.

use super::error::DocumentError;
use super::template;
use crate::policy::error::shown;
use crate::policy::json::{Member, Node, Value};

/// A value and its path.
#[derive(Debug, Clone)]
pub(super) struct At<'d> {
    pub(super) node: &'d Node,
    pub(super) path: String,
    /// Whether parameters are still to be put in: what holds a placeholder is not judged yet.
    open: bool,
}

/// The members of an object, by name.
#[derive(Debug)]
pub(super) struct Fields<'d> {
    members: &'d [Member],
    path: String,
    open: bool,
}

impl<'d> Fields<'d> {
    /// Takes an object of a document whose parameters are put in, or that has none there.
    pub(super) fn of(node: &'d Node, path: &str) -> Result<Self, DocumentError> {
        At { node, path: path.to_owned(), open: false }.fields()
    }

    /// Takes an object of a document; `open`: parameters are still to be put in.
    pub(super) fn of_template(node: &'d Node, path: &str, open: bool) -> Result<Self, DocumentError> {
        At { node, path: path.to_owned(), open }.fields()
    }

    /// Refuses the first member that is none of `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), DocumentError> {
        match self.members.iter().find(|member| !known.contains(&member.name.as_str())) {
            None => Ok(()),
            Some(member) => {
                let path = format!("{}.{}", self.path, shown(&member.name));
                Err(DocumentError::at(
                    &path,
                    format!("is no field of a session document here; known are {}", known.join(", ")),
                ))
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<At<'d>> {
        let member = self.members.iter().find(|member| member.name == name)?;
        Some(At { node: &member.value, path: format!("{}.{name}", self.path), open: self.open })
    }

    pub(super) fn required(&self, name: &str) -> Result<At<'d>, DocumentError> {
        self.get(name).ok_or_else(|| DocumentError::at(&format!("{}.{name}", self.path), "is required"))
    }

    /// Returns all members.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'d str, At<'d>)> + '_ {
        self.members.iter().map(|member| {
            let path = format!("{}.{}", self.path, shown(&member.name));
            (member.name.as_str(), At { node: &member.value, path, open: self.open })
        })
    }
}

impl<'d> At<'d> {
    pub(super) fn wrong(&self, message: impl Into<String>) -> DocumentError {
        DocumentError::at(&self.path, message)
    }

    fn mistyped(&self, wanted: &str) -> DocumentError {
        self.wrong(format!("must be {wanted}, not {}", self.node.value.kind()))
    }

    pub(super) fn fields(&self) -> Result<Fields<'d>, DocumentError> {
        match &self.node.value {
            Value::Object(members) => Ok(Fields { members, path: self.path.clone(), open: self.open }),
            _ => Err(self.mistyped("an object")),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<At<'d>>, DocumentError> {
        let Value::List(items) = &self.node.value else { return Err(self.mistyped("a list")) };
        let item = |(at, node)| At { node, path: format!("{}[{at}]", self.path), open: self.open };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(super) fn text(&self) -> Result<&'d str, DocumentError> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.mistyped("text")),
        }
    }

    /// Tells whether the value is yet to come from a parameter.
    pub(super) fn is_open(&self) -> bool {
        self.open && matches!(&self.node.value, Value::Text(text) if template::has_placeholder(text))
    }

    /// Returns text of at most `most` characters, without NUL.
    pub(super) fn text_of(&self, most: usize) -> Result<String, DocumentError> {
        let text = self.text()?;
        if !self.is_open() && text.chars().count() > most {
            return Err(self.wrong(format!("has more than {most} characters")));
        }
        if text.contains('\0') {
            return Err(self.wrong("holds a NUL character"));
        }
        Ok(text.to_owned())
    }

    /// Returns a Boolean, also from the texts that the reference agent takes.
    pub(super) fn flag(&self) -> Result<bool, DocumentError> {
        match &self.node.value {
            Value::Bool(flag) => Ok(*flag),
            Value::Text(text) => match text.as_str() {
                "true" => Ok(true),
                "false" | "" => Ok(false),
                _ if self.is_open() => Ok(false),
                _ => Err(self.wrong("must be true or false")),
            },
            _ => Err(self.mistyped("true or false")),
        }
    }

    /// Returns a whole number from `least` to `most`, from a number or text; `None` for empty text.
    pub(super) fn number(&self, least: u32, most: u32) -> Result<Option<u32>, DocumentError> {
        let digits = match &self.node.value {
            Value::Number(digits) | Value::Text(digits) => digits.as_str(),
            _ => return Err(self.mistyped("a number")),
        };
        if digits.is_empty() || self.is_open() {
            return Ok(None);
        }
        // A sign or superfluous zeros would read differently elsewhere.
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let number = digits.parse::<u32>().ok().filter(|number| plain && (least..=most).contains(number));
        number.map(Some).ok_or_else(|| self.wrong(format!("must be a whole number from {least} to {most}")))
    }
}
