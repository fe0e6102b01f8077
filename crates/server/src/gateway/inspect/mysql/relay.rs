//! Carries a connection behind its logins: bytes pass as they are once the conversation has read them.
//!
//! One task does both directions, since what the client's bytes mean can depend on the server's. Each direction has one
//! buffer of fixed size, whose front may go and whose rest has not been read; a full buffer is not read into, which is the
//! backpressure.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf as _, BufMut as _, BytesMut};
use munjigi_core::mysql::{Conversation, FromClient, HOLD_BYTES};
use munjigi_core::recording::Statement;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::login::LoggedIn;
use super::{Failure, NodeStream};
use crate::gateway::ports::Journal;

/// Bytes of each direction held at most (T-95): more than the beginning of a command that is looked at.
const BUFFER: usize = 64 * 1024;
const _: () = assert!(HOLD_BYTES < BUFFER);
/// Bytes read at once where little comes.
const SMALL: usize = 4 * 1024;

/// One direction.
struct Direction {
    buffer: BytesMut,
    /// Bytes at the front that were read along and may go.
    allowed: usize,
    /// Something was written that is not flushed.
    unflushed: bool,
    /// Bytes read at once: more and more while they come in bulk.
    appetite: usize,
    /// The source has ended.
    ended: bool,
    /// So was the sink told.
    shut: bool,
}

impl Direction {
    fn new(received: BytesMut) -> Self {
        Self { buffer: received, allowed: 0, appetite: SMALL, unflushed: false, ended: false, shut: false }
    }

    fn wants_more(&self) -> bool {
        !self.ended && self.buffer.len() < BUFFER
    }

    /// Returns what was not yet read along.
    fn unread(&self) -> &[u8] {
        self.buffer.get(self.allowed..).unwrap_or_default()
    }

    /// Replaces the next bytes that were not let through.
    fn replace(&mut self, bytes: usize, by: &[u8]) {
        let mut behind = self.buffer.split_off(self.allowed);
        behind.advance(bytes);
        self.buffer.extend_from_slice(by);
        self.allowed += by.len();
        self.buffer.unsplit(behind);
    }

    /// Reads once; may be given up and begun again.
    async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
        if self.buffer.is_empty() && self.appetite == SMALL {
            // What bulk needed is given back.
            self.buffer = BytesMut::new();
        }
        let most = self.appetite.min(BUFFER.saturating_sub(self.buffer.len()));
        self.buffer.reserve(most);
        let read = source.read_buf(&mut (&mut self.buffer).limit(most)).await?;
        self.ended = read == 0;
        self.appetite = if read == most { (2 * self.appetite).min(BUFFER) } else { SMALL };
        Ok(())
    }

    fn has_to_send(&self) -> bool {
        self.allowed > 0 || self.unflushed || (self.ended && !self.shut)
    }

    /// Takes one step of sending; may be given up and begun again.
    async fn send(&mut self, sink: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        if self.allowed > 0 {
            let written = sink.write(self.buffer.get(..self.allowed).unwrap_or_default()).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.buffer.advance(written);
            self.allowed -= written;
            self.unflushed = true;
        } else if self.unflushed {
            sink.flush().await?;
            self.unflushed = false;
        } else {
            sink.shutdown().await?;
            self.shut = true;
        }
        Ok(())
    }
}

struct Relay<'j> {
    conversation: Conversation,
    journal: &'j Journal,
    /// To the server.
    up: Direction,
    /// To the client.
    down: Direction,
    /// When the statements that have no end yet went on; answers come in their order.
    begun: VecDeque<(u64, Instant)>,
}

/// Carries the connection until it ends or is cut. Statements without an answer are noted as lost.
pub(super) async fn run(logged_in: LoggedIn, journal: &Journal) -> Result<(), Failure> {
    let LoggedIn { client, target, conversation } = logged_in;
    let mut relay = Relay {
        conversation,
        journal,
        up: Direction::new(client.received),
        down: Direction::new(target.received),
        begun: VecDeque::new(),
    };
    let result = relay.carry(client.stream, target.stream).await;
    relay.conversation.abandon();
    result.and(relay.note_ends().await)
}

impl Relay<'_> {
    async fn carry(&mut self, client: NodeStream, target: NodeStream) -> Result<(), Failure> {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_target, mut to_target) = tokio::io::split(target);
        loop {
            self.read_along().await?;
            if self.down.ended && self.down.shut {
                return Ok(());
            }
            let hears_client = self.up.wants_more() && !self.conversation.has_quit();
            let (up_sends, down_sends) = (self.up.has_to_send(), self.down.has_to_send());
            let hears_target = self.down.wants_more();
            // Two borrows of each direction would be needed at once: one step of one kind per direction.
            let up = async {
                match (up_sends, hears_client) {
                    (true, _) => self.up.send(&mut to_target).await,
                    (false, true) => self.up.fill(&mut from_client).await,
                    (false, false) => std::future::pending().await,
                }
            };
            let down = async {
                match (down_sends, hears_target) {
                    (true, _) => self.down.send(&mut to_client).await,
                    (false, true) => self.down.fill(&mut from_target).await,
                    (false, false) => std::future::pending().await,
                }
            };
            tokio::select! {
                done = up => done?,
                done = down => done?,
            }
        }
    }

    /// Lets go what can be read.
    async fn read_along(&mut self) -> Result<(), Failure> {
        loop {
            let mut is_still = true;
            match self.conversation.from_client(self.up.unread())? {
                FromClient::More | FromClient::Full => {}
                FromClient::Pass { bytes, statement } => {
                    self.note(statement).await?;
                    self.up.allowed += bytes;
                    is_still = false;
                }
                FromClient::Drop { bytes, statement } => {
                    self.note(statement).await?;
                    self.up.replace(bytes, &[]);
                    is_still = false;
                }
            }
            let passed = self.conversation.from_server(self.down.unread())?;
            self.down.allowed += passed;
            if let Some(answer) = self.conversation.answer() {
                self.down.replace(0, &answer);
                is_still = false;
            }
            self.note_ends().await?;
            if is_still && passed == 0 {
                return Ok(());
            }
        }
    }

    /// Has a statement recorded; under strict recording it is on the disk when this returns.
    async fn note(&mut self, statement: Option<Box<Statement>>) -> Result<(), Failure> {
        if let Some(statement) = statement {
            self.begun.push_back((statement.number, Instant::now()));
            self.journal.begin(*statement).await?;
            self.journal.settled().await?;
        }
        Ok(())
    }

    async fn note_ends(&mut self) -> Result<(), Failure> {
        while let Some(mut end) = self.conversation.ended() {
            while let Some((number, begun)) = self.begun.pop_front_if(|(number, _)| *number <= end.number) {
                if number == end.number {
                    end.micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                }
            }
            self.journal.end(end).await?;
        }
        Ok(())
    }
}
