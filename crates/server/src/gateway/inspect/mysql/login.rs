//! Both logins of a connection: the server greets, the client says what it wants and proves nothing, the stored
//! credential is proved to the server.
//!
//! The server is asked first, so that the client sees its version, its number for the connection (which `KILL` names)
//! and nothing that it cannot do. What goes wrong is told to the client in MySQL's own form.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use bytes::{Buf as _, BytesMut};
use munjigi_core::mysql::{
    Auth, AuthStep, Channel, ClientLogin, Conversation, Greeting, HEADER_BYTES, Head, LoginError, MAX_LOGIN_PACKET,
    ServerError, ServerLogin, capability, write_packet,
};
use munjigi_core::recording::{StatementEnd, StatementKind, StatementOutcome};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Context, Failure, NodeStream};

/// How long both logins may take together; nobody types in between.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How long the client may take to hear why its login failed.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);
/// MySQL's `ER_UNKNOWN_ERROR` and its state.
const OUR_ERROR: (u16, &str) = (1105, "HY000");
/// MySQL's `ER_ACCESS_DENIED_ERROR` and its state.
const REFUSED: (u16, &str) = (1045, "28000");
/// Name of the attribute by which the database may know who works with its account.
const PRINCIPAL: &[u8] = b"munjigi_principal";

/// One end of a connection while it logs in.
pub(super) struct End {
    pub(super) stream: NodeStream,
    /// Received and not yet taken.
    pub(super) received: BytesMut,
    /// Sequence number of the next packet to this end.
    sequence: u8,
}

/// A connection behind its logins.
pub(super) struct LoggedIn {
    pub(super) client: End,
    pub(super) target: End,
    /// What they say from here on.
    pub(super) conversation: Conversation,
}

impl End {
    pub(super) fn new(stream: NodeStream) -> Self {
        Self { stream, received: BytesMut::new(), sequence: 0 }
    }

    /// Reads a packet's payload.
    async fn receive(&mut self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        loop {
            if let Some(head) = Head::read(&self.received) {
                if head.length > MAX_LOGIN_PACKET {
                    return Err(Failure::TooLong);
                }
                if let Some(payload) = self.received.get(HEADER_BYTES..HEADER_BYTES + head.length) {
                    let payload = Zeroizing::new(payload.to_vec());
                    self.received.advance(HEADER_BYTES + head.length);
                    self.sequence = head.sequence.wrapping_add(1);
                    return Ok(payload);
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(Failure::Left);
            }
        }
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        // Room for all from the start: growing would leave a copy of a secret behind.
        let mut packet = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + payload.len()));
        write_packet(&mut packet, self.sequence, payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Begins TLS with the person's client; what it sent ahead is TLS' own.
    async fn accept_tls(self, context: &Context) -> Result<Self, Failure> {
        let (read, write) = tokio::io::split(self.stream);
        let ahead = AsyncReadExt::chain(std::io::Cursor::new(self.received.freeze()), read);
        let stream = context.accept_tls(Box::new(tokio::io::join(ahead, write))).await.map_err(Failure::ClientTls)?;
        Ok(Self { stream, received: BytesMut::new(), sequence: self.sequence })
    }

    async fn connect_tls(self, context: &Context) -> Result<Self, Failure> {
        // Whoever is in between could put words into the server's mouth before it proves who it is.
        if !self.received.is_empty() {
            return Err(Failure::BeforeTls);
        }
        let stream = context.connect_tls(self.stream).await.map_err(Failure::TargetTls)?;
        Ok(Self { stream, received: BytesMut::new(), sequence: self.sequence })
    }
}

/// Logs both ends in. Where that fails the client was told why.
pub(super) async fn both(client: NodeStream, target: NodeStream, context: &Context) -> Result<LoggedIn, Failure> {
    let mut client = Some(End::new(client));
    let result = match timeout(LIMIT, run(&mut client, End::new(target), context)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::TimedOut),
    };
    if let (Err(failure), Some(mut client)) = (&result, client) {
        let error = told(failure).write();
        // A client that takes nothing more loses the last words; it left.
        let _ = timeout(FAREWELL_LIMIT, async {
            client.send(&error).await?;
            client.stream.shutdown().await.map_err(Failure::from)
        })
        .await;
    }
    result
}

/// The client is taken out of its place while TLS begins with it, and for good once all is done.
async fn run(client: &mut Option<End>, mut target: End, context: &Context) -> Result<LoggedIn, Failure> {
    let greeting = Greeting::read(&target.receive().await?)?;
    let (login, agreed) = hear_client(client, &greeting, context).await?;
    let begun = Instant::now();
    let database = login.database.as_deref().or(context.settings.database.as_deref().map(str::as_bytes));
    let number = record_login(&login, database, context).await?;
    let accepted = log_in(target, &greeting, &login, agreed, database, context).await;
    let (outcome, code) = match &accepted {
        Ok(_) => (StatementOutcome::Done, String::new()),
        Err(Failure::Login(LoginError::Refused(error))) => (StatementOutcome::Failed, error.code()),
        Err(_) => (StatementOutcome::Failed, String::new()),
    };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let connection = context.journal.connection();
    let end = StatementEnd { connection, number, outcome, rows: None, tag: String::new(), code, micros };
    context.journal.end(end).await?;
    let (target, ok) = accepted?;
    let client_end = client.as_mut().ok_or(Failure::Left)?;
    client_end.send(&ok).await?;
    let client = client.take().ok_or(Failure::Left)?;
    let conversation = Conversation::new(agreed, connection, number);
    let conversation = conversation.record_parameters(context.settings.record_parameters);
    Ok(LoggedIn { client, target, conversation })
}

