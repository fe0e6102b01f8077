//! `munjigi authorized-keys`: what sshd runs at every login to learn which keys were pushed (`AuthorizedKeysCommand`).
//!
//! It must be quick and quiet: no configuration is read, no runtime and no TLS is set up, nothing but key lines goes to
//! standard output. `main` comes here before it does anything else. An agent that is away is no reason to keep
//! anybody out: sshd then looks into its files.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Parser as _};
use munjigi_core::grant::valid_os_user;
use munjigi_core::ssh::PublicKey;
use munjigi_core::ssh::key_options::KeyLine;
use munjigi_core::ssh::lookup::{self, Answer, MAX_ANSWER, Question, valid_kind};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;

/// The word on the command line.
const NAME: &str = "authorized-keys";
/// For the agent's whole answer.
const ANSWER: Duration = Duration::from_secs(1);
/// For it when the agent says that it has to ask AWS's metadata service.
const LONG_ANSWER: Duration = Duration::from_millis(4500);
/// After this the kernel ends us, whatever we are waiting for; the chained command has a time of its own, sshd's
/// `LoginGraceTime`.
const LAST_RESORT_SECS: u32 = 5;

/// Print the keys that were pushed for an OS user; sshd runs it as its AuthorizedKeysCommand
#[derive(Debug, Args)]
#[command(after_help = "`munjigi sshd install` writes the line that runs it:\n\n  \
    AuthorizedKeysCommand /opt/munjigi/bin/munjigi authorized-keys --socket /run/munjigi/mi-….sock %u %t %k\n\n\
    Prints key lines only. The exit status is 0 also when there is no key; it is 1 if the agent could not be asked,\n\
    and that of the other command if one is given.\n\n\
    Example: munjigi authorized-keys --socket /run/munjigi/mi-0123456789abcdef0.sock alice")]
pub(crate) struct Arguments {
    /// The agent's socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The OS user who wants in (%u)
    user: String,
    /// Type of the key that was offered (%t)
    #[arg(requires = "key")]
    key_type: Option<String>,
    /// The key that was offered, in base64 (%k); without it, keys for single use are not shown
    key: Option<String>,
    /// Another command to ask as well, with its arguments, when no pushed key fits
    #[arg(last = true, value_name = "COMMAND")]
    other: Vec<OsString>,
}

/// Only this command, for the quick way.
#[derive(Debug, clap::Parser)]
#[command(name = "munjigi authorized-keys", disable_version_flag = true)]
struct Alone {
    #[command(flatten)]
    arguments: Arguments,
}

/// Runs the command if the process was started for it. Call before everything else.
pub(crate) fn run_at_once() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() != Some(OsStr::new(NAME)) {
        return None;
    }
    let arguments = Alone::parse_from(std::iter::once(OsString::from(NAME)).chain(words)).arguments;
    Some(match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("{error:#}");
            // sshd throws standard error away, so the system's log gets it too. Nobody is left to tell if that fails.
            let _ = writeln!(io::stderr().lock(), "munjigi: {text}");
            let _ = log(&text);
            ExitCode::FAILURE
        }
    })
}

/// Asks, prints, and goes on with the other command if there is one. Returns only if there is none.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { socket, user, key_type, key, other } = arguments;
    // The default action of SIGALRM ends the process.
    nix::unistd::alarm::set(LAST_RESORT_SECS);
    let asked = match question(user.clone(), key_type, key) {
        Some(question) => Some(ask(&socket, &question)),
        // The other command may know such a key, unless nobody is to be asked about the account.
        None if !other.is_empty() && valid_os_user(&user) => {
            let whether_local = ask(&socket, &Question { os_user: user, offered: None });
            Some(whether_local.map(|answer| if answer == Answer::Local { answer } else { Answer::Keys(Vec::new()) }))
        }
        None => None,
    };
    let keys = match asked {
        Some(Ok(Answer::Keys(keys))) => keys,
        // Nobody is asked about it, so neither is the other command.
        Some(Ok(Answer::Local)) => return Ok(()),
        // Not a name or key that could ever have been pushed.
        None => Vec::new(),
        Some(Err(error)) if other.is_empty() => return Err(error),
        Some(Err(error)) => {
            let _ = log(&format!("{error:#}"));
            Vec::new()
        }
    };
    let lines: String = keys.iter().map(|key| key.line() + "\n").collect();
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")?;
    match other.split_first() {
        // sshd has what it asked for.
        Some((program, rest)) if keys.is_empty() => {
            nix::unistd::alarm::cancel();
            let program = Path::new(program);
            check_program(program)?;
            // It takes our place: its output and status are the answer.
            Err(Command::new(program).args(rest).exec()).with_context(|| format!("cannot run {}", program.display()))
        }
        _ => Ok(()),
    }
}

