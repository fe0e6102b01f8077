//! `munjigi sshd`: has the machine's sshd ask the agent for pushed keys. One drop-in file comes and goes; nothing that
//! is there is changed, and sshd is asked to check everything before it is told to read it.

mod daemon;
mod drop_in;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use nix::unistd::{Uid, User};

use self::daemon::Daemon;
use self::drop_in::{DropIn, Line};
use super::{Finish, print};
use crate::client::text::escaped;

/// Accounts that the helper may run as, in order of preference; never root.
const ACCOUNTS: [&str; 4] = ["munjigi-keys", "munjigi", "_munjigi", "nobody"];
/// The program of AWS's package ec2-instance-connect that sshd is set to ask.
const AWS_COMMAND: &str = "eic_run_authorized_keys";

/// Have this machine's sshd accept keys pushed with `aws ec2-instance-connect send-ssh-public-key`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi sshd install --data-dir /var/lib/munjigi-agent\n  \
    munjigi sshd status --data-dir /var/lib/munjigi-agent\n  munjigi sshd remove")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: SshdCommand,
}

#[derive(Debug, Subcommand)]
enum SshdCommand {
    /// Write the drop-in file, have sshd check it, and reload sshd
    #[command(
        after_help = "The file is DIR/sshd_config.d/00-munjigi.conf. A command that is set already is asked after the\n\
        agent (--no-chain refuses instead), but for AWS's own (eic_run_authorized_keys) where `[instance_connect] aws = true`\n\
        in agent.toml has the agent answer in its place. Certificates of `munjigi login` are believed too, if the agent has had the\n\
        authority's keys from its server and nothing else is set. If sshd does not like the result, everything is as before.\n\n\
        Example: munjigi sshd install --data-dir /var/lib/munjigi-agent"
    )]
    Install {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        agent: Agent,
        /// Account that the helper runs as [default: munjigi-keys, munjigi, _munjigi or nobody]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Path of munjigi as sshd shall run it [default: this program]
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,
        /// Refuse if another AuthorizedKeysCommand is set
        #[arg(long)]
        no_chain: bool,
        /// Leave certificates alone: sshd believes neither the deployment's authority nor has a host certificate
        #[arg(long)]
        no_certificates: bool,
    },
    /// Say whether sshd asks the agent
    #[command(after_help = "The exit status is 0 only if it does.\n\n\
        Example: munjigi sshd status --data-dir /var/lib/munjigi-agent")]
    Status {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        agent: Agent,
    },
    /// Take the drop-in file away and reload sshd
    #[command(after_help = "Example: munjigi sshd remove")]
    Remove {
        #[command(flatten)]
        place: Place,
    },
}

/// Which sshd.
#[derive(Debug, Args)]
struct Place {
    /// Directory of sshd_config
    #[arg(long, value_name = "DIR", default_value = "/etc/ssh")]
    config: PathBuf,
    /// The daemon, which checks its own settings
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/sshd")]
    sshd: PathBuf,
    /// Do not tell the running sshd
    #[arg(long)]
    no_reload: bool,
}

/// Which agent.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Agent {
    /// Data directory of this machine's agent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The agent's socket for keys
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Agent {
    fn socket(&self) -> anyhow::Result<PathBuf> {
        match (&self.socket, &self.data_dir) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(data_dir)) => munjigi_agent::keys_socket(data_dir),
            (None, None) => bail!("name the agent with --data-dir or --socket"),
        }
    }
}

impl Agent {
    /// Tells whether the agent answers in the place of a command: AWS's own, where the node's owner has it do so.
    fn replaces(&self, command: &daemon::KeysCommand) -> bool {
        command.command.contains(AWS_COMMAND) && self.answers_for_aws()
    }

    /// An agent whose settings cannot be read says why when it starts.
    fn answers_for_aws(&self) -> bool {
        self.data_dir.as_deref().is_some_and(|data_dir| munjigi_agent::answers_for_aws(data_dir).unwrap_or(false))
    }
}

