//! The forward sessions of an SSH connection: begun when one is wanted, and again when it has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use munjigi_core::endpoint::Endpoint;
use munjigi_core::session::EndReason;
use munjigi_core::wire::{Frame, FrameSet};
use tokio::sync::OnceCell;

use super::Refusal;
use super::local::present;
use crate::api::munjigi::OpenForward;
use crate::api::munjigi::open_forward::OpenForwardInput;
use crate::door::{self, RequestMeta};
use crate::gateway::door_ssh::Conn;
use crate::gateway::launch::launch_ports;
use crate::gateway::peer::FrameStream;
use crate::gateway::ports::PortSession;
use crate::identity::Caller;
use crate::identity::ssh::SSH_PURPOSE;
use crate::{Server, lock};

/// Most sessions that a connection has at a time: its node's, and those of targets.
const MAX_SESSIONS: usize = 32;

/// What a session is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Aim {
    /// The node that the login names, and whatever is reached through it.
    Node(String),
    /// A target, by name.
    Target(String),
    /// The own sshd of a node.
    Passthrough(String),
}

impl Aim {
    /// Returns what is asked of the operation.
    pub(super) fn input(&self, os_user: Option<String>) -> OpenForwardInput {
        let (target, endpoints) = match self {
            Self::Node(node) => (node, Vec::new()),
            Self::Target(target) => (target, Vec::new()),
            Self::Passthrough(node) => (node, vec![Endpoint::own_ssh()]),
        };
        OpenForwardInput {
            target: target.clone(),
            endpoints,
            dynamic: matches!(self, Self::Node(_)),
            passthrough: matches!(self, Self::Passthrough(_)),
            os_user: os_user.filter(|_| matches!(self, Self::Node(_))),
            reason: None,
            purpose: SSH_PURPOSE.to_owned(),
        }
    }
}

/// One session, or the wait for it.
type Slot = Arc<OnceCell<PortSession>>;

/// The sessions of one connection.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Mutex<HashMap<Aim, Slot>>,
}

impl Sessions {
    /// Returns a session that takes connections. Who wants the same at the same time gets the same.
    pub(super) async fn get(&self, conn: &Arc<Conn>, aim: &Aim) -> Result<PortSession, Refusal> {
        let slot = self.slot(aim)?;
        slot.get_or_try_init(|| begin_kept(conn, aim)).await.cloned()
    }

    fn slot(&self, aim: &Aim) -> Result<Slot, Refusal> {
        let mut slots = lock(&self.slots);
        // Those that have ended, and those whose start was refused while nobody waits for them any more.
        slots.retain(|_, slot| match slot.get() {
            Some(session) => !session.is_over(),
            None => Arc::strong_count(slot) > 1,
        });
        if let Some(slot) = slots.get(aim) {
            return Ok(slot.clone());
        }
        if slots.len() >= MAX_SESSIONS {
            return Err(Refusal::too_many(format!(
                "one connection reaches {MAX_SESSIONS} targets at a time; close some"
            )));
        }
        let slot = Slot::default();
        slots.insert(aim.clone(), slot.clone());
        Ok(slot)
    }
}

async fn begin_kept(conn: &Arc<Conn>, aim: &Aim) -> Result<PortSession, Refusal> {
    let caller = present(conn)?;
    let input = aim.input(conn.login.os_user.clone());
    let (session, control) = begin(&conn.server, &caller, conn.request(), input).await?;
    conn.server.tasks.spawn(keep(conn.clone(), session.clone(), control));
    Ok(session)
}

/// Begins a session: the operation of every door. With it comes the stream on which its end is told.
pub(super) async fn begin(
    server: &Arc<Server>,
    caller: &Caller,
    request: RequestMeta,
    input: OpenForwardInput,
) -> Result<(PortSession, FrameStream), Refusal> {
    let output = door::call::<OpenForward>(server, caller, input, request).await?;
    let prepared = server.gateway.take_prepared(&output.session_id);
    let prepared = prepared.ok_or_else(|| Refusal::unavailable("the session was lost before it started"))?;
    launch_ports(server, prepared).await.map_err(Refusal::unavailable)
}

/// Is the session's client until it ends, or the connection does.
async fn keep(conn: Arc<Conn>, session: PortSession, mut control: FrameStream) {
    if conn.ended.run_until_cancelled(over(&mut control)).await.is_none() {
        let id = &session.handle().facts.id;
        conn.server.gateway.end_session(id, EndReason::Exited, "the SSH connection ended").await;
    }
}

async fn over(control: &mut FrameStream) {
    while matches!(control.reader.read(FrameSet::TO_CLIENT).await, Ok(Some(frame)) if !matches!(frame, Frame::End(_))) {
    }
}
