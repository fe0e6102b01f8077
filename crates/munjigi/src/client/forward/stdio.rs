//! The one connection that is this program's standard input and output.

use std::cell::Cell;
use std::time::Duration;

use bytes::BytesMut;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::session::OutputStream;
use munjigi_link::MovingStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Connector;
use super::connect::ConnectError;
use super::serve::COPY_BYTES;
use crate::client::stdio::{Screen, ScreenError, Source, close_output};

/// How long bytes that were sent after the peer's end may take to reach it.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// What happens when the peer has ended its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// It is all over: somebody else, too, holds our standard output open, and nobody would notice its end.
    EndsAll,
    /// Standard output is closed, and standard input goes on to its own end.
    EndsOutput,
}

/// Why the bytes were not carried to their end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdioError {
    /// There was no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    /// Standard input cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(std::io::Error),
    /// Standard output cannot be written.
    #[error(transparent)]
    Output(#[from] ScreenError),
}

/// Carries standard input and output until both are over, or whoever reads our output has gone.
pub(crate) async fn stdio(
    connector: &Connector,
    endpoint: Option<&Endpoint>,
    peer_end: PeerEnd,
) -> Result<(), StdioError> {
    let source = Source::stdin().map_err(StdioError::Input)?;
    let mut connected = connector.connect(endpoint).await?;
    carry(source, &mut connected.far, peer_end).await
}

/// Carries standard input and output over a connection that stands, as [`stdio`] does.
pub(crate) async fn carry(mut source: Source, far: &mut MovingStream, peer_end: PeerEnd) -> Result<(), StdioError> {
    let (read, mut write) = tokio::io::split(far);
    let count = Cell::new(0);
    let sending = send(&mut source, &mut write, &count);
    tokio::pin!(sending);
    let mut sent = false;
    let receiving = receive(read);
    tokio::pin!(receiving);
    let received = loop {
        tokio::select! {
            done = &mut sending, if !sent => {
                // Input that nobody takes any more: what the peer still says decides.
                done?;
                sent = true;
            }
            received = &mut receiving => break received?,
        }
    };
    if received == Received::ReaderGone || peer_end == PeerEnd::EndsAll {
        return Ok(());
    }
    close_output();
    if sent {
        return Ok(());
    }
    let before = count.get();
    sending.await?;
    if count.get() > before {
        // Nobody says when the peer has it all, and with this program its connection ends.
        tokio::time::sleep(LAST_BYTES).await;
    }
    Ok(())
}

/// Sends standard input to its end, or until the peer takes no more.
async fn send(source: &mut Source, write: &mut (impl AsyncWrite + Unpin), sent: &Cell<u64>) -> Result<(), StdioError> {
    loop {
        let bytes = source.read(COPY_BYTES).await.map_err(StdioError::Input)?;
        if bytes.is_empty() {
            // The peer learns that nothing follows, and may go on itself.
            let _ = write.shutdown().await;
            return Ok(());
        }
        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
            return Ok(());
        }
        sent.set(sent.get() + bytes.len() as u64);
    }
}

/// How receiving ended.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    /// The peer has said everything.
    Everything,
    /// Nobody reads our output any more.
    ReaderGone,
}

async fn receive(mut read: impl AsyncRead + Unpin) -> Result<Received, StdioError> {
    let mut screen = Screen::new().map_err(StdioError::Input)?;
    loop {
        let mut buffer = BytesMut::with_capacity(COPY_BYTES);
        let count = read.read_buf(&mut buffer).await.map_err(StdioError::Broken)?;
        if count == 0 {
            break;
        }
        screen.push(OutputStream::Stdout, buffer.freeze());
        match screen.drain().await {
            Err(error) if error.reader_is_gone() => return Ok(Received::ReaderGone),
            shown => shown?,
        }
    }
    match screen.finish().await {
        Err(error) if error.reader_is_gone() => Ok(Received::ReaderGone),
        shown => Ok(shown.map(|()| Received::Everything)?),
    }
}
