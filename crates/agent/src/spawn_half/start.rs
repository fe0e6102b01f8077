//! Starts what a grant names: the grant is verified, the OS user looked up, memory and program made.

use std::os::fd::OwnedFd;

use anyhow::bail;
use munjigi_core::grant::Action;
use munjigi_core::session::OutputStream;

use super::processes::Processes;
use super::program::Wish;
use super::session::Session;
use super::{MAX_SESSIONS, Refusal, SpawnHalf, account, default_user, login_records, program, reach};
use crate::clock;
use crate::halves::{Start, ToLink};
use crate::ring::{MAX_CHUNK, Ring};

impl SpawnHalf {
    pub(super) fn start(&mut self, start: &Start) {
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