/// Greets the client and hears what it wants. Its proof is not looked at: who the person is was decided before this
/// connection began.
async fn hear_client(
    place: &mut Option<End>,
    greeting: &Greeting,
    context: &Context,
) -> Result<(ClientLogin, u64), Failure> {
    let mut salt = [0; 20];
    rand::fill(&mut salt).map_err(|_| std::io::Error::other("no random bytes"))?;
    let greeted = greeting.for_client(salt, context.settings.allow_load_local, true);
    let mut client = place.take().ok_or(Failure::Left)?;
    let heard = async {
        client.send(&greeted.write()).await?;
        client.receive().await
    };
    let mut payload = match heard.await {
        Ok(payload) => payload,
        Err(failure) => {
            *place = Some(client);
            return Err(failure);
        }
    };
    if ClientLogin::wants_tls(&payload) {
        client = client.accept_tls(context).await?;
        payload = client.receive().await?;
    }
    let client = place.insert(client);
    let login = ClientLogin::read(&payload, &greeted)?;
    if let Some(switch) = login.switch(&greeted.salt) {
        client.send(&switch).await?;
        let answer = client.receive().await?;
        if let Some(enough) = login.fast_path(&answer) {
            client.send(enough).await?;
        }
    }
    let agreed = login.capabilities;
    Ok((login, agreed))
}

async fn record_login(login: &ClientLogin, database: Option<&[u8]>, context: &Context) -> Result<u64, Failure> {
    let mut text = format!("user={}", context.user_name);
    if let Some(database) = database {
        text.push_str(&format!(" database={}", String::from_utf8_lossy(database)));
    }
    if let Some((_, program)) = login.attributes.iter().find(|(name, _)| name == b"program_name") {
        text.push_str(&format!(" program_name={}", String::from_utf8_lossy(program)));
    }
    let statement = context.journal.statement(StatementKind::Login, &text);
    let number = statement.number;
    context.journal.begin(statement).await?;
    context.journal.settled().await?;
    Ok(number)
}

/// Logs in at the server and returns its OK.
async fn log_in(
    mut target: End,
    greeting: &Greeting,
    login: &ClientLogin,
    agreed: u64,
    database: Option<&[u8]>,
    context: &Context,
) -> Result<(End, Vec<u8>), Failure> {
    let mut attributes = login.attributes.clone();
    attributes.push((PRINCIPAL.to_vec(), context.principal.clone().into_bytes()));
    let ours = ServerLogin {
        greeting,
        agreed,
        max_packet: login.max_packet,
        charset: login.charset,
        user: &context.user_name,
        database,
        attributes: &attributes,
    };
    let channel = if context.wants_tls() { Channel::Encrypted } else { Channel::Plain };
    if context.wants_tls() {
        if greeting.capabilities & capability::SSL == 0 {
            return Err(Failure::NoTls);
        }
        target.send(&ours.tls_request()).await?;
        target = target.connect_tls(context).await?;
    }
    let password = context.password.as_ref().map_or(&[][..], |password| password.expose());
    let mut auth = Auth::begin(greeting, password, channel);
    let (plugin, proof) = auth.first();
    target.send(&Zeroizing::new(ours.write(channel == Channel::Encrypted, plugin, &proof))).await?;
    loop {
        let packet = target.receive().await?;
        match auth.heard(&packet)? {
            AuthStep::Send(answer) => target.send(&answer).await?,
            AuthStep::Encrypt { key_pem, password } => target.send(&encrypted(&key_pem, &password)?).await?,
            AuthStep::Wait => {}
            AuthStep::Accepted(ok) => return Ok((target, ok)),
            AuthStep::Refused(error) => return Err(LoginError::Refused(error).into()),
        }
    }
}

/// Encrypts the password to the server's key, where there is no TLS. Who is between could name a key of its own: as in
/// all clients of MySQL, this keeps the password from who only listens.
fn encrypted(key_pem: &[u8], password: &[u8]) -> Result<Vec<u8>, Failure> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(key_pem).map_err(|_| Failure::Key)?;
    let key = PublicEncryptingKey::from_der(&key).map_err(|_| Failure::Key)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| Failure::Key)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    // MySQL's documentation of `caching_sha2_password` and `sha256_password` names OAEP with SHA-1.
    let sealed = key.encrypt(&OAEP_SHA1_MGF1SHA1, password, &mut ciphertext, None).map_err(|_| Failure::Key)?;
    Ok(sealed.to_vec())
}

/// Returns what a client hears of a failure.
fn told(failure: &Failure) -> ServerError {
    let ((code, state), message) = match failure {
        Failure::Login(LoginError::Refused(error)) => return error.clone(),
        Failure::Auth(_) => (REFUSED, failure.to_string()),
        _ => (OUR_ERROR, failure.to_string()),
    };
    ServerError { code, state: state.to_owned(), message }
}
