//! `ListVirtualMFADevices`: lists the virtual MFA devices of the account.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::{Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::IsoTime;
use crate::identity::Caller;

/// The operation.
pub struct ListVirtualMFADevices;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Which; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_status: Option<AssignmentStatus>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How many entries at most; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// Whether somebody has a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum AssignmentStatus {
    /// A user has it.
    Assigned,
    /// Nobody has it.
    Unassigned,
    /// Either.
    Any,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The devices.
    #[serde(rename = "VirtualMFADevices")]
    pub devices: Vec<Device>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

/// A device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// Its serial number.
    pub serial_number: Arn,
    /// Who has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<shape::User>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_date: Option<IsoTime>,
}

impl Operation for ListVirtualMFADevices {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListVirtualMFADevices";
    const EFFECT: Effect = Effect::Read;

    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::new("iam:ListVirtualMFADevices", server.deployment.mfa("/", ""))])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let wanted = input.assignment_status.unwrap_or(AssignmentStatus::Any);
        let paging = begin(call, server, &[&format!("{wanted:?}")], input.marker.as_ref(), input.max_items)?;
        let mut all = server.store.mfa_devices().await.map_err(refused)?;
        all.retain(|device| match wanted {
            AssignmentStatus::Assigned => device.assigned.is_some(),
            AssignmentStatus::Unassigned => device.assigned.is_none(),
            AssignmentStatus::Any => true,
        });
        let page = paging.cut(all, |device| device.serial.to_string());
        let mut devices = Vec::with_capacity(page.items.len());
        for device in page.items {
            let (user, enable_date) = match device.assigned {
                Some((owner, enabled)) => {
                    let name = server.identities.by_unique_id(&owner).map(|owner| owner.name.to_string());
                    let user = server.store.user(&name.unwrap_or_default()).await.map_err(refused)?;
                    (Some(shape::User::new(server, user, Vec::new())), Some(IsoTime(enabled)))
                }
                None => (None, None),
            };
            devices.push(Device { serial_number: device.serial, user, enable_date });
        }
        Ok(Output { devices, is_truncated: page.next.is_some(), marker: paging.token(page.next)? })
    }
}
