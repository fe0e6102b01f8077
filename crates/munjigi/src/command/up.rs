//! `munjigi up`: server, agent and a recorded session on this machine; the two-minute proof.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use munjigi_agent::JoinOptions;
use munjigi_core::secret::Secret;

use super::shell::SessionOptions;
use super::{Finish, note};
use crate::client::api::{Api, CallContext as _, JsonService, QueryService};
use crate::client::api_types::{ACTIVATION_LIFE, Activation, CreateActivation};
use crate::client::children::{Helper, Life, end_process};
use crate::client::clock;
use crate::client::context::{self, Context, Surroundings, Wishes};
use crate::client::embedded::is_running;
use crate::client::progress::Progress;
use crate::client::session;
use crate::client::wish::Start;

/// Files below the data directory.
const AGENT_DIR: &str = "agent";
const SERVER_PID: &str = "server.pid";
const SERVER_LOG: &str = "server.log";
const AGENT_LOG: &str = "agent.log";

/// The user whose key a new server writes into `admin.credentials`.
const ADMINISTRATOR: &str = "admin";
/// Tag of a user that names the OS user of its sessions.
const RUN_AS_TAG: &str = "SSMSessionRunAs";

/// How long an agent that runs already may take to reach the server.
const ONLINE_LIMIT: Duration = Duration::from_secs(15);

/// Start server and agent on this machine, then a recorded shell (or command) on it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi up\n  munjigi up -- make test\n  munjigi up --stop\n\n\
    Without a command server and agent go on in the background, and the other commands find them without being told.\n\
    With a command everything ends with it; its output and exit status are the only ones.")]
