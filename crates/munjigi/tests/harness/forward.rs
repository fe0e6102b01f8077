//! A `munjigi forward` in the foreground.

use serde_json::Value;

use super::TestServer;
use super::server::Running;

/// A forward; it is ended when it is dropped.
pub(crate) struct TestForward {
    pub(crate) process: Running,
    pub(crate) said: Value,
}

impl TestForward {
    /// Starts it and waits until it serves.
    pub(crate) fn start(server: &TestServer, arguments: &[&str]) -> Self {
        let mut command = server.munjigi(&["forward", "--output", "json"]);
        let (process, rest) = Running::start(command.args(arguments), "{");
        Self { process, said: serde_json::from_str(&format!("{{{rest}")).unwrap() }
    }

    /// Returns the port of the first, second … thing that listens.
    pub(crate) fn port(&self, number: usize) -> u16 {
        self.said["Forwards"][number]["Port"].as_u64().unwrap().try_into().unwrap()
    }

    /// Returns the session behind it.
    pub(crate) fn session(&self) -> &str {
        self.said["SessionId"].as_str().unwrap()
    }
}
