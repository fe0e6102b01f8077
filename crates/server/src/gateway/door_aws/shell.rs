//! Shells and commands at the AWS door: the hub's frames on one side, payloads of the data channel on the other.
//!
//! To the hub it is a client like any other, with offsets of its own, so that recording, limits, live view and resume
//! are those of every session. While the AWS client is away the hub's stream is given up: then the session counts as
//! one without a client, and its resume window runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::session::{EndReason, OutputStream, SessionKind, Signal, TerminalSize};
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::message::MAX_MESSAGE;
use munjigi_core::wire::aws::payload::{ClientFeatures, Flag, Size, exit_code, parse};
use munjigi_core::wire::flow::{InputBuffer, OutputCursor};
use munjigi_core::wire::message::{Accepted, AttachSession, End, Pty};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::characters::incomplete_character;
use super::data_channel::{DataChannel, Gone, MAX_PAYLOAD, Outgoing, Presence};
use super::pump::{Beginning, LINGER};
use super::{FIRST_SIZE, handshake, session_type};
use crate::Server;
use crate::gateway::facts::SessionFacts;
use crate::gateway::hub::Order;
use crate::gateway::launch::{Surroundings, abandon, launch};
use crate::gateway::peer::FrameStream;
use crate::gateway::{Handle, serve};

/// Bytes that may wait between the hub and this adapter, each way.
const DUPLEX: usize = 64 * 1024;
/// How long the beginning of a character waits for its rest. AWS's agent never divides one; old clients and browsers
/// decode each message by itself.
const CHARACTER_LIMIT: Duration = Duration::from_millis(50);
/// `TERM` and `LANG` as AWS's agent gives them.
const TERM: &str = "xterm-256color";
const LANG: &str = "C.UTF-8";
/// What AWS's client sends for SIGINT and SIGQUIT.
const INTERRUPT: u8 = 0x03;
const QUIT: u8 = 0x1c;

/// Serves a shell or command until it ends or its client is gone for good.
pub(super) async fn serve(server: &Arc<Server>, mut channel: DataChannel, beginning: Beginning) {
    let facts = match &beginning {
        Beginning::Start(prepared) => Arc::new(prepared.facts.clone()),
        Beginning::TakeOver(handle) => handle.facts.clone(),
    };
    if facts.kind == SessionKind::Command && !facts.pty {
        let session_type = session_type(facts.kind, facts.pty);
        let separated = facts.separated.is_some();
        let hint = |version: &str| hint_about_streams(separated, version);
        if let Err(error) = handshake::perform(&mut channel, session_type, Value::Null, hint).await {
            let why = error.to_string();
            if let Beginning::Start(prepared) = beginning {
                abandon(server, &prepared.facts, prepared.recorder, why.clone()).await;
            }
            // If the client is gone there is nobody to tell.
            let _ = channel.send(Outgoing::End(why)).await;
            return;
        }
    }
    let (stream, hub) = FrameStream::pair(DUPLEX);
    let shell = Shell {
        server,
        interactive: facts.pty,
        facts,
        channel,
        hub: Some(stream),
        accepted: false,
        attached_anew: matches!(beginning, Beginning::TakeOver(_)),
        input: InputBuffer::default(),
        output: OutputCursor::default(),
        size: None,
        held: BytesMut::new(),
        held_until: None,
        last_stream: None,
        ready: VecDeque::new(),
    };
    match beginning {
        Beginning::Start(prepared) => {
            let pty = shell.interactive.then(|| Pty {
                term: TERM.to_owned(),
                rows: FIRST_SIZE.rows.into(),
                columns: FIRST_SIZE.columns.into(),
                ..Pty::default()
            });
            let environment = BTreeMap::from([("LANG".to_owned(), LANG.to_owned())]);
            launch(server, *prepared, Surroundings { pty, environment }, hub).await;
        }
        Beginning::TakeOver(handle) => {
            let wish = AttachSession { from_end: true, ..shell.wish() };
            shell.attach(&handle, hub, wish).await;
        }
    }
    // An error means that the pump is gone; the hub sees its stream close.
    let _ = shell.run().await;
}

/// What AWS's agent tells old clients about separate streams.
fn hint_about_streams(separated: bool, version: &str) -> String {
    match separated && !ClientFeatures::of(version).separate_output {
        true => "Standard output and error of this command are separate: session-manager-plugin 1.2.312.0 and later \
                 are made for it."
            .to_owned(),
        false => String::new(),
    }
}

/// Everything that can happen to the adapter.
enum Happened {
    FromHub(Result<Option<Frame>, FramedError>),
    FromClient(Option<(PayloadType, Bytes)>),
    Presence,
    HubFlushed(Result<(), FramedError>),
    /// The channel has room: what is ready went.
    Sent,
    /// The session ended while the client was away.
    Ended,
    TimePassed,
}

