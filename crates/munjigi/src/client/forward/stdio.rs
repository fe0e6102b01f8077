//! The one connection that is this program's standard input and output.

use bytes::BytesMut;
use munjigi_core::session::OutputStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::Connector;
use super::serve::COPY_BYTES;
use crate::client::stdio::{Screen, Source};

/// Carries standard input and output until the peer, or whoever reads our output, is done.
pub(crate) async fn stdio(connector: &Connector) -> Result<(), String> {
    let mut connected = connector.connect().await.map_err(|error| error.to_string())?;
    let (read, mut write) = tokio::io::split(&mut connected.far);
    let mut source = Source::stdin().map_err(|error| error.to_string())?;
    let sending = async {
        loop {
            let bytes =
                source.read(COPY_BYTES).await.map_err(|error| format!("cannot read standard input: {error}"))?;
            if bytes.is_empty() {
                // The peer learns that nothing follows, and may go on itself.
                let _ = write.shutdown().await;
                break;
            }
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The other direction decides when it is over.
        std::future::pending::<Result<(), String>>().await
    };
    tokio::select! {
        sent = sending => sent,
        received = receive(read) => received,
    }
}

async fn receive(mut read: impl AsyncRead + Unpin) -> Result<(), String> {
    let mut screen = Screen::new().map_err(|error| error.to_string())?;
    loop {
        let mut buffer = BytesMut::with_capacity(COPY_BYTES);
        let count = read.read_buf(&mut buffer).await.map_err(|error| error.to_string())?;
        screen.push(OutputStream::Stdout, buffer.freeze());
        let shown = if count == 0 { break } else { screen.drain().await };
        match shown {
            Err(error) if error.reader_is_gone() => return Ok(()),
            shown => shown.map_err(|error| error.to_string())?,
        }
    }
    match screen.finish().await {
        Err(error) if !error.reader_is_gone() => Err(error.to_string()),
        _ => Ok(()),
    }
}
