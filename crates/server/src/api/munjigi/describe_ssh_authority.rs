//! `DescribeSshAuthority`: the public keys of the authorities that vouch in SSH, for people and for hosts. Nothing
//! secret is in it: sshd and ssh need them to believe certificates.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::ssh_authority::{AuthorityKey, Keyring};

/// The operation.
pub struct DescribeSshAuthority;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The keys that vouch for people.
    pub user_keys: Vec<Shown>,
    /// The keys that vouch for hosts.
    pub host_keys: Vec<Shown>,
}

/// A key of an authority.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// `previous`, `current` or `next`.
    pub stage: &'static str,
    /// The public key as ssh-keygen shows it.
    pub public_key: String,
    /// `SHA256:…` of it.
    pub fingerprint: String,
    /// When it was made.
    pub created_at: EpochTime,
    /// Until when it is believed, of previous keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub believed_until: Option<EpochTime>,
}

impl Shown {
    fn of(key: &AuthorityKey) -> Result<Self, ApiError> {
        Ok(Self {
            stage: key.stage.as_str(),
            public_key: key.public().to_openssh().map_err(ApiError::internal)?,
            fingerprint: key.fingerprint().to_string(),
            created_at: EpochTime(key.made),
            believed_until: key.until.map(EpochTime),
        })
    }
}

impl Operation for DescribeSshAuthority {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DescribeSshAuthority";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("munjigi:DescribeSshAuthority")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let now = call.request().time;
        let shown = |keys: &Keyring| keys.believed(now).map(Shown::of).collect::<Result<Vec<_>, _>>();
        let authority = &server.ssh_authority;
        Ok(Output { user_keys: shown(&authority.user())?, host_keys: shown(&authority.host())? })
    }
}
