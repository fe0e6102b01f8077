//! `PutAccountRule`: makes an account rule, or makes one what it shall be; doing it twice is doing it once.
//!
//! A rule gives accounts, groups and rights by sudo on nodes that let their accounts be managed: whoever may put one is an
//! administrator of these nodes.

use std::sync::Arc;

use munjigi_core::account::rule::RuleSettings;
use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};

use super::account_rule::{Shown, on_rule, refused};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct PutAccountRule;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name; of rules that say different things the first by name counts.
    pub name: TargetName,
    /// What it says.
    pub rule: RuleSettings,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The rule as it is now.
    pub account_rule: Shown,
}

impl Operation for PutAccountRule {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "PutAccountRule";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"example","Rule":{"Who":["group:example"],"Nodes":["*"]}}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![on_rule(server, "munjigi:PutAccountRule", &input.name)])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        input.rule.check().map_err(|error| ApiError::Validation(error.to_string()))?;
        let rule =
            server.store.put_account_rule(&input.name, &input.rule, call.request().time).await.map_err(refused)?;
        server.accounts.changed();
        Ok(Output { account_rule: Shown::of(server, rule) })
    }
}
