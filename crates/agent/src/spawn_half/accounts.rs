//! The node's account bundle in the privileged half: verified here, kept for restarts, applied by a worker.
//!
//! Changing accounts means running the system's tools and waiting for their locks, so a process of its own does it while
//! this loop goes on ([`crate::account_worker`]). One runs at a time; what comes meanwhile is applied behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use munjigi_core::account::book::{Book, Unfinished};
use munjigi_core::account::bundle::{AccountBundle, AccountMode, AccountState, MAX_BUNDLE_BYTES};
use munjigi_core::session::ExitStatus;
use munjigi_core::wire::message::AccountReport;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use prost::Message as _;

use super::child::{self, Child, SessionKind};
use super::{Refusal, SpawnHalf};
use crate::account_worker::{BOOK_FILE, BUNDLE_FILE, DATA_VARIABLE, DISMISSED_VARIABLE, RECORDED_VARIABLE};
use crate::clock;
use crate::halves::ToLink;

/// Room for key id and signature around a bundle.
const MOST: usize = MAX_BUNDLE_BYTES + 256;
/// How long a worker may take: a few hundred accounts with the system's tools.
const WORKER_LIMIT: Duration = Duration::from_secs(180);
/// How long an account made just in time stays behind its last session: for the next one of the same person.
const LINGER: Duration = Duration::from_secs(10);
/// How long it waits for its first session.
const FIRST_SESSION: Duration = Duration::from_secs(300);

/// How often accounts are looked at that something is in the way of: its owner may have moved it away.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// The longest time between two attempts at what failed.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// What this half knows of accounts.
#[derive(Default)]
pub(super) struct Accounts {
    /// The bundle that holds.
    bundle: Option<AccountBundle>,
    /// The accounts that the worker had made when it ended last.
    book: Book,
    /// One that is coming in.
    incoming: Option<Incoming>,
    worker: Option<Worker>,
    /// Wishes that the next worker answers; some even if nobody asked (`None` is nobody).
    wanted: Option<Vec<u64>>,
    /// How many attempts in a row left something unfinished, and when the next one is.
    attempts: u32,
    again: Option<Instant>,
    /// What the server was told last without asking.
    told: Option<AccountReport>,
    /// Number of the newest change that is in the server's trail.
    recorded: u64,
    /// Accounts made just in time: until when each may be without a session.
    unused: BTreeMap<String, Instant>,
    /// Those whose time is over, and the bundle's version then.
    dismissed: BTreeMap<String, u64>,
}

struct Incoming {
    request: u64,
    total: usize,
    bytes: Vec<u8>,
}

struct Worker {
    pid: Pid,
    answers: Vec<u64>,
    until: Instant,
}

impl Accounts {
    /// Returns the bundle that holds.
    pub(super) fn bundle(&self) -> Option<&AccountBundle> {
        self.bundle.as_ref()
    }

    /// Returns the accounts that this node manages, as the worker left them.
    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Returns when something is to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        let unused = self.unused.values().min().copied();
        self.worker.as_ref().map(|worker| worker.until).into_iter().chain(unused).chain(self.again).min()
    }

    /// Plans the next attempt at what could not be done: later each time, or none if all is done.
    fn plan_retry(&mut self, unfinished: Option<Unfinished>, first: Duration, now: Instant) {
        let wait = match unfinished {
            None => {
                self.attempts = 0;
                self.again = None;
                return;
            }
            Some(Unfinished::Conflict) => LOOK_AGAIN,
            Some(Unfinished::Failed) => retry_after(first, self.attempts),
        };
        self.attempts = self.attempts.saturating_add(1);
        self.again = Some(now + wait);
    }
}

/// Returns how long to wait behind so many failures in a row.
fn retry_after(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(LONGEST_RETRY)
}

impl SpawnHalf {
    /// Tells whether this node's owner lets its accounts be managed.
    pub(super) fn manages_accounts(&self) -> bool {
        self.config.manage_accounts && Uid::effective().is_root()
    }

