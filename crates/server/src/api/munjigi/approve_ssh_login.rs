//! `ApproveSshLogin`: lets an SSH login in that waits for somebody, as the caller, or sends it away. Asked about the
//! caller's own ARN: approving makes the login the caller's, so it gives nobody anybody else's rights.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::policy::PrincipalKind;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::describe_ssh_login::Login;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::text::checked_text;
use crate::identity::session_token::{StandsFor, Statement};
use crate::identity::ssh::approval::{Answer, AnswerError};
use crate::identity::ssh::{approved, node_of};
use crate::identity::{Caller, mfa};

/// What has to be allowed, also for looking at the login.
const ACTION: &str = "munjigi:ApproveSshLogin";
/// How long a login with a second factor is good for anything new: as credentials of `GetSessionToken`.
const PROVED_LIFE: Duration = Duration::from_secs(43_200);

checked_text! {
    /// A code that an SSH client shows; hyphens, blanks and capitals do not matter.
    Code: |text| (8..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"- ".contains(&b)),
        "a code has eight letters and digits, as the SSH client shows them";
    /// A code of an MFA device.
    TokenCode: |text| text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit()), "a token code has six digits";
    /// The serial number of an MFA device.
    SerialNumber: |text| (9..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()),
        "a serial number has 9 to 256 characters";
}

/// The operation.
pub struct ApproveSshLogin;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The code that the SSH client shows.
    pub code: Code,
    /// What becomes of the login.
    pub decision: Decision,
    /// The caller's MFA device; may be left out by who has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<SerialNumber>,
    /// Its code: the login then counts as made with a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_code: Option<TokenCode>,
}

/// What may become of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Decision {
    /// It is let in as the caller.
    Approve,
    /// It is sent away.
    Deny,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The login.
    pub login: Login,
}

/// Returns what is required: on the caller itself, by what the login wants if that is known.
pub(super) fn requirement(caller: &Caller, login: Option<&Login>) -> Requirement {
    let mut requirement = Requirement::new(ACTION, &caller.principal().arn);
    if let Some(login) = login {
        requirement = requirement.with("munjigi:SourceAddress", &login.source_address);
        if let Some(os_user) = &login.os_user {
            requirement = requirement.with("munjigi:OsUser", os_user);
        }
        if let Some(node) = &login.node {
            requirement = requirement.with("munjigi:SshNode", node);
        }
    }
    requirement
}

/// Turns a code that answers nothing into the error for it.
pub(super) fn refused(error: AnswerError) -> ApiError {
    match error {
        AnswerError::Unknown => ApiError::bad("ResourceNotFoundException", error.to_string()),
        AnswerError::TooManyWrong => ApiError::bad("ThrottlingException", error.to_string()),
    }
}

impl Operation for ApproveSshLogin {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ApproveSshLogin";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["Code", "TokenCode"];
    const EXAMPLE: &'static str = r#"{"Code":"ABCD-EFGH","Decision":"Approve"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        // That nobody has a code is told to who may approve at all, and counted then.
        let login = match server.ssh_approvals.wish(&input.code, crate::clock::now()) {
            Some(wish) => Some(Login::of(&wish, node_of(server, &wish).await?.as_ref())),
            None => None,
        };
        Ok(vec![requirement(caller, login.as_ref())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, now) = (call.input(), call.request().time);
        let by = call.caller().principal().arn.to_string();
        let wish = server.ssh_approvals.look(&input.code, &by, now).map_err(refused)?;
        let node = node_of(server, &wish).await?;
        let login = Login::of(&wish, node.as_ref());
        if call.decisions().iter().any(|decided| decided.requirement != requirement(call.caller(), Some(&login))) {
            let message = "the node's name changed while the approval was decided; try again";
            return Err(ApiError::bad("ConflictException", message));
        }
        let answer = match input.decision {
            Decision::Deny => Answer::Denied { by: by.clone() },
            Decision::Approve => {
                let caller = with_second_factor(call, server).await?;
                Answer::Approved(Box::new(approved(&caller, call.request(), &wish, node.map(|node| node.id))))
            }
        };
        // The approval is in the trail before anybody is let in by it (T-62).
        call.record_granted(json!({ "login": login })).await?;
        server.ssh_approvals.answer(&input.code, &by, answer, now).map_err(refused)?;
        Ok(Output { login })
    }
}

/// Returns the caller as the login shall be: with the second factor that the call brings, if it brings one.
async fn with_second_factor(call: &Authorized<ApproveSshLogin>, server: &Server) -> Result<Caller, ApiError> {
    let (input, caller, now) = (call.input(), call.caller(), call.request().time);
    let code = match (&input.token_code, &input.serial_number) {
        (Some(code), _) => code,
        (None, None) => return Ok(caller.clone()),
        (None, Some(_)) => return Err(ApiError::Validation("SerialNumber is nothing without TokenCode".to_owned())),
    };
    let principal = caller.principal();
    let (PrincipalKind::User, Some(id), None) = (principal.kind, &principal.unique_id, principal.statement()) else {
        let message = "TokenCode is for users with a long-term key; temporary credentials bring their second factor";
        return Err(ApiError::Validation(message.to_owned()));
    };
    let serial = match &input.serial_number {
        Some(serial) => serial.to_string(),
        None => {
            let devices = server.store.mfa_devices().await.map_err(ApiError::internal)?;
            let own = |device: &crate::store::MfaDevice| device.assigned.as_ref().is_some_and(|(user, _)| user == id);
            let mut devices = devices.into_iter().filter(own);
            match (devices.next(), devices.next()) {
                (Some(device), None) => device.serial.to_string(),
                (None, _) => {
                    return Err(ApiError::Validation("you have no MFA device; leave TokenCode out".to_owned()));
                }
                (Some(_), Some(_)) => {
                    return Err(ApiError::Validation(
                        "you have several MFA devices; name one in SerialNumber".to_owned(),
                    ));
                }
            }
        }
    };
    mfa::verify(server, caller, &serial, code, now).await?;
    let statement = Statement {
        source_key: caller.access_key().cloned(),
        mfa: Some(now),
        ..Statement::new(StandsFor::User(id.clone()), now, PROVED_LIFE)
    };
    let principal = server.identities.of_statement(&Arc::new(statement)).ok_or(ApiError::InvalidClientToken)?;
    Ok(caller.again_as(principal))
}
