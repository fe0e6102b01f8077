//! A line on standard error for work over a second; only on a terminal, and gone when the work is done.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Work that is faster shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows progress while it exists.
pub(crate) struct Progress {
    since: Instant,
    on_terminal: bool,
    shown: Cell<bool>,
}

impl Progress {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), on_terminal: io::stderr().is_terminal(), shown: Cell::new(false) }
    }

    /// Says what is being done, if it has taken long enough by now.
    pub(crate) fn show(&self, text: &str) {
        if self.on_terminal && self.since.elapsed() >= PATIENCE {
            self.shown.set(true);
            // Progress that cannot be shown is none.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{text} …");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.get() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
