//! The handle with which a session is recorded.

use std::sync::Arc;

use munjigi_core::recording::Event;
use munjigi_core::session::{EndReason, ExitStatus};
use tokio::sync::{oneshot, watch};

use super::log::{Log, Progress, SealFailure, SealOrder, SealedRecording};
use super::writer::forget;
use super::{RecordingError, Shared};
use crate::clock;

/// Records one session. Dropped without [`Recorder::seal`], what was appended is still written and the recording can be
/// continued with [`super::Recordings::reopen`].
pub struct Recorder {
    log: Arc<Log>,
    shared: Arc<Shared>,
}

impl Recorder {
    pub(super) const fn new(log: Arc<Log>, shared: Arc<Shared>) -> Self {
        Self { log, shared }
    }

    /// Appends an event. Touches memory only, never blocks; what it takes counts in [`Recorder::backlog`] until it is
    /// written. Offsets must follow from the events before. An error is final: the session is to be ended. Returns the
    /// event's number, as [`Progress`] counts them.
    pub fn append(&self, event: Event) -> Result<u64, RecordingError> {
        let (queue, urgent, number) = self.log.append(event)?;
        let sent = self.shared.mailbox.send(queue.then_some(&self.log), urgent);
        sent.inspect_err(|_| self.log.unqueue()).map(|()| number)
    }

    /// Returns how many bytes were appended and are not yet written. The hub stops reading the node above 512 KiB and
    /// goes on when [`Recorder::progress`] tells of progress.
    pub fn backlog(&self) -> usize {
        self.log.backlog()
    }

    /// Follows how far the recording is written and durable, and whether it failed.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.log.progress()
    }

    /// Ends the recording: writes what was appended, the end and the seal, and returns once all of it is durable. Works
    /// from the reserve on a full disk, and through a fresh descriptor after the disk failed a sync.
    pub async fn seal(self, reason: EndReason, exit: Option<ExitStatus>) -> Result<SealedRecording, RecordingError> {
        let at = u64::try_from(clock::now().since(self.log.started).as_micros()).unwrap_or(u64::MAX);
        let (done, outcome) = oneshot::channel();
        self.log.order_seal(SealOrder { at, reason, exit }, done);
        self.shared.mailbox.send(Some(&self.log), true)?;
        match outcome.await.map_err(|_| RecordingError::Stopped)? {
            Ok(sealed) => Ok(sealed),
            Err(SealFailure::Failed(error)) => Err(error),
            Err(SealFailure::Untrusted(order)) => {
                let (log, shared) = (self.log.clone(), self.shared.clone());
                super::blocking(move || {
                    let outcome = shared.repair(&log, order);
                    forget(&shared.live, &log);
                    outcome
                })
                .await
            }
        }
    }

    #[cfg(test)]
    pub(super) fn log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.log.progress().borrow().closed {
            let queue = self.log.abandon();
            // A writer that has ended has written everything already.
            let _ = self.shared.mailbox.send(queue.then_some(&self.log), true);
        }
    }
}
