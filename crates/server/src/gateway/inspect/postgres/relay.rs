//! Carries a connection that is logged in: each piece is read along, noted, and then goes on as it is.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use munjigi_core::postgres::{self, Conversation};
use munjigi_core::recording::EventKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{CLOSE_LIMIT, Failure};
use crate::gateway::nodes::NodeStream;
use crate::gateway::ports::Journal;
use crate::lock;

/// Bytes read at once in each direction (T-95).
const BUFFER: usize = 32 * 1024;

/// What both directions share.
struct Shared<'a> {
    journal: &'a Journal,
    conversation: Mutex<Conversation>,
    begun: Instant,
    /// Something was answered.
    answered: Notify,
    /// What the client has got ends between two messages: it can be told something more.
    is_between: AtomicBool,
}

impl Shared<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn note(&self, events: Vec<EventKind>) -> Result<(), Failure> {
        for event in events {
            self.journal.note(event).await?;
        }
        Ok(())
    }
}

/// Carries bytes until the server's side has ended, or either broke.
pub(super) async fn relay(journal: &Journal, conversation: Conversation, client: NodeStream, target: NodeStream) {
    let shared = Shared {
        journal,
        conversation: Mutex::new(conversation),
        begun: Instant::now(),
        answered: Notify::new(),
        is_between: AtomicBool::new(true),
    };
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut target_read, mut target_write) = tokio::io::split(target);
    let ended = {
        let up = up(&shared, &mut client_read, &mut target_write);
        let down = down(&shared, &mut target_read, &mut client_write);
        tokio::pin!(up, down);
        tokio::select! {
            sent = &mut up => match sent {
                // The client has no more to say and may still listen.
                Ok(()) => down.as_mut().await,
                failed => failed,
            },
            ended = &mut down => ended,
        }
    };
    if let Err(failure) = &ended {
        tracing::debug!(%failure, connection = journal.connection(), "a connection with eyes broke");
        let lost = matches!(failure, Failure::Io(error) if error.kind() != io::ErrorKind::ConnectionAborted);
        if !lost && shared.is_between.load(Ordering::Relaxed) {
            let mut error = Vec::new();
            postgres::fatal(failure.code(), &failure.to_string(), &mut error);
            // One that takes nothing more loses the last words.
            let _ = timeout(CLOSE_LIMIT, client_write.write_all(&error)).await;
        }
    }
    let mut events = Vec::new();
    let now = shared.now();
    lock(&shared.conversation).lost(now, &mut events);
    // An error means that the session is over, and its recording too.
    let _ = shared.note(events).await;
    if ended.is_ok() || shared.is_between.load(Ordering::Relaxed) {
        let _ = timeout(CLOSE_LIMIT, client_write.shutdown()).await;
    }
}

/// From the client to the server. Nothing of a piece goes on before all of it is noted, and, under strict recording, on
/// the disk.
async fn up(
    shared: &Shared<'_>,
    client: &mut ReadHalf<NodeStream>,
    target: &mut WriteHalf<NodeStream>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER];
    loop {
        // A client that asks on and on without an answer waits here (T-95).
        while !lock(&shared.conversation).takes_more() {
            shared.answered.notified().await;
        }
        let count = client.read(&mut buffer).await?;
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            target.shutdown().await?;
            return Ok(());
        }
        let mut events = Vec::new();
        let read = lock(&shared.conversation).from_client(piece, shared.now(), &mut events);
        shared.note(events).await?;
        read?;
        shared.journal.settled().await?;
        target.write_all(piece).await?;
        target.flush().await?;
    }
}

/// From the server to the client.
async fn down(
    shared: &Shared<'_>,
    target: &mut ReadHalf<NodeStream>,
    client: &mut WriteHalf<NodeStream>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = target.read(&mut buffer).await?;
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            return Ok(());
        }
        let mut events = Vec::new();
        let (read, is_between) = {
            let mut conversation = lock(&shared.conversation);
            (conversation.from_server(piece, shared.now(), &mut events), conversation.server_is_between())
        };
        shared.answered.notify_one();
        shared.note(events).await?;
        read?;
        shared.is_between.store(false, Ordering::Relaxed);
        client.write_all(piece).await?;
        client.flush().await?;
        shared.is_between.store(is_between, Ordering::Relaxed);
    }
}
