//! `DeleteAccountKeyFile`: forgets a group's keys; nodes hear of it at once.

use std::sync::Arc;

use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};

use super::account_rule::{on_key_file, refused};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteAccountKeyFile;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The group's name.
    pub name: TargetName,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {}

impl Operation for DeleteAccountKeyFile {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DeleteAccountKeyFile";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![on_key_file(server, "munjigi:DeleteAccountKeyFile", &input.name)])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        server.store.delete_account_key_file(&call.input().name).await.map_err(refused)?;
        server.accounts.changed();
        Ok(Output {})
    }
}
