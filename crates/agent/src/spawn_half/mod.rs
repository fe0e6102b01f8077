//! The privileged half: the only part of the agent that can start a program.
//!
//! One thread, one loop over a few descriptors, no async runtime, no network: small enough to be read in one sitting.
//! It holds the node's key, the epoch and what is trusted, verifies every grant itself (T-76), starts, watches and
//! ends programs. It never looks at a session's bytes.
//!
//! As root it leaves the network namespace, so the kernel itself keeps it from opening a network socket (T-74). A
//! seccomp filter could not: filters are inherited, so every shell would be without network too. Children go back into
//! the host's namespace before anything else.

mod account;
mod accounts;
mod child;
mod connecting;
mod copying;
mod default_user;
mod key_socket;
mod keys;
mod link_process;
mod listening;
mod login_log;
mod login_records;
mod processes;
mod program;
mod reach;
mod registered_keys;
mod session;
mod ssh_trust;
mod state;
mod terminal_modes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aws_lc_rs::signature::Ed25519KeyPair;
use munjigi_core::grant::{Action, Epoch, GrantError, GrantJudge};
use munjigi_core::id::SessionId;
use munjigi_core::session::{ExitStatus, OutputStream};
use munjigi_core::trust::TrustBundle;
use munjigi_core::wire::hello::node_link_message;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

use crate::clock;
use crate::config::{self, Config};
use crate::halves::{Configure, Start, ToLink, ToSpawn};
use crate::identity::{DataDir, Identity};
use crate::lock;
use crate::ring::{MAX_CHUNK, Ring};
use crate::sys;

pub(crate) use account::only_user;
use accounts::Accounts;
use key_socket::KeySocket;
use keys::Keys;
use link_process::LinkProcess;
use login_log::LoginLog;
use processes::{Cgroups, Processes};
pub(crate) use processes::{kill_descendants, link_halves};
use program::{Surroundings, Wish};
use registered_keys::Registered;
use session::Session;
use ssh_trust::SshTrust;
pub(crate) use ssh_trust::{DIRECTORY as SSH_DIRECTORY, HOST_CERTIFICATE, REVOKED, USER_AUTHORITIES};
use state::StateFile;
pub(crate) use state::{STATE_FILE, State};

/// How long sessions live on without a link: the default resume window of 10 minutes and a margin.
const RESUME_WINDOW: Duration = Duration::from_secs(11 * 60);
/// After SIGTERM: grace for the programs, and a second to report their end.
const DRAIN: Duration = Duration::from_secs(6);
/// Most sessions at once; each takes five descriptors.
const MAX_SESSIONS: usize = 1024;

/// Everything the loop works on.
struct SpawnHalf {
    data: DataDir,
    identity: Identity,
    config: Config,
    key: Ed25519KeyPair,
    epoch: Epoch,
    judge: GrantJudge,
    trust_version: u64,
    surroundings: Surroundings,
    cgroups: Option<Cgroups>,
    signals: SignalFd,
    sessions: BTreeMap<SessionId, Session>,
    /// The workers of copies that were not reaped yet.
    workers: BTreeSet<Pid>,
    /// Copies of this process that connect as somebody else and were not reaped yet.
    connecting: BTreeSet<Pid>,
    accounts: Accounts,
    keys: Keys,
    /// Where sshd's helper asks; there from the first key on.
    key_socket: Option<KeySocket>,
    login_log: Option<LoginLog>,
    ssh_trust: SshTrust,
    link: Option<LinkProcess>,
    restart_at: Instant,
    offline_since: Option<Instant>,
    announced: bool,
    state: StateFile,
    /// Since SIGTERM: when to stop waiting.
    stop_at: Option<Instant>,
}

/// Runs the privileged half until SIGTERM (then 0) or until it cannot go on.
pub(crate) fn run(data: &DataDir) -> anyhow::Result<ExitCode> {
    let mut half = SpawnHalf::prepare(data)?;
    // Held for as long as this process lives.
    let _lock = half.take_lock()?;
    half.leave_network()?;
    half.cgroups = Cgroups::prepare(&half.identity.node_id);
    half.resume_accounts();
    half.serve()
}

