//! Targets in answers, and the store's refusals about them.

use munjigi_core::arn::Arn;
use munjigi_core::target::{Selector, TargetAddress, TargetKind, TargetName, TargetTls};
use serde::Serialize;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::ssm::refuse;
use crate::api::time::EpochTime;
use crate::store::{Kind, Node, StoreError, StoredTarget, Tag};
use crate::targets;

/// A target as answers show it. Its password is in none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// Its name.
    pub name: TargetName,
    /// Its ARN.
    pub arn: Arn,
    /// Where it is, as its nodes see it.
    pub address: TargetAddress,
    /// What it speaks.
    pub kind: TargetKind,
    /// Which nodes it is reached through.
    pub through: Vec<Selector>,
    /// How many nodes these are.
    pub nodes: usize,
    /// How many of them are connected now.
    pub nodes_online: usize,
    /// The port that clients listen on where nobody says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// The database that is opened where nobody says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whether the gateway records statements.
    pub inspect: bool,
    /// Whether it records bound values too.
    pub record_parameters: bool,
    /// Whether the server may ask the client for files.
    pub allow_load_local: bool,
    /// How its TLS is spoken.
    pub tls: TargetTls,
    /// The user that the gateway logs in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Whether a password is stored.
    pub has_password: bool,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// When it was made.
    pub created_at: EpochTime,
    /// When it was put last.
    pub updated_at: EpochTime,
}

impl Shown {
    /// Builds the answer's form. `nodes`: all that are registered.
    pub(super) fn of(server: &Server, target: StoredTarget, nodes: &[Node]) -> Self {
        let serving: Vec<&Node> = nodes.iter().filter(|node| targets::serves(node, &target)).collect();
        let has_password = target.has_password();
        let settings = target.settings;
        Self {
            arn: server.deployment.target(&target.name),
            name: target.name,
            address: settings.address,
            kind: settings.kind,
            through: settings.through,
            nodes: serving.len(),
            nodes_online: serving.iter().filter(|node| server.gateway.node_online(&node.id)).count(),
            local_port: settings.local_port,
            database: settings.database,
            inspect: settings.inspect,
            record_parameters: settings.record_parameters,
            allow_load_local: settings.allow_load_local,
            tls: settings.tls,
            user_name: target.user_name,
            has_password,
            tags: target.tags,
            created_at: EpochTime(target.created),
            updated_at: EpochTime(target.updated),
        }
    }
}

/// Turns a refusal of the store into the one of these operations.
pub(super) fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { kind: Kind::Target, name } => {
            ApiError::bad("DoesNotExistException", format!("there is no target {name}"))
        }
        StoreError::Limit { what: "targets", limit } => {
            ApiError::bad("ServiceQuotaExceededException", format!("no more than {limit} targets; delete some"))
        }
        error => refuse::refused(error),
    }
}
