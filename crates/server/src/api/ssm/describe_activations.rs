//! `DescribeActivations`: lists activations, without their codes.

use std::sync::Arc;

use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::pages::{MaxResults, begin};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{Activation, Page, Tag};

/// Activations read at once.
const BATCH: usize = 200;

/// The operation.
pub struct DescribeActivations;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// All must hold.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// How many at most; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 50>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The activations.
    pub activation_list: Vec<Shown>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Which activations are wanted: the key holds one of the values.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Filter {
    /// What is looked at.
    pub filter_key: FilterKey,
    /// What it may be.
    #[serde(default)]
    pub filter_values: Vec<String>,
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum FilterKey {
    /// The id.
    ActivationIds,
    /// The name of the nodes.
    DefaultInstanceName,
    /// The role.
    IamRole,
}

impl Filter {
    fn holds(&self, activation: &Activation) -> bool {
        let request = &activation.request;
        self.filter_values.iter().any(|value| match self.filter_key {
            FilterKey::ActivationIds => activation.id.to_string() == *value,
            FilterKey::DefaultInstanceName => request.default_instance_name.as_ref() == Some(value),
            FilterKey::IamRole => request.iam_role == *value,
        })
    }
}

/// An activation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// Its id.
    pub activation_id: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Name of the nodes that bring none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_instance_name: Option<String>,
    /// The role.
    pub iam_role: String,
    /// How many nodes may register.
    pub registration_limit: u64,
    /// How many have.
    pub registrations_count: u64,
    /// When it ends.
    pub expiration_date: EpochTime,
    /// Whether it has ended.
    pub expired: bool,
    /// When it was made.
    pub created_date: EpochTime,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

impl Shown {
    fn new(activation: Activation, now: Timestamp) -> Self {
        let request = activation.request;
        Self {
            activation_id: activation.id.to_string(),
            description: request.description,
            default_instance_name: request.default_instance_name,
            iam_role: request.iam_role,
            registration_limit: request.registration_limit,
            registrations_count: activation.registrations,
            expiration_date: EpochTime(request.expires),
            expired: request.expires <= now,
            created_date: EpochTime(activation.created),
            tags: request.tags,
        }
    }
}

impl Operation for DescribeActivations {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DescribeActivations";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:DescribeActivations")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let filters = serde_json::to_string(&input.filters).map_err(ApiError::internal)?;
        let limit = input.max_results.map_or(50, MaxResults::get);
        let paging = begin(call, server, &filters, input.next_token.as_deref(), limit)?;
        let mut found = Vec::new();
        let mut after = paging.after.clone();
        while found.len() <= limit {
            let page = server.store.list_activations(after.as_deref(), BATCH).await.map_err(refused)?;
            found.extend(
                page.items.into_iter().filter(|activation| input.filters.iter().all(|filter| filter.holds(activation))),
            );
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let page = Page::cut(found, limit, |last| last.id.to_string());
        let now = call.request().time;
        Ok(Output {
            activation_list: page.items.into_iter().map(|activation| Shown::new(activation, now)).collect(),
            next_token: paging.token(page.next)?,
        })
    }
}
