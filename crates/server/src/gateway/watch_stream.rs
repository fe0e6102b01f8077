//! Readers of a session who do not type: a watcher of a live session, or a client that comes back after its end.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::wire::message::End;
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;

use super::Handle;
use super::backlog;
use super::log::{Chunk, LogRead, SessionLog};
use super::peer::FrameStream;
use crate::Server;

/// Delivers the output of a live session from `cursor` on, then its end. Ends early when the reader leaves.
pub(super) async fn live(
    server: &Arc<Server>,
    handle: &Handle,
    stream: &mut FrameStream,
    mut cursor: u64,
) -> Result<(), FramedError> {
    let mut visible = handle.log.subscribe();
    let mut outcome = handle.outcome.clone();
    loop {
        // Looked at before the log: what became visible before the end is delivered before the end.
        let over = outcome.borrow_and_update().clone();
        visible.mark_unchanged();
        cursor = catch_up(server, &handle.facts.id, &handle.log, stream, cursor).await?;
        if let Some(over) = over {
            stream.feed(&Frame::End(over.to_end()));
            return stream.writer.close().await;
        }
        tokio::select! {
            changed = visible.changed() => if changed.is_err() { return stream.writer.close().await },
            changed = outcome.changed() => if changed.is_err() { return stream.writer.close().await },
            left = stream.reader.read(FrameSet::FROM_WATCHER) => { left?; return Ok(()) }
        }
    }
}

async fn catch_up(
    server: &Arc<Server>,
    session: &SessionId,
    log: &SessionLog,
    stream: &mut FrameStream,
    mut cursor: u64,
) -> Result<u64, FramedError> {
    loop {
        match log.read(cursor) {
            LogRead::AtEnd => return Ok(cursor),
            LogRead::Chunk(chunk) => cursor = send(stream, chunk).await?,
            LogRead::OnDisk(until) => cursor = from_recording(server, session, stream, cursor, until).await?,
        }
    }
}

/// Delivers recorded output between two offsets. What cannot be read is skipped: a reader must not hang on it.
async fn from_recording(
    server: &Arc<Server>,
    session: &SessionId,
    stream: &mut FrameStream,
    mut cursor: u64,
    until: u64,
) -> Result<u64, FramedError> {
    let mut pieces = backlog::read(server, session, cursor, until);
    while let Some(piece) = pieces.recv().await {
        match piece {
            Ok(chunk) => cursor = send(stream, chunk).await?,
            Err(error) => {
                tracing::error!(%session, error, "a recording could not be read for its reader");
                return Ok(until);
            }
        }
    }
    Ok(cursor.max(until))
}

async fn send(stream: &mut FrameStream, chunk: Chunk) -> Result<u64, FramedError> {
    let end = chunk.end();
    stream.writer.send(&Frame::Output { offset: chunk.offset, stream: chunk.stream, data: chunk.data }).await?;
    Ok(end)
}

/// Delivers the rest of a session that is over, and its end.
pub(super) async fn past(
    server: &Arc<Server>,
    session: &SessionId,
    stream: &mut FrameStream,
    cursor: u64,
    output_end: u64,
    end: End,
) -> Result<(), FramedError> {
    if cursor < output_end {
        from_recording(server, session, stream, cursor, output_end).await?;
    }
    stream.feed(&Frame::End(end));
    stream.writer.close().await
}
