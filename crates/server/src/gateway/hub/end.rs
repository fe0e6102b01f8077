//! The recording, what is due, and how a session ends.

use std::sync::Arc;

use munjigi_core::recording::{Event, EventKind};
use munjigi_core::session::{EndReason, ExitStatus};
use munjigi_core::time::Timestamp;
use munjigi_core::wire::Frame;
use munjigi_core::wire::message::{End, Refused};
use tokio::time::Instant;

use super::Hub;
use crate::clock;
use crate::gateway::close_in_background;
use crate::gateway::facts::Outcome;
use crate::gateway::peer::NodeEnd;
use crate::gateway::timers::Due;

impl Hub {
    pub(super) fn record(&mut self, kind: EventKind) {
        self.record_at(clock::now(), kind);
    }

    fn record_at(&mut self, at: Timestamp, kind: EventKind) {
        if self.recording_is_broken {
            return;
        }
        let at = u64::try_from(at.since(self.facts.started).as_micros()).unwrap_or(u64::MAX);
        match self.recorder.as_ref().map(|recorder| recorder.append(Event { at, kind })) {
            Some(Ok(number)) => self.recorded = number,
            Some(Err(error)) => self.recording_failed(&error.to_string()),
            None => {}
        }
    }

    pub(super) fn mark(&mut self, text: String) {
        self.record(EventKind::Marker { text });
    }

    /// A session that cannot be recorded stops (design idea 1).
    pub(super) fn recording_failed(&mut self, why: &str) {
        if !self.recording_is_broken {
            self.recording_is_broken = true;
            tracing::error!(session = %self.facts.id, why, "a recording failed; its session is ended");
            let message = format!("the recording could not be written: {why}");
            self.ending = Some((EndReason::RecordingFailed, message.clone()));
            self.times.ending.get_or_insert_with(Instant::now);
            let reason = EndReason::RecordingFailed.as_str().to_owned();
            self.feed_node(&Frame::End(End { reason, message, exit: None }));
        }
    }

    pub(super) fn stored(&mut self) {
        let progress = self.progress.borrow_and_update().clone();
        if let Some(why) = &progress.failed {
            self.recording_failed(why);
            return;
        }
        let strict = self.facts.limits.strict_recording;
        let stored = if strict { progress.durable_output } else { progress.written_output };
        if strict {
            self.log.show(stored);
        }
        if stored > self.output_acked {
            self.output_acked = stored;
            self.feed_node(&Frame::OutputAck(stored));
        }
        self.statements_stored(progress.durable_events);
        self.trim();
    }

    pub(super) fn trim(&mut self) {
        let written = self.progress.borrow().written_output;
        let needed = self.client.as_ref().map_or(written, |client| client.cursor.min(written));
        self.log.trim(needed);
    }

    /// Records what happened to the connections of a port session, and their statements.
    pub(super) fn record_connections(&mut self) {
        let Some(taken) = self.ports.as_ref().map(|ports| ports.take()) else { return };
        for (at, kind) in taken.events {
            self.connections.note(&kind);
            if let EventKind::Connection(event) = &kind
                && self.facts.forward.is_some()
            {
                self.ends.add(at, event);
            }
            self.record_at(at, kind);
        }
        self.held_up_at = taken.held_up_at.or(self.held_up_at);
        if self.facts.limits.strict_recording && !self.recording_is_broken {
            self.unstored.push_back((self.recorded, taken.statements));
        }
    }

    /// Has the ends of connections written into the trail, and that they are held up, once.
    pub(super) async fn audit_ends(&mut self) {
        if let Some(rate) = self.held_up_at.take() {
            crate::forwarding::held_up(&self.server, &self.facts, rate).await;
        }
        for ended in self.ends.take() {
            crate::forwarding::closed(&self.server, &self.facts, &ended).await;
        }
    }

