//! From an admitted grant to a running program: descriptors, environment, and the child that gets them.

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use munjigi_core::grant::Action;
use munjigi_core::id::SessionId;
use munjigi_core::session::environment_allowed;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Group, Pid, Uid, fchown};

use super::account::Account;
use super::child::{self, Child, Identity, SessionKind, SpawnError, Step};
use super::terminal_modes;
use crate::halves::Terminal;
use crate::sys;

/// Search path of root, as Debian and Fedora set it.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Search path of everybody else.
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
/// File mode mask of a session: what it makes is its user's alone (T-75).
const UMASK: u32 = 0o077;

/// What the agent keeps of a program's descriptors: its side of the terminal or of the pipes.
#[derive(Debug)]
pub(crate) enum Held {
    /// The terminal's master.
    Terminal(OwnedFd),
    /// The other ends of standard input (until it has ended), output and error.
    Pipes {
        /// Writes to the program's input.
        input: Option<OwnedFd>,
        /// Reads its output.
        output: OwnedFd,
        /// Reads its errors.
        error: OwnedFd,
    },
}

impl Held {
    /// Returns the descriptors in the order in which they are passed on.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match self {
            Self::Terminal(master) => vec![master.as_fd()],
            Self::Pipes { input, output, error } => input.iter().chain([output, error]).map(AsFd::as_fd).collect(),
        }
    }
}

/// What stays the same for every program that this agent starts.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The host's network namespace, when this process has left it.
    pub(crate) network: Option<OwnedFd>,
    /// Limits as they were when the agent started.
    pub(crate) limits: Vec<(u32, u64, u64)>,
    /// Environment from the node's configuration.
    pub(crate) environment: Vec<(String, String)>,
}

/// A wish to run a program, all of it checked.
pub(crate) struct Wish<'a> {
    /// For whom.
    pub(crate) session: &'a SessionId,
    /// As whom.
    pub(crate) account: &'a Account,
    /// What.
    pub(crate) action: &'a Action,
    /// Variables of the session document; the grant's own, and checked there.
    pub(crate) variables: &'a [(String, String)],
    /// On which terminal, if any.
    pub(crate) terminal: Option<&'a Terminal>,
    /// Environment from the client.
    pub(crate) environment: &'a [(String, String)],
    /// `cgroup.procs` of the session's cgroup.
    pub(crate) cgroup: Option<&'a OwnedFd>,
}

/// Starts the program; returns its process id and our side of its descriptors.
pub(crate) fn start(wish: &Wish<'_>, surroundings: &Surroundings) -> Result<(Pid, Held), SpawnError> {
    let (stdio, held) = match wish.terminal {
        Some(terminal) => open_terminal(terminal, wish.account)?,
        None => open_pipes(wish.account)?,
    };
    let (program, name, arguments) = command_line(wish)?;
    let as_root = Uid::effective().is_root();
    let account = wish.account;
    let identity = as_root.then(|| Identity {
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
        groups: account.groups.iter().map(|group| group.as_raw()).collect(),
    });
    if let (Action::Shell { profile }, Held::Terminal(master)) = (wish.action, &held) {
        type_profile(master, profile)?;
    }
    let home = CString::new(account.home.as_os_str().as_bytes()).ok();
    let pid = child::start(Child {
        program,
        name,
        arguments,
        environment: environment(wish, &surroundings.environment),
        stdio,
        session: if wish.terminal.is_some() { SessionKind::Terminal } else { SessionKind::Detached },
        cgroup: wish.cgroup.map(AsRawFd::as_raw_fd),
        network: surroundings.network.as_ref().map(AsRawFd::as_raw_fd),
        identity,
        no_new_privileges: false,
        directories: home.into_iter().chain([c"/".to_owned()]).collect(),
        limits: surroundings.limits.clone(),
        umask: UMASK,
        // Nothing of a session outlives this process (T-79); what ignores SIGHUP would.
        death_signal: libc::SIGKILL,
    })?;
    Ok((pid, held))
}

/// Returns program, `argv[0]` and the other arguments.
fn command_line(wish: &Wish<'_>) -> Result<(OsString, OsString, Vec<OsString>), SpawnError> {
    match wish.action {
        Action::Shell { .. } => {
            let shell = &wish.account.shell;
            // A leading dash makes a shell a login shell (bash(1), INVOCATION).
            let mut name = OsString::from("-");
            name.push(shell.file_name().unwrap_or(shell.as_os_str()));
            Ok((shell.clone().into_os_string(), name, Vec::new()))
        }
        // As sshd has it: no login shell, and the text is the shell's business.
        Action::ShellCommand(text) => {
            let shell = &wish.account.shell;
            let name = shell.file_name().unwrap_or(shell.as_os_str()).to_owned();
            Ok((shell.clone().into_os_string(), name, vec!["-c".into(), text.into()]))
        }
        // Neither a port session nor a key has a program; whoever asks for one is told that there is none.
        Action::Connect(_) | Action::Extend(_) | Action::AuthorizedKey(_) => {
            Err(SpawnError { step: Step::Fork, errno: nix::Error::EINVAL })
        }
        Action::Command(command) => {
            let mut words = command.iter().map(OsString::from);
            let program = words.next().ok_or(SpawnError { step: Step::Fork, errno: nix::Error::EINVAL })?;
            Ok((program.clone(), program, words.collect()))
        }
    }
}

