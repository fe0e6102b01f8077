//! `AddClientIDToOpenIDConnectProvider`: lets tokens of a provider have one more audience; nothing happens if they may.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::ClientId;
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct AddClientIDToOpenIDConnectProvider;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The provider.
    #[serde(rename = "OpenIDConnectProviderArn")]
    pub arn: Arn,
    /// The audience.
    #[serde(rename = "ClientID")]
    pub client_id: ClientId,
}

impl Operation for AddClientIDToOpenIDConnectProvider {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "AddClientIDToOpenIDConnectProvider";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"OpenIDConnectProviderArn":"arn:aws:iam::000000000000:oidc-provider/example.com","ClientID":"example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![
            Requirement::new("iam:AddClientIDToOpenIDConnectProvider", &input.arn).of_type("AWS::IAM::OIDCProvider"),
        ])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let add = |ids: &mut Vec<String>| {
            if !ids.iter().any(|id| **id == *input.client_id) {
                ids.push(input.client_id.to_string());
            }
        };
        server.store.change_client_ids(&input.arn, add).await.map_err(refused)
    }
}
