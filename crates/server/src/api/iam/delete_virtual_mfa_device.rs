//! `DeleteVirtualMFADevice`: deletes a virtual MFA device that nobody has.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteVirtualMFADevice;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The device.
    pub serial_number: Arn,
}

impl Operation for DeleteVirtualMFADevice {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteVirtualMFADevice";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"SerialNumber":"arn:aws:iam::000000000000:mfa/example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let needed = Requirement::new("iam:DeleteVirtualMFADevice", &input.serial_number);
        Ok(vec![needed.of_type("AWS::IAM::VirtualMFADevice")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        server.store.delete_mfa_device(&call.input().serial_number).await.map_err(refused)
    }
}
