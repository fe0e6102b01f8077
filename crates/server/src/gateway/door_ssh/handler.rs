//! What russh asks of a connection: who may log in, and what becomes of its channels. Once somebody has logged in nothing
//! here waits for a node, a policy or a disk: russh calls it from the connection's one task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use munjigi_core::session::environment_allowed;
use munjigi_core::ssh::login_name::LoginName;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedCertificate,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Pty, Sig};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::channel::{ChannelSender, Controls, SshChannel};
use super::files::FileService;
use super::forwards::{Place, Refusal};
use super::inbox::FIRST_WINDOW;
use super::login::{QUESTION, enough, invitation, is_awaited, is_weak, once};
use super::shell::Program;
use super::terminal::{self, Terminal};
use super::{Asked, Conn, Login, MAX_CHANNELS, Origin, Road, Stage, describe, files, forwards, settings, shell};
use crate::http::Pass;
use crate::identity::Caller;
use crate::identity::ssh::approval::{self, Approval};
use crate::identity::ssh::{self, OfferedKey, ProvedCertificate, ProvedKey, SshRefusal, SshWish};
use crate::{Server, lock};

/// Most variables that a client may set for one program.
const MAX_VARIABLES: usize = 64;

/// What a forced command is told when the client asked for the subsystem `sftp`: what sshd tells it where it serves that
/// itself.
const FORCED_SFTP: &[u8] = b"internal-sftp";

/// The server's side of one connection.
pub(super) struct Door {
    server: Arc<Server>,
    peer: SocketAddr,
    road: Road,
    pass: Option<Pass>,
    /// How far the connection has come; received by the task that watches its deadlines.
    stage: watch::Sender<Stage>,
    /// Where that task finds what the login came to.
    login: Arc<Mutex<Login>>,
    ended: CancellationToken,
    /// A login that waits for somebody's approval, until the client asks for the outcome.
    approval: Option<Approval>,
    /// Who proved to be who, until the login is complete.
    proved: Option<(Caller, LoginName)>,
    conn: Option<Arc<Conn>>,
    /// Channels of sessions in which nothing runs yet.
    waiting: HashMap<ChannelId, Asked>,
    /// Channels whose program has a terminal, or will have one.
    terminals: HashSet<ChannelId>,
    /// What all channels of sessions are told beside their data, until the client closes them.
    controls: HashMap<ChannelId, Arc<Controls>>,
}

impl Door {
    pub(super) fn new(
        server: Arc<Server>,
        origin: Origin,
        stage: watch::Sender<Stage>,
        login: Arc<Mutex<Login>>,
        ended: CancellationToken,
    ) -> Self {
        let Origin { peer, pass, road } = origin;
        let (waiting, terminals, controls) = (HashMap::new(), HashSet::new(), HashMap::new());
        let (approval, proved, conn) = (None, None, None);
        Self { server, peer, road, pass, stage, login, ended, approval, proved, conn, waiting, terminals, controls }
    }

    /// Takes note of the first word after the exchange of keys.
    fn logging_in(&self) {
        self.stage.send_if_modified(|stage| {
            let first = *stage == Stage::Exchanging;
            if first {
                *stage = Stage::LoggingIn;
            }
            first
        });
    }

    /// Reads what a login name asks for; `None` if it is none, or if no name is needed.
    fn wish(&self, user: &str) -> Option<(LoginName, SshWish)> {
        let login = match &self.road {
            Road::Port => LoginName::parse(user).ok()?,
            Road::Inner { host, .. } => LoginName { node: Some(host.clone()), ..LoginName::os_user(user).ok()? },
            Road::Link { .. } => return None,
        };
        let source = self.peer.ip().to_canonical();
        let wish = SshWish { node: login.node.clone(), os_user: login.os_user.clone(), source };
        lock(&self.login).tried = Some(wish.clone());
        Some((login, wish))
    }

    /// Lets in whom a proof names: inside another connection only whoever is outside.
    fn admit(&mut self, proved: Result<Caller, SshRefusal>, login: LoginName) -> Auth {
        // What was refused is in the trail.
        lock(&self.login).tried = None;
        let Ok(caller) = proved else { return Auth::reject() };
        if let Road::Inner { caller: outer, .. } = &self.road
            && outer.principal().arn != caller.principal().arn
        {
            tracing::info!(outer = %outer.principal().arn, inner = %caller.principal().arn, "a jump by somebody else");
            return Auth::reject();
        }
        self.proved = Some((caller, login));
        Auth::Accept
    }

    fn logged_in(&mut self, session: &mut Session) -> Option<()> {
        let (caller, login) = self.proved.take()?;
        if let Some(pass) = self.pass.take() {
            pass.authenticated();
        }
        let conn = Arc::new(Conn {
            server: self.server.clone(),
            login,
            peer: self.peer,
            handle: session.handle(),
            ended: self.ended.clone(),
            may_jump: matches!(self.road, Road::Port),
            forwards: forwards::Forwards::default(),
            caller,
            request: describe(&self.server, self.peer, session.remote_sshid()),
            channels: Arc::new(Semaphore::new(MAX_CHANNELS)),
        });
        lock(&self.login).conn = Some(conn.clone());
        self.conn = Some(conn);
        self.stage.send_replace(Stage::In);
        Some(())
    }

