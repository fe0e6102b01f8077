//! `DeactivateMFADevice`: takes an MFA device away from a user.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::EntityName;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeactivateMFADevice;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
    /// The device.
    pub serial_number: Arn,
}

impl Operation for DeactivateMFADevice {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeactivateMFADevice";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"UserName":"example","SerialNumber":"arn:aws:iam::000000000000:mfa/example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_user(server, "iam:DeactivateMFADevice", &input.user_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.deactivate_mfa_device(&input.serial_number, &input.user_name).await.map_err(refused)
    }
}
