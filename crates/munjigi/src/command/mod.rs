//! A file per command: its arguments, its help and its run. Exit statuses are `main`'s business.

pub(crate) mod account;
pub(crate) mod agent;
pub(crate) mod approve;
pub(crate) mod attach;
pub(crate) mod audit;
pub(crate) mod authorized_keys;
mod beside;
pub(crate) mod completion;
pub(crate) mod cp;
pub(crate) mod credential_process;
pub(crate) mod db;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod explain;
pub(crate) mod forward;
pub(crate) mod kill;
pub(crate) mod login;
pub(crate) mod ls;
pub(crate) mod migrate;
pub(crate) mod play;
pub(crate) mod plugin;
pub(crate) mod policy;
pub(crate) mod rdp;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod sessions;
pub(crate) mod shell;
pub(crate) mod ssh;
pub(crate) mod ssh_authority;
pub(crate) mod ssh_config;
pub(crate) mod sshd;
pub(crate) mod target;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod verify;
pub(crate) mod watch;

use std::io::{self, Write as _};
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::{Command, Where};
use crate::client::api::Api;
use crate::client::context::{self, Context, Surroundings};
use crate::client::embedded;
use crate::client::wish::Outcome;

/// How a command finished; `main` makes an exit status of it.
#[derive(Debug)]
pub(crate) enum Finish {
    /// It did what it was asked.
    Done,
    /// It did its work and found problems, which it has reported.
    Problems,
    /// The agent ended.
    Agent(ExitCode),
    /// A session ended or failed.
    Session(Outcome),
    /// Everything was said already; this is the exit status.
    Status(u8),
}

/// Runs a command.
pub(crate) fn run(command: Command) -> anyhow::Result<Finish> {
    match command {
        Command::Up(arguments) => wait_for(up::run(arguments)),
        Command::Down(arguments) => wait_for(up::run_down(arguments)),
        Command::Agent(arguments) => agent::run(arguments),
        Command::Server(arguments) => server::run(arguments),
        Command::Ls(arguments) => wait_for(ls::run(arguments)),
        Command::Shell(arguments) => wait_for(shell::run(arguments)),
        Command::Cp(arguments) => wait_for(cp::run(arguments)),
        Command::Run(arguments) => wait_for(run::run(arguments)),
        Command::Forward(arguments) => forward::run(arguments),
        Command::Attach(arguments) => wait_for(attach::run(arguments)),
        Command::Sessions(arguments) => wait_for(sessions::run(arguments)),
        Command::Kill(arguments) => wait_for(kill::run(arguments)),
        Command::Watch(arguments) => wait_for(watch::run(arguments)),
        Command::Play(arguments) => wait_for(play::run(arguments)),
        Command::Audit(arguments) => wait_for(audit::run(arguments)),
        Command::Verify(arguments) => wait_for(verify::run(arguments)),
        Command::Explain(arguments) => wait_for(explain::run(arguments)),
        Command::Rdp(arguments) => wait_for(rdp::run(arguments)),
        Command::Db(arguments) => wait_for(db::run(arguments)),
        Command::Target(arguments) => wait_for(target::run(arguments)),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Report(arguments) => wait_for(report::run(arguments)),
        Command::Account(arguments) => wait_for(account::run(arguments)),
        Command::User(arguments) => wait_for(user::run(arguments)),
        Command::Doctor(arguments) => wait_for(doctor::run(arguments)),
        Command::CredentialProcess(arguments) => wait_for(credential_process::run(arguments)),
        Command::Env(arguments) => wait_for(env::run(arguments)),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::Plugin(arguments) => plugin::run(arguments),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Login(arguments) => wait_for(login::run(arguments)),
        Command::Logout(arguments) => wait_for(login::run_logout(arguments)),
        Command::SshAuthority(arguments) => wait_for(ssh_authority::run(arguments)),
        Command::Ssh(arguments) => ssh::run(arguments),
        Command::SshConfig(arguments) => wait_for(ssh_config::run(arguments)),
        Command::Approve(arguments) => wait_for(approve::run(arguments)),
        Command::Sshd(arguments) => sshd::run(&arguments),
        Command::AuthorizedKeys(arguments) => authorized_keys::run(arguments).map(|()| Finish::Done),
    }
}

/// Runs a client command on a runtime of its own: one thread, so that a keystroke never changes threads.
pub(crate) fn wait_for(work: impl Future<Output = anyhow::Result<Finish>>) -> anyhow::Result<Finish> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")?;
    // With its type erased, or the runtime would hold three copies of every command's code.
    let work: Pin<Box<dyn Future<Output = anyhow::Result<Finish>>>> = Box::pin(work);
    runtime.block_on(work)
}

/// Finds the server that the flags, the environment or the context file name.
fn resolve(place: &Where) -> anyhow::Result<Context> {
    context::resolve(&place.wishes(), &Surroundings::of_process())
}

/// Makes calls to that server; if it is of this machine and does not run, to one in this process meanwhile.
async fn looking<T>(place: &Where, work: impl AsyncFnOnce(&mut Api) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut access = embedded::open(resolve(place)?).await?;
    let result = work(&mut access.api).await;
    access.close().await;
    result
}

/// Writes to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes a value as JSON, for people's eyes too.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes a message of ours to standard error; if that cannot be written there is nobody to tell.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
