//! `CreateOpenIDConnectProvider`: makes known an OpenID Connect provider, whose tokens may then become sessions of roles that trust it.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::{ClientId, ProviderUrl, Thumbprint};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::OidcProvider;

/// The operation.
pub struct CreateOpenIDConnectProvider;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The issuer, as its tokens spell it.
    pub url: ProviderUrl,
    /// The audiences that its tokens may have.
    #[serde(rename = "ClientIDList", default)]
    pub client_ids: Vec<ClientId>,
    /// SHA-1 of a certificate of the provider; stored and shown. Trusted are root certificates.
    #[serde(default)]
    pub thumbprint_list: Vec<Thumbprint>,
    /// Tags.
    #[serde(default)]
    pub tags: TagList,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {
    /// The provider.
    #[serde(rename = "OpenIDConnectProviderArn")]
    pub arn: Arn,
    /// Its tags.
    #[serde(rename = "Tags", skip_serializing_if = "<[_]>::is_empty")]
    pub tags: Vec<crate::store::Tag>,
}

impl Operation for CreateOpenIDConnectProvider {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateOpenIDConnectProvider";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Url":"https://example.com"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let arn = server.deployment.oidc_provider(input.url.host());
        let create = Requirement::new("iam:CreateOpenIDConnectProvider", arn).of_type("AWS::IAM::OIDCProvider");
        Ok(vec![create.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        if input.client_ids.len() > 100 || input.thumbprint_list.len() > 5 {
            return Err(ApiError::bad("InvalidInput", "no more than 100 client ids and 5 thumbprints"));
        }
        let new = OidcProvider {
            arn: server.deployment.oidc_provider(input.url.host()),
            url: input.url.to_string(),
            client_ids: input.client_ids.iter().map(|id| id.to_string()).collect(),
            thumbprints: input.thumbprint_list.iter().map(|print| print.to_string()).collect(),
            created: call.request().time,
        };
        server.store.create_oidc_provider(&new, &input.tags).await.map_err(refused)?;
        Ok(Output { arn: new.arn, tags: input.tags.to_vec() })
    }
}
