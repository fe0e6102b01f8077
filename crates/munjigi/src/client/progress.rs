//! A line on standard error for work over a second; only on a terminal, and gone when the work is done.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

/// Work that is faster shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows progress while it exists.
pub(crate) struct Progress {
    line: Arc<Mutex<Line>>,
    /// Shows the line once the work has taken long enough.
    timer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Line {
    text: String,
    shown: bool,
}

impl Progress {
    /// Begins now. Call it inside of a runtime.
    pub(crate) fn new() -> Self {
        let line = Arc::new(Mutex::new(Line::default()));
        let timer = io::stderr().is_terminal().then(|| {
            let line = Arc::clone(&line);
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
                line.shown = true;
                line.write();
            })
        });
        Self { line, timer }
    }

    /// Says what is being done.
    pub(crate) fn show(&self, text: &str) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone_into(&mut line.text);
        if line.shown {
            line.write();
        }
    }
}

impl Line {
    fn write(&self) {
        if !self.text.is_empty() {
            // Progress that cannot be shown is none.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{} …", self.text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        if self.line.lock().unwrap_or_else(PoisonError::into_inner).shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
