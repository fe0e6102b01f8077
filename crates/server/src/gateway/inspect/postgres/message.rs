//! Whole messages of a server, as long as the login lasts: they are few and short.

use munjigi_core::postgres::Violation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Failure;
use crate::gateway::nodes::NodeStream;

/// Longest message of a login, bytes.
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// A message.
pub(super) struct Whole {
    /// Its first byte.
    pub(super) kind: u8,
    /// What is behind its length.
    pub(super) body: Vec<u8>,
}

impl Whole {
    /// Reads the next message of the server.
    pub(super) async fn read(target: &mut NodeStream) -> Result<Self, Failure> {
        let kind = target.read_u8().await?;
        let length = target.read_i32().await?;
        let body = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
        let body = body.filter(|body| *body <= MAX_LOGIN_MESSAGE).ok_or(Violation::Length {
            from: "server",
            kind: char::from(kind),
            length: i64::from(length),
        })?;
        let mut message = Self { kind, body: vec![0; body] };
        target.read_exact(&mut message.body).await?;
        Ok(message)
    }

    /// Sends it on as it is.
    pub(super) async fn write(&self, client: &mut NodeStream) -> std::io::Result<()> {
        let length = u32::try_from(self.body.len() + 4).unwrap_or(u32::MAX);
        client.write_u8(self.kind).await?;
        client.write_u32(length).await?;
        client.write_all(&self.body).await
    }
}
