//! `scp -O`: the protocol of rcp, spoken by the gateway over the SFTP worker, so that it is judged and recorded like everything
//! else.
//!
//! There is no specification but the program (OpenSSH's `scp.c`): lines with a letter in front, each answered by a byte of 0,
//! or by 1 (go on) or 2 (give up) and a line for people.

use std::io;
use std::sync::Arc;

use munjigi_core::file_command::{ScpCall, ScpSide};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::client::{Client, Failed};
use super::follow::Follower;
use super::session::FilesSession;
use super::{FileEnd, rcp_sink, rcp_source, relay};
use crate::Server;
use crate::gateway::copying::outbox::Outbox;

/// Bytes between this door and the follower, each way (T-95).
const BUFFER: usize = 512 * 1024;
/// Longest line in bytes: a name of 4095 and what stands before it.
const MAX_LINE: u64 = 4096 + 64;
/// How deep directories may stand in each other.
pub(super) const MAX_DEPTH: usize = 64;

/// Why the conversation ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// One end is gone.
    Gone,
    /// The other end does not speak the protocol; for people.
    Protocol(&'static str),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// The client's end.
pub(super) struct Peer<S> {
    stream: BufReader<S>,
    /// Something was not copied.
    pub(super) has_failed: bool,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Peer<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(BUFFER, stream), has_failed: false }
    }

    /// Says that all is well.
    pub(super) async fn well(&mut self) -> Result<(), Stop> {
        self.send(&[0]).await
    }

    /// Says what is not.
    pub(super) async fn complain(&mut self, path: &str, why: &str) -> Result<(), Stop> {
        self.has_failed = true;
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(2000).collect::<String>();
        self.send(format!("\u{1}scp: {}: {}\n", clean(path), clean(why)).as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.stream.get_mut().write_all(bytes).await?;
        Ok(self.stream.get_mut().flush().await?)
    }

    /// Returns where bytes of a file go; [`Self::send`] flushes them.
    pub(super) fn writer(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// Reads the answer to something: whether it was taken.
    pub(super) async fn answer(&mut self) -> Result<bool, Stop> {
        match self.stream.read_u8().await? {
            0 => Ok(true),
            1 => {
                self.has_failed = true;
                self.line().await?;
                Ok(false)
            }
            _ => {
                self.has_failed = true;
                Err(Stop::Gone)
            }
        }
    }

    /// Reads a line without its end; `None` when the client is done.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) => Err(Stop::Protocol("a line is longer than it may be, or has no end")),
        }
    }

    /// Reads up to `most` bytes of a file.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        match self.stream.read(buffer).await? {
            0 => Err(Stop::Gone),
            count => Ok(count),
        }
    }
}

/// Serves one call of `scp`.
pub(super) async fn serve<S>(server: &Arc<Server>, session: &FilesSession, stream: S, call: ScpCall) -> FileEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Some((connection, judge)) = session.take() else { return FileEnd::failed("the session has no connection") };
    let journal = session.journal(&connection);
    let outbox = Arc::new(Outbox::default());
    let facts = Arc::clone(&session.session().handle().facts);
    let written = tokio::spawn(Arc::clone(&outbox).write(Arc::clone(server), facts, journal));
    let follower = Follower::new(judge, connection.number()).of_door();
    let (near, far) = tokio::io::duplex(BUFFER);
    let (ended, carried) =
        tokio::join!(converse(stream, near, &call), relay::carry(far, connection, follower, &outbox));
    let _ = written.await;
    match carried {
        Err(error) if ended.status == 0 => FileEnd::failed(format!("the transfer ended: {error}")),
        _ if outbox.is_lost() => FileEnd::failed("what was done could not be written into the trail"),
        _ => ended,
    }
}

/// Speaks with the client to the end.
pub(super) async fn converse<S>(stream: S, near: tokio::io::DuplexStream, call: &ScpCall) -> FileEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut peer = Peer::new(stream);
    let mut client = match Client::new(near).await {
        Ok(client) => client,
        Err(failed) => return FileEnd::failed(failed.words()),
    };
    let result = match call.side {
        ScpSide::Sink => rcp_sink::sink(&mut peer, &mut client, call).await,
        ScpSide::Source => rcp_source::source(&mut peer, &mut client, call).await,
    };
    match result {
        Ok(()) if !peer.has_failed => FileEnd::default(),
        // The client has heard of each.
        Ok(()) => FileEnd::failed(""),
        Err(Stop::Gone) => FileEnd::failed("the transfer broke off"),
        Err(Stop::Protocol(why)) => {
            // It may be gone as well.
            let _ = peer.send(format!("\u{2}scp: protocol error: {why}\n").as_bytes()).await;
            FileEnd::failed(format!("scp: protocol error: {why}"))
        }
    }
}

/// Tells a lost connection from what only one file has met.
pub(super) fn or_gone(failed: Failed) -> Result<String, Stop> {
    match failed {
        Failed::Gone => Err(Stop::Gone),
        said => Ok(said.words()),
    }
}

/// Tells whether attributes are those of a directory.
pub(super) fn is_directory(attributes: &munjigi_core::sftp::Attributes) -> bool {
    kind(attributes) == 0o040_000
}

/// Tells whether attributes are those of a file.
pub(super) fn is_file(attributes: &munjigi_core::sftp::Attributes) -> bool {
    kind(attributes) == 0o100_000
}

fn kind(attributes: &munjigi_core::sftp::Attributes) -> u32 {
    attributes.permissions.unwrap_or_default() & 0o170_000
}

/// Returns a path below a directory.
pub(super) fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_empty() || directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}
