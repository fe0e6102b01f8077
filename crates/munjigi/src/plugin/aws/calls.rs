//! The two calls that a data channel's client makes: for a new token when its connection broke, and for the session's
//! end. Credentials are looked up for each anew: hours may lie between.

use munjigi_core::secret::Secret;
use munjigi_core::sigv4::Credentials;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::client::api::{Api, CallError, JsonService};
use crate::client::context::{Context, Source, Surroundings};
use crate::plugin::arguments::Handover;
use crate::plugin::{credentials, trust};

/// Where and as whom to call.
pub(crate) struct Calls {
    session_id: String,
    endpoint: Url,
    region: String,
    profile: Option<String>,
    around: Surroundings,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailure {
    /// It could not be made: no credentials, or certificates that cannot be used.
    #[error("{0:#}")]
    Unprepared(anyhow::Error),
    /// It was made, and gave no result.
    #[error("{0}")]
    Failed(#[from] CallError),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Input<'s> {
    session_id: &'s str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Resumed {
    /// Absent when the session is over.
    #[serde(default)]
    token_value: Option<String>,
}

#[derive(Deserialize)]
struct Nothing {}

impl Calls {
    /// Calls where StartSession was called.
    pub(crate) fn new(handover: &Handover, around: Surroundings) -> anyhow::Result<Self> {
        let endpoint = match &handover.endpoint {
            Some(endpoint) => trust::server_of(endpoint)?,
            // The old form names none: the region's own, as the original has it.
            None => Url::parse(&format!("https://ssm.{}.amazonaws.com", handover.region))?,
        };
        Ok(Self {
            session_id: handover.session_id.clone(),
            endpoint,
            region: handover.region.clone(),
            profile: handover.profile.clone(),
            around,
        })
    }

    /// `ResumeSession`: returns a new token; `None` when the session is over.
    pub(crate) async fn resume(&self) -> Result<Option<Secret<String>>, CallFailure> {
        let input = Input { session_id: &self.session_id };
        let resumed: Resumed = self.api().await?.json(JsonService::Ssm, "ResumeSession", &input).await?;
        Ok(resumed.token_value.filter(|token| !token.is_empty()).map(Secret::new))
    }

    /// `TerminateSession`.
    pub(crate) async fn terminate(&self) -> Result<(), CallFailure> {
        let input = Input { session_id: &self.session_id };
        let Nothing {} = self.api().await?.json(JsonService::Ssm, "TerminateSession", &input).await?;
        Ok(())
    }

    async fn api(&self) -> Result<Api, CallFailure> {
        let credentials = credentials::find(self.profile.as_deref(), &self.around).await;
        let credentials = credentials.map_err(CallFailure::Unprepared)?;
        let options = trust::of_calls(&self.around).and_then(|roots| trust::dial_options(&self.endpoint, roots));
        Ok(Api::with_options(self.context(credentials), options.map_err(CallFailure::Unprepared)?))
    }

    fn context(&self, credentials: Credentials) -> Context {
        Context {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ca_file: None,
            credentials,
            credentials_file: None,
            profile: self.profile.clone().unwrap_or_default(),
            data_dir: None,
            source: Source::Environment,
        }
    }
}
