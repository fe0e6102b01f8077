//! What the hub is told: that the program runs, what it prints, and how it ended.

use bytes::Bytes;
use munjigi_core::session::OutputStream;
use munjigi_core::wire::Frame;
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::{HandshakeComplete, parse, parse_exit_code};
use munjigi_core::wire::frame::MAX_DATA;
use munjigi_core::wire::message::{Accepted, Exit, Notice, Refused};
use tokio::time::Instant;

use super::{FAREWELL_LIMIT, Kind, OUTPUT_AHEAD, OUTPUT_MOST, OUTPUT_RESUMED, Phase, Session};

impl Session<'_> {
    /// Gives the hub what the channel has, as long as the hub takes it.
    pub(super) fn deliver(&mut self) {
        while self.stream.writer.pending() < OUTPUT_MOST && self.phase != Phase::Told {
            let Some((kind, payload)) = self.channel.next_delivery() else { break };
            self.delivered(kind, payload);
        }
        let full = self.stream.writer.pending() >= if self.paused { OUTPUT_RESUMED } else { OUTPUT_AHEAD };
        if full != self.paused && self.socket.is_some() {
            self.publication(full);
        }
        // The agent drops the data channel before it says that the session is over, so that this waits for nothing.
        let all_is_delivered = self.stream.writer.pending() < OUTPUT_MOST && self.socket.is_none();
        if all_is_delivered && self.complete.is_some() && self.phase != Phase::Told {
            self.tell_end();
        }
    }

    pub(super) fn delivered(&mut self, kind: PayloadType, payload: Bytes) {
        match kind {
            PayloadType::Output => self.output(OutputStream::Stdout, payload),
            PayloadType::StdErr => self.output(OutputStream::Stderr, payload),
            PayloadType::ExitCode => self.exit = parse_exit_code(&payload),
            PayloadType::HandshakeRequest => self.handshake(&payload),
            PayloadType::HandshakeComplete => {
                self.accept();
                if let Ok(complete) = parse::<HandshakeComplete>("end of a handshake", &payload) {
                    self.notify(&complete.customer_message);
                }
            }
            // Nothing else means anything in a shell or command.
            _ => {}
        }
    }

    pub(super) fn output(&mut self, stream: OutputStream, mut data: Bytes) {
        self.accept();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DATA));
            let offset = self.output_end;
            self.output_end += piece.len() as u64;
            self.stream.feed(&Frame::Output { offset, stream, data: piece });
        }
    }

    /// The program runs: says so once.
    pub(super) fn accept(&mut self) {
        if !matches!(self.phase, Phase::Ordered | Phase::Settling) {
            return;
        }
        self.phase = Phase::Running;
        if !self.ending && self.complete.is_none() {
            self.until = None;
        }
        let accepted = Accepted {
            session_id: self.grant.session.to_string(),
            node_id: self.link.node.to_string(),
            os_user: self.grant.os_user.clone(),
            has_pty: self.kind.has_terminal(),
            ..Accepted::default()
        };
        self.stream.feed(&Frame::Accepted(Box::new(accepted)));
    }

    pub(super) fn notify(&mut self, text: &str) {
        if !text.is_empty() && self.phase == Phase::Running {
            let text: String = text.chars().take(1024).collect();
            self.stream.feed(&Frame::Notice(Notice { text }));
        }
    }

    /// Tells the hub how it ended: as the start that failed, or as the program's end.
    pub(super) fn tell_end(&mut self) {
        let complete = self.complete.clone();
        let failed = complete.as_ref().filter(|complete| complete.final_task_status != "Success");
        let why = failed.map(|complete| {
            let said = Some(complete.output.trim()).filter(|text| !text.is_empty());
            format!(
                "AWS's agent ended the session as {}: {}",
                complete.final_task_status,
                said.unwrap_or("no reason given")
            )
        });
        // The status stands behind the output; an end that was ordered has its reason already.
        let is_cut = if self.said_all { self.channel.has_gap() } else { !self.ending };
        if is_cut && why.is_none() && self.exit.is_none() && self.kind == Kind::NonInteractive {
            // A status of 0 would say that this is all.
            let detail = "AWS's agent ended before all output had come: the rest is lost".to_owned();
            self.notify(&detail);
            return self.tell_exit(None, detail);
        }
        match why {
            Some(message) if self.phase != Phase::Running => return self.refuse(message),
            Some(message) => self.notify(&message),
            None => self.accept(),
        }
        // A shell's status does not travel: the agent says no more than that it went well.
        let code = self.exit.or(complete.map(|complete| i32::from(complete.final_task_status != "Success")));
        self.tell_exit(code, String::new());
    }

    pub(super) fn refuse(&mut self, message: String) {
        let code = "TargetNotConnected".to_owned();
        self.stream.feed(&Frame::Refused(Refused { code, message, ..Refused::default() }));
        self.told();
    }

    pub(super) fn tell_exit(&mut self, code: Option<i32>, detail: String) {
        self.accept();
        self.stream.feed(&Frame::Exit(Exit { output_end: self.output_end, code, detail, ..Exit::default() }));
        self.told();
    }

    pub(super) fn told(&mut self) {
        self.phase = Phase::Told;
        self.until = Some(Instant::now() + FAREWELL_LIMIT);
    }
}
