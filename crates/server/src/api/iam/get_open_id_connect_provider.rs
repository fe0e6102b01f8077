//! `GetOpenIDConnectProvider`: shows a provider.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::IsoTime;
use crate::identity::Caller;
use crate::store::Tag;

/// The operation.
pub struct GetOpenIDConnectProvider;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The provider.
    #[serde(rename = "OpenIDConnectProviderArn")]
    pub arn: Arn,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The issuer without its scheme.
    pub url: String,
    /// The audiences that its tokens may have.
    #[serde(rename = "ClientIDList")]
    pub client_ids: Vec<String>,
    /// What was said of its certificates.
    pub thumbprint_list: Vec<String>,
    /// When it was made.
    pub create_date: IsoTime,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

impl Operation for GetOpenIDConnectProvider {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetOpenIDConnectProvider";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str =
        r#"{"OpenIDConnectProviderArn":"arn:aws:iam::000000000000:oidc-provider/example.com"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::new("iam:GetOpenIDConnectProvider", &input.arn).of_type("AWS::IAM::OIDCProvider")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (provider, tags) = server.store.oidc_provider(&call.input().arn).await.map_err(refused)?;
        Ok(Output {
            url: provider.url.trim_start_matches("https://").to_owned(),
            client_ids: provider.client_ids,
            thumbprint_list: provider.thumbprints,
            create_date: IsoTime(provider.created),
            tags,
        })
    }
}
