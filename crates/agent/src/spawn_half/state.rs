//! What the agent says of itself to this machine: `state.json` for `munjigi agent status`, and systemd.

use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::identity::{DataDir, Identity};

/// Name of the file in the data directory.
pub(crate) const STATE_FILE: &str = "state.json";

/// Content of `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// The agent's privileged half.
    pub(crate) process_id: u32,
    /// Whether the link stands.
    pub(crate) online: bool,
    /// Since when, RFC 3339.
    pub(crate) since: String,
    /// Why it does not, for people; empty when it does.
    pub(crate) why: String,
}

/// The file and what it says now.
#[derive(Debug)]
pub(crate) struct StateFile {
    data: DataDir,
    node: String,
    server: String,
    last: Option<(bool, String)>,
}

impl StateFile {
    /// Names the file; nothing is written yet.
    pub(crate) fn new(data: &DataDir, identity: &Identity) -> Self {
        Self { data: data.clone(), node: identity.node_id.to_string(), server: identity.server.clone(), last: None }
    }

    /// The link stands.
    pub(crate) fn online(&mut self, sessions: usize) {
        let status = format!("{} online at {}, {sessions} sessions", self.node, self.server);
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.write(true, "");
    }

    /// The link does not stand.
    pub(crate) fn offline(&mut self, why: &str) {
        let status = format!("{} offline: {why}", self.node);
        // An agent without its server is a started service all the same: it goes on trying.
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.write(false, why);
    }

    /// The agent begins to stop.
    pub(crate) fn notify_stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// The agent has stopped.
    pub(crate) fn stopped(&mut self) {
        self.write(false, "the agent was stopped");
    }

    fn write(&mut self, online: bool, why: &str) {
        if self.last.as_ref().is_some_and(|(was, last)| *was == online && last == why) {
            return;
        }
        self.last = Some((online, why.to_owned()));
        let state =
            State { process_id: std::process::id(), online, since: clock::now().to_iso_seconds(), why: why.to_owned() };
        let result = serde_json::to_vec(&state).map_err(Into::into).and_then(|text| self.data.write(STATE_FILE, &text));
        if let Err(error) = result {
            tracing::warn!(error = format!("{error:#}"), "the agent's state could not be written");
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}
