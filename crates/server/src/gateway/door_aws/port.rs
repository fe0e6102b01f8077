//! Port sessions at the AWS door: the handshake, the session's own stream to the hub, and which of AWS's three ways
//! of carrying bytes a client takes.
//!
//! While the client is away the session counts as one without a client, and its resume window runs; its connections
//! stay, and wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use munjigi_core::session::EndReason;
use munjigi_core::wire::aws::payload::{ClientFeatures, LOCAL_PORT_FORWARDING};
use munjigi_core::wire::message::AttachSession;
use munjigi_core::wire::{Frame, FrameKind, FrameSet};
use munjigi_link::framed::FramedError;
use serde_json::json;
use tokio::sync::watch;

use super::data_channel::{DataChannel, Outgoing, Presence};
use super::pump::Beginning;
use super::{handshake, port_basic, port_mux, port_stdio, session_type};
use crate::Server;
use crate::gateway::facts::SessionFacts;
use crate::gateway::hub::Order;
use crate::gateway::launch::{Surroundings, abandon, launch};
use crate::gateway::peer::FrameStream;
use crate::gateway::ports::PortSession;
use crate::gateway::{Handle, end};

/// Bytes that may wait between the hub and this adapter, each way: notices and ends only.
const DUPLEX: usize = 16 * 1024;

/// What the hub says to the client of a port session, at its attach and later.
const FROM_HUB: FrameSet = FrameSet::of(&[
    FrameKind::Accepted,
    FrameKind::Refused,
    FrameKind::InputAck,
    FrameKind::InputWanted,
    FrameKind::Notice,
    FrameKind::End,
]);

/// How a way of carrying bytes came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The client is gone for good.
    Gone,
    /// The client ended the session.
    Terminated,
    /// The destination ended the only connection there is.
    Completed,
    /// It cannot go on, and why.
    Broken(String),
}

/// How the bytes of connections travel in the channel (session-manager-protocol 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Many connections, in smux.
    Mux {
        /// The client ends the multiplexer if it hears nothing.
        keep_alive: bool,
    },
    /// One connection after the other, for clients that know no smux.
    Basic,
    /// One connection, from the client's standard input and output.
    Stdio,
}

impl Mode {
    /// Decides as the client does, which knows our version and its own.
    fn of(properties: &BTreeMap<String, String>, client_version: &str) -> Self {
        let features = ClientFeatures::of(client_version);
        match properties.get("type").map(String::as_str) {
            Some(LOCAL_PORT_FORWARDING) if features.multiplexing => Self::Mux { keep_alive: !features.no_keep_alive },
            Some(LOCAL_PORT_FORWARDING) => Self::Basic,
            _ => Self::Stdio,
        }
    }
}

/// Serves a port session until it ends or its client is gone for good.
pub(super) async fn serve(server: &Arc<Server>, mut channel: DataChannel, beginning: Beginning) {
    let facts = match &beginning {
        Beginning::Start(prepared) => Arc::new(prepared.facts.clone()),
        Beginning::TakeOver(handle) => handle.facts.clone(),
    };
    let kind = session_type(facts.kind, facts.pty);
    let version = match handshake::perform(&mut channel, kind, json!(facts.port_properties), |_| String::new()).await {
        Ok(version) => version,
        Err(error) => {
            if let Beginning::Start(prepared) = beginning {
                abandon(server, &prepared.facts, prepared.recorder, error.to_string()).await;
            }
            // If the client is gone there is nobody to tell.
            let _ = channel.send(Outgoing::End(error.to_string())).await;
            return;
        }
    };
    let mode = Mode::of(&facts.port_properties, &version);
    let (stream, hub) = FrameStream::pair(DUPLEX);
    let presence = channel.presence.clone();
    let mut own = OwnStream { server, facts, presence, hub: Some(stream), handle: None };
    match beginning {
        Beginning::Start(prepared) => {
            let around = Surroundings { pty: None, environment: BTreeMap::new() };
            launch(server, *prepared, around, hub).await;
        }
        Beginning::TakeOver(handle) => own.attach(&handle, hub).await,
    }
    if let Some(text) = until_end(&mut own, &mut channel, mode).await {
        // If the client is gone there is nobody to tell.
        let _ = channel.send(Outgoing::End(text)).await;
    }
}

/// Carries bytes until the session ends; returns what the client shall be told, or nothing if it is gone.
async fn until_end(own: &mut OwnStream<'_>, channel: &mut DataChannel, mode: Mode) -> Option<String> {
    let session = match own.accepted().await {
        Ok(session) => session,
        Err(text) => return Some(text),
    };
    let finish = tokio::select! {
        text = own.ended() => return Some(text),
        finish = carry(mode, channel, &session) => finish,
    };
    let (reason, message) = match finish {
        Finish::Gone => return None,
        Finish::Terminated => (EndReason::Terminated, "the person ended the session".to_owned()),
        Finish::Completed => (EndReason::Exited, "the destination ended the connection".to_owned()),
        Finish::Broken(why) => (EndReason::Exited, why),
    };
    let told = if finish_is_ordinary(reason, &message) { String::new() } else { message.clone() };
    end(session.handle(), reason, &message).await;
    own.ended().await;
    Some(told)
}

