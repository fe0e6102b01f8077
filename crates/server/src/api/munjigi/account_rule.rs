//! Account rules and key files in requirements, answers and refusals.

use munjigi_core::account::rule::RuleSettings;
use munjigi_core::arn::Arn;
use munjigi_core::target::TargetName;
use serde::Serialize;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::Requirement;
use crate::api::ssm::refuse;
use crate::api::time::EpochTime;
use crate::store::{Kind, StoreError, StoredRule};

/// A rule as answers show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// Its name.
    pub name: TargetName,
    /// Its ARN.
    pub arn: Arn,
    /// What it says.
    pub rule: RuleSettings,
    /// When it was made.
    pub created_at: EpochTime,
    /// When it was put last.
    pub updated_at: EpochTime,
}

impl Shown {
    pub(super) fn of(server: &Server, rule: StoredRule) -> Self {
        Self {
            arn: server.deployment.account_rule(&rule.name),
            name: rule.name,
            rule: rule.settings,
            created_at: EpochTime(rule.created),
            updated_at: EpochTime(rule.updated),
        }
    }
}

/// Returns what an action on a rule needs.
pub(super) fn on_rule(server: &Server, action: &'static str, name: &TargetName) -> Requirement {
    Requirement::new(action, server.deployment.account_rule(name)).of_type("account-rule")
}

/// Returns what an action on a group's keys needs.
pub(super) fn on_key_file(server: &Server, action: &'static str, name: &TargetName) -> Requirement {
    Requirement::new(action, server.deployment.account_key_file(name)).of_type("account-key-file")
}

/// Turns a refusal of the store into the one of these operations.
pub(super) fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { kind: kind @ (Kind::AccountRule | Kind::AccountKeyFile), name } => {
            ApiError::bad("DoesNotExistException", format!("there is no {} {name}", kind.as_str()))
        }
        StoreError::Limit { what: what @ ("account rules" | "key files"), limit } => {
            ApiError::bad("ServiceQuotaExceededException", format!("no more than {limit} {what}; delete some"))
        }
        error => refuse::refused(error),
    }
}
