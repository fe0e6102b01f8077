//! `RotateSshAuthority`: has an authority sign with its next key, or with one that is brought because sshds believe it
//! already. What the former key signed is honoured until it ends, unless that key is distrusted, because somebody else
//! may have it.

use std::sync::Arc;

use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::revoke_ssh_certificate::revoke;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::ssh_authority::{AuthorityKind, ImportedKey, RotationError, longest_life};
use crate::store::{Revocation, Revoked};

/// Certificates that are looked at at once.
const PAGE: usize = 500;

/// The operation.
pub struct RotateSshAuthority;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Which authority.
    pub authority: Which,
    /// Believe all former keys no more from now on, and revoke what they signed.
    #[serde(default)]
    pub distrust: bool,
    /// The key that signs from now on, in OpenSSH's form and without a passphrase; the authority's own next key if it is
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<ImportedKey>,
}

/// Names an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// For people.
    User,
    /// For hosts.
    Host,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// `SHA256:…` of the key that signs from now on.
    pub fingerprint: String,
    /// How many certificates of people were revoked.
    pub revoked: usize,
}

impl Operation for RotateSshAuthority {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "RotateSshAuthority";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["PrivateKey"];
    const EXAMPLE: &'static str = r#"{"Authority":"host"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let which = match input.authority {
            Which::User => "user",
            Which::Host => "host",
        };
        let mut wanted = vec![Requirement::any("munjigi:RotateSshAuthority").with("munjigi:SshAuthority", which)];
        if input.private_key.is_some() {
            // Whoever brings a key has it, and can sign for anybody: that is more than to rotate.
            wanted.push(Requirement::any("munjigi:ImportSshAuthority").with("munjigi:SshAuthority", which));
        }
        Ok(wanted)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, now) = (call.input(), call.request().time);
        let authority = &server.ssh_authority;
        let kind = match input.authority {
            Which::User => AuthorityKind::User,
            Which::Host => AuthorityKind::Host,
        };
        let (brought, life) = (input.private_key.clone(), longest_life(&server.config));
        let rotated = authority.rotate(&server.store, kind, brought, life, !input.distrust, now).await;
        rotated.map_err(|error| match error {
            RotationError::Refused(why) => ApiError::bad("ResourceInUseException", why.to_string()),
            error => ApiError::internal(error),
        })?;
        let mut revoked = 0;
        if input.distrust && kind == AuthorityKind::User {
            let by = call.caller().principal().arn.to_string();
            revoked = revoke_unbelieved(server, by, now).await?;
        }
        let keys = if kind == AuthorityKind::User { authority.user() } else { authority.host() };
        let fingerprint = keys.current().map(|key| key.fingerprint().to_string()).unwrap_or_default();
        Ok(Output { fingerprint, revoked })
    }
}

/// Revokes every certificate whose authority is believed no more, so that sessions that began with one end.
async fn revoke_unbelieved(server: &Server, by: String, now: Timestamp) -> Result<usize, ApiError> {
    let believed = server.ssh_authority.believed(now);
    let mut struck = Vec::new();
    let mut after = (Timestamp(i64::MIN), 0);
    loop {
        let page = server.store.list_certificates(None, now, after, PAGE).await.map_err(ApiError::internal)?;
        let lost = page.items.iter().filter(|issued| !believed.contains(&issued.authority));
        struck.extend(lost.map(|issued| Revocation::Serial(issued.serial)));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let reason = "its authority is distrusted".to_owned();
    revoke(server, &struck, Revoked { reason, by, at: now }).await?;
    Ok(struck.len())
}
