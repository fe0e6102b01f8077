//! The session: kinds, states, limits and the reasons for which one ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What kind of thing a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// The OS user's login shell on a terminal.
    Shell,
    /// One program, with a terminal or with pipes.
    Command,
    /// TCP connections from the node to one destination; nothing runs.
    Port,
}

impl SessionKind {
    /// Returns the word used in storage, API and audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Command => "command",
            Self::Port => "port",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Shell, Self::Command, Self::Port].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The two output streams of a program; a terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output, and everything a terminal shows.
    Stdout,
    /// Standard error of a program without a terminal.
    Stderr,
}

impl OutputStream {
    /// Returns the number used on the wire and in recordings: the file descriptor's.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// Reads that number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// Size of a terminal in characters and, if known, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows of characters.
    pub rows: u16,
    /// Columns of characters.
    pub columns: u16,
    /// Width in pixels; 0 if unknown.
    pub width_pixels: u16,
    /// Height in pixels; 0 if unknown.
    pub height_pixels: u16,
}

impl TerminalSize {
    /// Most rows or columns a terminal may have; programs allocate by this number, so it is bounded (T-93).
    pub const MAX: u16 = 4096;

    /// Returns the size if both sides are 1 to [`Self::MAX`].
    pub fn checked(self) -> Option<Self> {
        let good = |side: u16| (1..=Self::MAX).contains(&side);
        (good(self.rows) && good(self.columns)).then_some(self)
    }
}

/// Signals that a client may send to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// `SIGHUP`.
    #[serde(rename = "HUP")]
    Hangup,
    /// `SIGINT`.
    #[serde(rename = "INT")]
    Interrupt,
    /// `SIGQUIT`.
    #[serde(rename = "QUIT")]
    Quit,
    /// `SIGTERM`.
    #[serde(rename = "TERM")]
    Terminate,
    /// `SIGKILL`.
    Kill,
    /// `SIGUSR1`.
    #[serde(rename = "USR1")]
    User1,
    /// `SIGUSR2`.
    #[serde(rename = "USR2")]
    User2,
}

impl Signal {
    const TABLE: [(Self, u8, &'static str); 7] = [
        (Self::Hangup, 1, "HUP"),
        (Self::Interrupt, 2, "INT"),
        (Self::Quit, 3, "QUIT"),
        (Self::Kill, 9, "KILL"),
        (Self::User1, 10, "USR1"),
        (Self::User2, 12, "USR2"),
        (Self::Terminate, 15, "TERM"),
    ];

    /// Returns the number used on the wire: Linux' own on x86-64 and ARM.
    pub fn to_byte(self) -> u8 {
        Self::TABLE.iter().find(|(signal, _, _)| *signal == self).map_or(15, |(_, byte, _)| *byte)
    }

    /// Reads that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::TABLE.iter().find(|(_, number, _)| *number == byte).map(|(signal, _, _)| *signal)
    }

    /// Reads a name without `SIG`; `None` for a signal that no client may send.
    pub fn parse(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, _, known)| *known == name).map(|(signal, _, _)| *signal)
    }

    /// Returns the name without `SIG` (RFC 4254 section 6.10).
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|(signal, _, _)| *signal == self).map_or("TERM", |(_, _, name)| *name)
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Name without `SIG`.
        name: String,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

impl ExitStatus {
    /// Returns what a shell would give as `$?`: the code, or 128 and the signal's number.
    pub fn shell_code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal { name, .. } => 128 + signal_number(name).unwrap_or(0),
        }
    }
}

/// Linux signal numbers that the names in [`ExitStatus`] can stand for.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    NAMES.iter().position(|known| *known == name).and_then(|index| i32::try_from(index + 1).ok())
}

