//! The login at the server, as the stored user, and what the client is told of it.

use bytes::BytesMut;
use munjigi_core::postgres::{self, Conversation, Login, Readiness};
use munjigi_core::recording::{StatementEnd, StatementKind, StatementOutcome};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::cancel::{CancelKeys, Key};
use super::first::tls_failure;
use super::message::Whole;
use super::{Failure, LOGIN_LIMIT, password, refuse, relay};
use crate::gateway::inspect::Context;
use crate::gateway::nodes::NodeStream;

/// Most messages between the server's word that the login is done and its readiness.
const MAX_MESSAGES: usize = 1000;

/// Logs in and carries the connection to its end.
pub(super) async fn serve(
    keys: &CancelKeys,
    mut context: Context,
    mut client: NodeStream,
    target: NodeStream,
    login: Login,
) {
    let logged_in = timeout(LOGIN_LIMIT, recorded(keys, &mut context, &mut client, target, &login)).await;
    let late = Err(Failure::TimedOut("the server did not complete the login in time"));
    match logged_in.unwrap_or(late) {
        Ok((target, key, last_number)) => {
            let connection = context.journal.connection();
            let conversation = Conversation::new(connection, last_number, context.settings.record_parameters);
            relay::relay(&context.journal, conversation, client, target).await;
            drop(key);
        }
        Err(failure @ Failure::ByServer { .. }) => {
            tracing::debug!(%failure, target_name = %context.target, "a login at a target failed");
            super::close(client).await;
        }
        Err(failure) => {
            tracing::debug!(%failure, target_name = %context.target, "a login at a target failed");
            refuse(client, &failure).await;
        }
    }
}

/// Logs in, and records that as the connection's first statement. Returns the connection to the server, the key for the
/// client and the statement's number.
async fn recorded(
    keys: &CancelKeys,
    context: &mut Context,
    client: &mut NodeStream,
    target: NodeStream,
    login: &Login,
) -> Result<(NodeStream, Key, u64), Failure> {
    let parameters = parameters(context, login);
    let text: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let statement = context.journal.statement(StatementKind::Login, &text.join(" "));
    let (number, connection, begun) = (statement.number, statement.connection, Instant::now());
    context.journal.begin(statement).await?;
    context.journal.settled().await?;
    let logged_in = log_in(keys, context, client, target, login, &parameters).await;
    let (outcome, code) = match &logged_in {
        Ok(_) => (StatementOutcome::Done, String::new()),
        Err(failure) => (StatementOutcome::Failed, failure.code().to_owned()),
    };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let end = StatementEnd { connection, number, outcome, rows: None, tag: String::new(), code, micros };
    context.journal.end(end).await?;
    logged_in.map(|(target, key)| (target, key, number))
}

/// Returns what the server is told: the stored user, the database, and the client's own settings.
///
/// A client that names no database names the one of its user's name, so that is taken for none.
fn parameters(context: &Context, login: &Login) -> Vec<(String, String)> {
    let asked = login.get("database").filter(|database| Some(*database) != login.get("user"));
    let stored = context.settings.database.as_deref();
    let database = asked.or(stored).or(login.get("database")).unwrap_or(&context.user_name);
    let own = [("user", context.user_name.as_str()), ("database", database)];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let theirs = login
        .parameters
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "user" | "database") && !name.starts_with("_pq_."));
    own.into_iter().chain(theirs.cloned()).collect()
}

async fn log_in(
    keys: &CancelKeys,
    context: &mut Context,
    client: &mut NodeStream,
    target: NodeStream,
    login: &Login,
    parameters: &[(String, String)],
) -> Result<(NodeStream, Key), Failure> {
    let mut target = encrypt(context, target).await?;
    let mut first = BytesMut::new();
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    frontend::startup_message(parameters, &mut first)?;
    target.write_all(&first).await?;
    target.flush().await?;
    password::prove(context, client, &mut target).await?;
    // It has done its work.
    context.password = None;

    let mut told = Vec::new();
    let unknown = login.extensions();
    if login.minor > 0 || !unknown.is_empty() {
        postgres::negotiate(&unknown, &mut told);
    }
    postgres::authentication_ok(&mut told);
    client.write_all(&told).await?;
    let key = until_ready(keys, context, client, &mut target).await?;
    Ok((target, key))
}

/// Passes on what the server says until it is ready, with a key of our own in its key's place.
async fn until_ready(
    keys: &CancelKeys,
    context: &Context,
    client: &mut NodeStream,
    target: &mut NodeStream,
) -> Result<Key, Failure> {
    let mut at_server = None;
    for _ in 0..MAX_MESSAGES {
        let message = Whole::read(target).await?;
        match postgres::ready_or_error(message.kind, &message.body)? {
            Readiness::Key { process_id, secret } => at_server = Some((process_id, secret)),
            Readiness::Passing => message.write(client).await?,
            Readiness::Error { code, .. } => return Err(told(client, &message, code).await),
            Readiness::Ready => {
                // A server without keys cannot cancel; the client's key then leads nowhere.
                let key = keys.make(context, at_server.unwrap_or_default());
                let mut own = Vec::new();
                postgres::backend_key(key.process_id, key.secret, &mut own);
                client.write_all(&own).await?;
                message.write(client).await?;
                client.flush().await?;
                return Ok(key);
            }
        }
    }
    Err(Failure::Refused("08P01", "the server does not become ready".to_owned()))
}

/// Tells the client what the server says against the login.
pub(super) async fn told(client: &mut NodeStream, message: &Whole, code: String) -> Failure {
    match message.write(client).await {
        Ok(()) => Failure::ByServer { code },
        Err(error) => error.into(),
    }
}

/// Begins TLS with the server, where its settings want it; there is no way on without then.
pub(super) async fn encrypt(context: &Context, mut target: NodeStream) -> Result<NodeStream, Failure> {
    if !context.wants_tls() {
        return Ok(target);
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    target.write_all(&request).await?;
    target.flush().await?;
    match target.read_u8().await? {
        b'S' => context.connect_tls(target).await.map_err(|error| tls_failure(&error)),
        _ => {
            let message =
                format!("the server of the target {} does no TLS, and its settings demand it", context.target);
            Err(Failure::Refused("08001", message))
        }
    }
}