    fn account_retry(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.account_retry_seconds))
    }

    /// Takes up the bundle of the run before; accounts are looked at once, as they may have been changed meanwhile.
    pub(super) fn resume_accounts(&mut self) {
        if !self.data.path(BUNDLE_FILE).exists() {
            return;
        }
        let verified = self.data.read(BUNDLE_FILE).and_then(|signed| {
            let (trust, node) = (self.identity.trust()?, &self.identity.node_id);
            Ok(AccountBundle::verify(&signed, &trust, node, 0, clock::now())?)
        });
        match verified {
            Ok(bundle) => {
                self.accounts.bundle = Some(bundle);
                self.accounts.book = self.read_book().unwrap_or_default();
                self.expect_sessions();
                self.apply_accounts(None);
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the stored account bundle is not good; a new one is awaited"
                );
            }
        }
    }

    /// Takes a piece of a bundle; the last one has it verified, stored and applied.
    pub(super) fn take_accounts(&mut self, request: u64, recorded: u64, total: u32, piece: &[u8]) {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let mut incoming = match self.accounts.incoming.take().filter(|incoming| incoming.request == request) {
            Some(incoming) => incoming,
            None => Incoming { request, total, bytes: Vec::new() },
        };
        if total > MOST || incoming.total != total || incoming.bytes.len() + piece.len() > total {
            let message = "the account bundle is too large or did not come whole".to_owned();
            return self.refuse_accounts(request, Refusal::denied("AccountsMalformed", message));
        }
        incoming.bytes.extend_from_slice(piece);
        if incoming.bytes.len() < total {
            self.accounts.incoming = Some(incoming);
            return;
        }
        self.accounts.recorded = recorded;
        match self.try_take_accounts(&incoming.bytes) {
            Ok(()) => self.apply_accounts(Some(request)),
            Err(refusal) => self.refuse_accounts(request, refusal),
        }
    }

    fn refuse_accounts(&mut self, request: u64, refusal: Refusal) {
        let Refusal { code, reason, message } = refusal;
        tracing::warn!(reason, "an account bundle was refused: {message}");
        let refused = ToLink::Refused { request, code: code.to_owned(), message, reason: reason.to_owned() };
        self.with_link(|link| link.send(&refused, &[]));
    }

    /// The bundle is verified here, so that the link half alone can give nobody an account or a key (T-76).
    fn try_take_accounts(&mut self, signed: &[u8]) -> Result<(), Refusal> {
        let held = self.accounts.bundle.as_ref().map_or(0, |bundle| bundle.version);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Refusal::failed("AccountsFailed", &format!("the node could not {what}: {error:#}"))
        };
        let trust = self.identity.trust().map_err(|error| failed("read what it trusts", &error))?;
        let bundle = AccountBundle::verify(signed, &trust, &self.identity.node_id, held, clock::now())
            .map_err(|error| Refusal::denied("AccountsRefused", error.to_string()))?;
        // On disk before it holds: a restart must not go back to an older one.
        self.data.write(BUNDLE_FILE, signed).map_err(|error| failed("store the account bundle", &error))?;
        tracing::info!(version = bundle.version, accounts = bundle.accounts.len(), "an account bundle came");
        self.accounts.bundle = Some(bundle);
        self.expect_sessions();
        Ok(())
    }

    /// Accounts made just in time wait for sessions from now on, and sshd's helper for keys.
    fn expect_sessions(&mut self) {
        let Some(bundle) = &self.accounts.bundle else { return };
        let has_keys = !bundle.key_files.is_empty() || bundle.accounts.iter().any(|account| !account.keys.is_empty());
        if has_keys && let Err(error) = self.listen_for_sshd() {
            tracing::error!(error = format!("{error:#}"), "the node cannot hand keys to sshd");
        }
        let Some(bundle) = &self.accounts.bundle else { return };
        let until = clock::monotonic() + FIRST_SESSION;
        let version = bundle.version;
        self.accounts.dismissed.retain(|_, when| *when >= version);
        let awaited = bundle
            .accounts
            .iter()
            .filter(|account| account.mode == AccountMode::JustInTime && account.state == AccountState::Active)
            .map(|account| account.os_user.clone())
            .filter(|name| !self.accounts.dismissed.contains_key(name));
        self.accounts.unused = awaited.map(|name| (name, until)).collect();
    }

    /// Looks whether accounts made just in time are still needed, and whether a worker takes too long.
    pub(super) fn tick_accounts(&mut self, now: Instant) {
        if let Some(worker) = self.accounts.worker.as_ref().filter(|worker| worker.until <= now) {
            // It is reaped like every child, and its wishes are answered then.
            let _ = kill(worker.pid, Signal::SIGKILL);
        }
        if self.accounts.again.is_some_and(|again| again <= now) {
            self.accounts.again = None;
            self.apply_accounts(None);
        }
        if self.accounts.unused.is_empty() {
            return;
        }
        let used: BTreeSet<&str> = self.sessions.values().map(|session| session.os_user.as_str()).collect();
        let mut over = Vec::new();
        for (name, until) in &mut self.accounts.unused {
            if used.contains(name.as_str()) {
                *until = now + LINGER;
            } else if *until <= now {
                over.push(name.clone());
            }
        }
        let version = self.accounts.bundle.as_ref().map_or(0, |bundle| bundle.version);
        for name in &over {
            self.accounts.unused.remove(name);
            self.accounts.dismissed.insert(name.clone(), version);
        }
        if !over.is_empty() {
            self.apply_accounts(None);
        }
    }

    /// Has the bundle applied; the answer follows when that is done.
    fn apply_accounts(&mut self, request: Option<u64>) {
        if !self.manages_accounts() {
            if let Some(request) = request {
                let version = self.accounts.bundle.as_ref().map_or(0, |bundle| bundle.version);
                self.report_accounts(&[request], &AccountReport { version, ..AccountReport::default() });
            }
            return;
        }
        self.accounts.wanted.get_or_insert_default().extend(request);
        if self.accounts.worker.is_none() {
            self.start_account_worker();
        }
    }

    fn start_account_worker(&mut self) {
        let Some(answers) = self.accounts.wanted.take() else { return };
        match self.try_start_account_worker() {
            Ok(pid) => {
                let until = clock::monotonic() + WORKER_LIMIT;
                self.accounts.worker = Some(Worker { pid, answers, until });
            }
            Err(why) => {
                let first = self.account_retry();
                self.accounts.plan_retry(Some(Unfinished::Failed), first, clock::monotonic());
                for request in answers {
                    self.refuse_accounts(request, Refusal::failed("AccountsFailed", &why));
                }
            }
        }
    }

    fn try_start_account_worker(&self) -> Result<Pid, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("the node could not start the work on its accounts: {error}");
        let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        let (input, output) = (null().map_err(|error| failed(&error))?, null().map_err(|error| failed(&error))?);
        let errors = std::io::stderr().as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
        let dismissed: Vec<&str> = self.accounts.dismissed.keys().map(String::as_str).collect();
        child::start(Child {
            // The file that this process runs, even if another has taken its place by now.
            program: OsString::from("/proc/self/exe"),
            name: OsString::from("munjigi"),
            arguments: vec!["agent".into(), "account-worker".into()],
            environment: vec![
                (DATA_VARIABLE.to_owned(), self.data.path("").into_os_string()),
                (RECORDED_VARIABLE.to_owned(), self.accounts.recorded.to_string().into()),
                (DISMISSED_VARIABLE.to_owned(), dismissed.join(",").into()),
            ],
            stdio: [input.into(), output.into(), errors],
            session: SessionKind::Detached,
            cgroup: None,
            // It stays where this half is: without a network.
            network: None,
            identity: None,
            no_new_privileges: true,
            directories: vec![c"/".to_owned()],
            limits: Vec::new(),
            umask: 0o022,
            death_signal: libc::SIGKILL,
        })
        .map_err(|error| failed(&error))
    }

    fn read_book(&self) -> anyhow::Result<Book> {
        Ok(serde_json::from_slice(&self.data.read(BOOK_FILE)?)?)
    }

    /// Takes note that a process ended; tells whether it was the worker. What it could not do is tried again later.
    pub(super) fn account_worker_reaped(&mut self, pid: Pid, status: &ExitStatus) -> bool {
        let Some(worker) = self.accounts.worker.take_if(|worker| worker.pid == pid) else { return false };
        let book = match status {
            ExitStatus::Code(0) => self.read_book(),
            other => Err(anyhow::anyhow!("it ended with {other:?}")),
        };
        // Also of a worker that was killed: whatever it has locked by then must open to nobody.
        self.accounts.book = self.read_book().unwrap_or_default();
        let unfinished = book.as_ref().map_or(Some(Unfinished::Failed), Book::unfinished);
        let first = self.account_retry();
        self.accounts.plan_retry(unfinished, first, clock::monotonic());
        match book {
            Ok(book) if worker.answers.is_empty() => self.tell_accounts(book.report(true)),
            Ok(book) => self.report_accounts(&worker.answers, &book.report(true)),
            Err(error) => {
                let why = format!("the node's work on its accounts ended early: {error:#}");
                tracing::warn!(why, "it is tried again");
                for request in worker.answers {
                    self.refuse_accounts(request, Refusal::failed("AccountsFailed", &why));
                }
            }
        }
        self.start_account_worker();
        true
    }

    /// Tells the server what became of the accounts though it has not asked.
    fn tell_accounts(&mut self, report: AccountReport) {
        if self.accounts.told.as_ref() == Some(&report) {
            return;
        }
        let message = ToLink::AccountsChanged { report: report.encode_to_vec() };
        self.accounts.told = Some(report);
        self.with_link(|link| link.send(&message, &[]));
    }

    fn report_accounts(&mut self, answers: &[u64], report: &AccountReport) {
        self.accounts.told = None;
        for request in answers {
            let message = ToLink::AccountsApplied { request: *request, report: report.encode_to_vec() };
            self.with_link(|link| link.send(&message, &[]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_later_each_time_and_within_an_hour() {
        let first = Duration::from_secs(60);
        let waits: Vec<u64> = (0..9).map(|failures| retry_after(first, failures).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(retry_after(first, u32::MAX), LONGEST_RETRY);
        let (mut accounts, now) = (Accounts::default(), clock::monotonic());
        for wait in [60, 120] {
            accounts.plan_retry(Some(Unfinished::Failed), first, now);
            assert_eq!(accounts.next(), Some(now + Duration::from_secs(wait)));
        }
        accounts.plan_retry(Some(Unfinished::Conflict), first, now);
        assert_eq!(accounts.next(), Some(now + LOOK_AGAIN));
        accounts.plan_retry(None, first, now);
        assert_eq!((accounts.next(), accounts.attempts), (None, 0));
    }
}
