//! `Munjigi.VerifyTrail`: proves that the audit trail is as it was written, or names the first bad event.

use std::sync::Arc;

use munjigi_core::audit;
use serde::{Deserialize, Serialize};

use super::verify_recording::VerdictOutput;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::audit::AuditError;
use crate::identity::Caller;

/// Verifies the trail.
pub struct VerifyTrail;

/// Nothing to say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyTrailInput {}

impl Operation for VerifyTrail {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "VerifyTrail";
    const EFFECT: Effect = Effect::Read;
    type Input = VerifyTrailInput;
    type Output = VerdictOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("munjigi:VerifyTrail")])
    }

    async fn run(_: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        match server.audit.verify().await {
            Ok(verdict) => Ok(shown(&verdict)),
            // Files that are missing or cannot be read as a trail are a finding, not a fault of ours.
            Err(AuditError::Damaged(why)) => Ok(VerdictOutput {
                whole: false,
                records: 0,
                problem: Some(why.to_string()),
                sealed: false,
                hash: String::new(),
            }),
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

fn shown(verdict: &audit::Verdict) -> VerdictOutput {
    let torn = || (verdict.torn_bytes > 0).then(|| format!("event {} is cut off", verdict.events + 1));
    VerdictOutput {
        whole: verdict.is_whole(),
        records: verdict.events,
        problem: verdict.bad.as_ref().map(ToString::to_string).or_else(torn),
        sealed: false,
        hash: hex::encode(verdict.head.hash),
    }
}
