//! What the node says, and its going.

use bytes::Bytes;
use munjigi_core::recording::EventKind;
use munjigi_core::session::{EndReason, OutputStream};
use munjigi_core::wire::Frame;
use munjigi_core::wire::message::{Exit, Notice, Refused};
use tokio::time::Instant;

use super::Hub;
use crate::gateway::close_in_background;
use crate::gateway::facts::exit_status;
use crate::gateway::peer::{NodeEnd, continue_at};
use crate::sessions::Change;

impl Hub {
    pub(super) fn feed_node(&mut self, frame: &Frame) {
        if let Some(stream) = self.node.stream() {
            stream.feed(frame);
        }
    }

    pub(super) async fn heard_node(&mut self, frame: Frame) {
        match frame {
            Frame::Accepted(_) => self.started().await,
            Frame::Refused(refused) => self.start_refused(refused),
            Frame::Output { offset, stream, data } => self.output(offset, stream, data).await,
            Frame::InputAck(offset) => self.input_acknowledged(offset),
            Frame::Exit(exit) => self.exited(exit),
            Frame::Notice(notice) => self.notify(notice.text),
            // The allow-lists let nothing else through.
            _ => {}
        }
    }

    pub(super) async fn started(&mut self) {
        let node = std::mem::replace(&mut self.node, NodeEnd::Done(None));
        self.node = match node {
            NodeEnd::Starting(stream, _) => NodeEnd::Running(stream),
            other => other,
        };
        self.times.starting = None;
        let accepted = self.accepted(0);
        if let Some(client) = &mut self.client {
            client.stream.feed(&Frame::Accepted(Box::new(accepted)));
            client.accepted = true;
            self.change(Change::Attached).await;
        } else if let Some((stream, wish)) = self.waiting.take() {
            self.accept(stream, &wish).await;
        }
    }

    pub(super) fn start_refused(&mut self, refused: Refused) {
        if let Some(mut client) = self.client.take() {
            client.stream.feed(&Frame::Refused(refused.clone()));
            close_in_background(client.stream);
        }
        self.ending = Some((EndReason::StartFailed, refused.message));
        self.finish(EndReason::StartFailed, None);
    }

    pub(super) async fn output(&mut self, offset: u64, stream: OutputStream, data: Bytes) {
        let Ok(new) = continue_at(self.log.end(), offset, data) else {
            self.node_lost("the node left out output").await;
            return;
        };
        let Some(data) = new.filter(|_| !self.recording_is_broken) else { return };
        let bytes = data.clone();
        self.record(EventKind::Output { stream, offset: self.log.end(), bytes });
        self.log.append(stream, data);
        if self.facts.limits.idle_counts_output {
            self.times.active = Instant::now();
        }
        if !self.facts.limits.strict_recording {
            self.log.show(self.log.end());
        }
        if self.client.is_none() {
            self.trim();
        }
    }

    pub(super) fn input_acknowledged(&mut self, offset: u64) {
        if offset > self.input_acked && offset <= self.input_next {
            self.input_acked = offset;
            if let Some(client) = &mut self.client {
                client.stream.feed(&Frame::InputAck(offset));
            }
        }
    }

    pub(super) fn exited(&mut self, exit: Exit) {
        if exit.output_end != self.log.end() {
            self.mark(format!("the node counts {} bytes of output, the recording {}", exit.output_end, self.log.end()));
        }
        let reason = self.ending.as_ref().map_or(EndReason::Exited, |(reason, _)| *reason);
        let status = exit_status(&exit);
        // Only a half that lost the other one does not know how the program ended.
        let reason = if status.is_none() && reason == EndReason::Exited { EndReason::AgentDied } else { reason };
        self.finish(reason, status);
    }

    pub(super) async fn node_lost(&mut self, why: &str) {
        if matches!(self.node, NodeEnd::Away(_)) {
            return;
        }
        tracing::debug!(session = %self.facts.id, why, "node lost");
        let was_starting = matches!(self.node, NodeEnd::Starting(..));
        if matches!(self.node, NodeEnd::Done(_)) {
            self.node = NodeEnd::Done(None);
            return;
        }
        let now = Instant::now();
        self.node = NodeEnd::Away(now);
        self.times.without_node = Some(now);
        self.times.ending = None;
        self.mark(format!("node lost: {why}"));
        if was_starting {
            // Whether the program started is not known; if it did, the node comes back with it.
            self.times.starting = Some(self.times.starting.unwrap_or(now));
        }
        if let Some((reason, _)) = self.ending {
            // It was being ended anyway; a node that comes back with it is told that it is over.
            self.finish(reason, None);
            return;
        }
        self.notify("the node is out of reach; the session goes on when it is back".to_owned());
        self.change(Change::Detached).await;
    }

    pub(super) fn notify(&mut self, text: String) {
        if let Some(client) = self.client.as_mut().filter(|client| client.accepted) {
            client.stream.feed(&Frame::Notice(Notice { text }));
        }
    }
}
