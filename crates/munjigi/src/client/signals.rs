//! Signals to this process. One that was ignored when we were started (`nohup`, background jobs) stays ignored.

use std::io;

use munjigi_core::session::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The window changed its size.
    WindowChanged,
    /// A signal that ends a program unless it is caught.
    Signal(Signal),
}

/// The signals that are listened to while this exists.
pub(crate) struct Signals {
    hangup: Option<unix::Signal>,
    interrupt: Option<unix::Signal>,
    quit: Option<unix::Signal>,
    terminate: Option<unix::Signal>,
    window: Option<unix::Signal>,
}

impl Signals {
    /// Begins to listen. Call it inside of a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Self::unless(ignored_mask())
    }

    /// As [`Self::new`], but hears the signals of Ctrl-C and Ctrl-\ even if they were ignored: the AWS command line
    /// ignores them for itself while its plugin runs, and the plugin inherits that.
    pub(crate) fn of_plugin() -> io::Result<Self> {
        Self::unless(ignored_mask() & !(bit(SignalKind::interrupt()) | bit(SignalKind::quit())))
    }

    fn unless(ignored: u64) -> io::Result<Self> {
        let listen = |kind: SignalKind| (ignored & bit(kind) == 0).then(|| signal(kind)).transpose();
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            window: listen(SignalKind::window_change())?,
        })
    }

    /// Waits for the next one. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Came {
        tokio::select! {
            () = received(&mut self.window) => Came::WindowChanged,
            signal = ending(&mut self.hangup, &mut self.interrupt, &mut self.quit, &mut self.terminate) => {
                Came::Signal(signal)
            }
        }
    }

    /// Waits for a signal that ends a program. Safe to drop and call again.
    pub(crate) async fn next_ending(&mut self) -> Signal {
        ending(&mut self.hangup, &mut self.interrupt, &mut self.quit, &mut self.terminate).await
    }
}

async fn ending(
    hangup: &mut Option<unix::Signal>,
    interrupt: &mut Option<unix::Signal>,
    quit: &mut Option<unix::Signal>,
    terminate: &mut Option<unix::Signal>,
) -> Signal {
    tokio::select! {
        () = received(hangup) => Signal::Hangup,
        () = received(interrupt) => Signal::Interrupt,
        () = received(quit) => Signal::Quit,
        () = received(terminate) => Signal::Terminate,
    }
}

async fn received(signal: &mut Option<unix::Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

fn bit(kind: SignalKind) -> u64 {
    1 << (kind.as_raw_value() - 1)
}

/// Returns the signals this process ignores, bit 0 for signal 1, as the kernel tells; none where it does not tell.
fn ignored_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
