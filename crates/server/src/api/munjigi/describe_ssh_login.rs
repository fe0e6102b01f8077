//! `DescribeSshLogin`: what an SSH login that waits for approval wants, so that whoever approves knows what. Whoever may
//! approve may look.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::approve_ssh_login::{Code, refused, requirement};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::identity::ssh::{SshWish, node_of};
use crate::store::Node;

/// The operation.
pub struct DescribeSshLogin;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The code that the SSH client shows.
    pub code: Code,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The login.
    pub login: Login,
    /// As whom the caller would approve: the principal's ARN.
    pub principal: String,
}

/// What a login wants.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Login {
    /// The name of the node that the login names, however it does; or what it names instead, if that is no node, which
    /// only jumps. Absent if it names nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The OS user, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_user: Option<String>,
    /// Where it comes from.
    pub source_address: String,
}

impl Login {
    /// Shows a wish and the node that it names. Ids and tags tell nobody which node it is, and policies go by names.
    pub(super) fn of(wish: &SshWish, node: Option<&Node>) -> Self {
        Self {
            node: node.map(|node| node.name.clone()).or_else(|| wish.node.clone()),
            os_user: wish.os_user.clone(),
            source_address: wish.source.to_canonical().to_string(),
        }
    }
}

impl Operation for DescribeSshLogin {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DescribeSshLogin";
    const EFFECT: Effect = Effect::Read;
    const SECRET_FIELDS: &'static [&'static str] = &["Code"];
    const EXAMPLE: &'static str = r#"{"Code":"ABCD-EFGH"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![requirement(caller, None)])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let principal = call.caller().principal().arn.to_string();
        let found = server.ssh_approvals.look(&call.input().code, &principal, call.request().time);
        let wish = found.map_err(refused)?;
        let node = node_of(server, &wish).await?;
        Ok(Output { login: Login::of(&wish, node.as_ref()), principal })
    }
}
