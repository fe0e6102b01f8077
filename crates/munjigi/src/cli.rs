//! The command line as typed: one enum lists the commands, each command's file has its own arguments.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::client::context::Wishes;
use crate::command;

/// Munjigi: audited shells on any machine, without SSH keys, bastions or inbound ports.
#[derive(Debug, Parser)]
#[command(
    name = "munjigi",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Begin with `munjigi up`: a server and an agent on this machine, and a recorded shell on it.\n\
        Nodes are named by name, id, the head of an id, or tag:Key=Value. `munjigi doctor` says what is wrong."
)]
pub(crate) struct Cli {
    /// Say more on standard error: -v what happens, -vv every step, -vvv everything (RUST_LOG chooses finer)
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(command::up::Arguments),
    Down(command::up::DownArguments),
    Server(command::server::Arguments),
    Agent(command::agent::Arguments),
    Env(command::env::Arguments),
    CredentialProcess(command::credential_process::Arguments),
    Ls(command::ls::Arguments),
    Shell(command::shell::Arguments),
    Run(command::run::Arguments),
    Cp(command::cp::Arguments),
    Forward(command::forward::Arguments),
    Sessions(command::sessions::Arguments),
    Watch(command::watch::Arguments),
    Attach(command::attach::Arguments),
    Kill(command::kill::Arguments),
    Play(command::play::Arguments),
    Audit(command::audit::Arguments),
    Verify(command::verify::Arguments),
    Explain(command::explain::Arguments),
    Db(command::db::Arguments),
    Rdp(command::rdp::Arguments),
    Target(command::target::Arguments),
    Account(command::account::Arguments),
    Migrate(command::migrate::Arguments),
    Report(command::report::Arguments),
    User(command::user::Arguments),
    Policy(command::policy::Arguments),
    Plugin(command::plugin::Arguments),
    Doctor(command::doctor::Arguments),
    Login(command::login::Arguments),
    Logout(command::login::LogoutArguments),
    Ssh(command::ssh::Arguments),
    SshAuthority(command::ssh_authority::Arguments),
    SshConfig(command::ssh_config::Arguments),
    Approve(command::approve::Arguments),
    Sshd(command::sshd::Arguments),
    AuthorizedKeys(command::authorized_keys::Arguments),
    Completion(command::completion::Arguments),
}

impl Command {
    /// Tells whether the exit status belongs to a remote program.
    pub(crate) fn runs_a_session(&self) -> bool {
        match self {
            Self::Up(_)
            | Self::Shell(_)
            | Self::Run(_)
            | Self::Attach(_)
            | Self::Db(_)
            | Self::Rdp(_)
            | Self::Ssh(_) => true,
            Self::Forward(arguments) => arguments.runs_a_session(),
            _ => false,
        }
    }
}

/// Which server, and as whom. Without these the AWS_* variables decide, then what `munjigi up` remembered.
#[derive(Debug, Clone, Args)]
pub(crate) struct Where {
    /// Data directory of a server on this machine
    #[arg(long, value_name = "DIR", env = "MUNJIGI_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Profile in the credentials file
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
}

impl Where {
    /// Returns what the flags ask for.
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes { data_dir: self.data_dir.clone(), profile: self.profile.clone() }
    }
}

/// How results are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs; stable
    Json,
}

/// `--output`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Output {
    /// Form of the output
    #[arg(long, short, value_name = "FORM", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let name = command.get_name().to_owned();
            if command.is_hide_set() {
                continue;
            }
            assert!(command.get_about().is_some(), "{name} has no help");
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{name} has no example: {help}");
        }
    }
}
