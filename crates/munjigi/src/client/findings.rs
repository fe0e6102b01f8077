//! What `munjigi doctor` finds: each finding says what is wrong and what to do.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Problem,
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// `client`, `server` or `agent`.
    pub(crate) role: &'static str,
    /// What was looked at, e.g. `dns`.
    pub(crate) check: &'static str,
    /// How it is.
    pub(crate) health: Health,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty when nothing needs doing.
    #[serde(rename = "next", skip_serializing_if = "String::is_empty")]
    pub(crate) next_step: String,
}

/// Collects findings of one role.
#[derive(Debug)]
pub(crate) struct Findings {
    role: &'static str,
    /// In the order in which they were found.
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    /// Begins with none.
    pub(crate) fn of(role: &'static str) -> Self {
        Self { role, list: Vec::new() }
    }

    /// Notes that something is as it should be.
    pub(crate) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.push(check, Health::Ok, found.into(), String::new());
    }

    /// Notes something to look at.
    pub(crate) fn warning(&mut self, check: &'static str, found: impl Into<String>, next_step: impl Into<String>) {
        self.push(check, Health::Warning, found.into(), next_step.into());
    }

    /// Notes something that does not work.
    pub(crate) fn problem(&mut self, check: &'static str, found: impl Into<String>, next_step: impl Into<String>) {
        self.push(check, Health::Problem, found.into(), next_step.into());
    }

    fn push(&mut self, check: &'static str, health: Health, found: String, next_step: String) {
        self.list.push(Finding { role: self.role, check, health, found, next_step });
    }
}
