//! Files whose outcome is known, on their way to recording and trail; whoever brings them waits while they are behind.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use munjigi_core::recording::{EventKind, FileCopied, FileDirection};
use serde_json::json;
use tokio::sync::{Notify, oneshot};

use crate::gateway::facts::SessionFacts;
use crate::gateway::ports::Journal;
use crate::service_event::service_event;
use crate::{Server, lock};

/// Files that may wait before no more bytes of their copy are taken (T-95).
const WAITING: usize = 512;
/// Files that are written into the trail at once.
const AT_ONCE: usize = 256;

/// A file to be written down.
pub(super) struct Entry {
    pub(super) file: FileCopied,
    /// Policy's word; the trail has it before the client.
    pub(super) denied: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Entries that were taken and are not written yet.
    being_written: usize,
    is_closed: bool,
    /// The relay, when it waits for room, or until all is written.
    waiting: Vec<Waker>,
}

/// Between the relay and the task that writes.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Outbox {
    /// Hands files over. There are never more than may be under way in a copy.
    pub(super) fn push(&self, entries: impl IntoIterator<Item = Entry>) {
        lock(&self.queue).entries.extend(entries);
        self.changed.notify_one();
    }

    /// Tells whether more may come; if not, the task is woken when it may.
    pub(super) fn has_room(&self, cx: &Context<'_>) -> bool {
        lock(&self.queue).wait_unless(cx, |queue| queue.entries.len() < WAITING)
    }

    /// Tells whether everything is written; if not, the task is woken when it may be.
    pub(super) fn is_settled(&self, cx: &Context<'_>) -> bool {
        lock(&self.queue).wait_unless(cx, |queue| queue.entries.is_empty() && queue.being_written == 0)
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        lock(&self.queue).is_closed = true;
        self.changed.notify_one();
    }

    /// Writes everything down until it is closed and empty.
    pub(super) async fn write(self: Arc<Self>, server: Arc<Server>, facts: Arc<SessionFacts>, journal: Journal) {
        loop {
            let (entries, is_closed, waiting) = self.take();
            waiting.into_iter().for_each(Waker::wake);
            if entries.is_empty() {
                if is_closed {
                    return;
                }
                self.changed.notified().await;
                continue;
            }
            let records = entries.iter().map(|entry| record(&server, &facts, entry)).collect();
            let mut told = Vec::new();
            for Entry { file, denied } in entries {
                // The session may be over; its recording is sealed then, and the trail has it all the same.
                let _ = journal.note(EventKind::File(Box::new(file))).await;
                told.extend(denied);
            }
            if let Err(error) = server.audit.append_all(records).await {
                tracing::error!(%error, session = %facts.id, "files of a copy could not be audited");
            }
            for denied in told {
                // The copy may have been cut meanwhile.
                let _ = denied.send(());
            }
            self.written().into_iter().for_each(Waker::wake);
        }
    }

    /// Takes everything that waits.
    #[cfg(test)]
    pub(super) fn take_all(&self) -> Vec<Entry> {
        lock(&self.queue).entries.drain(..).collect()
    }

    fn take(&self) -> (Vec<Entry>, bool, Vec<Waker>) {
        let mut queue = lock(&self.queue);
        let count = queue.entries.len().min(AT_ONCE);
        let entries = queue.entries.drain(..count).collect();
        queue.being_written = count;
        let is_closed = queue.is_closed && queue.entries.is_empty();
        (entries, is_closed, std::mem::take(&mut queue.waiting))
    }

    fn written(&self) -> Vec<Waker> {
        let mut queue = lock(&self.queue);
        queue.being_written = 0;
        std::mem::take(&mut queue.waiting)
    }
}

impl Queue {
    fn wait_unless(&mut self, cx: &Context<'_>, is_so: impl Fn(&Self) -> bool) -> bool {
        let is_so = is_so(self);
        if !is_so && !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        is_so
    }
}

fn record(server: &Server, facts: &SessionFacts, entry: &Entry) -> munjigi_core::audit::AuditRecord {
    let file = &entry.file;
    let name = match file.direction {
        FileDirection::Upload => "UploadFile",
        FileDirection::Download => "DownloadFile",
    };
    let failure = (!file.why.is_empty()).then(|| {
        let code = if entry.denied.is_some() { "AccessDenied" } else { "FileNotCopied" };
        (code, file.why.clone())
    });
    let hash = failure.is_none().then(|| hex::encode(file.hash));
    let details = json!({
        "sessionId": facts.id,
        "target": facts.node,
        "targetName": facts.node_name,
        "owner": facts.owner,
        "osUser": facts.os_user,
        "connection": file.connection,
        "path": file.path,
        "bytes": file.bytes,
        "keptBytes": file.kept,
        "sha256": hash,
    });
    service_event(server, name, details, failure)
}
