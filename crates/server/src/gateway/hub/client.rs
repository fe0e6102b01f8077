//! What the primary client says, and its going.

use bytes::Bytes;
use munjigi_core::recording::{EventKind, InputData};
use munjigi_core::session::{EndReason, TerminalSize};
use munjigi_core::wire::Frame;
use tokio::time::Instant;

use super::Hub;
use crate::gateway::peer::continue_at;
use crate::sessions::Change;

impl Hub {
    pub(super) async fn heard_client(&mut self, frame: Frame) {
        match frame {
            Frame::Input { offset, data } => self.input(offset, data),
            Frame::InputEnd { offset } if offset == self.input_next => self.feed_node(&Frame::InputEnd { offset }),
            // Out of turn: it is sent again behind the input that is still missing.
            Frame::InputEnd { .. } => {}
            Frame::Resize(size) => self.resize(size),
            Frame::Signal(signal) => self.feed_node(&Frame::Signal(signal)),
            Frame::Detach => self.client_gone("the client detached").await,
            Frame::End(_) => self.end(EndReason::Terminated, "the person ended the session".to_owned()).await,
            // FrameSet::FROM_CLIENT lets nothing else through.
            _ => {}
        }
    }

    pub(super) fn input(&mut self, offset: u64, data: Bytes) {
        if self.node.stream().is_none() || self.ending.is_some() {
            return;
        }
        // A gap means that the client was asked to go back and has not yet heard it.
        let Ok(Some(data)) = continue_at(self.input_next, offset, data) else { return };
        let offset = self.input_next;
        self.input_next += data.len() as u64;
        self.times.active = Instant::now();
        self.record_input(offset, data.clone());
        self.feed_node(&Frame::Input { offset, data });
    }

    /// Records input. What was recorded before (it is sent again after a broken link) is left out; what is missing
    /// before `offset` (it was taken while no server could record it) is recorded as so many bytes.
    pub(super) fn record_input(&mut self, offset: u64, data: Bytes) {
        let from = self.input_recorded;
        if offset > from {
            self.record(EventKind::Input { offset: from, data: InputData::Hidden(offset - from) });
            self.input_recorded = offset;
        }
        let Ok(Some(new)) = continue_at(self.input_recorded, offset, data) else { return };
        let offset = self.input_recorded;
        self.input_recorded += new.len() as u64;
        let data = match self.facts.record_input {
            true => InputData::Bytes(new),
            false => InputData::Hidden(new.len() as u64),
        };
        self.record(EventKind::Input { offset, data });
    }

    pub(super) fn resize(&mut self, size: TerminalSize) {
        if self.size != Some(size) {
            self.size = Some(size);
            self.record(EventKind::Resize(size));
            self.feed_node(&Frame::Resize(size));
        }
    }

    pub(super) async fn client_lost(&mut self, why: &str) {
        if self.client.is_some() {
            tracing::debug!(session = %self.facts.id, why, "client lost");
            self.client_gone(&format!("client lost: {why}")).await;
        }
    }

    pub(super) async fn client_gone(&mut self, why: &str) {
        let told = self.client.take().is_some_and(|client| client.end_fed);
        if told || self.finished.is_some() {
            return;
        }
        self.times.without_client = Some(Instant::now());
        self.mark(why.to_owned());
        self.change(Change::Detached).await;
    }
}