/// Builds the whole environment: nothing is inherited, the client's part passes by allow-list only (T-75, T-78).
fn environment(wish: &Wish<'_>, configured: &[(String, String)]) -> Vec<(String, OsString)> {
    let account = wish.account;
    let path = if account.uid.is_root() { ROOT_PATH } else { USER_PATH };
    let mut environment: Vec<(String, OsString)> = configured
        .iter()
        .chain(wish.environment)
        .filter(|(name, value)| name != "TERM" && environment_allowed(name, value))
        .map(|(name, value)| (name.clone(), OsString::from(value)))
        .collect();
    let mut set = |name: &str, value: &std::ffi::OsStr| environment.push((name.to_owned(), value.to_owned()));
    for (name, value) in wish.variables {
        set(name, value.as_ref());
    }
    set("HOME", account.home.as_os_str());
    set("USER", account.name.as_ref());
    set("LOGNAME", account.name.as_ref());
    set("SHELL", account.shell.as_os_str());
    set("PATH", path.as_ref());
    set("MUNJIGI_SESSION_ID", wish.session.as_str().as_ref());
    let mail = Path::new("/var/mail").join(&account.name);
    if mail.exists() {
        set("MAIL", mail.as_os_str());
    }
    if let Some(terminal) = wish.terminal {
        let term = if environment_allowed("TERM", &terminal.term) { terminal.term.as_str() } else { "dumb" };
        set("TERM", term.as_ref());
    }
    environment
}

fn open_terminal(terminal: &Terminal, account: &Account) -> Result<([OwnedFd; 3], Held), SpawnError> {
    let size = sys::window_size(terminal.size);
    // The size is there before the program starts, so its first prompt is right.
    let pair = openpty(Some(&size), None)?;
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    nonblocking(&pair.master)?;
    let mut modes = tcgetattr(&pair.slave)?;
    // Erasing a Hangul syllable in cooked mode takes the whole character.
    modes.input_flags.insert(InputFlags::IUTF8);
    terminal_modes::apply(&terminal.modes, &mut modes);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &modes)?;
    if Uid::effective().is_root() {
        let group = Group::from_name("tty").ok().flatten().map_or(account.gid, |group| group.gid);
        own(&pair.slave, account.uid, group, Mode::from_bits_truncate(0o620))?;
    }
    let stdio = [pair.slave.try_clone(), pair.slave.try_clone(), Ok(pair.slave)];
    Ok((all(stdio)?, Held::Terminal(pair.master)))
}

/// Types the session document's lines, so that the shell finds them as its first input. They fit the terminal's queue
/// of 4096 bytes, which is empty: the shell does not run yet.
fn type_profile(master: &OwnedFd, profile: &str) -> Result<(), SpawnError> {
    let lines = profile.trim_end_matches('\n');
    if lines.is_empty() {
        return Ok(());
    }
    let typed = format!("{lines}\n");
    match nix::unistd::write(master, typed.as_bytes())? {
        written if written == typed.len() => Ok(()),
        _ => Err(nix::Error::ENOSPC.into()),
    }
}

fn open_pipes(account: &Account) -> Result<([OwnedFd; 3], Held), SpawnError> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let ((input, to_input), (from_output, output), (from_error, error)) = (pipe()?, pipe()?, pipe()?);
    for end in [&to_input, &from_output, &from_error] {
        nonblocking(end)?;
    }
    if Uid::effective().is_root() {
        // So that a program may open /dev/stdout again.
        for end in [&input, &output, &error] {
            own(end, account.uid, account.gid, Mode::from_bits_truncate(0o600))?;
        }
    }
    Ok(([input, output, error], Held::Pipes { input: Some(to_input), output: from_output, error: from_error }))
}

fn own(fd: &OwnedFd, uid: Uid, gid: Gid, mode: Mode) -> nix::Result<()> {
    fchown(fd, Some(uid), Some(gid))?;
    fchmod(fd, mode)
}

fn nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

fn all(clones: [std::io::Result<OwnedFd>; 3]) -> Result<[OwnedFd; 3], SpawnError> {
    let [input, output, error] = clones;
    let good = |fd: std::io::Result<OwnedFd>| {
        fd.map_err(|error| error.raw_os_error().map_or(nix::Error::EMFILE, nix::Error::from_raw))
    };
    Ok([good(input)?, good(output)?, good(error)?])
}

/// Tells people why a program did not run, as a shell would: exit code and message.
pub(crate) fn as_a_shell_would(program: &str, error: &SpawnError) -> Option<(i32, String)> {
    if error.step != Step::Exec {
        return None;
    }
    let (code, why) = match error.errno {
        nix::Error::ENOENT if !program.contains('/') => (127, "command not found"),
        nix::Error::ENOENT => (127, "no such file or directory"),
        nix::Error::EACCES => (126, "permission denied"),
        other => (126, other.desc()),
    };
    Some((code, format!("munjigi: {}: {why}\n", program.escape_debug())))
}
