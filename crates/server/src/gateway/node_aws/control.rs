//! A node's control channel: while it stands the node is online, sessions are started over it, and their ends reported.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::wire::aws::payload::{AgentTaskAcknowledge, AgentTaskComplete, json, parse};
use munjigi_core::wire::aws::{AgentMessage, MessageType, Reader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Arrival, AwsLink, message};
use crate::gateway::nodes::{Admission, NodeLink, NodeOpener};
use crate::gateway::websocket::{Event, Message, WebSocket, WebSocketError};
use crate::{Server, clock, sessions};

/// Messages that cannot be read before the channel is closed: AWS's agent sends none.
const MAX_BROKEN: u32 = 16;
/// Messages that may wait for the socket before the agent is read no more.
const MAX_WAITING: usize = 64;

/// Serves a control channel until it ends.
pub(super) async fn serve(server: Arc<Server>, node: NodeId, socket: WebSocket, address: IpAddr) {
    let (aws, queue) = AwsLink::new(&server, &node);
    let link = NodeLink {
        epoch: server.gateway.aws.epoch(&node),
        node: node.clone(),
        only_user: None,
        ssh_host_key: None,
        address,
        since: clock::now(),
        opener: NodeOpener::Aws(aws),
        cancel: CancellationToken::new(),
    };
    // The epoch is the same for each connection of a node in this run of the server, so that a new one takes over.
    if server.gateway.nodes.admit(link.clone()) == Admission::AlreadyConnected {
        return;
    }
    sessions::aws_agent_connected(&server, &node, address).await;
    let channel = Channel { server: server.clone(), node, socket, queue, waiting: VecDeque::new(), broken: 0 };
    let ended = tokio::select! {
        ended = channel.run() => ended,
        () = link.cancel.cancelled() => Ok(()),
        () = server.stop.cancelled() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(node = %link.node, %error, "a control channel ended");
    }
    link.cancel.cancel();
    server.gateway.nodes.remove(&link);
    sessions::node_disconnected(&server, &link.node).await;
}

struct Channel {
    server: Arc<Server>,
    node: NodeId,
    socket: WebSocket,
    /// From sessions: messages for the agent.
    queue: mpsc::Receiver<Bytes>,
    /// What waits for room in the socket.
    waiting: VecDeque<Bytes>,
    broken: u32,
}

impl Channel {
    async fn run(mut self) -> Result<(), WebSocketError> {
        loop {
            let has_place = self.waiting.len() < MAX_WAITING;
            tokio::select! {
                event = self.socket.event(!self.waiting.is_empty()) => match event? {
                    Event::Writable => self.write()?,
                    Event::Received(Message::Binary(bytes)) => self.heard(bytes)?,
                    Event::Received(Message::Text(_)) => self.broken()?,
                },
                Some(message) = self.queue.recv(), if has_place => self.waiting.push_back(message),
            }
        }
    }

    fn write(&mut self) -> Result<(), WebSocketError> {
        while self.socket.has_room()
            && let Some(message) = self.waiting.pop_front()
        {
            self.socket.put(Message::Binary(message))?;
        }
        Ok(())
    }

    fn heard(&mut self, bytes: Bytes) -> Result<(), WebSocketError> {
        let Ok(heard) = AgentMessage::decode(bytes, Reader::Agent) else { return self.broken() };
        if heard.kind != MessageType::AgentTaskComplete {
            // Telemetry, results of updates and of jobs that nobody gave.
            return Ok(());
        }
        let Ok(complete) = parse::<AgentTaskComplete>("end of a task", &heard.payload) else { return self.broken() };
        let acknowledge = AgentTaskAcknowledge {
            schema_version: 1,
            message_id: heard.id.to_string(),
            task_id: complete.task_id.clone(),
            topic: complete.topic.clone(),
        };
        let session = SessionId::parse(&complete.task_id).ok();
        let aws = &self.server.gateway.aws;
        // An end that nobody waits for is acknowledged as well, so that the agent does not repeat it. One that its
        // session cannot take now is not: the agent sends it again.
        let kept_waiting = session.is_some_and(|session| {
            aws.has(&session, &self.node)
                && aws.deliver(&session, &self.node, Arrival::Complete(Box::new(complete))).is_err()
        });
        if !kept_waiting && self.waiting.len() < MAX_WAITING {
            let acknowledge = message(MessageType::AgentTaskAcknowledge, json(&acknowledge)).encode();
            self.waiting.extend(acknowledge.ok());
        }
        Ok(())
    }

    fn broken(&mut self) -> Result<(), WebSocketError> {
        self.broken += 1;
        if self.broken < MAX_BROKEN {
            return Ok(());
        }
        Err(WebSocketError::Protocol("too many messages that are none of a control channel".to_owned()))
    }
}
