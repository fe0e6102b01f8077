//! `DescribeAccountKeyFiles`: the keys of groups, and where they are good.

use std::sync::Arc;

use munjigi_core::account::rule::KeyFileSettings;
use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};

use super::account_rule::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;

/// The operation.
pub struct DescribeAccountKeyFiles;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The key files, at most 200.
    pub key_files: Vec<Shown>,
}

/// A group's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// The group's name.
    pub name: TargetName,
    /// Keys, accounts and nodes.
    pub key_file: KeyFileSettings,
    /// When it was put last.
    pub updated_at: EpochTime,
}

impl Operation for DescribeAccountKeyFiles {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DescribeAccountKeyFiles";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("munjigi:DescribeAccountKeyFiles")])
    }

    async fn run(_: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let files = server.store.account_key_files().await.map_err(refused)?;
        let shown = files.into_iter().map(|file| Shown {
            name: file.name,
            key_file: file.settings,
            updated_at: EpochTime(file.updated),
        });
        Ok(Output { key_files: shown.collect() })
    }
}
