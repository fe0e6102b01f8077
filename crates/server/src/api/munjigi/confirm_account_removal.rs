//! `ConfirmAccountRemoval`: a person's word that accounts may leave which a round held, because they were too many at once
//! (T-27).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Server;
use crate::accounts;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::target::Target;
use crate::identity::Caller;

/// The operation.
pub struct ConfirmAccountRemoval;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The node, by name, id or tag.
    pub target: String,
    /// Only these accounts; all that are held if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os_users: Vec<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The accounts that leave now.
    pub os_users: Vec<String>,
}

impl Operation for ConfirmAccountRemoval {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ConfirmAccountRemoval";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Target":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        const ACTION: &str = "munjigi:ConfirmAccountRemoval";
        Ok(Target::resolve(server, &input.target).await?.requirements(server, ACTION, &input.target))
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let node = Target::resolve(server, &input.target).await?.into_node(&input.target)?;
        let os_users = accounts::confirm(server, &node.id, &input.os_users).await.map_err(ApiError::internal)?;
        if os_users.is_empty() {
            let message = format!("no account of {} waits for a confirmation", node.name);
            return Err(ApiError::bad("DoesNotExistException", message));
        }
        server.accounts.changed();
        Ok(Output { os_users })
    }
}
