//! `ListOpenIDConnectProviders`: lists the providers of the account.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct ListOpenIDConnectProviders;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {
    /// The providers.
    #[serde(rename = "OpenIDConnectProviderList")]
    pub providers: Vec<Provider>,
}

/// A provider.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Provider {
    /// Its resource name.
    pub arn: Arn,
}

impl Operation for ListOpenIDConnectProviders {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListOpenIDConnectProviders";
    const EFFECT: Effect = Effect::Read;

    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::new("iam:ListOpenIDConnectProviders", server.deployment.oidc_provider("*"))])
    }

    async fn run(_: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let all = server.store.oidc_providers().await.map_err(refused)?;
        Ok(Output { providers: all.into_iter().map(|provider| Provider { arn: provider.arn }).collect() })
    }
}