impl Place {
    fn daemon(&self) -> Daemon {
        Daemon::new(&self.sshd, &self.config)
    }

    fn drop_in(&self) -> DropIn {
        DropIn::new(&self.config)
    }

    /// Reloads, and says what became of it.
    fn reload(&self, daemon: &Daemon) -> anyhow::Result<()> {
        if self.no_reload {
            return print("sshd was not told; reload it to make this hold\n");
        }
        match daemon.reload()? {
            Some(pid) => print(&format!("sshd (process {pid}) reads its settings again\n")),
            None => print("no running sshd was found; the settings hold from its next start\n"),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    match &arguments.command {
        SshdCommand::Install { place, agent, user, program, no_chain, no_certificates } => {
            let (user, program, certificates) = (user.as_deref(), program.as_deref(), !no_certificates);
            install(place, agent, &Wish { user, program, no_chain: *no_chain, certificates })
        }
        SshdCommand::Status { place, agent } => status(place, agent),
        SshdCommand::Remove { place } => remove(place),
    }
}

/// Returns the file that an installation below this directory writes.
pub(super) fn drop_in_path(config: &Path) -> PathBuf {
    DropIn::new(config).path().to_owned()
}

/// Installs without telling the running sshd and without a word; returns the account of the helper. For who has just taken
/// another system's command away: one on the command line of the running sshd goes with its next start.
pub(super) fn install_quietly(
    config: &Path,
    sshd: &Path,
    data_dir: &Path,
    program: Option<&Path>,
) -> anyhow::Result<String> {
    let place = Place { config: config.to_owned(), sshd: sshd.to_owned(), no_reload: true };
    let agent = Agent { data_dir: Some(data_dir.to_owned()), socket: None };
    let wish = Wish { user: None, program, no_chain: false, certificates: true };
    install_files(&place, &agent, &wish).map(|installed| installed.user)
}

/// Tells the running sshd to read its settings again; says what became of it.
pub(super) fn reload_quietly(config: &Path, sshd: &Path) -> anyhow::Result<String> {
    Ok(match Daemon::new(sshd, config).reload()? {
        Some(pid) => format!("sshd (process {pid}) reads its settings again"),
        None => "no running sshd was found; the settings hold from its next start".to_owned(),
    })
}

/// How it is to be installed.
struct Wish<'a> {
    user: Option<&'a str>,
    program: Option<&'a Path>,
    no_chain: bool,
    certificates: bool,
}

/// What was installed.
struct Installed {
    user: String,
    before: Option<daemon::KeysCommand>,
    told: String,
}

fn install(place: &Place, agent: &Agent, wish: &Wish<'_>) -> anyhow::Result<Finish> {
    let (daemon, drop_in, socket) = (place.daemon(), place.drop_in(), agent.socket()?);
    if let Some(pid) = daemon.overridden_by()? {
        let how = match Daemon::command_line_names(pid, AWS_COMMAND) {
            true => instead_of_aws(agent),
            false => "take it out of its service first".to_owned(),
        };
        bail!(
            "the running sshd (process {pid}) has an AuthorizedKeysCommand on its command line, which wins over every \
             file; {how}"
        );
    }
    let Installed { user, before, told } = install_files(place, agent, wish)?;
    print(&format!("wrote {}: sshd asks the agent at {} as {user}\n", drop_in.path().display(), socket.display()))?;
    print(&format!("{told}\n"))?;
    if let Some(before) = before {
        let command = escaped(&before.command);
        print(&match (agent.replaces(&before), before.command.contains(AWS_COMMAND)) {
            (true, _) => format!("sshd's former command is left out, as the agent answers for AWS: {command}\n"),
            (false, true) => format!(
                "when no pushed key fits, AWS's command is asked: {command}\nnote: the agent can do that itself: write \
                 `aws = true` below `[instance_connect]` in agent.toml, restart the agent, and install again\n"
            ),
            (false, false) => format!("when no pushed key fits, sshd's former command is asked: {command}\n"),
        })?;
    }
    for file in daemon.commands_in_match_blocks() {
        print(&format!(
            "note: {} sets an AuthorizedKeysCommand in a Match block; for whom that holds, the agent is not asked\n",
            file.display()
        ))?;
    }
    place.reload(&daemon)?;
    Ok(Finish::Done)
}

/// Says how the agent takes the place of AWS's package, whose drop-in gives sshd its command line.
fn instead_of_aws(agent: &Agent) -> String {
    let first = match agent.answers_for_aws() {
        true => "the agent answers for AWS already, so take AWS's away",
        false => {
            "it is that of AWS's package ec2-instance-connect, whose keys the agent can check itself: write `aws = true` below \
             `[instance_connect]` in agent.toml, restart the agent, then take AWS's away"
        }
    };
    let directory = agent.data_dir.as_deref().unwrap_or_else(|| Path::new("DIR")).display();
    format!("{first} with `munjigi migrate --from eic --agent-dir {directory} --remove --proof-user NAME --apply`")
}

/// Writes the file and has sshd check it; everything is as it was if sshd does not like it.
fn install_files(place: &Place, agent: &Agent, wish: &Wish<'_>) -> anyhow::Result<Installed> {
    let (daemon, drop_in, socket) = (place.daemon(), place.drop_in(), agent.socket()?);
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let program = wish.program.unwrap_or(&own);
    daemon::check_program(program)?;
    // What was there before us is looked at without us.
    let old = drop_in.take_away()?;
    let result = (|| {
        daemon.check().context("sshd does not accept its settings as they are, so nothing was installed")?;
        let before = daemon.keys_command()?;
        if let (Some(before), true) = (before.as_ref().filter(|before| !agent.replaces(before)), wish.no_chain) {
            bail!("sshd already has an AuthorizedKeysCommand: {}; leave out --no-chain to ask it too", before.command);
        }
        let chain_user = before.as_ref().map(|before| before.user.as_str());
        let user = account(wish.user.or(chain_user))?;
        let (further, told) = match agent.data_dir.as_deref().filter(|_| wish.certificates) {
            Some(data_dir) => certificate_settings(&daemon, data_dir)?,
            None => (Vec::new(), "certificates are left as they were".to_owned()),
        };
        let line = Line {
            program,
            socket: &socket,
            user: &user,
            other: before.as_ref().filter(|before| !agent.replaces(before)).map(|before| before.command.as_str()),
            further: &further,
        };
        drop_in.write(&line)?;
        daemon.check().context("sshd does not accept the new file")?;
        let after = daemon.keys_command()?.map(|after| after.command);
        if after.as_deref() != Some(line.command()?.as_str()) {
            bail!(
                "sshd does not read {}: its sshd_config needs the line `Include {}` before all others",
                drop_in.path().display(),
                drop_in.pattern().display()
            );
        }
        anyhow::Ok(Installed { user, before, told })
    })();
    if result.is_err() {
        drop_in.put_back(old.as_deref())?;
    }
    result.context("sshd's settings are as they were")
}

/// Returns the settings about certificates that fit, and what to say of them. What an administrator has set stays: a
/// second authority beside ours is theirs to arrange.
fn certificate_settings(daemon: &Daemon, data_dir: &Path) -> anyhow::Result<(Vec<String>, String)> {
    let data_dir = std::path::absolute(data_dir).context("the data directory has no absolute path")?;
    let files = munjigi_agent::ssh_files(&data_dir);
    // Without the list of revoked keys, sshd would let nobody in by any key.
    if !files.user_authorities.is_file() || !files.revoked.is_file() {
        let told = "certificates are left as they were: the agent has no authority's keys yet; install again once it is online";
        return Ok((Vec::new(), told.to_owned()));
    }
    for name in ["trustedusercakeys", "revokedkeys"] {
        if let Some(value) = daemon.setting(name)? {
            let value = escaped(&value);
            return Ok((
                Vec::new(),
                format!("certificates are left as they were: sshd has a {name} of its own ({value})"),
            ));
        }
    }
    let host = files.host_certificate.is_file() && daemon.setting("hostcertificate")?.is_none();
    let level = daemon.setting("loglevel")?.unwrap_or_default();
    let lines = drop_in::certificate_lines(&files, host, &level)?;
    let and_host = if host { ", and shows a host certificate" } else { "" };
    Ok((lines, format!("sshd believes certificates of `munjigi login`{and_host}")))
}

/// Chooses the account of the helper: never root, which must not run it.
fn account(wished: Option<&str>) -> anyhow::Result<String> {
    let exists = |name: &str| User::from_name(name).ok().flatten();
    match wished {
        Some(name) => match exists(name) {
            Some(user) if user.uid.is_root() && Uid::effective().is_root() => {
                bail!("the helper must not run as root; name another account with --user")
            }
            Some(_) => Ok(name.to_owned()),
            None => bail!("there is no account `{}`", escaped(name)),
        },
        None => {
            let found = ACCOUNTS.iter().find(|name| exists(name).is_some());
            found.map(|name| (*name).to_owned()).context("name an account without rights for the helper with --user")
        }
    }
}

fn status(place: &Place, agent: &Agent) -> anyhow::Result<Finish> {
    let (daemon, socket) = (place.daemon(), agent.socket()?);
    let command = daemon.keys_command()?;
    let asks = command.as_ref().is_some_and(|command| command.asks(&socket));
    let text = match &command {
        Some(command) if asks => format!("sshd asks the agent at {} as {}\n", socket.display(), escaped(&command.user)),
        Some(command) => format!("sshd asks another command: {}\n", escaped(&command.command)),
        None => "sshd asks nobody for keys; `munjigi sshd install` changes that\n".to_owned(),
    };
    print(&text)?;
    let listens = socket.exists();
    print(if listens { "the agent listens\n" } else { "the agent has had no key yet, or does not run\n" })?;
    if let Some(data_dir) = agent.data_dir.as_deref() {
        print(&certificate_status(&daemon, data_dir)?)?;
    }
    if let Some(pid) = daemon.overridden_by()? {
        print(&format!("the running sshd (process {pid}) has a command of its own on its command line\n"))?;
        return Ok(Finish::Problems);
    }
    Ok(if asks { Finish::Done } else { Finish::Problems })
}

/// Says what sshd does with certificates.
fn certificate_status(daemon: &Daemon, data_dir: &Path) -> anyhow::Result<String> {
    let files = munjigi_agent::ssh_files(&std::path::absolute(data_dir).context("the data directory has no path")?);
    let is_ours = |name: &str, file: &Path| {
        anyhow::Ok(daemon.setting(name)?.is_some_and(|value| value.split(' ').any(|path| Path::new(path) == file)))
    };
    let believes = is_ours("trustedusercakeys", &files.user_authorities)? && is_ours("revokedkeys", &files.revoked)?;
    let shows = is_ours("hostcertificate", &files.host_certificate)?;
    let people = match believes {
        true => "sshd believes certificates of `munjigi login`, but revoked ones",
        false => "sshd does not believe certificates of `munjigi login`",
    };
    let host = if shows { "sshd shows a host certificate" } else { "sshd shows no host certificate of ours" };
    Ok(format!("{people}\n{host}\n"))
}

fn remove(place: &Place) -> anyhow::Result<Finish> {
    let (daemon, drop_in) = (place.daemon(), place.drop_in());
    let Some(old) = drop_in.take_away()? else {
        print(&format!("there is no {}\n", drop_in.path().display()))?;
        return Ok(Finish::Done);
    };
    if let Err(error) = daemon.check() {
        drop_in.put_back(Some(&old))?;
        return Err(error.context("sshd does not accept its settings without our file, so it stays"));
    }
    print(&format!("removed {}\n", drop_in.path().display()))?;
    place.reload(&daemon)?;
    Ok(Finish::Done)
}
