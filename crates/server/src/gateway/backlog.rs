//! Output that is no longer in memory, read from the recording and handed over piece by piece.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::recording::EventKind;
use tokio::sync::mpsc;

use super::log::Chunk;
use crate::Server;
use crate::recording::ReadFrom;

/// Pieces read ahead of the one that is being sent.
const AHEAD: usize = 2;
/// Most bytes of one read from the recording.
const READ_BYTES: usize = 32 * 1024;

/// Reads output from `from` up to `until` in a task of its own, which ends with the receiver.
pub(super) fn read(
    server: &Arc<Server>,
    session: &SessionId,
    from: u64,
    until: u64,
) -> mpsc::Receiver<Result<Chunk, String>> {
    let (pieces_tx, pieces) = mpsc::channel(AHEAD);
    let (server, session) = (server.clone(), session.clone());
    tokio::spawn(async move {
        if let Err(error) = copy(&server, &session, from, until, &pieces_tx).await {
            // The receiver may be gone: then nobody wants to know.
            let _ = pieces_tx.send(Err(error)).await;
        }
    });
    pieces
}

async fn copy(
    server: &Server,
    session: &SessionId,
    from: u64,
    until: u64,
    pieces: &mpsc::Sender<Result<Chunk, String>>,
) -> Result<(), String> {
    let mut reader =
        server.recordings.reader(session, ReadFrom::Output(from)).await.map_err(|error| error.to_string())?;
    let mut next = from;
    while next < until {
        let events = reader.available(READ_BYTES).await.map_err(|error| error.to_string())?.events;
        if events.is_empty() {
            return Err(format!("the recording ends at output {next}, before {until}"));
        }
        for event in events {
            let EventKind::Output { stream, offset, bytes } = event.kind else { continue };
            let Some(mut chunk) = (Chunk { offset, stream, data: bytes }).from_offset(next) else { continue };
            let left = usize::try_from(until.saturating_sub(next)).unwrap_or(usize::MAX);
            chunk.data.truncate(left.min(chunk.data.len()));
            next = chunk.end();
            for piece in chunk.pieces() {
                if pieces.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            if next >= until {
                break;
            }
        }
    }
    Ok(())
}
