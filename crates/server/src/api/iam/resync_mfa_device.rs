//! `ResyncMFADevice`: takes two codes in a row of a user's MFA device; what came before them is used up.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::mfa_codes::proven_step;
use super::names::{EntityName, TokenCode};
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::{Kind, StoreError};

/// The operation.
pub struct ResyncMFADevice;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
    /// The device.
    pub serial_number: Arn,
    /// One of its codes.
    pub authentication_code1: TokenCode,
    /// The code after that one.
    pub authentication_code2: TokenCode,
}

impl Operation for ResyncMFADevice {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ResyncMFADevice";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["AuthenticationCode1", "AuthenticationCode2"];
    const EXAMPLE: &'static str = r#"{"UserName":"example","SerialNumber":"arn:aws:iam::000000000000:mfa/example","AuthenticationCode1":"000000","AuthenticationCode2":"000000"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_user(server, "iam:ResyncMFADevice", &input.user_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let (input, now) = (call.input(), call.request().time);
        let user = server.store.user(&input.user_name).await.map_err(refused)?;
        let device = server.store.mfa_device(&input.serial_number).await.map_err(refused)?;
        if device.assigned.is_none_or(|(owner, _)| owner != user.id) {
            return Err(refused(StoreError::NotFound { kind: Kind::MfaDevice, name: input.serial_number.to_string() }));
        }
        let codes = (&*input.authentication_code1, &*input.authentication_code2);
        let step = proven_step(server, &input.serial_number, codes, now).await?;
        server.store.use_mfa_step(&input.serial_number, step).await.map_err(refused)?;
        Ok(())
    }
}
