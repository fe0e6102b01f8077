//! Carries one copy: files are read and written on threads, the link stays with the event loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut as _;
use futures_util::FutureExt as _;
use munjigi_copy::chunk::{CHUNK_BYTES, Chunk, In, Out, Pool, channel};
use munjigi_copy::{CopyFailure, Progress};
use munjigi_core::endpoint::Endpoint;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::forward::Connector;

/// How long the node's worker may take to end once everything is said, and the server to write it down.
const GOODBYE: Duration = Duration::from_secs(10);

/// How a copy over one connection ended.
pub(crate) enum Carried {
    /// All was said; single entries may have failed.
    Done,
    /// The link or the node's side broke; another connection may go on.
    Broke(String),
    /// It makes no sense to try again.
    Failed(String),
}

/// Connects to the endpoint's worker and runs `work` on a thread of its own.
pub(crate) async fn copy(
    connector: &Connector,
    endpoint: &Endpoint,
    progress: &Arc<Progress>,
    work: impl FnOnce(Out, In, &Arc<Progress>) -> Result<(), CopyFailure> + Send + 'static,
) -> Carried {
    let connected = match connector.connect(Some(endpoint)).await {
        Ok(connected) => connected,
        Err(error) if error.may_pass() => return Carried::Broke(error.to_string()),
        Err(error) => return Carried::Failed(error.to_string()),
    };
    let (read, write) = tokio::io::split(connected.far);
    let ((to_work, from_link), (to_link, from_work)) = (channel(), channel());
    let progress = Arc::clone(progress);
    let working = tokio::task::spawn_blocking(move || work(Out::new(to_link), In::new(from_link), &progress));
    let carrying = async {
        // Each side ends by itself; what breaks is seen by the work, whose channels end.
        let (read, written) = tokio::join!(receive(read, to_work), send(write, from_work));
        read.and(written)
    };
    tokio::pin!(carrying, working);
    let (result, broke) = tokio::select! {
        result = &mut working => {
            let ended = timeout(GOODBYE, carrying).await;
            (result, ended.ok().and_then(Result::err))
        }
        carried = &mut carrying => ((&mut working).await, carried.err()),
    };
    match result {
        Ok(Ok(())) => Carried::Done,
        Ok(Err(CopyFailure::Gone)) => {
            Carried::Broke(broke.map_or_else(|| CopyFailure::Gone.to_string(), |error| error.to_string()))
        }
        Ok(Err(failure)) => Carried::Failed(failure.to_string()),
        Err(error) => Carried::Failed(format!("the copy was given up: {error}")),
    }
}

/// From the link to the work, in chunks as large as what is there.
async fn receive(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Chunk>) -> io::Result<()> {
    let pool = Pool::default();
    let mut ended = false;
    while !ended {
        let mut chunk = pool.take();
        let buffer = chunk.buffer();
        while buffer.len() < CHUNK_BYTES && !ended {
            let is_first = buffer.is_empty();
            let room = CHUNK_BYTES - buffer.len();
            let mut place = (&mut *buffer).limit(room);
            let reading = from.read_buf(&mut place);
            let count = if is_first {
                reading.await?
            } else {
                match reading.now_or_never() {
                    Some(count) => count?,
                    None => break,
                }
            };
            ended = count == 0;
        }
        // The work has what it needs, or was given up.
        if !chunk.bytes().is_empty() && to.send(chunk).await.is_err() {
            // What still comes is for nobody, but must not stand in the way of what is still to be sent.
            tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
            return Ok(());
        }
    }
    Ok(())
}

/// From the work to the link.
async fn send(mut to: impl AsyncWrite + Unpin, mut from: mpsc::Receiver<Chunk>) -> io::Result<()> {
    while let Some(chunk) = from.recv().await {
        to.write_all(chunk.bytes()).await?;
        if from.is_empty() {
            to.flush().await?;
        }
    }
    to.shutdown().await
}
