//! The door for SSH: `ssh`, `scp`, `sftp` and whatever speaks the protocol, with this server as their server and without
//! an sshd on the node.
//!
//! russh does the protocol, behind limits of our own (T-91, T-93, T-95); who somebody is says `identity/ssh.rs`, and what
//! one may says policy, through the same operations as on every other road. One connection is one task of russh's with a
//! [`handler::Door`] in it, which never waits: each channel is served by a task of its own.

pub(crate) mod channel;
mod cut;
pub(crate) mod files;
pub(crate) mod forwards;
mod handler;
#[cfg(test)]
mod hostile;
mod inbox;
mod login;
pub(crate) mod prompt;
mod settings;
mod shell;
mod terminal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use munjigi_core::ssh::login_name::LoginName;
use russh::Disconnect;
use russh::server::{Config, Handle};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::channel::SshChannel;
use self::cut::Cut;
use self::handler::Door;
use self::terminal::Terminal;
use crate::door::{RequestMeta, Via};
use crate::http::Pass;
use crate::identity::Caller;
use crate::identity::ssh::{self, SshRefusal, SshWish};
use crate::{Server, clock, lock};

/// How long a client's version line may take: with the 2 seconds after which a silent one hears ours, 5 (T-91).
const VERSION_LIMIT: Duration = Duration::from_secs(3);
/// How long version lines and key exchange may take (T-91).
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// How long a person may take to log in from then on: a passphrase, a hardware key, an approval. sshd's `LoginGraceTime`.
const LOGIN_LIMIT: Duration = Duration::from_secs(150);
/// How long a connection that is told to go may take.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Most channels of a connection that are open at once.
const MAX_CHANNELS: usize = 256;

/// Where a connection comes from.
pub(crate) struct Origin {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// Its place among those that have proved nobody yet; given back once they have.
    pub(crate) pass: Option<Pass>,
    /// Which way it came.
    pub(crate) road: Road,
}

/// The way a connection came.
pub(crate) enum Road {
    /// From outside, through a port of this server.
    Port,
    /// Our own client brought it over its link: it is authenticated already, and the node is known.
    Link {
        /// The link's principal.
        caller: Caller,
        /// The node, as the person wrote it.
        node: String,
    },
    /// Inside another connection, as what that one believes to be the SSH port of a node (`ssh -J`). Who is inside must
    /// be who is outside.
    Inner {
        /// Who opened the outer connection.
        caller: Caller,
        /// The node, as the person wrote it.
        host: String,
    },
}

/// What all channels of a connection share once somebody has logged in.
pub(crate) struct Conn {
    /// The server.
    pub(crate) server: Arc<Server>,
    /// The OS user and the node that the login named. Without a node the connection is for jumping only.
    pub(crate) login: LoginName,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// Opens channels towards the client; Data must not be sent with it: what does not fit a
    /// channel's window holds all others up.
    pub(crate) handle: Handle,
    /// Cancelled when the connection is over.
    pub(crate) ended: CancellationToken,
    /// Whether another login may be inside it (`ssh -J`): it came from outside, and is inside none itself.
    pub(crate) may_jump: bool,
    /// What forwards of this connection share.
    pub(crate) forwards: forwards::Forwards,
    caller: Caller,
    request: RequestMeta,
    channels: Arc<Semaphore>,
}

impl Conn {
    /// Returns who it is, as of now; `None` once what was proved is no longer good (T-6).
    pub(crate) fn caller(&self) -> Option<Caller> {
        self.server.identities.present(&self.caller)
    }

    /// Returns the only command that what was proved is good for, if it is bound to one; it runs whatever is asked for.
    pub(crate) fn forced_command(&self) -> Option<&str> {
        self.caller.ssh()?.force_command.as_deref()
    }

    /// Tells whether what was proved permits a forward, or why not; `agent` for that of the client's agent.
    pub(crate) fn permits_forward(&self, agent: bool) -> Result<(), &'static str> {
        self.caller.ssh().map_or(Ok(()), |proof| proof.permits_forward(agent))
    }

    /// Describes a new request over this connection.
    pub(crate) fn request(&self) -> RequestMeta {
        self.request.again()
    }

    /// Returns a place for one more channel, to be kept as long as it is open.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.channels.clone().try_acquire_owned().ok()
    }
}

