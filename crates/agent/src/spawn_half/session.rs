//! A session as the privileged half keeps it: its program, what is held of its descriptors, and how it ends.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use munjigi_core::id::SessionId;
use munjigi_core::session::{ExitStatus, Signal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{kill, killpg};
use nix::unistd::{Pid, getsid, tcgetpgrp};

use super::login_records::LoginRecord;
use super::processes::Processes;
use super::program::Held;
use super::reach::Granted;
use crate::halves;

/// Between SIGHUP and SIGKILL (design.md section 3, T-26).
const GRACE: Duration = Duration::from_secs(5);
/// How long output of processes that outlive a program without a terminal is waited for, such as the other end of a
/// pipeline; then the session is over and they end with it.
const LINGER: Duration = Duration::from_secs(1);

/// How a program ended, for the link half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exited {
    /// How.
    pub(crate) status: ExitStatus,
    /// Why, when it did not end by itself; else empty.
    pub(crate) detail: String,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) os_user: String,
    pub(crate) process_id: u32,
    pub(crate) ring: OwnedFd,
    /// Our side of the terminal or pipes; `None` when the program never ran.
    pub(crate) held: Option<Held>,
    pub(crate) processes: Processes,
    /// Its entry among those who are logged in.
    login: Option<LoginRecord>,
    /// The program while it is not reaped; its id cannot be reused until then.
    leader: Option<Pid>,
    /// How it ended, not yet said because others may still write.
    lingering: Option<(Instant, Exited)>,
    /// How it ended, as said.
    pub(crate) exited: Option<Exited>,
    /// When SIGKILL follows.
    kill_at: Option<Instant>,
    /// Whether all is recorded.
    forgotten: bool,
    /// Why we end it, if we do.
    detail: String,
    /// What the connections of a port session may go to; nothing runs in one, and it lasts until it is ended.
    pub(super) granted: Option<Granted>,
}

impl Session {
    /// Builds the session of a program that runs.
    pub(crate) fn running(
        id: SessionId,
        os_user: String,
        ring: OwnedFd,
        (leader, held): (Pid, Held),
        login: Option<LoginRecord>,
        mut processes: Processes,
    ) -> Self {
        processes.started(leader);
        let process_id = leader.as_raw().cast_unsigned();
        Self {
            process_id,
            leader: Some(leader),
            held: Some(held),
            login,
            ..Self::stillborn(id, os_user, ring, processes)
        }
    }

    /// Builds the session of a program that could not be run; the ring says why.
    pub(crate) fn failed(id: SessionId, os_user: String, ring: OwnedFd, code: i32, processes: Processes) -> Self {
        let exited = Exited { status: ExitStatus::Code(code), detail: String::new() };
        Self { exited: Some(exited), ..Self::stillborn(id, os_user, ring, processes) }
    }

    /// Builds a port session.
    pub(crate) fn port(id: SessionId, os_user: String, granted: Granted, ring: OwnedFd) -> Self {
        Self { granted: Some(granted), ..Self::stillborn(id, os_user, ring, Processes::Nothing) }
    }

    fn stillborn(id: SessionId, os_user: String, ring: OwnedFd, processes: Processes) -> Self {
        Self {
            id,
            os_user,
            process_id: 0,
            ring,
            held: None,
            processes,
            login: None,
            leader: None,
            lingering: None,
            exited: None,
            kill_at: None,
            forgotten: false,
            detail: String::new(),
            granted: None,
        }
    }

    /// Describes the session to the link half.
    pub(crate) fn describe(&self, request: Option<u64>) -> halves::Session {
        halves::Session {
            session: self.id.clone(),
            request,
            process_id: self.process_id,
            os_user: self.os_user.clone(),
            terminal: matches!(self.held, Some(Held::Terminal(_))),
            input: match &self.held {
                Some(Held::Terminal(_)) => true,
                Some(Held::Pipes { input, .. }) => input.is_some(),
                None => false,
            },
            exit: self.exited.as_ref().map(|exited| exited.status.clone()),
            detail: self.exited.as_ref().map(|exited| exited.detail.clone()).unwrap_or_default(),
            endpoints: self.granted.as_ref().map(|granted| granted.first().to_vec()),
        }
    }