/// An ordinary end needs no words; AWS's client then says that the session exits.
fn finish_is_ordinary(reason: EndReason, message: &str) -> bool {
    reason == EndReason::Terminated || message == "the destination ended the connection"
}

async fn carry(mode: Mode, channel: &mut DataChannel, session: &PortSession) -> Finish {
    let connect = || {
        let session = session.clone();
        async move { session.connect().await }
    };
    match mode {
        Mode::Mux { keep_alive } => port_mux::carry(channel, connect, keep_alive.then_some(port_mux::KEEP_ALIVE)).await,
        Mode::Basic => port_basic::carry(channel, connect).await,
        Mode::Stdio => port_stdio::carry(channel, connect).await,
    }
}

/// The session's own stream to the hub: it carries no bytes, only the session's beginning and end.
struct OwnStream<'s> {
    server: &'s Arc<Server>,
    facts: Arc<SessionFacts>,
    presence: watch::Receiver<Presence>,
    /// `None` while the client is away.
    hub: Option<FrameStream>,
    /// Once the session runs.
    handle: Option<Handle>,
}

impl OwnStream<'_> {
    /// Waits until the node has the session.
    async fn accepted(&mut self) -> Result<PortSession, String> {
        let broken = || "the session's stream broke".to_owned();
        let answer = match &mut self.hub {
            Some(hub) => hub.reader.read(FrameSet::ANSWER).await,
            None => return Err(broken()),
        };
        match answer {
            Ok(Some(Frame::Refused(refused))) => return Err(refused.message),
            Ok(Some(Frame::Accepted(_))) => {}
            _ => return Err(broken()),
        }
        let handle = self.server.gateway.session(&self.facts.id).ok_or_else(broken)?;
        let session = PortSession::of(self.server, &handle).ok_or_else(broken)?;
        self.handle = Some(handle);
        Ok(session)
    }

    /// Waits for the session's end and returns what the person is told of it.
    async fn ended(&mut self) -> String {
        loop {
            let mut outcome = self.handle.as_ref().map(|handle| handle.outcome.clone());
            let waits = self.hub.is_none();
            let reader = self.hub.as_mut().map(|hub| &mut hub.reader);
            tokio::select! {
                biased;
                // An error means that the pump is gone, which whoever carries bytes hears.
                Ok(()) = self.presence.changed() => self.present().await,
                frame = read(reader) => match frame {
                    Ok(Some(Frame::End(end))) => return end.message,
                    Ok(Some(Frame::Refused(refused))) => return refused.message,
                    // Notices are for a terminal; what is carried here is for programs.
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return "the session's stream broke".to_owned(),
                },
                text = over(outcome.as_mut()), if waits => return text,
            }
        }
    }

    /// The client went away, or is back.
    async fn present(&mut self) {
        let presence = *self.presence.borrow_and_update();
        match presence {
            // The hub sees its stream close: from now on the session has no client.
            Presence::Away => self.hub = None,
            Presence::Here if self.hub.is_none() => {
                let (stream, hub) = FrameStream::pair(DUPLEX);
                self.hub = Some(stream);
                if let Some(handle) = self.handle.clone() {
                    self.attach(&handle, hub).await;
                }
            }
            Presence::Here => {}
        }
    }

    async fn attach(&mut self, handle: &Handle, hub: FrameStream) {
        let wish = AttachSession { session_id: self.facts.id.to_string(), from_end: true, ..AttachSession::default() };
        if handle.order(Order::Attach(hub, wish)).await.is_err() {
            // It ended just now: its outcome tells how.
            self.hub = None;
        }
    }
}

async fn read(reader: Option<&mut crate::gateway::peer::PeerReader>) -> Result<Option<Frame>, FramedError> {
    match reader {
        Some(reader) => reader.read(FROM_HUB).await,
        None => std::future::pending().await,
    }
}

async fn over(outcome: Option<&mut watch::Receiver<Option<Arc<crate::gateway::facts::Outcome>>>>) -> String {
    match outcome {
        Some(outcome) => match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.as_ref().map(|outcome| outcome.message.clone()).unwrap_or_default(),
            Err(_) => "the session is over".to_owned(),
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_follows_from_the_type_and_the_clients_version() {
        let of = |kind: &str, version: &str| Mode::of(&BTreeMap::from([("type".to_owned(), kind.to_owned())]), version);
        assert_eq!(of("LocalPortForwarding", "1.2.707.0"), Mode::Mux { keep_alive: false });
        assert_eq!(of("LocalPortForwarding", "1.2.331.0"), Mode::Mux { keep_alive: true });
        assert_eq!(of("LocalPortForwarding", "1.1.69.0"), Mode::Basic);
        assert_eq!(of("LocalPortForwarding", "?"), Mode::Basic);
        assert_eq!(of("", "1.2.707.0"), Mode::Stdio);
        assert_eq!(Mode::of(&BTreeMap::new(), "1.2.707.0"), Mode::Stdio);
    }
}