impl SpawnHalf {
    fn prepare(data: &DataDir) -> anyhow::Result<Self> {
        // No core, no ptrace, no /proc/PID/mem: this memory holds the node's key (T-36).
        nix::sys::prctl::set_dumpable(false).context("failed to protect the agent's memory")?;
        // What programs leave behind comes to us instead of to init.
        nix::sys::prctl::set_child_subreaper(true).context("failed to become the reaper of sessions")?;
        sys::close_on_exec_from(3);
        let limits = original_limits();
        data.create()?;
        let identity = data.identity()?;
        let config = config::load(data)?;
        let key = data.node_key()?;
        identity.check_key(&key)?;
        let trust = identity.trust()?;
        let mut epoch = [0; 32];
        aws_lc_rs::rand::fill(&mut epoch).map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            wanted.add(signal);
        }
        wanted.thread_block().context("failed to hold signals back")?;
        // No handler at all, which is stricter than one that only writes to a pipe (T-76).
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("failed to receive signals")?;
        let environment = config.environment.clone().into_iter().collect();
        let now = clock::monotonic();
        let login_log = LoginLog::choose(&config.sshd_log, now);
        Ok(Self {
            state: StateFile::new(data, &identity),
            data: data.clone(),
            key,
            epoch,
            trust_version: trust.version,
            ssh_trust: SshTrust::open(data, &trust, &identity.node_id),
            judge: GrantJudge::new(identity.node_id.clone(), epoch, trust),
            identity,
            config,
            surroundings: Surroundings { network: None, limits, environment },
            cgroups: None,
            signals,
            sessions: BTreeMap::new(),
            workers: BTreeSet::new(),
            connecting: BTreeSet::new(),
            accounts: Accounts::default(),
            keys: Keys::default(),
            key_socket: None,
            login_log,
            link: None,
            restart_at: now,
            offline_since: Some(now),
            announced: false,
            stop_at: None,
        })
    }

    fn take_lock(&self) -> anyhow::Result<lock::Lock> {
        lock::take(&self.data, &self.identity.node_id)
    }

    fn leave_network(&mut self) -> anyhow::Result<()> {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        let host: OwnedFd =
            std::fs::File::open("/proc/self/ns/net").context("failed to open the network namespace")?.into();
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => self.surroundings.network = Some(host),
            // In a container without CAP_SYS_ADMIN there is no other namespace to go to; say so and go on.
            Err(errno) => tracing::warn!(%errno, "the privileged half stays in the host's network namespace"),
        }
        Ok(())
    }

    fn serve(&mut self) -> anyhow::Result<ExitCode> {
        loop {
            let now = clock::monotonic();
            self.tick(now);
            if self.stop_at.is_some_and(|at| self.sessions.is_empty() || at <= now) {
                return Ok(self.stop());
            }
            if self.link.is_none() && self.restart_at <= now {
                self.start_link_half(now)?;
            }
            let (signalled, spoken, writable, asked) = self.wait(now)?;
            if asked {
                self.answer_sshd(clock::monotonic());
            }
            if signalled {
                self.take_signals();
            }
            if writable {
                self.with_link(|link| link.send_waiting());
            }
            if spoken {
                self.take_messages();
            }
        }
    }

    /// Waits until something is to be done: signals, a message, room for one, or a time.
    fn wait(&self, now: Instant) -> anyhow::Result<(bool, bool, bool, bool)> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(link) = &self.link {
            let room = if link.has_waiting() { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(link.channel(), PollFlags::POLLIN | room));
        }
        let before = fds.len();
        let asking = self.key_socket.iter().flat_map(KeySocket::descriptors);
        fds.extend(asking.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let due = self
            .sessions
            .values()
            .filter_map(|session| session.next_tick(now))
            .chain(self.stop_at)
            .chain(self.keys.next_end())
            .chain(self.accounts.next())
            .chain(self.login_log.as_ref().map(LoginLog::next_look))
            .chain(self.key_socket.as_ref().and_then(KeySocket::next_end))
            .chain(self.offline_since.filter(|_| !self.sessions.is_empty()).map(|since| since + RESUME_WINDOW))
            .chain(self.link.is_none().then_some(self.restart_at))
            .min();
        let timeout = match due {
            // Rounded up: waking a moment early would spin.
            Some(at) => PollTimeout::try_from(at.saturating_duration_since(now) + Duration::from_millis(1))
                .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("failed to wait"),
        }
        let ready = |index: usize, wanted: PollFlags| {
            fds.get(index).and_then(PollFd::revents).is_some_and(|events| events.intersects(wanted))
        };
        let trouble = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        let link_at = if self.link.is_some() { 1 } else { usize::MAX };
        let asked = (before..fds.len()).any(|index| ready(index, trouble));
        Ok((ready(0, PollFlags::POLLIN), ready(link_at, trouble), ready(link_at, PollFlags::POLLOUT), asked))
    }

    fn tick(&mut self, now: Instant) {
        self.keys.forget_old(now);
        self.tick_accounts(now);
        if self.login_log.as_mut().is_some_and(|log| log.look(now)) {
            self.hand_over_log();
        }
        if self.key_socket.as_ref().is_some_and(|socket| socket.next_end().is_some_and(|at| at <= now)) {
            self.answer_sshd(now);
        }
        if self.offline_since.is_some_and(|since| now.saturating_duration_since(since) >= RESUME_WINDOW) {
            self.offline_since = Some(now);
            for session in self.sessions.values_mut() {
                session.end("the node was without its server for longer than the resume window", now);
            }
        }
        let ended: Vec<_> = self
            .sessions
            .values_mut()
            .filter_map(|session| session.tick(now).map(|exited| (session.id.clone(), exited)))
            .collect();
        for (session, exited) in ended {
            let message = ToLink::Exited { session, status: exited.status, detail: exited.detail };
            self.with_link(|link| link.send(&message, &[]));
        }
        self.sessions.retain(|_, session| {
            let over = session.is_over();
            if over {
                session.processes.remove();
            }
            !over
        });
    }

    fn start_link_half(&mut self, now: Instant) -> anyhow::Result<()> {
        let link = LinkProcess::start(&self.surroundings, self.config.link_user.as_deref(), now)?;
        self.restart_at = link.restart_at();
        self.link = Some(link);
        let configure = ToLink::Configure(Configure {
            node: self.identity.node_id.clone(),
            name: self.identity.name.clone(),
            epoch: self.epoch,
            server: self.identity.server.clone(),
            ca: self.identity.ca.clone().into_bytes(),
            only_user: account::only_user(),
            ssh_host_key: ssh_trust::host_key(&self.config.ssh_host_key),
            denied_destinations: self.config.denied_destinations.clone(),
            sessions: self.sessions.len() as u64,
        });
        self.with_link(|link| link.send(&configure, &[]));
        let ids: Vec<SessionId> = self.sessions.keys().cloned().collect();
        for id in ids {
            self.hand_over(&id, None);
        }
        self.hand_over_log();
        Ok(())
    }

    /// Gives the link half what sshd's logins are read from.
    fn hand_over_log(&mut self) {
        let Some((link, (kind, log))) = self.link.as_mut().zip(self.login_log.as_ref().and_then(LoginLog::open)) else {
            return;
        };
        if let Err(error) = link.send(&ToLink::LoginLog { kind }, &[log]) {
            self.lose_link(&error);
        }
    }

    /// Gives the link half a session: its description and copies of its descriptors.
    fn hand_over(&mut self, id: &SessionId, request: Option<u64>) {
        let Some(session) = self.sessions.get(id) else { return };
        let message = ToLink::Session(session.describe(request));
        let mut descriptors = vec![session.ring.as_fd()];
        descriptors.extend(session.held.iter().flat_map(program::Held::descriptors));
        let Some(link) = &mut self.link else { return };
        if let Err(error) = link.send(&message, &descriptors) {
            self.lose_link(&error);
        }
    }

    /// Does something with the link half, if there is one; a failure ends it and another is started.
    fn with_link(&mut self, act: impl FnOnce(&mut LinkProcess) -> anyhow::Result<()>) {
        if let Some(Err(error)) = self.link.as_mut().map(act) {
            self.lose_link(&error);
        }
    }

    fn lose_link(&mut self, error: &anyhow::Error) {
        let Some(link) = self.link.take() else { return };
        link.kill();
        tracing::warn!(error = format!("{error:#}"), "the link half ended; another is started");
        self.restart_at = link.restart_at();
        self.offline("the agent's link half ended and is started again");
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(signal) => self.begin_stop(signal),
                Err(_) => {}
            }
        }
    }

    fn begin_stop(&mut self, signal: Signal) {
        let now = clock::monotonic();
        if self.stop_at.is_none() {
            tracing::info!(%signal, sessions = self.sessions.len(), "the agent stops");
            self.state.notify_stopping();
            self.stop_at = Some(now + DRAIN);
            self.sessions.values_mut().for_each(|session| session.end("the agent on the node was stopped", now));
        } else {
            self.sessions.values_mut().for_each(|session| session.kill(now));
            self.stop_at = Some(now + Duration::from_secs(1));
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, core_dumped)) => {
                    let name = signal.as_str().trim_start_matches("SIG").to_owned();
                    (pid, ExitStatus::Signal { name, core_dumped })
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(_) => continue,
            };
            self.reaped(pid, status);
        }
    }

    fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        if self.link.as_ref().is_some_and(|link| link.pid() == pid) {
            self.lose_link(&anyhow::anyhow!("it ended with {status:?}"));
            return;
        }
        if self.workers.remove(&pid) || self.connecting.remove(&pid) || self.account_worker_reaped(pid, &status) {
            return;
        }
        let now = clock::monotonic();
        if let Some(log) = &mut self.login_log {
            log.reaped(pid, now);
        }
        // Others are orphans of sessions: their parent is gone and nobody asks how they ended.
        if let Some(session) = self.sessions.values_mut().find(|session| session.is_led_by(pid)) {
            session.reaped(status, now);
        }
    }

    fn take_messages(&mut self) {
        // A bound per round, so that a link half that talks without end does not keep signals waiting.
        for _ in 0..64 {
            let Some(link) = &self.link else { return };
            match link.receive() {
                Ok(Some(message)) => self.take_message(message),
                Ok(None) => return,
                Err(error) => return self.lose_link(&error),
            }
        }
    }

    fn take_message(&mut self, message: ToSpawn) {
        let now = clock::monotonic();
        match message {
            ToSpawn::Sign { request, binding, hello } => self.sign(request, &binding, &hello),
            ToSpawn::Start(start) => self.start(&start),
            ToSpawn::Key { request, grant } => self.take_key(request, &grant),
            ToSpawn::Accounts { request, recorded, total, piece } => {
                self.take_accounts(request, recorded, total, &piece);
            }
            ToSpawn::SshTrust { request, document } => self.take_ssh_trust(request, &document),
            ToSpawn::Reach { request, session, endpoint, grant } => self.reach(request, &session, &endpoint, &grant),
            ToSpawn::Signal { session, signal } => {
                if let Some(session) = self.sessions.get(&session) {
                    session.signal(signal);
                }
            }
            ToSpawn::InputEnd { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.end_input();
                }
            }
            ToSpawn::End { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.end("the server ended the session", now);
                }
            }
            ToSpawn::Forget { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.forget(now);
                }
            }
            ToSpawn::Online => self.online(),
            ToSpawn::Offline { why } => self.offline(&why),
            ToSpawn::Trust { bundle } => self.take_trust(&bundle),
        }
    }

    /// Signs a link request, and nothing else: the message is built here, from a hello and a TLS session (T-21).
    fn sign(&mut self, request: u64, binding: &[u8; 32], hello: &str) {
        let message = node_link_message(binding, hello);
        let Ok(signature) = self.key.sign(&message).as_ref().try_into() else { return };
        self.with_link(|link| link.send(&ToLink::Signature { request, signature }, &[]));
    }

    fn take_key(&mut self, request: u64, grant: &[u8]) {
        let answer = match self.try_take_key(grant) {
            Ok(()) => ToLink::KeyTaken { request },
            Err(Refusal { code, reason, message }) => {
                tracing::warn!(reason, "a key was refused: {message}");
                ToLink::Refused { request, code: code.to_owned(), message, reason: reason.to_owned() }
            }
        };
        self.with_link(|link| link.send(&answer, &[]));
    }

    /// Has sshd's files say what the server has signed.
    fn take_ssh_trust(&mut self, request: u64, document: &[u8]) {
        let taken = self.ssh_trust.take(document, self.judge.trusted(), &self.identity.node_id);
        let answer = match taken {
            Ok(()) => ToLink::KeyTaken { request },
            Err(error) => {
                let message = format!("{error:#}");
                tracing::warn!("what sshd may believe was not taken: {message}");
                let (code, reason) = ("InternalServerError".to_owned(), "SshTrustNotTaken".to_owned());
                ToLink::Refused { request, code, message, reason }
            }
        };
        self.with_link(|link| link.send(&answer, &[]));
    }

    /// Takes a key for sshd: the grant is verified here like every other, so that the link half alone can let nobody in.
    fn try_take_key(&mut self, grant: &[u8]) -> Result<(), Refusal> {
        let grant = self.judge.admit(grant, clock::now())?;
        let Action::AuthorizedKey(key) = grant.action else {
            return Err(Refusal::denied("GrantMalformed", "the grant starts something and is for no key".to_owned()));
        };
        let account = account::look_up(&grant.os_user, grant.privileged, self.config.allowed_users.as_deref())
            .map_err(|error| Refusal::denied(error.reason(), error.to_string()))?;
        self.listen_for_sshd()
            .map_err(|error| Refusal::failed("KeySocket", &format!("the node cannot hand keys to sshd: {error:#}")))?;
        let print = key.key.fingerprint();
        tracing::info!(user = account.name, %print, request = key.request_id, by = grant.subject, "a key was pushed");
        self.keys
            .take(account.name, key, grant.subject, clock::monotonic())
            .map_err(|error| Refusal::failed("TooManyKeys", &error.to_string()))
    }

    /// Listens for sshd's helper from the first key on.
    fn listen_for_sshd(&mut self) -> anyhow::Result<()> {
        if self.key_socket.is_none() {
            let path = self.config.keys_socket_path(&self.data, &self.identity.node_id);
            self.key_socket = Some(KeySocket::listen(&path)?);
        }
        Ok(())
    }

    /// Answers sshd's helper, as far as it goes without waiting.
    fn answer_sshd(&mut self, now: Instant) {
        let bundle = self.accounts.bundle();
        let book = self.manages_accounts().then(|| self.accounts.book());
        let registered = bundle.map(|bundle| Registered { bundle, book, config: &self.config, now: clock::now() });
        if let Some(socket) = &mut self.key_socket {
            socket.serve(&mut self.keys, registered.as_ref(), now);
        }
    }

    fn start(&mut self, start: &Start) {
        match self.try_start(start) {
            Ok(session) => {
                let id = session.id.clone();
                self.sessions.insert(id.clone(), session);
                self.hand_over(&id, Some(start.request));
            }
            Err(refusal) => {
                tracing::warn!(reason = refusal.reason, "a start was refused: {}", refusal.message);
                let refused = ToLink::Refused {
                    request: start.request,
                    code: refusal.code.to_owned(),
                    message: refusal.message,
                    reason: refusal.reason.to_owned(),
                };
                self.with_link(|link| link.send(&refused, &[]));
            }
        }
    }

    fn try_start(&mut self, start: &Start) -> Result<Session, Refusal> {
        let grant = self.judge.admit(&start.grant, clock::now())?;
        if self.stop_at.is_some() {
            return Err(Refusal::failed("AgentStopping", "the agent on this node is stopping; try again later"));
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Refusal::failed("TooManySessions", "this node has as many sessions as it can hold; end some"));
        }
        if self.sessions.contains_key(&grant.session) {
            return Err(Refusal::failed("SessionExists", "this node already has a session with this id"));
        }
        if grant.pty != start.terminal.is_some() {
            return Err(Refusal::failed("TerminalMismatch", "grant and request differ on whether there is a terminal"));
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Refusal::failed("StartFailed", &format!("the node could not {what}: {error}"))
        };
        let ring = Ring::create().map_err(|error| failed("make the session's memory", &error))?;
        if matches!(grant.action, Action::AuthorizedKey(_) | Action::Extend(_)) {
            let message = "the grant is for a key, or for a session that runs, and starts nothing";
            return Err(Refusal::denied("GrantMalformed", message.to_owned()));
        }
        if let Action::Connect(endpoints) = grant.action {
            if !self.config.forwarding {
                let message = "this node's owner lets no port sessions through (forwarding in agent.toml)".to_owned();
                return Err(Refusal::denied("ForwardingOff", message));
            }
            let granted = reach::Granted::new(endpoints, grant.privileged);
            return Ok(Session::port(grant.session, grant.os_user, granted, ring));
        }
        let allowed = self.config.allowed_users.as_deref();
        default_user::make_if_missing(&grant.os_user, allowed, self.config.create_default_user)
            .map_err(|error| Refusal::denied(error.reason(), error.to_string()))?;
        let account = account::look_up(&grant.os_user, grant.privileged, allowed)
            .map_err(|error| Refusal::denied(error.reason(), error.to_string()))?;
        let (processes, cgroup) = Processes::prepare(&grant.session, self.cgroups.as_ref());
        let wish = Wish {
            session: &grant.session,
            account: &account,
            action: &grant.action,
            variables: &grant.variables,
            terminal: start.terminal.as_ref(),
            environment: &start.environment,
            cgroup: cgroup.as_ref(),
        };
        let program = match &grant.action {
            Action::Shell { .. } | Action::ShellCommand(_) => account.shell.display().to_string(),
            Action::Command(command) => command.first().cloned().unwrap_or_default(),
            // Returned above.
            Action::Connect(_) | Action::Extend(_) | Action::AuthorizedKey(_) => String::new(),
        };
        match program::start(&wish, &self.surroundings) {
            Ok(running) => {
                let login = self.config.login_records.then(|| login_records::begin(&account, &running)).flatten();
                Ok(Session::running(grant.session, account.name, ring, running, login, processes))
            }
            Err(error) => {
                processes.remove();
                let (code, text) =
                    program::as_a_shell_would(&program, &error).ok_or_else(|| failed("start the program", &error))?;
                let stream = if grant.pty { OutputStream::Stdout } else { OutputStream::Stderr };
                print_into(&ring, stream, &text).map_err(|error| failed("use the session's memory", &error))?;
                Ok(Session::failed(grant.session, account.name, ring, code, processes))
            }
        }
    }

    fn online(&mut self) {
        self.offline_since = None;
        if !self.announced {
            self.announced = true;
            let mut out = std::io::stdout().lock();
            // Whoever started us may have closed its end; the agent serves all the same.
            let _ = writeln!(out, "online {}", self.identity.node_id).and_then(|()| out.flush());
        }
        self.state.online(self.sessions.len());
    }

    fn offline(&mut self, why: &str) {
        self.offline_since.get_or_insert_with(clock::monotonic);
        self.state.offline(why);
    }

    /// Takes a newer trust bundle, signed by the root that was pinned at join (T-20).
    fn take_trust(&mut self, signed: &[u8]) {
        use base64::Engine as _;
        let verified = self.identity.root().and_then(|root| {
            TrustBundle::verify(signed, &root, self.trust_version).context("the server's trust bundle is not good")
        });
        let bundle = match verified {
            Ok(bundle) if bundle.version > self.trust_version => bundle,
            Ok(_) => return,
            Err(error) => return tracing::warn!(error = format!("{error:#}"), "a trust bundle was refused"),
        };
        self.trust_version = bundle.version;
        self.judge.trust(bundle);
        self.identity.trust_bundle = base64::engine::general_purpose::STANDARD.encode(signed);
        if let Err(error) = self.data.store(&self.identity) {
            // It holds for this run; the server sends it again at the next.
            tracing::warn!(error = format!("{error:#}"), "the new trust bundle could not be stored");
        }
    }

    fn stop(&mut self) -> ExitCode {
        let now = clock::monotonic();
        self.sessions.values_mut().for_each(|session| session.kill(now));
        if let Some(link) = self.link.take() {
            let pid = link.pid();
            // Closing the channel ends it in good order.
            drop(link);
            let until = now + Duration::from_secs(1);
            while clock::monotonic() < until
                && matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
            {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill_all();
        }
        kill_descendants(&[], 50);
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill_all();
        }
        self.state.stopped();
        ExitCode::SUCCESS
    }
}