    /// Lets statements go to their databases whose events are on the disk, the first so many of the recording.
    fn statements_stored(&mut self, durable_events: u64) {
        while let Some((_, statements)) = self.unstored.pop_front_if(|(event, _)| *event <= durable_events) {
            if let Some(ports) = &self.ports {
                ports.statements_stored(statements);
            }
        }
    }

    /// Cuts the connections of a port session and records their ends.
    pub(super) fn cut_connections(&mut self, why: &str) {
        if let Some(ports) = &self.ports {
            ports.end(why);
            self.record_connections();
        }
    }

    pub(super) async fn time_passed(&mut self) {
        // Bytes of connections do not pass through here: whether there were some is asked when it matters.
        let active = self.ports.as_ref().and_then(|ports| ports.active());
        self.times.active = active.map_or(self.times.active, |active| active.max(self.times.active));
        match self.times.due(Instant::now(), &self.facts.limits) {
            Due::Nothing => {}
            Due::Warn(text) => {
                self.mark(text.clone());
                self.notify(text);
            }
            Due::End(EndReason::NodeLost) => {
                self.ending.get_or_insert_with(|| (EndReason::NodeLost, EndReason::NodeLost.sentence().to_owned()));
                let reason = self.ending.as_ref().map_or(EndReason::NodeLost, |(reason, _)| *reason);
                self.finish(reason, None);
            }
            Due::End(reason) => self.end(reason, reason.sentence().to_owned()).await,
            Due::StartTimedOut => {
                let message = "the node did not answer in time; `munjigi doctor` on it may know why".to_owned();
                self.start_refused(Refused { code: "TargetNotConnected".to_owned(), message, ..Refused::default() });
            }
            Due::EndTimedOut => {
                let reason = self.ending.as_ref().map_or(EndReason::Terminated, |(reason, _)| *reason);
                self.mark("the node did not confirm the end".to_owned());
                self.finish(reason, None);
            }
        }
    }

    /// Seals the recording, then writes the end into store and trail; [`Self::finished`] follows.
    pub(super) fn finish(&mut self, reason: EndReason, exit: Option<ExitStatus>) {
        self.cut_connections(reason.sentence());
        let Some(recorder) = self.recorder.take() else { return };
        let (server, facts) = (self.server.clone(), self.facts.clone());
        let message = self.ending.take().map_or_else(|| reason.sentence().to_owned(), |(_, message)| message);
        let output_end = self.log.end();
        let connections = self.ports.as_ref().map(|_| std::mem::take(&mut self.connections));
        let ends = self.ends.take();
        let at: Timestamp = clock::now();
        self.finishing = Some(tokio::spawn(async move {
            let sealed = recorder.seal(reason, exit.clone()).await;
            let outcome = Outcome { reason, message, exit, output_end, at, connections };
            for ended in &ends {
                crate::forwarding::closed(&server, &facts, ended).await;
            }
            if facts.forward.is_some() {
                // The session's end stands behind those of its connections.
                crate::forwarding::flush(&server).await;
            }
            crate::sessions::ended(&server, &facts, &outcome, sealed).await;
            outcome
        }));
    }

    pub(super) fn finished(&mut self, outcome: Outcome) {
        self.finishing = None;
        self.log.show(self.log.end());
        let outcome = Arc::new(outcome);
        // "Recorded, forget the session."
        self.feed_node(&Frame::OutputAck(self.log.end()));
        self.feed_node(&Frame::End(outcome.to_end()));
        self.node = match std::mem::replace(&mut self.node, NodeEnd::Done(None)) {
            NodeEnd::Running(stream) | NodeEnd::Starting(stream, _) => NodeEnd::Done(Some(stream)),
            _ => NodeEnd::Done(None),
        };
        if let Some((mut stream, _)) = self.waiting.take() {
            let message = outcome.message.clone();
            stream.feed(&Frame::Refused(Refused { code: "SessionEnded".to_owned(), message, ..Refused::default() }));
            close_in_background(stream);
        }
        self.server.gateway.forget(&self.facts.id);
        self.outcome.send_replace(Some(outcome.clone()));
        self.finished = Some(outcome);
    }
}
