//! `RevokeSshCertificate`: makes certificates, or a key in all of them, worthless at once: at our door, in running
//! sessions, and at every sshd whose node is connected.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::{Revocation, Revoked};

/// Longest reason and key id, in bytes.
const MAX_TEXT: usize = 512;
/// Certificates of a principal that are looked at at once.
const PAGE: usize = 500;
const ACTION: &str = "munjigi:RevokeSshCertificate";

/// The operation.
pub struct RevokeSshCertificate;

/// Its input: exactly one of the first four.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// One certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    /// All certificates with a key id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// A key, in every certificate that has it or will have it: `SHA256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// All certificates of a principal that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arn>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// How many revocations there are now that were asked for.
    pub revoked: usize,
}

/// What is to be revoked.
enum Wish<'a> {
    Certificates(Revocation),
    Of(&'a Arn),
}

impl Input {
    fn wish(&self) -> Result<Wish<'_>, ApiError> {
        let one = || ApiError::Validation("give exactly one of Serial, KeyId, Fingerprint and Principal".to_owned());
        if self.reason.as_ref().is_some_and(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control)) {
            return Err(ApiError::Validation(format!("Reason is one line of at most {MAX_TEXT} bytes")));
        }
        match (self.serial, &self.key_id, &self.fingerprint, &self.principal) {
            (Some(serial), None, None, None) if serial > 0 && i64::try_from(serial).is_ok() => {
                Ok(Wish::Certificates(Revocation::Serial(serial)))
            }
            (None, Some(id), None, None) if !id.is_empty() && id.len() <= MAX_TEXT => {
                Ok(Wish::Certificates(Revocation::KeyId(id.clone())))
            }
            (None, None, Some(print), None) => match Fingerprint::parse(print) {
                Some(key) => Ok(Wish::Certificates(Revocation::Key(key))),
                None => Err(ApiError::Validation("Fingerprint has the form SHA256:…".to_owned())),
            },
            (None, None, None, Some(principal)) => Ok(Wish::Of(principal)),
            _ => Err(one()),
        }
    }
}

impl Operation for RevokeSshCertificate {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "RevokeSshCertificate";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Serial":1}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![match input.wish()? {
            // Whose it is; of one that nobody knows it cannot be said, which looks to a caller like somebody else's.
            Wish::Certificates(Revocation::Serial(serial)) => {
                match server.store.certificate(serial).await.map_err(ApiError::internal)? {
                    Some(issued) => Requirement::new(ACTION, issued.principal_arn),
                    None => Requirement::any(ACTION),
                }
            }
            Wish::Certificates(_) => Requirement::any(ACTION),
            Wish::Of(principal) => Requirement::new(ACTION, principal),
        }])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let now = call.request().time;
        let revocations = match input.wish()? {
            Wish::Certificates(one) => vec![one],
            Wish::Of(principal) => outstanding(server, principal, now).await?,
        };
        let reason = input.reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
        let by = call.caller().principal().arn.to_string();
        revoke(server, &revocations, Revoked { reason, by, at: now }).await?;
        Ok(Output { revoked: revocations.len() })
    }
}

async fn outstanding(server: &Server, principal: &Arn, now: Timestamp) -> Result<Vec<Revocation>, ApiError> {
    let mut found = Vec::new();
    let mut after = (Timestamp(i64::MIN), 0);
    loop {
        let page = server.store.list_certificates(Some(principal), now, after, PAGE).await;
        let page = page.map_err(ApiError::internal)?;
        found.extend(page.items.iter().map(|issued| Revocation::Serial(issued.serial)));
        match page.next {
            Some(next) => after = next,
            None => return Ok(found),
        }
    }
}

/// Revokes, and has everybody know: identities in memory, running sessions, nodes.
pub(crate) async fn revoke(server: &Server, revocations: &[Revocation], revoked: Revoked) -> Result<(), ApiError> {
    server.store.revoke_ssh(revocations, &revoked).await.map_err(ApiError::internal)?;
    server.identities.reload(&server.store).await.map_err(ApiError::internal)
}
