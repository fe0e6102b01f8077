//! Port sessions whose bytes are one connection's, as they are: one local connection after another (towards old agents),
//! or standard input and output (`ssh` with this program as its ProxyCommand).

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use munjigi_core::session::OutputStream;
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::Ended;
use super::data_channel::{DataChannel, Happened};
use crate::client::forward::{Listener, Near};
use crate::client::signals::{Came, Signals};
use crate::client::stdio::{Screen, ScreenError, Source};
use crate::plugin::note;
use crate::plugin::words::Words;

/// Bytes from the service that wait for the local end; when there are more, nothing is taken from the channel.
const MAX_WAITING: usize = 256 * 1024;
/// Most bytes read from the local end at once.
const READ_BYTES: usize = 32 * 1024;

/// Carries a session whose connection is standard input and output. Nothing but the peer's bytes goes out.
pub(crate) async fn stdio(channel: &mut DataChannel, signals: &mut Signals) -> anyhow::Result<Ended> {
    let mut source = Source::stdin()?;
    let mut screen = Screen::new()?;
    let ended = loop {
        let (wanted, room) = (screen.pending() < MAX_WAITING, channel.room().min(READ_BYTES));
        tokio::select! {
            came = signals.next() => if let Came::Signal(signal) = came { return Ok(Ended::Interrupted(signal)) },
            typed = source.read(room), if room > 0 => match typed {
                // The original ends here as well: the protocol knows no end of one direction.
                Ok(bytes) if bytes.is_empty() => return Ok(Ended::NoInput),
                Ok(bytes) => send(channel, bytes),
                Err(error) => return Ok(Ended::Failed(format!("cannot read standard input: {error}"))),
            },
            shown = screen.drain(), if screen.pending() > 0 => if let Err(error) = shown { return Ok(not_shown(&error)) },
            happened = channel.next(wanted) => match received(happened) {
                Received::Bytes(bytes) => screen.push(OutputStream::Stdout, bytes),
                Received::Nothing => {}
                Received::Unreachable => note("the connection to the destination's port failed"),
                Received::End(ended) => break ended,
            },
        }
    };
    if let Err(error) = screen.finish().await {
        return Ok(not_shown(&error));
    }
    Ok(ended)
}

fn not_shown(error: &ScreenError) -> Ended {
    if error.reader_is_gone() { Ended::NoInput } else { Ended::Failed(error.to_string()) }
}

/// Carries a session with one local connection at a time.
pub(crate) async fn forward(
    channel: &mut DataChannel,
    listener: &Listener,
    words: &Words,
    signals: &mut Signals,
) -> io::Result<Ended> {
    let mut any = false;
    loop {
        let (reader, writer) = tokio::select! {
            came = signals.next() => match came {
                Came::Signal(signal) => return Ok(Ended::Interrupted(signal)),
                Came::WindowChanged => continue,
            },
            accepted = listener.accept() => match accepted {
                Ok(near) => tokio::io::split(near),
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    continue;
                }
            },
            // What comes without a connection is for none, and stays where it is.
            happened = channel.next(false) => match received(happened) {
                Received::End(ended) => return Ok(ended),
                _ => continue,
            },
        };
        if !std::mem::replace(&mut any, true) {
            words.connected()?;
        }
        if let Some(ended) = serve(channel, reader, writer, words, signals).await? {
            return Ok(ended);
        }
        // The agent closes its connection, and makes another with the next bytes.
        if let Err(error) = channel.queue(PayloadType::Flag, Flag::DisconnectToPort.bytes()) {
            tracing::debug!(%error, "the end of a connection could not be told");
        }
    }
}

/// Serves one connection; `None` when it was closed here.
async fn serve(
    channel: &mut DataChannel,
    mut reader: ReadHalf<Near>,
    mut writer: WriteHalf<Near>,
    words: &Words,
    signals: &mut Signals,
) -> io::Result<Option<Ended>> {
    let mut waiting = BytesMut::new();
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let ended = loop {
        let (wanted, room) = (waiting.len() < MAX_WAITING, channel.room().min(READ_BYTES));
        buffer.reserve(READ_BYTES);
        let mut limited = (&mut reader).take(room as u64);
        tokio::select! {
            came = signals.next() => if let Came::Signal(signal) = came { return Ok(Some(Ended::Interrupted(signal))) },
            read = limited.read_buf(&mut buffer), if room > 0 => match read {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => send(channel, buffer.split().freeze()),
            },
            written = writer.write(&waiting), if !waiting.is_empty() => match written {
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => waiting.advance(count),
            },
            happened = channel.next(wanted) => match received(happened) {
                Received::Bytes(bytes) => waiting.extend_from_slice(&bytes),
                Received::Nothing => {}
                Received::Unreachable => {
                    words.unreachable()?;
                    return Ok(None);
                }
                Received::End(ended) => break ended,
            },
        }
    };
    // The last bytes; the program here may be gone.
    let _ = writer.write_all(&waiting).await;
    Ok(Some(ended))
}

enum Received {
    Bytes(Bytes),
    Nothing,
    Unreachable,
    End(Ended),
}

fn received(happened: Happened) -> Received {
    match happened {
        Happened::Delivered(PayloadType::Flag, payload) => match Flag::parse(&payload) {
            Some(Flag::ConnectToPortError) => Received::Unreachable,
            _ => Received::Nothing,
        },
        Happened::Delivered(PayloadType::Output, bytes) => Received::Bytes(bytes),
        Happened::Delivered(kind, _) => {
            tracing::debug!(?kind, "a payload that a port session has no use for");
            Received::Nothing
        }
        Happened::Room => Received::Nothing,
        Happened::Say(text) => {
            note(&text);
            Received::Nothing
        }
        Happened::Closed(why) => Received::End(Ended::Closed(why)),
        Happened::Gone => Received::End(Ended::Gone),
        Happened::Failed(why) => Received::End(Ended::Failed(why)),
    }
}

fn send(channel: &mut DataChannel, bytes: Bytes) {
    if let Err(error) = channel.queue(PayloadType::Output, bytes) {
        // No more is read than there is room for.
        tracing::error!(%error, "bytes of a port session were lost");
    }
}
