//! `munjigi db`: a database's own client, started on a forward to a target.
//!
//! What the client connects to is a socket in a directory that only this user can enter, so that nobody else on the
//! machine gets where the target's policy let this person.

mod programs;

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;

use super::beside::{self, Stage, note};
use super::{Finish, print};
use crate::cli::Where;
use crate::client::forward::Listener;
use crate::client::targets::Target;
use programs::{At, Family};

/// Open a database target in its own client: psql, mysql, redis-cli or mongosh
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi db orders\n  munjigi db orders -- -c 'SELECT count(*) FROM items'\n  \
    munjigi db orders --client pg_dump -- -Fc > orders.dump\n  munjigi db orders --print --port 15432\n\n\
    The client runs on this terminal and its exit status is this command's.")]
pub(crate) struct Arguments {
    /// The target
    #[arg(value_name = "TARGET")]
    name: String,
    /// Another program that takes the same settings, for example pg_dump, pgcli, mysqldump or mycli
    #[arg(long, value_name = "PROGRAM")]
    client: Option<OsString>,
    /// Listen on this port of the loopback instead of a private socket; 0 takes the target's own or a free one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Print the command instead of running it, and keep the forward open until Ctrl-C
    #[arg(long)]
    print: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    place: Where,
    /// Arguments for the client
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let target = beside::look_up(&arguments.place, &arguments.name).await?;
    let family = Family::of(target.kind).with_context(|| {
        let kind = target.kind;
        format!("the target {} is of the kind {kind}, no database: use `munjigi forward {}`", target.name, target.name)
    })?;
    let program = match (arguments.client, arguments.print) {
        (Some(program), _) => program,
        // Whoever reads it may have the program elsewhere.
        (None, true) => family.programs()[0].into(),
        (None, false) => beside::first_installed(family.programs()).with_context(|| {
            let wanted = family.programs().join(" or ");
            format!("there is no {wanted} here: install it, name another with --client, or use `munjigi forward`")
        })?,
    };
    let stage = Stage::new()?;
    let (listener, at) = listen(&stage, &target, family, arguments.port).await?;
    let ca = match target.verified() {
        Some((_, Some(pem))) => Some(stage.write("ca.pem", pem)?),
        Some((_, None)) => programs::system_authorities(),
        None => None,
    };
    let line = family.line(&target, &at, ca.as_deref(), program, arguments.arguments)?;
    if target.inspect && arguments.port.is_some() {
        note("whoever can connect to this port, on this machine, is logged in as you");
    }
    let standing = match beside::open(&arguments.place, &target, "db", arguments.reason).await? {
        Ok(standing) => standing,
        Err(finish) => return Ok(finish),
    };
    if arguments.print {
        print(&format!("{}\n", line.shown()))?;
        return beside::stay(standing, listener).await;
    }
    beside::run(standing, listener, line.command()).await
}

/// Listens where the client will look for the database.
async fn listen(stage: &Stage, target: &Target, family: Family, port: Option<u16>) -> anyhow::Result<(Listener, At)> {
    // Clients speak TLS on TCP alone.
    let Some(port) = port.or_else(|| target.client_tls().then_some(0)) else {
        let path = stage.path(family.socket());
        return Ok((Listener::unix(&path)?, At::Socket(path)));
    };
    let (listener, port) = beside::loopback(target, port).await?;
    Ok((listener, At::Port(port)))
}
