//! `PutAccountKeyFile`: the keys of a group, for the accounts and nodes that it names. Nodes get them in their signed bundle.

use std::sync::Arc;

use munjigi_core::account::rule::KeyFileSettings;
use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};

use super::account_rule::{on_key_file, refused};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct PutAccountKeyFile;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The group's name.
    pub name: TargetName,
    /// Keys, accounts and nodes.
    pub key_file: KeyFileSettings,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// Fingerprints of the keys, in their order.
    pub fingerprints: Vec<String>,
}

impl Operation for PutAccountKeyFile {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "PutAccountKeyFile";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"example","KeyFile":{"OsUsers":["example"],"Nodes":["*"],"Keys":[]}}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let needed = on_key_file(server, "munjigi:PutAccountKeyFile", &input.name);
        // Each account that the keys open is asked about.
        let users = input.key_file.os_users.iter();
        Ok(users
            .map(|user| needed.clone().with("munjigi:OsUser", user.as_str()))
            .chain([needed.clone()])
            .take(65)
            .collect())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let keys = input.key_file.check().map_err(|error| ApiError::Validation(error.to_string()))?;
        let put = server.store.put_account_key_file(&input.name, &input.key_file, call.request().time);
        put.await.map_err(refused)?;
        server.accounts.changed();
        Ok(Output { fingerprints: keys.iter().map(|line| line.key.fingerprint().to_string()).collect() })
    }
}