fn question(os_user: String, kind: Option<String>, key: Option<String>) -> Option<Question> {
    if !valid_os_user(&os_user) {
        return None;
    }
    let offered = match (kind, key) {
        (Some(kind), Some(key)) => {
            let blob = STANDARD.decode(&key).ok()?;
            // Certificates and keys of other kinds are never pushed; the agent is not asked about them.
            PublicKey::from_parts(&kind, &blob).ok().filter(|_| valid_kind(&kind))?;
            Some((kind, blob))
        }
        _ => None,
    };
    Some(Question { os_user, offered })
}

fn ask(socket: &Path, question: &Question) -> anyhow::Result<Answer> {
    let shown = socket.display();
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // The agent listens from its first key on.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::Keys(Vec::new())),
        Err(error) => {
            return Err(error).with_context(|| format!("the agent does not answer at {shown}; does it run?"));
        }
    };
    // Who could put a socket in the agent's place could let anybody in.
    let peer = getsockopt(&stream, sockopt::PeerCredentials).context("the system does not say who answers")?;
    if peer.uid() != 0 && peer.uid() != Uid::effective().as_raw() {
        bail!("{shown} is answered by user {}, who is neither root nor this command's own user", peer.uid());
    }
    let asked = Instant::now();
    stream.set_write_timeout(Some(ANSWER)).context("cannot limit the time for the agent")?;
    stream.write_all(question.encode().as_bytes()).with_context(|| format!("the agent at {shown} does not listen"))?;
    // The agent needs no end of the question; a failure here shows in the answer.
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let limit = if lookup::takes_longer(&answer) { LONG_ANSWER } else { ANSWER };
        let left = limit.saturating_sub(asked.elapsed());
        if left.is_zero() {
            bail!("the agent at {shown} did not answer within {} s", limit.as_secs_f32());
        }
        stream.set_read_timeout(Some(left)).context("cannot limit the time for the agent")?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            // The limit of this read; the loop says whether there is time left.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error).with_context(|| format!("the agent at {shown} did not answer")),
        }
        if answer.len() > MAX_ANSWER {
            bail!("the answer at {shown} is too long");
        }
    }
    let answer = lookup::decode_answer(&answer).with_context(|| format!("the answer at {shown} is not whole"))?;
    let Answer::Keys(keys) = answer else { return Ok(answer) };
    let offered = question.offered.as_ref();
    // What was not offered is of no use to sshd.
    let fits =
        |line: &KeyLine| offered.is_none_or(|(kind, blob)| line.key.kind().as_str() == kind && line.key.blob() == blob);
    Ok(Answer::Keys(keys.into_iter().filter(fits).collect()))
}

/// The same demand as sshd's on its own command: nobody but root may have written the program.
fn check_program(program: &Path) -> anyhow::Result<()> {
    let shown = program.display();
    if !program.is_absolute() {
        bail!("{shown} is no absolute path");
    }
    let meta = std::fs::metadata(program).with_context(|| format!("cannot look at {shown}"))?;
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        bail!("{shown} must belong to root and be writable for nobody else");
    }
    Ok(())
}

/// Writes a line into the system's log.
fn log(text: &str) -> io::Result<()> {
    munjigi_agent::syslog::authentication("munjigi-authorized-keys", text)
}
