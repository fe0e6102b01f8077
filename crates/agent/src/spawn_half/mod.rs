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
mod asked;
mod aws_keys;
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
mod refusal;
mod registered_keys;
mod session;
mod ssh_trust;
mod start;
mod state;
mod terminal_modes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::signature::Ed25519KeyPair;
use munjigi_core::grant::{Epoch, GrantJudge};
use munjigi_core::id::SessionId;
use munjigi_core::session::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

use crate::clock;
use crate::config::{self, Config};
use crate::halves::{Configure, ToLink};
use crate::identity::{DataDir, Identity};
use crate::lock;
use crate::sys;

pub(crate) use account::only_user;
use accounts::Accounts;
use aws_keys::AwsKeys;
use key_socket::KeySocket;
use keys::Keys;
use link_process::LinkProcess;
use login_log::LoginLog;
use processes::Cgroups;
pub(crate) use processes::{kill_descendants, link_halves};
use program::Surroundings;
use refusal::Refusal;
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
    aws_keys: AwsKeys,
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
    if half.config.instance_connect.aws {
        half.listen_for_sshd().context("the node cannot hand keys to sshd")?;
    }
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
            aws_keys: AwsKeys::default(),
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
                let now = clock::monotonic();
                self.answer_sshd(now);
                self.answer_from_aws(now);
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
        let asking = self.key_socket.iter().flat_map(KeySocket::descriptors).chain(self.aws_keys.descriptors());
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
            .chain(self.aws_keys.next_end())
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
        if self.aws_keys.next_end().is_some_and(|at| at <= now) {
            self.answer_from_aws(now);
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
        let one_of_ours = self.workers.remove(&pid) || self.connecting.remove(&pid) || self.aws_keys.reaped(pid);
        if one_of_ours || self.account_worker_reaped(pid, &status) {
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