pub(crate) struct Arguments {
    /// Where everything lies [default: ~/.local/state/munjigi]
    #[arg(long, value_name = "DIR", env = "MUNJIGI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address the server listens on [default: 127.0.0.1 and a port that is kept]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Stop what runs in the background
    #[arg(long, conflicts_with_all = ["listen", "command"])]
    stop: bool,
    #[command(flatten)]
    options: SessionOptions,
    /// A command instead of the login shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Stop the server and agent that `munjigi up` left in the background
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi down")]
pub(crate) struct DownArguments {
    /// Where everything lies [default: ~/.local/state/munjigi]
    #[arg(long, value_name = "DIR", env = "MUNJIGI_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let around = Surroundings::of_process();
    let data_dir = data_dir(arguments.data_dir.as_deref(), &around)?;
    if arguments.stop {
        return stop(&data_dir).await;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .with_context(|| format!("cannot create {}", data_dir.display()))?;
    let in_background = arguments.command.is_empty();
    let life = if in_background { Life::Background } else { Life::WithUs };
    let progress = Progress::new();
    let (server, context) = start_server(&data_dir, arguments.listen.as_deref(), life, &progress).await?;
    let (agent, node_id) = start_agent(&data_dir, &context, life, &progress).await?;
    drop(progress);
    if (in_background || arguments.data_dir.is_none())
        && let Some(path) = around.context_file()
    {
        context.to_file()?.write(&path)?;
    }
    let finish = work(arguments, context, node_id).await;
    // The agent first: its sessions end while the server still writes them down.
    for helper in [agent, server].into_iter().flatten() {
        helper.leave().await?;
    }
    finish
}

pub(super) async fn run_down(arguments: DownArguments) -> anyhow::Result<Finish> {
    stop(&data_dir(arguments.data_dir.as_deref(), &Surroundings::of_process())?).await
}

fn data_dir(wish: Option<&Path>, around: &Surroundings) -> anyhow::Result<PathBuf> {
    let usual = || around.default_data_dir().context("there is no home directory; give --data-dir DIR");
    let chosen = wish.map_or_else(usual, |wish| Ok(wish.to_owned()))?;
    std::path::absolute(chosen).context("cannot tell the working directory")
}

/// Runs the session: the command, the login shell, or without a terminal a demonstration.
async fn work(arguments: Arguments, context: Context, node_id: String) -> anyhow::Result<Finish> {
    let context = Arc::new(context);
    let demonstrate = arguments.command.is_empty() && !io::stdin().is_terminal();
    let command = match demonstrate {
        true => DEMONSTRATION.map(str::to_owned).to_vec(),
        false => arguments.command,
    };
    let face = arguments.options.face(!command.is_empty());
    let start = Start::New {
        target: node_id,
        command,
        os_user: arguments.options.user.unwrap_or(own_user()?),
        reason: arguments.options.reason.unwrap_or_default(),
        document: String::new(),
        parameters: Vec::new(),
    };
    let outcome = session::run(context, start, face).await?;
    if demonstrate {
        note(NEXT_STEPS);
    }
    Ok(Finish::Session(outcome))
}

/// Shown where there is no terminal for a shell.
const DEMONSTRATION: [&str; 3] =
    ["sh", "-c", "echo \"This is $(id -un) on $(uname -n), in a session that munjigi records.\"; uname -srm"];

const NEXT_STEPS: &str = "\nserver and agent run in the background. Try:\n  \
    munjigi sessions\n  \
    munjigi play ID --text          (an ID from that list)\n  \
    munjigi audit\n  \
    munjigi verify\n  \
    munjigi shell                   (in a terminal)\n  \
    eval \"$(munjigi env)\"; aws sts get-caller-identity\n  \
    munjigi up --stop";

fn own_user() -> anyhow::Result<String> {
    let id = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(id).context("cannot read the user database")?;
    Ok(user.with_context(|| format!("user id {id} has no name on this machine; give --user NAME"))?.name)
}

/// Uses the server that runs on the directory, or starts one.
async fn start_server(
    data_dir: &Path,
    listen: Option<&str>,
    life: Life,
    progress: &Progress,
) -> anyhow::Result<(Option<Helper>, Context)> {
    let resolve = || {
        let wishes = Wishes { data_dir: Some(data_dir.to_owned()), profile: None };
        // Nothing but the directory counts: `up` is about this server, whatever else the environment names.
        context::resolve(&wishes, &Surroundings::default())
    };
    if data_dir.join(context::ENDPOINT_FILE).exists()
        && let Ok(context) = resolve()
        && is_running(&context).await?
    {
        return Ok((None, context));
    }
    progress.show("starting the server");
    let mut arguments: Vec<&OsStr> = vec!["server".as_ref(), "--data-dir".as_ref(), data_dir.as_os_str()];
    if let Some(listen) = listen {
        arguments.extend([OsStr::new("--listen"), OsStr::new(listen)]);
    }
    let server = Helper::start("server", &arguments, life, &data_dir.join(SERVER_LOG), "ready ").await?;
    if life == Life::Background
        && let Some(id) = server.id()
    {
        write_private(&data_dir.join(SERVER_PID), &format!("{id}\n"))?;
    }
    Ok((Some(server), resolve()?))
}

/// Uses the agent that runs for this server, or enrols and starts one.
async fn start_agent(
    data_dir: &Path,
    context: &Context,
    life: Life,
    progress: &Progress,
) -> anyhow::Result<(Option<Helper>, String)> {
    let agent_dir = data_dir.join(AGENT_DIR);
    let known = agent_dir.join("agent.json").exists().then(|| munjigi_agent::status(&agent_dir)).transpose()?;
    let same_server = known.as_ref().is_some_and(|known| known.server == context.endpoint_text());
    if let Some(process) = known.as_ref().and_then(|known| known.process_id) {
        if same_server && let Some(node_id) = online(&agent_dir).await? {
            return Ok((None, node_id));
        }
        // It dials a former address of the server in vain, or is just ending.
        end_process("agent", i32::try_from(process)?).await?;
    }
    let node_id = match known.filter(|_| same_server) {
        Some(known) => known.node_id.to_string(),
        None => {
            progress.show("enrolling this machine");
            enrol(&agent_dir, context).await?
        }
    };
    progress.show("starting the agent");
    let arguments = ["agent".as_ref(), "run".as_ref(), "--data-dir".as_ref(), agent_dir.as_os_str()];
    let agent = Helper::start("agent", &arguments, life, &data_dir.join(AGENT_LOG), "online ").await?;
    Ok((Some(agent), node_id))
}

/// Waits until the agent that runs has its link, for as long as its process lives. Returns the node's id.
async fn online(agent_dir: &Path) -> anyhow::Result<Option<String>> {
    let connected = async {
        loop {
            let status = munjigi_agent::status(agent_dir)?;
            if status.process_id.is_none() {
                return Ok(None);
            }
            if status.online {
                return Ok(Some(status.node_id.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(ONLINE_LIMIT, connected).await.unwrap_or(Ok(None))
}

/// Enrols this machine with an activation made for it alone; its code stays in this process.
async fn enrol(agent_dir: &Path, context: &Context) -> anyhow::Result<String> {
    let mut api = Api::new(context.clone())?;
    let request = CreateActivation {
        iam_role: "munjigi-node".to_owned(),
        default_instance_name: None,
        registration_limit: 1,
        expiration_date: clock::now().plus(ACTIVATION_LIFE).into(),
    };
    let activation: Activation = api
        .json(JsonService::Ssm, "CreateActivation", &request)
        .await
        .doing(context, "cannot make an activation for this machine")?;
    let options = JoinOptions {
        data_dir: agent_dir.to_owned(),
        server: context.endpoint_text().to_owned(),
        ca_file: context.ca_file.clone().context("the server's root certificate is not known")?,
        name: None,
        tags: Vec::new(),
        activation_id: activation.activation_id,
        activation_code: Secret::new(activation.activation_code),
        replace: true,
        manage_accounts: false,
    };
    let joined = munjigi_agent::join(&options).await.context("cannot enrol this machine")?;
    // So that `munjigi shell` needs no --user afterwards: the administrator of this server is whoever runs it.
    let tag = [("UserName", ADMINISTRATOR), ("Tags.member.1.Key", RUN_AS_TAG), ("Tags.member.1.Value", &own_user()?)];
    api.query(QueryService::Iam, "TagUser", &tag).await.doing(context, "cannot name the administrator's OS user")?;
    Ok(joined.node_id.to_string())
}

/// Ends the agent, then the server, of a data directory.
async fn stop(data_dir: &Path) -> anyhow::Result<Finish> {
    let mut stopped = Vec::new();
    let agent_dir = data_dir.join(AGENT_DIR);
    if agent_dir.join("agent.json").exists()
        && let Some(id) = munjigi_agent::status(&agent_dir)?.process_id
    {
        end_process("agent", i32::try_from(id)?).await?;
        stopped.push("agent");
    }
    if let Some(id) = server_process(data_dir)? {
        end_process("server", id).await?;
        stopped.push("server");
    }
    fs::remove_file(data_dir.join(SERVER_PID)).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    match stopped.as_slice() {
        [] => note(&format!("nothing runs in the background for {}", data_dir.display())),
        names => note(&format!("stopped the {}", names.join(" and the "))),
    }
    Ok(Finish::Done)
}

/// Returns the server that an earlier `up` started, if that process is still what it was: numbers are used again.
fn server_process(data_dir: &Path) -> anyhow::Result<Option<i32>> {
    let Ok(text) = fs::read_to_string(data_dir.join(SERVER_PID)) else { return Ok(None) };
    let id: i32 = match text.trim().parse() {
        Ok(id) if id > 1 => id,
        _ => bail!("{} is damaged; remove it", data_dir.join(SERVER_PID).display()),
    };
    let Ok(command) = fs::read(format!("/proc/{id}/cmdline")) else { return Ok(None) };
    let mut words = command.split(|byte| *byte == 0);
    let is_server = words.any(|word| word == b"server");
    let is_ours = words.any(|word| word == data_dir.as_os_str().as_encoded_bytes());
    Ok((is_server && is_ours).then_some(id))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
