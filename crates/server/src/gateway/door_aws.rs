//! The door for AWS's own clients: the data channel of `session-manager-plugin` and programs like it.
//!
//! A WebSocket opens without credentials; its first message carries a token that `StartSession` or `ResumeSession`
//! gave out. What comes then is a [`pump`] between socket and channel state, and behind it an adapter to the session
//! that is the same whatever the door. A client that lost its socket comes back to the same channel; another client
//! of the owner takes the session over with a channel of its own. This file decides which; it moves no bytes.

mod characters;
mod data_channel;
mod handshake;
mod port;
mod port_basic;
mod port_mux;
mod port_one;
mod port_stdio;
#[cfg(test)]
mod port_tests;
mod pump;
pub mod registry;
mod shell;
pub mod tokens;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use munjigi_core::id::SessionId;
use munjigi_core::session::{SessionKind, TerminalSize};
use munjigi_core::wire::aws::payload::{OpenDataChannel, parse};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use self::pump::Beginning;
use self::registry::Comes;
use super::websocket::{self, Message, Terms, WebSocket};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::munjigi::OpenDataChannel as OpenOperation;
use crate::api::munjigi::open_data_channel::OpenDataChannelInput;
use crate::api::operation::{Effect, Operation as _};
use crate::door::{self, Event, Outcome, RequestMeta, Who, failures};
use crate::http::{Body, Connected, problem};
use crate::identity::Caller;

/// Where data channels open; the session's id follows.
pub(crate) const DATA_CHANNEL_PATH: &str = "/v1/data-channel/";
/// How long the open message may take after the upgrade (T-91).
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Largest open message, bytes. The plugin's has about 300.
const MAX_OPEN: usize = 4096;
/// Longest `ClientId` and `ClientVersion`, bytes; the plugin's are a UUID and four numbers.
const MAX_NAME: usize = 128;

/// Size of a terminal until its client tells it, which AWS's client does half a second after the first output.
pub(crate) const FIRST_SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 };

/// Returns where a session's data channel opens, as `StartSession` and `ResumeSession` say it.
pub fn stream_url(host: &str, session: &SessionId) -> String {
    format!("wss://{host}{DATA_CHANNEL_PATH}{session}?role=publish_subscribe")
}

/// Answers the upgrade request of a data channel; the channel is served in a task of its own.
pub(crate) fn data_channel(
    server: &Arc<Server>,
    mut request: Request<Incoming>,
    connected: Arc<Connected>,
    meta: RequestMeta,
) -> Response<Body> {
    let session = named(request.uri().path());
    let Some(session) = session else {
        return problem(StatusCode::NOT_FOUND, "DoesNotExistException", "the path names no session");
    };
    let (response, upgrading) = match websocket::upgrade(&mut request, Terms::default()) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return *refusal,
    };
    let server_in_task = server.clone();
    server.tasks.spawn(async move {
        match upgrading.complete().await {
            // Until the token is spent the connection counts as one that proved nobody (T-91).
            Ok(socket) => opened(&server_in_task, socket, session, &connected, meta).await,
            Err(error) => tracing::debug!(%session, %error, "a data channel did not open"),
        }
    });
    response
}

/// Reads the session's id from the path; some clients encode `@` and `+` in it.
fn named(path: &str) -> Option<SessionId> {
    let id = percent_encoding::percent_decode_str(path.strip_prefix(DATA_CHANNEL_PATH)?).decode_utf8().ok()?;
    SessionId::parse(&id).ok()
}

/// Reads the open message, spends its token, and hands the socket to whom it belongs.
async fn opened(
    server: &Arc<Server>,
    mut socket: WebSocket,
    session: SessionId,
    connected: &Connected,
    meta: RequestMeta,
) {
    let received = tokio::time::timeout(OPEN_LIMIT, socket.receive());
    let open = match server.stop.run_until_cancelled(received).await {
        Some(Ok(Ok(Message::Text(text)))) => read_open(&text),
        Some(Ok(Ok(Message::Binary(_)))) => Err("the first message of a data channel is the open message, as text"),
        Some(Err(_)) => Err("the open message did not come in time"),
        // Gone, or not a WebSocket: nobody is left to answer.
        Some(Ok(Err(_))) | None => return,
    };
    let open = match open {
        Ok(open) => open,
        Err(why) => return socket.close(CloseCode::Policy, why).await,
    };
    let spent = server.gateway.channels.tokens.spend(&session, open.token_value.expose(), Instant::now());
    let caller = spent.map_err(|error| error.to_string()).and_then(|caller| {
        // The key that asked for the token may be gone since (T-6).
        let gone = || "the credentials that the token was given to are no longer valid".to_owned();
        server.identities.present(&caller).ok_or_else(gone)
    });
    match caller {
        Ok(caller) => {
            connected.authenticated();
            authenticated(server, socket, session, open, &caller, meta).await;
        }
        Err(why) => {
            let error = ApiError::bad("AccessDeniedException", why.clone());
            let (service, name) = (OpenOperation::SERVICE, OpenOperation::NAME);
            let event = Event::named(server, &meta, Who::Unknown(None), service, name, Effect::Write);
            failures::record(server, meta.source_ip, event.complete(Outcome::Failure(&error))).await;
            socket.close(CloseCode::Policy, &why).await;
        }
    }
}

