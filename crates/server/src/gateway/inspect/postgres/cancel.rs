//! Requests to cancel: a client gets a key of our own for each connection, and what it cancels with it is cancelled at the
//! server with the server's key, which never leaves this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::BytesMut;
use munjigi_core::id::SessionId;
use munjigi_core::recording::{StatementEnd, StatementKind, StatementOutcome};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::{Failure, login};
use crate::gateway::inspect::Context;
use crate::gateway::nodes::NodeStream;
use crate::lock;

/// How long a server may take to a request; it closes the connection when it has passed the signal on.
const CANCEL_LIMIT: Duration = Duration::from_secs(20);

/// The connection that a key stands for.
#[derive(Debug, Clone)]
struct Held {
    session: SessionId,
    secret: u32,
    connection: u64,
    at_server: (u32, u32),
}

/// The keys in use, by the process id that clients were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct CancelKeys {
    held: Arc<Mutex<HashMap<u32, Held>>>,
}

/// A key that is good as long as this lives.
#[derive(Debug)]
pub(super) struct Key {
    /// What the client is told.
    pub(super) process_id: u32,
    /// What the client is told.
    pub(super) secret: u32,
    keys: CancelKeys,
}

impl Drop for Key {
    fn drop(&mut self) {
        lock(&self.keys.held).remove(&self.process_id);
    }
}

impl CancelKeys {
    /// Makes a key for a connection whose process and secret at the server are `at_server`.
    pub(super) fn make(&self, context: &Context, at_server: (u32, u32)) -> Key {
        let secret = u32::from_be_bytes(crate::random::bytes());
        let (session, connection) = (context.session.clone(), context.journal.connection());
        let mut held = lock(&self.held);
        let process_id = loop {
            // Clients show it as a positive number.
            let tried = u32::from_be_bytes(crate::random::bytes()) & 0x7fff_ffff;
            if tried != 0 && !held.contains_key(&tried) {
                break tried;
            }
        };
        held.insert(process_id, Held { session, secret, connection, at_server });
        drop(held);
        Key { process_id, secret, keys: self.clone() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.held).len()
    }

    /// Finds the connection that a key of this session stands for.
    fn find(&self, session: &SessionId, process_id: u32, secret: u32) -> Option<Held> {
        let held = lock(&self.held).get(&process_id).cloned()?;
        let is_equal = verify_slices_are_equal(&held.secret.to_be_bytes(), &secret.to_be_bytes()).is_ok();
        (held.session == *session && is_equal).then_some(held)
    }
}

/// Passes a request on over `target`, a connection of its own to the server.
pub(super) async fn forward(
    keys: &CancelKeys,
    context: &Context,
    target: NodeStream,
    process_id: u32,
    secret: u32,
) -> Result<(), Failure> {
    let held = keys.find(&context.session, process_id, secret);
    let text = match &held {
        Some(held) => format!("what connection {} runs", held.connection),
        None => "with a key that stands for no connection of this session".to_owned(),
    };
    let statement = context.journal.statement(StatementKind::Cancel, &text);
    let (number, connection, begun) = (statement.number, statement.connection, Instant::now());
    context.journal.begin(statement).await?;
    context.journal.settled().await?;
    let sent = match held {
        Some(held) => timeout(CANCEL_LIMIT, send(context, target, held)).await,
        None => Ok(Err(Failure::Refused("57014", "there is no such connection".to_owned()))),
    };
    let sent = sent.unwrap_or(Err(Failure::TimedOut("the server did not take the request to cancel")));
    let (outcome, code) = match &sent {
        Ok(()) => (StatementOutcome::Done, String::new()),
        Err(failure) => (StatementOutcome::Failed, failure.code().to_owned()),
    };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let end = StatementEnd { connection, number, outcome, rows: None, tag: String::new(), code, micros };
    context.journal.end(end).await?;
    sent
}

async fn send(context: &Context, target: NodeStream, held: Held) -> Result<(), Failure> {
    let mut target = login::encrypt(context, target).await?;
    let (process_id, secret) = held.at_server;
    let mut request = BytesMut::new();
    frontend::cancel_request(process_id.cast_signed(), secret.cast_signed(), &mut request);
    target.write_all(&request).await?;
    target.flush().await?;
    // The server ends the connection when it is done; how, does not matter, and it says nothing.
    let _ = target.read(&mut [0]).await;
    Ok(())
}
