//! Files whose outcome is known, on their way to recording and trail; whoever brings them waits while they are behind.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use munjigi_core::recording::{EventKind, FileAction, FileChange, FileCopied, FileDirection};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use crate::gateway::facts::SessionFacts;
use crate::gateway::ports::Journal;
use crate::service_event::service_event;
use crate::{Server, lock};

/// Files that may wait before no more bytes of their copy are taken (T-95).
const WAITING: usize = 512;
/// Files that are written into the trail at once.
const AT_ONCE: usize = 256;

/// What happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Noted {
    /// It was copied, or was not.
    Copied(FileCopied),
    /// It was changed, or used in parts, or was not.
    Changed(FileChange),
}

/// Something to be written down.
pub(in crate::gateway) struct Entry {
    pub(in crate::gateway) what: Noted,
    /// Policy's word; the trail has it before the client.
    pub(in crate::gateway) denied: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Entries that were taken and are not written yet.
    being_written: usize,
    is_closed: bool,
    /// Something could not be written into the trail.
    is_lost: bool,
    /// The relay, when it waits for room, or until all is written.
    waiting: Vec<Waker>,
}

/// Between the relay and the task that writes.
#[derive(Default)]
pub(in crate::gateway) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Outbox {
    /// Hands files over. There are never more than may be under way in a copy.
    pub(in crate::gateway) fn push(&self, entries: impl IntoIterator<Item = Entry>) {
        lock(&self.queue).entries.extend(entries);
        self.changed.notify_one();
    }

    /// Tells whether more may come; if not, the task is woken when it may.
    pub(in crate::gateway) fn has_room(&self, cx: &Context<'_>) -> bool {
        lock(&self.queue).wait_unless(cx, |queue| queue.entries.len() < WAITING)
    }

    /// Tells whether everything is written; if not, the task is woken when it may be.
    pub(in crate::gateway) fn is_settled(&self, cx: &Context<'_>) -> bool {
        lock(&self.queue).wait_unless(cx, |queue| queue.entries.is_empty() && queue.being_written == 0)
    }

    /// Tells whether something is missing in the trail: no further file may pass then.
    pub(in crate::gateway) fn is_lost(&self) -> bool {
        lock(&self.queue).is_lost
    }

    /// Nothing more comes.
    pub(in crate::gateway) fn close(&self) {
        lock(&self.queue).is_closed = true;
        self.changed.notify_one();
    }

    /// Writes everything down until it is closed and empty.
    pub(in crate::gateway) async fn write(
        self: Arc<Self>,
        server: Arc<Server>,
        facts: Arc<SessionFacts>,
        journal: Journal,
    ) {
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
            for Entry { what, denied } in entries {
                let event = match what {
                    Noted::Copied(file) => EventKind::File(Box::new(file)),
                    Noted::Changed(change) => EventKind::FileChange(Box::new(change)),
                };
                // The session may be over; its recording is sealed then, and the trail has it all the same.
                let _ = journal.note(event).await;
                told.extend(denied);
            }
            if let Err(error) = server.audit.append_all(records).await {
                tracing::error!(%error, session = %facts.id, "files of a copy could not be audited");
                lock(&self.queue).is_lost = true;
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
    let is_denied = entry.denied.is_some();
    let (name, why, about) = match &entry.what {
        Noted::Copied(file) => of_copy(file),
        Noted::Changed(change) => of_change(change),
    };
    let failure = (!why.is_empty()).then(|| {
        let code = match (is_denied, &entry.what) {
            (true, _) => "AccessDenied",
            (false, Noted::Copied(_)) => "FileNotCopied",
            (false, Noted::Changed(_)) => "FileNotChanged",
        };
        (code, why.to_owned())
    });
    let mut details = json!({
        "sessionId": facts.id,
        "target": facts.node,
        "targetName": facts.node_name,
        "owner": facts.owner,
        "osUser": facts.os_user,
    });
    if let (Some(all), Value::Object(about)) = (details.as_object_mut(), about) {
        all.extend(about);
    }
    service_event(server, name, details, failure)
}

/// Returns an event's name, why it was not done, and what is said of it.
fn of_copy(file: &FileCopied) -> (&'static str, &str, Value) {
    let name = match file.direction {
        FileDirection::Upload => "UploadFile",
        FileDirection::Download => "DownloadFile",
    };
    let about = json!({
        "connection": file.connection,
        "path": file.path,
        "bytes": file.bytes,
        "keptBytes": file.kept,
        "sha256": file.why.is_empty().then(|| hex::encode(file.hash)),
    });
    (name, &file.why, about)
}

fn of_change(change: &FileChange) -> (&'static str, &str, Value) {
    let FileChange { connection, action, path, detail, bytes, why } = change;
    let about = |key: &str| json!({ "connection": connection, "action": action, "path": path, key: detail });
    let parts = || json!({ "connection": connection, "path": path, "bytes": bytes, "parts": detail, "sha256": null });
    let (name, about) = match action {
        FileAction::ReadParts => ("DownloadFile", parts()),
        FileAction::WriteParts => ("UploadFile", parts()),
        FileAction::Rename => ("ChangeFile", about("to")),
        FileAction::SymbolicLink | FileAction::HardLink => ("ChangeFile", about("linksTo")),
        FileAction::Look => ("LookAtFile", about("detail")),
        FileAction::Remove | FileAction::MakeDirectory | FileAction::RemoveDirectory | FileAction::SetAttributes => {
            ("ChangeFile", about("detail"))
        }
    };
    (name, why, about)
}
