//! The session that carries files: a forward session with one endpoint and one connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::endpoint::{Endpoint, FileAccess};
use munjigi_core::session::EndReason;
use munjigi_core::wire::{Frame, FrameSet};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{FileEnd, FileJudge, FileWish};
use crate::Server;
use crate::api::munjigi::OpenForward;
use crate::api::munjigi::open_forward::{OpenForwardInput, usual_user};
use crate::api::ssm::target::Target;
use crate::door;
use crate::forwarding;
use crate::gateway::launch::{Surroundings, launch};
use crate::gateway::peer::FrameStream;
use crate::gateway::ports::{Journal, PortSession, PortStream};

/// How long the node may take to start the session.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of control frames that may wait between the hub and this door.
const CONTROL_BUFFER: usize = 64 * 1024;

/// What the caller's policies leave possible on the node.
pub(super) async fn access(server: &Server, wish: &FileWish<'_>) -> Result<Option<FileAccess>, String> {
    let target = Target::resolve(server, wish.target).await.map_err(|error| error.to_string())?;
    // None or several: the start says which.
    let Target::Node(node) = target else { return Ok(None) };
    let usual = match wish.os_user {
        Some(user) => Some(user.to_owned()),
        None => usual_user(server, wish.caller, &node).await.map_err(|error| error.to_string())?,
    };
    let os_user = usual.unwrap_or_default();
    Ok(forwarding::possible_access(server, wish.caller.principal(), &node, &os_user, wish.request))
}

/// A session that was started, and its connection.
pub(super) struct FilesSession {
    session: PortSession,
    judge: std::sync::Mutex<Option<FileJudge>>,
    connection: std::sync::Mutex<Option<PortStream>>,
    /// The hub's client, so that the session knows one; it says nothing that matters here.
    _control: Mutex<FrameStream>,
}

impl FilesSession {
    /// Starts it, and makes its connection.
    pub(super) async fn start(
        server: &Arc<Server>,
        wish: &FileWish<'_>,
        endpoint: Endpoint,
        purpose: &str,
    ) -> Result<Self, String> {
        let input = OpenForwardInput {
            target: wish.target.to_owned(),
            endpoints: vec![endpoint],
            dynamic: false,
            passthrough: false,
            os_user: wish.os_user.map(str::to_owned),
            reason: None,
            purpose: purpose.to_owned(),
        };
        let request = wish.request.clone();
        let started = door::call::<OpenForward>(server, wish.caller, input, request).await;
        let id = started.map_err(|error| error.to_string())?.session_id;
        let lost = || "the session was lost before it began".to_owned();
        let prepared = server.gateway.take_prepared(&id).ok_or_else(lost)?;
        let (near, far) = tokio::io::duplex(CONTROL_BUFFER);
        let nothing = Surroundings { pty: None, environment: BTreeMap::new() };
        launch(server, prepared, nothing, FrameStream::new(far)).await;
        let mut control = FrameStream::new(near);
        match timeout(START_LIMIT, control.reader.read(FrameSet::ANSWER)).await {
            Ok(Ok(Some(Frame::Accepted(_)))) => {}
            Ok(Ok(Some(Frame::Refused(refused)))) => return Err(refused.message),
            _ => {
                let why = "the node did not start the session in time";
                server.gateway.end_session(&id, EndReason::StartFailed, why).await;
                return Err(why.to_owned());
            }
        }
        let session = server.gateway.session(&id).and_then(|handle| PortSession::of(server, &handle));
        let session = session.ok_or_else(lost)?;
        let facts = &session.handle().facts;
        let judge = forwarding::sftp_judge(server, wish.caller, facts, session.ledger(), wish.request).await;
        let connected = match judge {
            Ok(judge) => session.connect_for_files(wish.caller, wish.request).await.map(|stream| (judge, stream)),
            Err(_) => Err(crate::gateway::ports::PortError::NotJudged),
        };
        match connected {
            Ok((judge, connection)) => Ok(Self {
                session,
                judge: Some(judge).into(),
                connection: Some(connection).into(),
                _control: control.into(),
            }),
            Err(error) => {
                server.gateway.end_session(&id, EndReason::StartFailed, &error.to_string()).await;
                Err(error.to_string())
            }
        }
    }

    /// Takes the connection and who judges what passes on it; there is one.
    pub(super) fn take(&self) -> Option<(PortStream, FileJudge)> {
        crate::lock(&self.connection).take().zip(crate::lock(&self.judge).take())
    }

    /// Returns the session.
    pub(super) fn session(&self) -> &PortSession {
        &self.session
    }

    /// Returns the journal for a connection.
    pub(super) fn journal(&self, connection: &PortStream) -> Journal {
        self.session.journal(connection)
    }

    /// Ends it.
    pub(super) async fn end(self, server: &Server, ended: &FileEnd) {
        let why = if ended.status == 0 { "the client was done" } else { ended.message.as_str() };
        server.gateway.end_session(&self.session.handle().facts.id, EndReason::Exited, why).await;
    }
}
