//! `CreateVirtualMFADevice`: makes a virtual MFA device and shows its seed, once.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::mfa_codes::base32;
use super::names::{EntityName, Path};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;

/// The operation.
pub struct CreateVirtualMFADevice;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its path; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// The device.
    #[serde(rename = "VirtualMFADeviceName")]
    pub name: EntityName,
    /// Tags.
    #[serde(default)]
    pub tags: TagList,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {
    /// The device.
    #[serde(rename = "VirtualMFADevice")]
    pub device: Device,
}

/// A new device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// Its serial number.
    pub serial_number: Arn,
    /// Its seed as authenticator apps take it, in base 32, and that in base 64 as all bytes in answers are.
    pub base32_string_seed: String,
}

impl Operation for CreateVirtualMFADevice {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateVirtualMFADevice";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["Base32StringSeed"];
    const EXAMPLE: &'static str = r#"{"VirtualMFADeviceName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let arn = server.deployment.mfa(input.path.as_deref().unwrap_or("/"), &input.name);
        let create = Requirement::new("iam:CreateVirtualMFADevice", arn).of_type("AWS::IAM::VirtualMFADevice");
        Ok(vec![create.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let serial_number = server.deployment.mfa(input.path.as_deref().unwrap_or("/"), &input.name);
        let now = call.request().time;
        let seed = server.store.create_mfa_device(&serial_number, &input.name, &input.tags, now).await;
        let seed = seed.map_err(refused)?;
        let base32_string_seed = STANDARD.encode(base32(seed.expose()));
        Ok(Output { device: Device { serial_number, base32_string_seed } })
    }
}