/// Why a session ended. Whoever ends a session says why; the word stands in the audit event, the recording and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The program ended by itself.
    Exited,
    /// Somebody called `TerminateSession`.
    Terminated,
    /// Nothing was typed (or printed) for the idle timeout.
    IdleTimeout,
    /// The maximum duration was over.
    MaximumDuration,
    /// The decision that allowed it would now be no.
    Revoked,
    /// No client came back within the resume window.
    ClientLost,
    /// The node did not come back within the resume window.
    NodeLost,
    /// The agent's privileged half, and with it the program, died.
    AgentDied,
    /// The recording could not be written as policy demands.
    RecordingFailed,
    /// The node refused or failed to start the program.
    StartFailed,
    /// The server was restarted, and the node's agent cannot bring its sessions back.
    ServerRestarted,
}

impl EndReason {
    const TABLE: [(Self, &'static str, &'static str); 11] = [
        (Self::Exited, "exited", "the program ended"),
        (Self::Terminated, "terminated", "the session was terminated"),
        (Self::IdleTimeout, "idle-timeout", "the session was idle for too long"),
        (Self::MaximumDuration, "maximum-duration", "the session reached its maximum duration"),
        (Self::Revoked, "revoked", "the permission for this session was taken away"),
        (Self::ClientLost, "client-lost", "no client came back within the resume window"),
        (Self::NodeLost, "node-lost", "the node did not come back within the resume window"),
        (Self::AgentDied, "agent-died", "the agent on the node died and took the program with it"),
        (Self::RecordingFailed, "recording-failed", "the recording could not be written"),
        (Self::StartFailed, "start-failed", "the node could not start the program"),
        (
            Self::ServerRestarted,
            "server-restarted",
            "the server was restarted; sessions on a node with AWS's agent do not outlive that",
        ),
    ];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        Self::TABLE.iter().find(|(reason, _, _)| *reason == self).map_or("terminated", |(_, word, _)| *word)
    }

    /// Reads the word; an unknown one (from a newer peer) is `None`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, known, _)| *known == word).map(|(reason, _, _)| *reason)
    }

    /// Returns a sentence for people.
    pub fn sentence(self) -> &'static str {
        Self::TABLE.iter().find(|(reason, _, _)| *reason == self).map_or("the session ended", |(_, _, text)| *text)
    }
}

/// Where a session stands, in the words of `DescribeSessions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionStatus {
    /// Granted, not yet running.
    Connecting,
    /// Running, with a client.
    Connected,
    /// Running, without a client or without its node's link; can be resumed.
    Disconnected,
    /// Being ended.
    Terminating,
    /// Over.
    Terminated,
    /// Never ran.
    Failed,
}

impl SessionStatus {
    const TABLE: [(Self, &'static str); 6] = [
        (Self::Connecting, "Connecting"),
        (Self::Connected, "Connected"),
        (Self::Disconnected, "Disconnected"),
        (Self::Terminating, "Terminating"),
        (Self::Terminated, "Terminated"),
        (Self::Failed, "Failed"),
    ];

    /// Returns the word of the AWS API.
    pub fn as_str(self) -> &'static str {
        Self::TABLE.iter().find(|(status, _)| *status == self).map_or("Failed", |(_, word)| *word)
    }

    /// Reads the word of the AWS API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, known)| *known == word).map(|(status, _)| *status)
    }

    /// Tells whether a session in this state counts as `Active` in `DescribeSessions` (the rest is `History`).
    pub fn is_active(self) -> bool {
        matches!(self, Self::Connecting | Self::Connected | Self::Disconnected)
    }

    /// Tells whether a session may go from this state to `next`.
    pub fn may_become(self, next: Self) -> bool {
        use SessionStatus as S;
        match self {
            S::Connecting => {
                matches!(next, S::Connected | S::Disconnected | S::Terminating | S::Terminated | S::Failed)
            }
            S::Connected => matches!(next, S::Disconnected | S::Terminating | S::Terminated),
            S::Disconnected => matches!(next, S::Connected | S::Terminating | S::Terminated),
            S::Terminating => matches!(next, S::Terminated),
            S::Terminated | S::Failed => false,
        }
    }
}

/// How long a session may last and be silent. Documents and requests can only tighten them (T-53).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Ends the session after this long without input (and output, if `idle_counts_output`). `None`: never.
    pub idle: Option<Duration>,
    /// Whether output also counts as activity.
    pub idle_counts_output: bool,
    /// Ends the session this long after its start. `None`: never.
    pub maximum: Option<Duration>,
    /// How long the session lives on without its client or its node.
    pub resume_window: Duration,
    /// Output is shown only after it is stored on disk.
    pub strict_recording: bool,
}

