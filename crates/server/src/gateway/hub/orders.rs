//! What others ask of a session: attach, rejoin, end.

use bytes::Bytes;
use munjigi_core::session::EndReason;
use munjigi_core::wire::Frame;
use munjigi_core::wire::message::{Accepted, AttachSession, End, Notice, Pty, Refused, Rejoin, Rejoined};
use tokio::time::Instant;

use super::{Hub, Order};
use crate::gateway::close_in_background;
use crate::gateway::peer::{ClientEnd, FrameStream, NodeEnd};
use crate::sessions::Change;

impl Hub {
    pub(super) async fn ordered(&mut self, order: Order) {
        match order {
            Order::Attach(stream, wish) => self.attach(stream, wish).await,
            Order::Rejoin(stream, rejoin) => self.rejoin(stream, &rejoin).await,
            Order::End { reason, message, done } => {
                self.done.extend(done);
                self.end(reason, message).await;
            }
            Order::Watcher(text) => {
                self.mark(text.clone());
                self.notify(text);
            }
        }
    }

    pub(super) async fn attach(&mut self, stream: FrameStream, wish: AttachSession) {
        if let Some(mut former) = self.client.take() {
            let message = "another client of yours took this session over".to_owned();
            former.stream.feed(&Frame::End(End { reason: "taken-over".to_owned(), message, exit: None }));
            close_in_background(former.stream);
        }
        if let Some((former, _)) = self.waiting.take() {
            close_in_background(former);
        }
        if self.node.is_running() || self.finishing.is_some() || self.finished.is_some() {
            self.accept(stream, &wish).await;
        } else {
            // Until the node tells how much input it has, a new client cannot know where its own begins.
            self.waiting = Some((stream, wish));
        }
    }

    /// Makes the stream the primary client.
    pub(super) async fn accept(&mut self, stream: FrameStream, wish: &AttachSession) {
        let end = self.log.visible();
        let cursor = if wish.from_end { end } else { wish.output_from.min(end) };
        let mut client = ClientEnd::new(stream, cursor);
        client.stream.feed(&Frame::Accepted(Box::new(self.accepted(cursor))));
        client.accepted = true;
        self.client = Some(client);
        self.times.without_client = None;
        self.mark(format!("client attached at output {cursor}"));
        self.change(Change::Attached).await;
        if let Some(size) = wish.pty.as_ref().and_then(Pty::size) {
            self.resize(size);
        }
    }

    pub(super) fn accepted(&self, output_from: u64) -> Accepted {
        Accepted {
            session_id: self.facts.id.to_string(),
            node_id: self.facts.node.to_string(),
            node_name: self.facts.node_name.clone(),
            os_user: self.facts.os_user.clone(),
            input_from: self.input_next,
            output_from,
            resume_window_secs: u32::try_from(self.facts.limits.resume_window.as_secs()).unwrap_or(u32::MAX),
            has_pty: self.facts.pty,
            kind: self.facts.kind.as_str().to_owned(),
            port_properties: self.facts.port_properties.clone(),
            ..Accepted::default()
        }
    }

    pub(super) async fn rejoin(&mut self, mut stream: FrameStream, rejoin: &Rejoin) {
        if self.finishing.is_some() || self.finished.is_some() {
            let message = "the session is over".to_owned();
            stream.feed(&Frame::Refused(Refused { code: "SessionEnded".to_owned(), message, ..Refused::default() }));
            close_in_background(stream);
            return;
        }
        let stored = self.log.end();
        stream.feed(&Frame::Rejoined(Rejoined { output_stored: stored }));
        self.node = NodeEnd::Running(stream);
        self.times.without_node = None;
        self.times.starting = None;
        if rejoin.output_from > stored {
            // The node forgot output that this server had acknowledged and no longer has: a power failure took it.
            self.recording_failed(&format!("{} bytes of output are lost", rejoin.output_from - stored));
        }
        if rejoin.input_received > self.input_recorded {
            // Typed and taken before this server was killed; what it was is not known, how much it was is.
            self.record_input(rejoin.input_received, Bytes::new());
        }
        self.input_next = rejoin.input_received;
        self.input_acked = self.input_acked.max(rejoin.input_received);
        self.output_acked = 0;
        self.stored();
        if let Some(size) = self.size {
            self.feed_node(&Frame::Resize(size));
        }
        self.mark("the node is back".to_owned());
        if let Some((stream, wish)) = self.waiting.take() {
            self.accept(stream, &wish).await;
        } else if self.client.as_ref().is_some_and(|client| !client.accepted) {
            self.started().await;
        } else if let Some(client) = &mut self.client {
            client.stream.feed(&Frame::InputWanted(rejoin.input_received));
            client.stream.feed(&Frame::InputAck(rejoin.input_received));
            let text = "the node is reachable again".to_owned();
            client.stream.feed(&Frame::Notice(Notice { text }));
        }
        let (attached, ending) = (self.client.is_some(), self.ending.clone());
        self.change(if attached { Change::Attached } else { Change::Detached }).await;
        if let Some((reason, message)) = ending {
            self.feed_node(&Frame::End(End { reason: reason.as_str().to_owned(), message, exit: None }));
        }
    }

    /// Orders the end of the session; the node says when the program is gone.
    pub(super) async fn end(&mut self, reason: EndReason, message: String) {
        if self.finishing.is_some() || self.finished.is_some() {
            return;
        }
        if self.ending.is_none() {
            self.ending = Some((reason, message.clone()));
            self.cut_connections(&message);
            self.mark(format!("ending: {message}"));
            self.change(Change::Ending).await;
        }
        match &self.node {
            // The run of the agent that had the program is gone: nobody is left to answer.
            _ if reason == EndReason::AgentDied => self.finish(reason, None),
            NodeEnd::Starting(..) | NodeEnd::Running(_) => {
                self.times.ending.get_or_insert_with(Instant::now);
                self.feed_node(&Frame::End(End { reason: reason.as_str().to_owned(), message, exit: None }));
            }
            NodeEnd::Away(_) | NodeEnd::Done(_) => self.finish(reason, None),
        }
    }
}
