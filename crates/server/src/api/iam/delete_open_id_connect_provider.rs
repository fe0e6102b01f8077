//! `DeleteOpenIDConnectProvider`: deletes a provider; nobody that it vouches for gets credentials any more.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteOpenIDConnectProvider;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The provider.
    #[serde(rename = "OpenIDConnectProviderArn")]
    pub arn: Arn,
}

impl Operation for DeleteOpenIDConnectProvider {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteOpenIDConnectProvider";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"OpenIDConnectProviderArn":"arn:aws:iam::000000000000:oidc-provider/example.com"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::new("iam:DeleteOpenIDConnectProvider", &input.arn).of_type("AWS::IAM::OIDCProvider")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        server.store.delete_oidc_provider(&call.input().arn).await.map_err(refused)
    }
}