/// Why a start is refused.
struct Refusal {
    code: &'static str,
    reason: &'static str,
    message: String,
}

impl Refusal {
    fn denied(reason: &'static str, message: String) -> Self {
        Self { code: "AccessDeniedException", reason, message }
    }

    fn failed(reason: &'static str, message: &str) -> Self {
        Self { code: "InternalServerError", reason, message: message.to_owned() }
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        let reason = match error {
            GrantError::Malformed(_) => "GrantMalformed",
            GrantError::UnknownKey => "GrantKeyUnknown",
            GrantError::BadSignature => "GrantSignatureWrong",
            GrantError::NotNow => "GrantNotValidNow",
            GrantError::OtherNode => "GrantForOtherNode",
            GrantError::OtherEpoch => "GrantForOtherEpoch",
            GrantError::Replayed => "GrantReplayed",
            GrantError::BadUser => "OsUserInvalid",
            GrantError::BadCommand | GrantError::BadProfile | GrantError::BadVariables => "CommandInvalid",
            GrantError::BadConnect => "PortGrantInvalid",
            GrantError::BadKey => "KeyInvalid",
            GrantError::TooMany => "GrantsTooMany",
        };
        Self::denied(reason, error.to_string())
    }
}

fn print_into(ring: &OwnedFd, stream: OutputStream, text: &str) -> anyhow::Result<()> {
    let mut ring = Ring::open(ring)?;
    // A terminal's line end; pipes take the bytes as they are.
    let text = if stream == OutputStream::Stdout { text.replace('\n', "\r\n") } else { text.to_owned() };
    let put = ring.fill(stream, MAX_CHUNK, |place| {
        let count = text.len().min(place.len());
        if let (Some(to), Some(from)) = (place.get_mut(..count), text.as_bytes().get(..count)) {
            to.copy_from_slice(from);
        }
        Ok::<_, std::convert::Infallible>(count)
    });
    if put.is_none() { bail!("there is no room") } else { Ok(()) }
}

/// Reads the limits that programs shall get, then makes this process's own fit its work: no core files, and as many
/// descriptors as the system lets it have.
fn original_limits() -> Vec<(u32, u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let mut limits = Vec::new();
    for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_CORE] {
        let Ok((soft, hard)) = getrlimit(resource) else { continue };
        limits.push((resource as u32, soft, hard));
        let wanted = if resource == Resource::RLIMIT_CORE { 0 } else { hard };
        // A failure leaves the limit as it was: fewer sessions at once.
        let _ = setrlimit(resource, wanted, hard);
    }
    limits
}
