//! The client's first packets: encryption, then what it wants.

use std::io::Cursor;

use munjigi_core::postgres::{First, Login, MAX_FIRST_PACKET, Violation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Failure;
use crate::gateway::inspect::{Context, TlsError};
use crate::gateway::nodes::NodeStream;

/// First byte of a TLS handshake: newer clients may begin with it at once.
const TLS_HANDSHAKE: u8 = 0x16;
/// Most requests for encryption: one of each kind.
const MAX_REQUESTS: usize = 2;

/// What a client wants.
pub(super) enum Wish {
    /// To cancel what another connection runs.
    Cancel {
        /// As it was told.
        process_id: u32,
        /// As it was told.
        secret: u32,
    },
    /// To log in.
    Login(Login),
}

/// Reads what the client wants, with TLS if it asks for it. An error comes with the client, if it can be told.
pub(super) async fn wish(
    context: &Context,
    mut client: NodeStream,
) -> Result<(NodeStream, Wish), (Option<NodeStream>, Failure)> {
    let mut is_encrypted = false;
    for _ in 0..=MAX_REQUESTS + 1 {
        let first = match packet(&mut client).await {
            Ok(Packet::Tls(_)) if is_encrypted => {
                let malformed = Violation::Malformed { from: "client", what: "first packet" };
                return Err((Some(client), malformed.into()));
            }
            Ok(Packet::Tls(byte)) => {
                client = encrypt(context, with_front(byte, client)).await?;
                is_encrypted = true;
                continue;
            }
            Ok(Packet::First(first)) => first,
            Err(failure @ Failure::Io(_)) => return Err((None, failure)),
            Err(failure) => return Err((Some(client), failure)),
        };
        let answer = match first {
            First::Ssl if !is_encrypted => b'S',
            First::Ssl | First::Gss => b'N',
            First::Cancel { process_id, secret } => return Ok((client, Wish::Cancel { process_id, secret })),
            First::Login(login) => return Ok((client, Wish::Login(login))),
        };
        let answered = async {
            client.write_all(&[answer]).await?;
            client.flush().await
        };
        answered.await.map_err(|error| (None, error.into()))?;
        if answer == b'S' {
            client = encrypt(context, client).await?;
            is_encrypted = true;
        }
    }
    let refused = Failure::Refused("08P01", "the client asks for encryption again and again".to_owned());
    Err((Some(client), refused))
}

async fn encrypt(context: &Context, client: NodeStream) -> Result<NodeStream, (Option<NodeStream>, Failure)> {
    context.accept_tls(client).await.map_err(|error| (None, tls_failure(&error)))
}

/// Says why there is no TLS.
pub(super) fn tls_failure(error: &TlsError) -> Failure {
    Failure::Refused("08001", error.to_string())
}

/// Puts a byte back that was read.
fn with_front(byte: u8, client: NodeStream) -> NodeStream {
    let (read, write) = tokio::io::split(client);
    Box::new(tokio::io::join(Cursor::new([byte]).chain(read), write))
}

enum Packet {
    Tls(u8),
    First(First),
}

/// Reads exactly one packet: nothing that was sent in the clear may be taken for something said under encryption.
async fn packet(client: &mut NodeStream) -> Result<Packet, Failure> {
    let first = client.read_u8().await?;
    if first == TLS_HANDSHAKE {
        return Ok(Packet::Tls(first));
    }
    let mut rest = [0; 3];
    client.read_exact(&mut rest).await?;
    let [second, third, fourth] = rest;
    let length = u32::from_be_bytes([first, second, third, fourth]);
    let body = usize::try_from(length).ok().filter(|length| (8..=MAX_FIRST_PACKET).contains(length));
    let body = body.ok_or(Violation::Length { from: "client", kind: '0', length: i64::from(length) })?;
    let mut packet = vec![0; body - 4];
    client.read_exact(&mut packet).await?;
    Ok(Packet::First(First::parse(&packet)?))
}