    /// The program's input has ended: closes our copy of the pipe. A terminal stays open.
    pub(crate) fn end_input(&mut self) {
        if let Some(Held::Pipes { input, .. }) = &mut self.held {
            *input = None;
        }
    }

    /// Tells whether this is the session's first process.
    pub(crate) fn is_led_by(&self, pid: Pid) -> bool {
        self.leader == Some(pid)
    }

    /// Takes note that the program was reaped.
    pub(crate) fn reaped(&mut self, status: ExitStatus, now: Instant) {
        self.leader = None;
        if let Some(login) = self.login.take() {
            login.end();
        }
        let exited = Exited { status, detail: std::mem::take(&mut self.detail) };
        self.lingering = Some((now + LINGER, exited));
    }

    /// Begins the end: asks everything in the session to go, and kills what is left after the grace period.
    pub(crate) fn end(&mut self, why: &str, now: Instant) {
        if self.kill_at.is_none() {
            if self.exited.is_none() {
                self.detail = why.to_owned();
            }
            if self.granted.is_some() && self.exited.is_none() {
                self.lingering = Some((now, Exited { status: ExitStatus::Code(0), detail: why.to_owned() }));
            }
            self.processes.hang_up();
            self.kill_at = Some(now + GRACE);
        }
    }

    /// Kills everything in the session now.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.processes.kill();
        self.kill_at = Some(now);
    }

    /// All is recorded; what is left of the session may go.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.forgotten = true;
        self.end("", now);
    }

    /// Does what is due. Returns how the program ended if that can be said from now on.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Exited> {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.processes.kill();
            // Whatever was forking just then is met by the next round.
            self.kill_at = (!self.processes.is_empty()).then_some(now + Duration::from_millis(100));
        }
        let (until, _) = self.lingering.as_ref()?;
        if *until > now && self.may_still_print() {
            return None;
        }
        let (_, exited) = self.lingering.take()?;
        self.exited = Some(exited.clone());
        // The session is over; what its program left behind ends with it.
        self.end("", now);
        Some(exited)
    }

    /// Returns when [`Self::tick`] is next of use.
    pub(crate) fn next_tick(&self, now: Instant) -> Option<Instant> {
        // While others may still print, the pipes are looked at often: most close at once.
        let look = now + Duration::from_millis(20);
        let lingering = self.lingering.as_ref().map(|(until, _)| (*until).min(look));
        [self.kill_at, lingering].into_iter().flatten().min()
    }

    /// Tells whether nothing of the session is left.
    pub(crate) fn is_over(&self) -> bool {
        self.forgotten && self.leader.is_none() && self.lingering.is_none() && self.processes.is_empty()
    }

    /// A terminal is hung up by the kernel when its first process ends; pipes stay open while anybody holds them.
    fn may_still_print(&self) -> bool {
        let Some(Held::Pipes { output, error, .. }) = &self.held else { return false };
        use std::os::fd::AsFd;
        let mut ends =
            [PollFd::new(output.as_fd(), PollFlags::empty()), PollFd::new(error.as_fd(), PollFlags::empty())];
        if poll(&mut ends, PollTimeout::ZERO).is_err() {
            return false;
        }
        ends.iter().any(|end| !end.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
    }

    /// Sends a signal: on a terminal to its foreground process group, else to the program's group.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(leader) = self.leader else { return };
        let Ok(number) = nix::sys::signal::Signal::try_from(i32::from(signal.to_byte())) else { return };
        let foreground = match &self.held {
            // The group must belong to this session: the program chooses what it puts in front.
            Some(Held::Terminal(master)) => {
                tcgetpgrp(master).ok().filter(|group| group.as_raw() > 1 && getsid(Some(*group)) == Ok(leader))
            }
            _ => None,
        };
        // A group that has just ended needs no signal.
        if killpg(foreground.unwrap_or(leader), number).is_err() {
            let _ = kill(leader, number);
        }
    }
}