    /// Serves a channel in a task of its own.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        // What it waits for may never come once the connection is gone.
        self.server.tasks.spawn(async move {
            ended.run_until_cancelled(work).await;
        });
    }

    fn tell(&self, channel: ChannelId, what: impl FnOnce(&Controls)) {
        if let Some(controls) = self.controls.get(&channel) {
            what(controls);
        }
    }

    /// Tells whether what was proved is good for one command only.
    fn is_forced(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.forced_command().is_some())
    }

    fn cancel(&self, place: &Place) -> bool {
        self.conn.as_ref().is_some_and(|conn| forwards::cancel(conn, place))
    }

    /// Begins what shall run in a channel. The answer is yes at once, which saves a round trip; what is refused later is
    /// said on the stream for errors.
    fn begin(&mut self, id: ChannelId, program: Program, session: &mut Session) -> Result<(), Error> {
        let (Some(conn), Some(asked)) = (self.conn.clone(), self.waiting.remove(&id)) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        // Not ended with the connection: it tells the session's end what became of its client.
        self.server.tasks.spawn(shell::serve(conn, asked, program));
        Ok(())
    }

    fn begin_files(&mut self, id: ChannelId, service: FileService, session: &mut Session) -> Result<(), Error> {
        let (Some(conn), Some(asked)) = (self.conn.clone(), self.waiting.remove(&id)) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        self.server.tasks.spawn(files::serve(conn, asked, service));
        Ok(())
    }
}

/// Answers a request to listen. The protocol has no words for a refusal: who asks `ssh -v` hears them.
fn told(asked: Result<(), Refusal>, session: &mut Session) -> Result<bool, Error> {
    if let Err(refusal) = &asked {
        session.debug(true, &refusal.to_string(), "")?;
    }
    Ok(asked.is_ok())
}

impl Handler for Door {
    type Error = Error;