fn read_open(text: &str) -> Result<OpenDataChannel, &'static str> {
    if text.len() > MAX_OPEN {
        return Err("the open message has more than 4096 bytes");
    }
    let open: OpenDataChannel =
        parse("open message", text.as_bytes()).map_err(|_| "the open message is not the JSON that it should be")?;
    let version = open.client_version.as_deref().unwrap_or_default();
    if open.client_id.len() > MAX_NAME || version.len() > MAX_NAME {
        return Err("ClientId and ClientVersion have at most 128 bytes");
    }
    Ok(open)
}

async fn authenticated(
    server: &Arc<Server>,
    socket: WebSocket,
    session: SessionId,
    open: OpenDataChannel,
    caller: &Caller,
    meta: RequestMeta,
) {
    let input = OpenDataChannelInput {
        session_id: session.clone(),
        client_id: open.client_id.clone(),
        client_version: open.client_version.clone(),
    };
    if let Err(error) = door::call::<OpenOperation>(server, caller, input, meta).await {
        // A close frame alone would make the plugin come back for ever; this message ends it, with the reason.
        return pump::farewell(socket, &session, &open.client_id, &error.to_string()).await;
    }
    let registry = &server.gateway.channels;
    let client_id = open.client_id;
    let socket = match registry.comes(&session, &client_id, socket).await {
        Comes::Back => return,
        Comes::Anew(socket) => socket,
    };
    let beginning = match (server.gateway.take_prepared(&session), server.gateway.session(&session)) {
        (Some(prepared), _) => Beginning::Start(Box::new(prepared)),
        (None, Some(live)) if registry.may_begin(&session) => Beginning::TakeOver(live),
        (None, live) => {
            let why = match live {
                Some(_) => registry::CHANNEL_LOST.to_owned(),
                None => match crate::sessions::past(server, &session).await {
                    Ok(past) => past.end.message,
                    Err(error) => error.to_string(),
                },
            };
            pump::farewell(socket, &session, &client_id, &why).await;
            registry.told(&session);
            return;
        }
    };
    pump::begin(server, socket, client_id, beginning);
}

/// Returns the name of the session's type in the handshake.
fn session_type(kind: SessionKind, pty: bool) -> &'static str {
    match (kind, pty) {
        (SessionKind::Shell, _) => "Standard_Stream",
        (SessionKind::Command, true) => "InteractiveCommands",
        (SessionKind::Command, false) => "NonInteractiveCommands",
        (SessionKind::Port, _) => "Port",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_session_encoded_or_not() {
        for path in ["/v1/data-channel/a@b-0123456789abcdef0", "/v1/data-channel/a%40b-0123456789abcdef0"] {
            assert_eq!(named(path).unwrap().to_string(), "a@b-0123456789abcdef0");
        }
        for path in ["/v1/data-channel/", "/v1/data-channel/%ff", "/v1/data-channel/a/b", "/v1/control-channel/a"] {
            assert_eq!(named(path), None, "{path}");
        }
    }

    #[test]
    fn open_messages_of_old_and_new_clients_are_read_and_others_refused() {
        let old = r#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"t","ClientId":"c"}"#;
        assert_eq!(read_open(old).unwrap().client_version, None);
        let new = old.replace("\"c\"", "\"c\",\"ClientVersion\":\"1.2.650.0\"");
        assert_eq!(read_open(&new).unwrap().client_version.as_deref(), Some("1.2.650.0"));
        // Programs that are not the plugin may leave the id out.
        assert_eq!(read_open(&old.replace(",\"ClientId\":\"c\"", "")).unwrap().client_id, "");
        for bad in [
            "",
            "{}",
            "[]",
            &old.replace("\"t\"", "7"),
            &old.replace("\"c\"", &format!("\"{}\"", "c".repeat(129))),
            &format!("{}{old}", " ".repeat(MAX_OPEN)),
        ] {
            assert!(read_open(bad).is_err(), "{bad}");
        }
    }
}
