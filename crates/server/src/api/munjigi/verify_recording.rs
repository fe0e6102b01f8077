//! `Munjigi.VerifyRecording`: proves that a session's recording is the one that was written, or names the first bad
//! place.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::recording::Verdict;
use serde::{Deserialize, Serialize};

use super::read_recording::refuse;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::terminate_session::{find, session_requirement};
use crate::identity::Caller;
use crate::recording::{RecordingError, problem};

/// Verifies a recording.
pub struct VerifyRecording;

/// Which one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct VerifyRecordingInput {
    /// The session.
    pub session_id: SessionId,
}

/// What was found, of a recording or of the trail.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VerdictOutput {
    /// Whether nothing was changed, removed, inserted, reordered or cut off.
    pub whole: bool,
    /// How many records are as written.
    pub records: u64,
    /// The first bad place and what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether it is a sealed recording.
    pub sealed: bool,
    /// Hash of the last good record, hexadecimal.
    pub hash: String,
}

impl Operation for VerifyRecording {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "VerifyRecording";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"SessionId": "alice-0123456789abcdef0"}"#;
    type Input = VerifyRecordingInput;
    type Output = VerdictOutput;

    async fn requirements(input: &Self::Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let row = find(server, &input.session_id).await?;
        Ok(vec![session_requirement(server, "munjigi:VerifyRecording", &input.session_id, row.as_ref())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let session = &call.input().session_id;
        let row = find(server, session).await?;
        // Read before the recording: one that is sealed meanwhile is not missed.
        let sealed_hash = row.as_ref().and_then(|row| row.end.as_ref()).and_then(|end| end.recording_hash.clone());
        match server.recordings.verify(session).await {
            Ok(verdict) => Ok(judge(&verdict, sealed_hash.as_deref())),
            Err(RecordingError::NotFound(_)) if row.is_some() => Ok(missing(sealed_hash.as_deref())),
            Err(error) => Err(refuse(error)),
        }
    }
}

fn judge(verdict: &Verdict, sealed_hash: Option<&str>) -> VerdictOutput {
    let problem = problem(verdict, sealed_hash);
    let (records, sealed) = (verdict.records, verdict.sealed);
    VerdictOutput { whole: problem.is_none(), records, problem, sealed, hash: hex::encode(verdict.hash) }
}

fn missing(sealed_hash: Option<&str>) -> VerdictOutput {
    // A session that never ran may have none.
    let problem = sealed_hash.map(|_| "the recording is missing: it had been sealed".to_owned());
    VerdictOutput { whole: problem.is_none(), records: 0, problem, sealed: false, hash: String::new() }
}
