//! `CreateActivation`: makes what lets new nodes register; its code is shown this once.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{Description, IamRole, InstanceName};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::ActivationRequest;

/// How long an activation lives if nothing is said (aws-api C.4).
const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long it may live at most.
const MAX_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The operation.
pub struct CreateActivation;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Name of the nodes that bring none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_instance_name: Option<InstanceName>,
    /// A role's name; stored and shown.
    pub iam_role: IamRole,
    /// How many nodes may register, 1 to 1000; 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_limit: Option<u16>,
    /// When it ends, at most 30 days from now; 24 hours from now if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_date: Option<EpochTime>,
    /// Tags of the activation and of the nodes that register with it.
    #[serde(default)]
    pub tags: TagList,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// Its id.
    pub activation_id: String,
    /// Its code, shown this once.
    pub activation_code: String,
}

impl Operation for CreateActivation {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "CreateActivation";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["ActivationCode"];
    const EXAMPLE: &'static str = r#"{"IamRole":"nodes"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:CreateActivation").request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let now = call.request().time;
        let expires = input.expiration_date.map_or_else(|| now.plus(DEFAULT_LIFE), |EpochTime(end)| end);
        if expires <= now || expires > now.plus(MAX_LIFE) {
            let message = "the ExpirationDate must lie in the future and within 30 days";
            return Err(ApiError::bad("InvalidParameters", message));
        }
        let registration_limit = input.registration_limit.unwrap_or(1);
        if !(1..=1000).contains(&registration_limit) {
            return Err(ApiError::Validation("the RegistrationLimit must be 1 to 1000".to_owned()));
        }
        let request = ActivationRequest {
            description: input.description.as_deref().map(str::to_owned),
            default_instance_name: input
                .default_instance_name
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            iam_role: input.iam_role.to_string(),
            registration_limit: registration_limit.into(),
            expires,
            created_by: call.caller().principal().arn.to_string(),
            tags: input.tags.to_vec(),
        };
        let made = server.store.create_activation(&request, now).await.map_err(refused)?;
        Ok(Output { activation_id: made.id.to_string(), activation_code: made.code.expose().clone() })
    }
}
