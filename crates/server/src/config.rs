//! The server's settings: a strict TOML file (T-87) with defaults for everything.

use std::time::Duration;

/// The settings after defaults and checks.
#[derive(Debug, Clone)]
pub struct Config {
    /// Regions accepted in credential scopes; empty accepts any.
    pub accepted_regions: Vec<String>,
    /// Defaults for sessions.
    pub session: SessionDefaults,
}

/// What holds for sessions whose document says nothing else.
#[derive(Debug, Clone)]
pub struct SessionDefaults {
    /// Without input for so long, a session ends.
    pub idle_timeout: Duration,
    /// A session ends this long after its start; `None` sets no limit.
    pub maximum_duration: Option<Duration>,
    /// How long a shell outlives its client's or server's link.
    pub resume_window: Duration,
    /// Whether output is shown only after it is stored.
    pub strict_recording: bool,
}

impl Default for SessionDefaults {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(20 * 60),
            maximum_duration: None,
            resume_window: Duration::from_secs(600),
            strict_recording: false,
        }
    }
}