    fn adapt(&mut self, client: &[u8], config: &mut Config) {
        settings::adapt(&self.server, client, config);
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Error> {
        self.logging_in();
        // The link proved who it is.
        let Road::Link { caller, node } = &self.road else { return Ok(Auth::reject()) };
        let Ok(login) = LoginName::os_user(user) else { return Ok(Auth::reject()) };
        self.proved = Some((caller.clone(), LoginName { node: Some(node.clone()), ..login }));
        Ok(Auth::Accept)
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        self.logging_in();
        let Some((_, wish)) = self.wish(user) else { return Ok(Auth::reject()) };
        if is_weak(offer.algorithm) {
            return Ok(Auth::reject());
        }
        let taken = ssh::would_take(&self.server, &OfferedKey::new(&offer), &wish).await;
        Ok(if taken { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let Some((login, wish)) = self.wish(user) else { return Ok(Auth::reject()) };
        let (server, proved) = (self.server.clone(), ProvedKey::new(&key));
        let outcome = enough(ssh::authenticate_key(&server, proved, &wish).await)?;
        Ok(self.admit(outcome, login))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: VerifiedCertificate<'_>,
    ) -> Result<Auth, Error> {
        let Some((login, wish)) = self.wish(user) else { return Ok(Auth::reject()) };
        let (server, proved) = (self.server.clone(), ProvedCertificate::new(&certificate));
        let outcome = enough(ssh::authenticate_certificate(&server, proved, &wish).await)?;
        Ok(self.admit(outcome, login))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        self.logging_in();
        let Some((login, wish)) = self.wish(user) else { return Ok(Auth::reject()) };
        let server = self.server.clone();
        // Asking for the method shows the link; the client's answer waits for the approval.
        match (response, self.approval.take()) {
            (None, _) => match approval::begin(&server, &wish).await {
                Ok(begun) => {
                    let instructions = invitation(&begun).into();
                    self.approval = Some(begun);
                    let prompts = vec![(QUESTION.into(), true)].into();
                    Ok(Auth::Partial { name: "".into(), instructions, prompts })
                }
                Err(refusal) => Ok(once(self.admit(Err(refusal), login))),
            },
            (Some(answers), Some(begun)) => {
                let outcome = match is_awaited(answers) {
                    true => approval::wait(&server, begun).await,
                    false => approval::take(&server, begun).await,
                };
                Ok(once(self.admit(outcome, login)))
            }
            (Some(_), None) => Ok(once(Auth::reject())),
        }
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        self.logged_in(session).ok_or(Error::Inconsistent)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let id = channel.id();
        let room = self.conn.as_ref().and_then(|conn| Some((conn, conn.place()?)));
        match room {
            Some((conn, place)) => {
                let sender = ChannelSender::new(channel, conn.handle.clone(), place);
                let channel = SshChannel::open(conn, sender);
                self.controls.insert(id, channel.controls());
                let asked = Asked { channel, terminal: None, environment: BTreeMap::new(), agent: false };
                self.waiting.insert(id, asked);
                // Data can come only afterwards, and the channel's inbox is there for it.
                reply.accept_with_window(FIRST_WINDOW);
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let Some(conn) = self.conn.clone() else { return Ok(()) };
        match conn.place() {
            Some(place) => {
                let channel = ChannelSender::new(channel, conn.handle.clone(), place);
                self.spawn(forwards::open_tcp(conn, channel, (host.to_owned(), port), reply));
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let Some(conn) = self.conn.clone() else { return Ok(()) };
        match conn.place() {
            Some(place) => {
                let channel = ChannelSender::new(channel, conn.handle.clone(), place);
                self.spawn(forwards::open_unix(conn, channel, path.to_owned(), reply));
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet: u32,
        _window: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        // Channels of ours carry connections: their windows follow who reads them.
        if let Some(conn) = &self.conn {
            conn.forwards.inboxes.confirmed(id);
            session.manage_window(id);
        }
        Ok(())
    }

    fn take_data(&mut self, id: ChannelId, ext: Option<u32>, data: Bytes) -> Option<Bytes> {
        match &self.conn {
            Some(conn) => conn.forwards.inboxes.take(id, ext, data),
            None => Some(data),
        }
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Error> {
        if let Some(conn) = &self.conn {
            conn.forwards.inboxes.ended(id);
        }
        Ok(())
    }

    // These four wait for the node, which the protocol asks for: requests of this kind are answered in order.
    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, session: &mut Session) -> Result<bool, Error> {
        let Some(conn) = &self.conn else { return Ok(false) };
        told(forwards::listen_tcp(conn, address, port).await, session)
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _session: &mut Session) -> Result<bool, Error> {
        Ok(self.cancel(&Place::Tcp(address.to_owned(), port)))
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Error> {
        let Some(conn) = &self.conn else { return Ok(false) };
        told(forwards::listen_unix(conn, path).await, session)
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _session: &mut Session) -> Result<bool, Error> {
        Ok(self.cancel(&Place::Unix(path.to_owned())))
    }

    async fn agent_request(&mut self, channel: ChannelId, _session: &mut Session) -> Result<bool, Error> {
        // Whether policy allows it is asked when the program starts, which goes on without if not.
        let offered = self.conn.as_ref().is_some_and(|conn| conn.forced_command().is_none());
        let Some(asked) = self.waiting.get_mut(&channel) else { return Ok(false) };
        asked.agent = offered;
        Ok(offered)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some(asked) = self.waiting.get_mut(&channel) else { return session.channel_failure(channel) };
        asked.terminal = Some(Terminal::new(term, [columns, rows, width, height], modes));
        self.terminals.insert(channel);
        session.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let size = terminal::size([columns, rows, width, height]);
        match self.waiting.get_mut(&channel) {
            Some(Asked { terminal: Some(terminal), .. }) => terminal.size = size,
            Some(_) => {}
            None => self.tell(channel, |controls| controls.resize(size)),
        }
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), Error> {
        self.tell(channel, |controls| controls.signal(&signal));
        Ok(())
    }

    async fn break_request(&mut self, channel: ChannelId, _length: u32, _session: &mut Session) -> Result<bool, Error> {
        // A BREAK is a state of a wire. sshd answers yes where there is a terminal, and Linux does nothing to one that has
        // no wire; so there is nothing that the node could be told.
        Ok(self.terminals.contains(&channel))
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let asked = self.waiting.get_mut(&channel).filter(|asked| asked.environment.len() < MAX_VARIABLES);
        match asked.filter(|_| environment_allowed(name, value)) {
            Some(asked) => {
                asked.environment.insert(name.to_owned(), value.to_owned());
                session.channel_success(channel)
            }
            None => session.channel_failure(channel),
        }
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.begin(channel, Program::Shell, session)
    }

    async fn exec_request(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Error> {
        // A forced command runs instead of it, too, and is told what was asked for.
        match FileService::of_command(data).filter(|_| !self.is_forced()) {
            Some(service) => self.begin_files(channel, service, session),
            None => self.begin(channel, Program::Command(data.to_vec()), session),
        }
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, session: &mut Session) -> Result<(), Error> {
        match FileService::of_subsystem(name) {
            Some(_) if self.is_forced() => self.begin(channel, Program::Command(FORCED_SFTP.to_vec()), session),
            Some(service) => self.begin_files(channel, service, session),
            None => session.channel_failure(channel),
        }
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Error> {
        self.waiting.remove(&channel);
        self.controls.remove(&channel);
        self.terminals.remove(&channel);
        if let Some(conn) = &self.conn {
            conn.forwards.inboxes.closed(channel);
        }
        Ok(())
    }
}
