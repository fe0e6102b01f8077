//! `munjigi kill`: ends sessions.

use clap::Args;

use super::{Finish, note, resolve, sessions};
use crate::cli::Where;
use crate::client::api::{Api, CallContext as _, JsonService};
use crate::client::api_types::{Ignored, TerminateSession};

/// End sessions, and every program in them
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi kill alice-0123456789abcdef0")]
pub(crate) struct Arguments {
    /// The sessions' ids, or their heads
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<String>,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let mut api = Api::new(resolve(&arguments.place)?)?;
    let mut finish = Finish::Done;
    for wanted in &arguments.sessions {
        // One that cannot be ended does not save the others.
        match end(&mut api, wanted).await {
            Ok(id) => note(&format!("ended {id}")),
            Err(error) => {
                note(&format!("munjigi: {error:#}"));
                finish = Finish::Problems;
            }
        }
    }
    Ok(finish)
}

async fn end(api: &mut Api, wanted: &str) -> anyhow::Result<String> {
    let session_id = sessions::find(api, wanted).await?.session_id;
    let request = TerminateSession { session_id: session_id.clone() };
    let _: Ignored = api
        .json(JsonService::Ssm, "TerminateSession", &request)
        .await
        .doing(api.context(), "cannot end the session")?;
    Ok(session_id)
}
