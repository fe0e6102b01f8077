//! `munjigi attach`: goes on with a session that runs.

use std::sync::Arc;

use clap::Args;

use super::shell::SessionOptions;
use super::{Finish, resolve, sessions};
use crate::cli::Where;
use crate::client::api::Api;
use crate::client::session;
use crate::client::wish::Start;

/// Go on with a session that was left running
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi attach alice-0123456789abcdef0\n\n\
    A client that is connected to the session is told and leaves.")]
pub(crate) struct Arguments {
    /// The session's id, or its head
    session: String,
    /// Show everything from the beginning
    #[arg(long)]
    from_start: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let context = resolve(&arguments.place)?;
    let found = sessions::find(&mut Api::new(context.clone())?, &arguments.session).await?;
    let start = Start::Attach { session_id: found.session_id, from_start: arguments.from_start };
    let face = SessionOptions::default().face(found.kind == "command");
    Ok(Finish::Session(session::run(Arc::new(context), start, face).await?))
}
