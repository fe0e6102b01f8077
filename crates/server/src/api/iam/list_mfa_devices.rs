//! `ListMFADevices`: lists the MFA devices of a user; without a name those of the caller.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::{EntityName, Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::IsoTime;
use crate::identity::Caller;

/// The operation.
pub struct ListMFADevices;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user; the caller if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<EntityName>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How many entries at most; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The devices.
    #[serde(rename = "MFADevices")]
    pub devices: Vec<Device>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

/// A device of a user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// The user.
    pub user_name: String,
    /// Its serial number.
    pub serial_number: Arn,
    /// Since when the user has it.
    pub enable_date: IsoTime,
}

impl Operation for ListMFADevices {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListMFADevices";
    const EFFECT: Effect = Effect::Read;

    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let name = require::meant(input.user_name.as_deref(), caller)?;
        Ok(vec![require::on_user(server, "iam:ListMFADevices", name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let name = require::meant(input.user_name.as_deref(), call.caller())?;
        let paging = begin(call, server, &[name], input.marker.as_ref(), input.max_items)?;
        let user = server.store.user(name).await.map_err(refused)?;
        let all = server.store.mfa_devices().await.map_err(refused)?;
        let own = all.into_iter().filter_map(|device| {
            let (owner, enabled) = device.assigned?;
            let enable_date = IsoTime(enabled);
            let user_name = user.name.clone();
            (owner == user.id).then_some(Device { user_name, serial_number: device.serial, enable_date })
        });
        let page = paging.cut(own.collect(), |device| device.serial_number.to_string());
        Ok(Output { devices: page.items, is_truncated: page.next.is_some(), marker: paging.token(page.next)? })
    }
}
