//! `DescribeAccountRules`: all account rules, in the order in which they count.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account_rule::{Shown, refused};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DescribeAccountRules;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The rules, at most 200.
    pub account_rules: Vec<Shown>,
}

impl Operation for DescribeAccountRules {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DescribeAccountRules";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("munjigi:DescribeAccountRules")])
    }

    async fn run(_: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let rules = server.store.account_rules().await.map_err(refused)?;
        Ok(Output { account_rules: rules.into_iter().map(|rule| Shown::of(server, rule)).collect() })
    }
}
