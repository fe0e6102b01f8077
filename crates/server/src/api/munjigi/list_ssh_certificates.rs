//! `ListSshCertificates`: certificates that were issued to people, oldest first, with what became of them.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::pages::{MaxResults, begin};
use crate::api::ssm::refuse::bad_token;
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{InvalidToken, IssuedCertificate};

/// Certificates in an answer when the caller does not say.
const DEFAULT_RESULTS: usize = 50;

/// The operation.
pub struct ListSshCertificates;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Of one principal; of all if not given, for those who may see all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arn>,
    /// Also those that have ended; they are remembered for 30 days.
    #[serde(default)]
    pub ended: bool,
    /// How many at most; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 50>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The certificates.
    pub certificates: Vec<Shown>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A certificate in an answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// Its serial number.
    pub serial: u64,
    /// Its key id.
    pub key_id: String,
    /// Whose it is.
    pub principal: Arn,
    /// The OS users that it is good for.
    pub os_users: Vec<String>,
    /// From where; absent for anywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_addresses: Vec<String>,
    /// The only command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_command: Option<String>,
    /// `SHA256:…` of its key.
    pub fingerprint: String,
    /// `SHA256:…` of the authority that signed it.
    pub authority: String,
    /// When it was issued.
    pub issued_at: EpochTime,
    /// When it ends.
    pub expires_at: EpochTime,
    /// `valid`, `ended` or `revoked`.
    pub state: &'static str,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<EpochTime>,
    /// By whom: an ARN, or `munjigi` for the server itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Shown {
    fn of(issued: IssuedCertificate, now: Timestamp) -> Self {
        let state = match &issued.revoked {
            Some(_) => "revoked",
            None if issued.expires <= now => "ended",
            None => "valid",
        };
        let revoked = issued.revoked;
        Self {
            serial: issued.serial,
            key_id: issued.key_id,
            principal: issued.principal_arn,
            os_users: issued.os_users,
            source_addresses: issued.sources.iter().map(ToString::to_string).collect(),
            force_command: issued.force_command,
            fingerprint: issued.fingerprint.to_string(),
            authority: issued.authority.to_string(),
            issued_at: EpochTime(issued.issued),
            expires_at: EpochTime(issued.expires),
            state,
            revoked_at: revoked.as_ref().map(|revoked| EpochTime(revoked.at)),
            revoked_by: revoked.as_ref().map(|revoked| revoked.by.clone()),
            reason: revoked.map(|revoked| revoked.reason),
        }
    }
}

impl Operation for ListSshCertificates {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ListSshCertificates";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        const ACTION: &str = "munjigi:ListSshCertificates";
        let needed = input.principal.as_ref().map(|principal| Requirement::new(ACTION, principal));
        Ok(vec![needed.unwrap_or_else(|| Requirement::any(ACTION))])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, now) = (call.input(), call.request().time);
        let limit = input.max_results.map_or(DEFAULT_RESULTS, MaxResults::get);
        let chosen = format!("{}\u{1f}{}", input.principal.as_ref().map_or("", Arn::as_str), input.ended);
        let paging = begin(call, server, &chosen, input.next_token.as_deref(), limit)?;
        let after = match &paging.after {
            Some(place) => read_place(place).ok_or_else(|| bad_token(InvalidToken))?,
            None => (Timestamp(i64::MIN), 0),
        };
        let ending_after = if input.ended { Timestamp(i64::MIN) } else { now };
        let page = server.store.list_certificates(input.principal.as_ref(), ending_after, after, limit).await;
        let page = page.map_err(ApiError::internal)?;
        let next = page.next.map(|(issued, serial)| format!("{} {serial}", issued.0));
        let certificates = page.items.into_iter().map(|issued| Shown::of(issued, now)).collect();
        Ok(Output { certificates, next_token: paging.token(next)? })
    }
}

fn read_place(place: &str) -> Option<(Timestamp, u64)> {
    let (issued, serial) = place.split_once(' ')?;
    Some((Timestamp(issued.parse().ok()?), serial.parse().ok()?))
}
