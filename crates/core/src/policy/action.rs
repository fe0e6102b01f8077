//! Action patterns: `service:Name` with wildcards in the name, compared without regard to case.

use super::pattern::{Scope, Syntax, Template};

/// A compiled element of `Action` or `NotAction`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ActionPattern {
    /// A lone `*`.
    Every,
    /// One action, folded.
    Exact(Box<str>),
    /// Actions of one service, both parts folded.
    Service { prefix: Box<str>, name: Template },
}

impl ActionPattern {
    /// Compiles a pattern; the error is a sentence that says what an action looks like.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Every);
        }
        let folded = text.to_ascii_lowercase();
        let (prefix, name) = folded.split_once(':').ok_or_else(|| malformed(text, "has no `service:` in front"))?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(malformed(text, "has a service prefix of other characters than letters, digits and `-`"));
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"*?-_.".contains(&b)) {
            return Err(malformed(text, "has a name of other characters than letters, digits, `*` and `?`"));
        }
        if !name.contains(['*', '?']) {
            return Ok(Self::Exact(folded.into()));
        }
        let name = Template::parse(name, Syntax { wildcards: true, variables: false })?;
        Ok(Self::Service { prefix: prefix.into(), name })
    }

    pub(super) fn matches(&self, action: &Action, scope: &Scope<'_>) -> bool {
        match self {
            Self::Every => true,
            Self::Exact(exact) => scope.steps.take(0) && **exact == *action.folded,
            Self::Service { prefix, name } => {
                scope.steps.take(0) && **prefix == *action.prefix() && name.matches(action.name(), scope)
            }
        }
    }
}

fn malformed(text: &str, problem: &str) -> String {
    format!("action `{}` {problem}; write `service:Name`, or `*` for every action", super::error::shown(text))
}

/// The action of a request, folded.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) folded: Box<str>,
    colon: usize,
}

impl Action {
    /// Longest name of an action that IAM takes.
    const LONGEST: usize = 128;

    /// Reads a request's action; `None` when it is none, which no policy can allow.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (prefix, name) = text.split_once(':')?;
        let plain = |part: &str, more: &[u8]| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        (text.len() <= Self::LONGEST && plain(prefix, b"-") && plain(name, b"-_."))
            .then(|| Self { folded: text.to_ascii_lowercase().into(), colon: prefix.len() })
    }

    pub(super) fn prefix(&self) -> &str {
        self.folded.get(..self.colon).unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.folded.get(self.colon + 1..).unwrap_or_default()
    }
}
