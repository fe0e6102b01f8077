//! `UpdateUser`: renames or moves a user.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::{EntityName, Path, UserName};
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct UpdateUser;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
    /// Its new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_path: Option<Path>,
    /// Its new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_user_name: Option<UserName>,
}

impl Operation for UpdateUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateUser";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"UserName":"example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let mut needed = vec![require::on_user(server, "iam:UpdateUser", &input.user_name).await?];
        if input.new_path.is_some() || input.new_user_name.is_some() {
            // The new name must be allowed too: a move is not a way out of what a policy covers.
            let name = input.new_user_name.as_deref().unwrap_or(&input.user_name);
            let known = server.store.user(&input.user_name).await;
            let path = known.map_or_else(|_| "/".to_owned(), |user| user.path);
            let arn = server.deployment.user(input.new_path.as_deref().unwrap_or(&path), name);
            needed.push(Requirement::new("iam:UpdateUser", arn).of_type("AWS::IAM::User"));
        }
        Ok(needed)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let (name, path) = (input.new_user_name.as_deref(), input.new_path.as_deref());
        server.store.update_user(&input.user_name, name, path).await.map_err(refused)?;
        changed(server).await
    }
}