/// What the loop does next.
enum Next {
    Continue,
    /// Say this to the client and stop.
    End(String),
    /// Stop.
    Stop,
}

struct Shell<'s> {
    server: &'s Arc<Server>,
    facts: Arc<SessionFacts>,
    /// Whether the program has a terminal.
    interactive: bool,
    channel: DataChannel,
    /// The stream to the hub, while the client is here.
    hub: Option<FrameStream>,
    /// Whether the hub accepted that stream.
    accepted: bool,
    /// The session ran before this client came: it counts from where the session stands.
    attached_anew: bool,
    input: InputBuffer,
    output: OutputCursor,
    size: Option<TerminalSize>,
    /// The beginning of a character whose rest has not come.
    held: BytesMut,
    held_until: Option<Instant>,
    /// Which stream the output before came from, for the prefixes of separated streams.
    last_stream: Option<OutputStream>,
    /// For the client, in order; what one frame of the hub became.
    ready: VecDeque<Outgoing>,
}

impl Shell<'_> {
    async fn run(mut self) -> Result<(), Gone> {
        loop {
            self.feed_input();
            let next = match self.next().await {
                Happened::FromHub(frame) => self.heard_hub(frame).await,
                Happened::FromClient(Some((kind, payload))) => self.heard_client(kind, &payload),
                Happened::FromClient(None) => return Err(Gone),
                Happened::Presence => self.presence().await,
                Happened::HubFlushed(Ok(())) | Happened::Sent => Next::Continue,
                Happened::HubFlushed(Err(_)) => self.hub_lost(),
                Happened::Ended => self.ended_while_away().await,
                Happened::TimePassed => self.release_held(),
            };
            match next {
                Next::Continue => {}
                Next::End(text) => {
                    while let Some(outgoing) = self.ready.pop_front() {
                        self.channel.send(outgoing).await?;
                    }
                    return self.channel.send(Outgoing::End(text)).await;
                }
                Next::Stop => return Ok(()),
            }
        }
    }

    async fn next(&mut self) -> Happened {
        // Room for the largest message that any client may send. What has no input is read for signals.
        let reads_client = !self.interactive || self.input.room() >= MAX_MESSAGE;
        let reads_hub = self.ready.is_empty();
        let allowed = if self.accepted { FrameSet::TO_CLIENT } else { FrameSet::ANSWER };
        let held_until = self.held_until;
        let away = self.hub.is_none();
        let (mut read, mut write) = (None, None);
        if let Some(hub) = &mut self.hub {
            read = Some(&mut hub.reader);
            write = Some(&mut hub.writer);
        }
        let live = away.then(|| self.server.gateway.session(&self.facts.id));
        tokio::select! {
            biased;
            // An error would mean that the pump is gone, which `incoming` tells.
            Ok(()) = self.channel.presence.changed() => Happened::Presence,
            flushed = flush(write) => Happened::HubFlushed(flushed),
            Ok(permit) = self.channel.outgoing.reserve(), if !self.ready.is_empty() => {
                if let Some(outgoing) = self.ready.pop_front() {
                    permit.send(outgoing);
                }
                Happened::Sent
            }
            payload = self.channel.incoming.recv(), if reads_client => Happened::FromClient(payload),
            frame = read_frame(read, allowed), if reads_hub => Happened::FromHub(frame),
            () = ended(live) => Happened::Ended,
            () = sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => Happened::TimePassed,
        }
    }

    /// Hands what was typed to the hub.
    fn feed_input(&mut self) {
        let Some(hub) = self.hub.as_mut().filter(|_| self.accepted) else { return };
        while hub.writer.pending() < DUPLEX {
            let Some(frame) = self.input.next_frame() else { break };
            hub.feed(&frame);
        }
    }

    fn heard_client(&mut self, kind: PayloadType, payload: &Bytes) -> Next {
        match kind {
            PayloadType::Output if self.interactive => {
                self.input.push(payload);
            }
            PayloadType::Output => match payload.as_ref() {
                [INTERRUPT] => self.feed(&Frame::Signal(Signal::Interrupt)),
                [QUIT] => self.feed(&Frame::Signal(Signal::Quit)),
                // As with AWS's agent, a command without a terminal has no input.
                _ => {}
            },
            PayloadType::Size => self.resize(payload),
            PayloadType::Flag if Flag::parse(payload) == Some(Flag::TerminateSession) => {
                self.feed(&Frame::End(End {
                    reason: EndReason::Terminated.as_str().to_owned(),
                    message: String::new(),
                    exit: None,
                }));
            }
            // A handshake's answer that was not asked for, and what no client of a shell sends.
            _ => {}
        }
        Next::Continue
    }

    fn resize(&mut self, payload: &Bytes) {
        let Ok(Size { cols, rows }) = parse("size", payload) else { return };
        let side = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX).min(TerminalSize::MAX);
        let size = TerminalSize { rows: side(rows), columns: side(cols), width_pixels: 0, height_pixels: 0 };
        if let Some(size) = size.checked().filter(|_| self.interactive) {
            self.size = Some(size);
            self.feed(&Frame::Resize(size));
        }
    }

    /// Feeds a frame that is worth nothing later.
    fn feed(&mut self, frame: &Frame) {
        if let Some(hub) = self.hub.as_mut().filter(|_| self.accepted) {
            hub.feed(frame);
        }
    }

    async fn heard_hub(&mut self, frame: Result<Option<Frame>, FramedError>) -> Next {
        match frame {
            Ok(Some(Frame::Accepted(accepted))) => self.accepted(&accepted),
            Ok(Some(Frame::Refused(refused))) => Next::End(refused.message),
            Ok(Some(Frame::Output { offset, stream, data })) => self.output(offset, stream, data),
            Ok(Some(Frame::InputAck(offset))) => {
                // A count that cannot be right changes nothing here: what is held stays held.
                let _ = self.input.confirm(offset);
                Next::Continue
            }
            Ok(Some(Frame::InputWanted(offset))) => {
                self.send_again_from(offset);
                Next::Continue
            }
            Ok(Some(Frame::Notice(notice))) => self.notice(&notice.text),
            Ok(Some(Frame::End(end))) => self.ended(&end),
            // Sizes are for watchers; the allow-lists let nothing else through.
            Ok(Some(_)) => Next::Continue,
            Ok(None) | Err(_) => self.hub_lost(),
        }
    }

    fn accepted(&mut self, accepted: &Accepted) -> Next {
        self.accepted = true;
        if std::mem::take(&mut self.attached_anew) {
            self.input.start_at(accepted.input_from);
            self.output = OutputCursor::starting_at(accepted.output_from);
            let text = format!("you are back in session {}", self.facts.id);
            // The first output is also what makes AWS's client take up a shell.
            self.ready_notice(&text);
        } else {
            self.send_again_from(accepted.input_from);
        }
        if let Some(size) = self.size {
            self.feed(&Frame::Resize(size));
        }
        if !self.interactive {
            self.input.end();
        }
        Next::Continue
    }

    /// Continues the input where the session wants it.
    fn send_again_from(&mut self, offset: u64) {
        if self.input.send_again_from(offset).is_err() {
            // Somebody else typed into the session while this client was away: it goes on behind that.
            self.input = InputBuffer::default();
            self.input.start_at(offset);
        }
    }

    fn output(&mut self, offset: u64, stream: OutputStream, data: Bytes) -> Next {
        let Ok(new) = self.output.take(offset, data) else { return self.hub_lost() };
        let kind = match (stream, &self.facts.separated) {
            (OutputStream::Stderr, Some(_)) => PayloadType::StdErr,
            _ => PayloadType::Output,
        };
        if self.last_stream.replace(stream) != Some(stream) {
            self.flush_held();
            self.push_prefix(stream, kind);
        }
        self.push_output(kind, &new);
        Next::Continue
    }

    /// Puts what the document wants before each of two separate streams, whenever the other one had its turn.
    fn push_prefix(&mut self, stream: OutputStream, kind: PayloadType) {
        let Some(separated) = &self.facts.separated else { return };
        let prefix = match stream {
            OutputStream::Stdout => &separated.stdout_prefix,
            OutputStream::Stderr => &separated.stderr_prefix,
        };
        if !prefix.is_empty() {
            self.ready.push_back(Outgoing::Payload(kind, Bytes::from(prefix.clone())));
        }
    }

    /// Puts output in order for the client, whole characters at a time.
    fn push_output(&mut self, kind: PayloadType, new: &[u8]) {
        self.held.extend_from_slice(new);
        let incomplete = if self.interactive { incomplete_character(&self.held) } else { 0 };
        let whole = self.held.len().saturating_sub(incomplete);
        let mut whole = self.held.split_to(whole).freeze();
        self.held_until = (!self.held.is_empty()).then(|| Instant::now() + CHARACTER_LIMIT);
        while !whole.is_empty() {
            let piece = whole.split_to(whole.len().min(MAX_PAYLOAD));
            self.ready.push_back(Outgoing::Payload(kind, piece));
        }
    }

    fn flush_held(&mut self) {
        let held = self.held.split().freeze();
        self.held_until = None;
        if !held.is_empty() {
            self.ready.push_back(Outgoing::Payload(PayloadType::Output, held));
        }
    }

    fn release_held(&mut self) -> Next {
        self.flush_held();
        Next::Continue
    }

    /// Shows what our own client would print beside the output. AWS's client has one stream only, so that it stands on
    /// the terminal, and is left out where output is for programs.
    fn notice(&mut self, text: &str) -> Next {
        if self.interactive {
            self.ready_notice(text);
        }
        Next::Continue
    }

    fn ready_notice(&mut self, text: &str) {
        let text: String = text.chars().filter(|c| !c.is_control()).take(512).collect();
        let line = Bytes::from(format!("\r\n[munjigi: {text}]\r\n"));
        self.ready.push_back(Outgoing::Payload(PayloadType::Output, line));
    }

    fn ended(&mut self, end: &End) -> Next {
        self.flush_held();
        let exit = end.exit.as_ref();
        if self.facts.separated.is_some()
            && let Some(code) = exit.and_then(|exit| exit.code)
        {
            self.ready.push_back(Outgoing::Payload(PayloadType::ExitCode, exit_code(code)));
        }
        // An ordinary end needs no words; AWS's client then says that the session exits.
        let ordinary = end.reason == EndReason::Exited.as_str();
        Next::End(if ordinary { String::new() } else { end.message.clone() })
    }

    /// The hub gave the stream up. If the session lives, the client comes back to it.
    fn hub_lost(&mut self) -> Next {
        self.hub = None;
        self.accepted = false;
        Next::End("the session's stream broke".to_owned())
    }

    async fn presence(&mut self) -> Next {
        let presence = *self.channel.presence.borrow_and_update();
        match presence {
            Presence::Away => {
                // The hub sees its stream close: from now on the session has no client. What was read of the stream and
                // not yet counted comes again.
                self.hub = None;
                self.accepted = false;
                self.input.rewind();
            }
            Presence::Here if self.hub.is_none() => {
                let (stream, hub) = FrameStream::pair(DUPLEX);
                self.hub = Some(stream);
                let wish = self.wish();
                match self.server.gateway.session(&self.facts.id) {
                    Some(handle) => self.attach(&handle, hub, wish).await,
                    None => self.attach_past(hub, wish),
                }
            }
            Presence::Here => {}
        }
        Next::Continue
    }

    fn wish(&self) -> AttachSession {
        AttachSession {
            session_id: self.facts.id.to_string(),
            watch: false,
            output_from: self.output.received(),
            from_end: false,
            pty: None,
        }
    }

    async fn attach(&self, handle: &Handle, hub: FrameStream, wish: AttachSession) {
        if let Err(Order::Attach(hub, wish)) = handle.order(Order::Attach(hub, wish)).await {
            // It ended between the look-up and the order.
            self.attach_past(hub, wish);
        }
    }

    /// Reads the rest of a session that is over from its recording.
    fn attach_past(&self, hub: FrameStream, wish: AttachSession) {
        let (server, request, id) = (self.server.clone(), self.facts.request.again(), self.facts.id.clone());
        let tasks = self.server.tasks.clone();
        tasks.spawn(async move { serve::attach_past(&server, request, hub, id, wish).await });
    }

    /// The session is over and the client away. It has a while to come back for the rest.
    async fn ended_while_away(&mut self) -> Next {
        let linger = self.facts.limits.resume_window.min(LINGER);
        let back = self.channel.presence.wait_for(|presence| *presence == Presence::Here);
        match tokio::time::timeout(linger, back).await.is_ok_and(|back| back.is_ok()) {
            true => self.presence().await,
            // The answer to ResumeSession tells a client that comes later.
            false => Next::Stop,
        }
    }
}

async fn flush(writer: Option<&mut crate::gateway::peer::PeerWriter>) -> Result<(), FramedError> {
    match writer.filter(|writer| !writer.is_flushed()) {
        Some(writer) => writer.flush().await,
        None => std::future::pending().await,
    }
}

async fn read_frame(
    reader: Option<&mut crate::gateway::peer::PeerReader>,
    allowed: FrameSet,
) -> Result<Option<Frame>, FramedError> {
    match reader {
        Some(reader) => reader.read(allowed).await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of a session that has no client; at once if it is over already.
async fn ended(live: Option<Option<Handle>>) {
    match live {
        Some(Some(mut handle)) => {
            // An error means that the hub is gone: over as well.
            let _ = handle.outcome.wait_for(Option::is_some).await;
        }
        Some(None) => {}
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_are_told_of_separate_streams() {
        assert!(hint_about_streams(true, "1.2.295.0").contains("1.2.312.0"));
        assert_eq!(hint_about_streams(true, "1.2.312.0"), "");
        assert_eq!(hint_about_streams(false, "1.0.0.0"), "");
    }
}