impl SessionLimits {
    /// Returns the stricter of both, field by field.
    pub fn tightened_by(&self, other: &Self) -> Self {
        let shorter = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            idle: shorter(self.idle, other.idle),
            idle_counts_output: self.idle_counts_output && other.idle_counts_output,
            maximum: shorter(self.maximum, other.maximum),
            resume_window: self.resume_window.min(other.resume_window),
            strict_recording: self.strict_recording || other.strict_recording,
        }
    }
}

/// Tells whether an environment variable from a client may reach the program, by name and value (T-78).
pub fn environment_allowed(name: &str, value: &str) -> bool {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-@:".contains(&b));
    match name {
        "TERM" => {
            !value.is_empty()
                && value.len() <= 64
                && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
        }
        // A socket that the agent has made for the session's user; no other one.
        "SSH_AUTH_SOCK" => {
            let middle = value.strip_prefix("/tmp/munjigi-").and_then(|rest| rest.strip_suffix("/agent.sock"));
            middle.is_some_and(|middle| middle.len() == 6 && middle.bytes().all(|b| b.is_ascii_alphanumeric()))
        }
        "LANG" | "COLORTERM" | "TZ" => value.len() <= 64 && plain(&value.replace('/', "")),
        _ => {
            name.strip_prefix("LC_").is_some_and(|rest| {
                !rest.is_empty() && rest.len() <= 32 && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            }) && value.len() <= 64
                && plain(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for (reason, word, _) in EndReason::TABLE {
            assert_eq!(EndReason::parse(word), Some(reason));
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{word}\""));
        }
        for (status, word) in SessionStatus::TABLE {
            assert_eq!(SessionStatus::parse(word), Some(status));
            assert_eq!(status.as_str(), word);
        }
        for (signal, byte, _) in Signal::TABLE {
            assert_eq!(Signal::from_byte(byte), Some(signal));
            assert_eq!(signal.to_byte(), byte);
        }
    }

    #[test]
    fn a_final_state_stays_final() {
        for (last, _) in SessionStatus::TABLE {
            for (next, _) in SessionStatus::TABLE {
                if matches!(last, SessionStatus::Terminated | SessionStatus::Failed) {
                    assert!(!last.may_become(next));
                }
            }
        }
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(ExitStatus::Code(7).shell_code(), 7);
        assert_eq!(ExitStatus::Signal { name: "KILL".into(), core_dumped: false }.shell_code(), 137);
        assert_eq!(ExitStatus::Signal { name: "TERM".into(), core_dumped: false }.shell_code(), 143);
    }

    #[test]
    fn limits_only_tighten() {
        let node = SessionLimits {
            idle: Some(Duration::from_secs(600)),
            idle_counts_output: true,
            maximum: None,
            resume_window: Duration::from_secs(600),
            strict_recording: true,
        };
        let wish = SessionLimits {
            idle: None,
            idle_counts_output: true,
            maximum: Some(Duration::from_secs(60)),
            resume_window: Duration::from_secs(6000),
            strict_recording: false,
        };
        let both = node.tightened_by(&wish);
        assert_eq!(both, wish.tightened_by(&node));
        assert_eq!(both.idle, node.idle);
        assert_eq!(both.maximum, wish.maximum);
        assert_eq!(both.resume_window, node.resume_window);
        assert!(both.strict_recording);
    }

    #[test]
    fn only_locale_and_terminal_variables_pass() {
        for (name, value) in
            [("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C"), ("TERM", "xterm-256color"), ("TZ", "Asia/Seoul")]
        {
            assert!(environment_allowed(name, value), "{name}");
        }
        for (name, value) in
            [("LD_PRELOAD", "x"), ("PATH", "/"), ("LC_", "C"), ("TERM", "x;y"), ("LANG", "$(id)"), ("LC_ALL", "a b")]
        {
            assert!(!environment_allowed(name, value), "{name}");
        }
    }
}