/// What a client asked for before it said what shall run in a session's channel.
pub(crate) struct Asked {
    /// The channel.
    pub(crate) channel: SshChannel,
    /// Its terminal, if it wants one.
    pub(crate) terminal: Option<Terminal>,
    /// Variables that the allow-list lets through.
    pub(crate) environment: BTreeMap<String, String>,
    /// Whether it offers its agent.
    pub(crate) agent: bool,
}

/// What a login comes to.
#[derive(Default)]
struct Login {
    /// The connection, once somebody has logged in.
    conn: Option<Arc<Conn>>,
    /// What was wanted with something that proved nobody yet, and of which the trail knows nothing.
    tried: Option<SshWish>,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Version lines and key exchange.
    Exchanging,
    /// Somebody says who he is.
    LoggingIn,
    /// Somebody has logged in.
    In,
}

/// Serves an SSH connection until it ends. `request` describes what brought it.
pub(crate) async fn serve<S>(server: &Arc<Server>, stream: S, origin: Origin)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match settings::of(server, &origin.road) {
        Ok(settings) => serve_with(server, stream, origin, settings).await,
        Err(error) => tracing::error!(error = format!("{error:#}"), "the SSH door has no host key to show"),
    }
}

async fn serve_with<S>(server: &Arc<Server>, stream: S, origin: Origin, settings: Arc<Config>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let began = Instant::now();
    let cut = CancellationToken::new();
    // Whatever happens to this task, russh's ends too.
    let _guard = cut.clone().drop_guard();
    let (stage, mut stages) = watch::channel(Stage::Exchanging);
    let login = Arc::new(Mutex::new(Login::default()));
    let peer = origin.peer;
    let door = Door::new(server.clone(), origin, stage, login.clone(), cut.child_token());
    let stream = Cut::new(stream, cut.clone(), stages.clone());
    let greeted = tokio::time::timeout(VERSION_LIMIT, russh::server::run_stream(settings, stream, door));
    let running = match server.stop.run_until_cancelled(greeted).await {
        Some(Ok(Ok(running))) => running,
        Some(Ok(Err(error))) => return tracing::debug!(%peer, %error, "no SSH connection"),
        Some(Err(_)) | None => return,
    };
    let handle = running.handle();
    tokio::pin!(running);
    let mut changed = server.identities.changed();
    let farewell = loop {
        let stage = *stages.borrow_and_update();
        let deadline = match stage {
            Stage::Exchanging => Some(began + EXCHANGE_LIMIT),
            Stage::LoggingIn => Some(began + LOGIN_LIMIT),
            Stage::In => None,
        };
        tokio::select! {
            ended = &mut running => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "an SSH connection broke");
                }
                return in_vain(server, &login).await;
            }
            // An error means that russh's task is gone, which the first arm tells.
            Ok(()) = stages.changed() => {}
            // The connection goes with what was proved, and everything in it with it (T-6, T-104).
            Ok(_) = changed.changed() => {
                let conn = lock(&login).conn.clone();
                if conn.is_some_and(|conn| conn.caller().is_none()) {
                    break "what you logged in with is no longer valid";
                }
            }
            () = sleep_until(deadline.unwrap_or(began)), if deadline.is_some() => return in_vain(server, &login).await,
            () = server.stop.cancelled() => break "the server stops",
        }
    };
    // A client that takes nothing more is cut off by the guard.
    let _ = tokio::time::timeout(FAREWELL_LIMIT, async {
        let told = handle.disconnect(Disconnect::ByApplication, farewell.to_owned(), String::new()).await;
        if told.is_ok() {
            let _ = running.await;
        }
    })
    .await;
}

/// Writes into the trail that a connection tried to log in and proved nobody.
async fn in_vain(server: &Server, login: &Mutex<Login>) {
    let tried = {
        let mut login = lock(login);
        login.tried.take().filter(|_| login.conn.is_none())
    };
    if let Some(wish) = tried {
        ssh::refused(server, &wish, None, &SshRefusal::NobodyProved).await;
    }
}

/// Describes a connection as a request.
fn describe(server: &Server, peer: SocketAddr, program: &[u8]) -> RequestMeta {
    let user_agent: String = String::from_utf8_lossy(program).chars().filter(|c| !c.is_control()).take(255).collect();
    RequestMeta {
        request_id: uuid::Uuid::new_v4(),
        time: clock::now(),
        source_ip: peer.ip().to_canonical(),
        user_agent,
        referer: None,
        tls: None,
        host: String::new(),
        region: server.config.region.clone(),
        invocation_id: None,
        via: Via::Ssh,
    }
}
