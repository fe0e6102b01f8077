//! Starts forward sessions for clients of the link, and carries connections of forward sessions for every door.

use std::collections::BTreeMap;
use std::sync::Arc;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{ForwardWish, OpenSession};
use tokio::time::Instant;

use super::inspect::{self, Context, ContextError};
use super::launch::{Surroundings, launch};
use super::nodes::ByteStream;
use super::peer::FrameStream;
use super::ports::{self, PortSession, PortStream};
use super::serve::{refuse, refuse_error, repeated};
use crate::Server;
use crate::api::munjigi::OpenForward;
use crate::api::munjigi::open_forward::OpenForwardInput;
use crate::door::{self, RequestMeta};
use crate::identity::Caller;

/// Starts the session that the wish names, or goes on with the one that the same wish got before.
pub(super) async fn start(
    server: &Arc<Server>,
    caller: &Caller,
    request: RequestMeta,
    stream: FrameStream,
    wish: OpenSession,
    forward: ForwardWish,
) {
    let bare = OpenSession {
        target: wish.target.clone(),
        reason: wish.reason.clone(),
        client_token: wish.client_token.clone(),
        ..OpenSession::default()
    };
    if wish != bare {
        let message = "a forward session has no document, command, terminal, environment or parameters".to_owned();
        return refuse(stream, "ValidationException", message, "", &request);
    }
    let endpoints: Result<Vec<_>, _> = forward.endpoints.iter().map(Endpoint::try_from).collect();
    let endpoints = match endpoints {
        Ok(endpoints) => endpoints,
        Err(error) => return refuse(stream, "ValidationException", error.to_string(), "", &request),
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let input = OpenForwardInput {
        target: wish.target,
        endpoints,
        dynamic: forward.dynamic,
        passthrough: false,
        os_user: given(forward.os_user),
        reason: given(wish.reason),
        purpose: forward.purpose,
    };
    let granted = server.gateway.starts.of(caller.principal().arn.as_str(), &wish.client_token, Instant::now());
    let mut is_first = false;
    let started = granted.get_or_try_init(async || {
        is_first = true;
        door::call::<OpenForward>(server, caller, input, request.clone()).await.map(|output| output.session_id)
    });
    match started.await {
        Ok(session_id) if !is_first => repeated(server, caller, request, stream, session_id, None).await,
        Ok(session_id) => match server.gateway.take_prepared(session_id) {
            Some(prepared) => {
                launch(server, prepared, Surroundings { pty: None, environment: BTreeMap::new() }, stream).await;
            }
            None => {
                refuse(
                    stream,
                    "InternalServerError",
                    "the session was lost before it started".to_owned(),
                    "",
                    &request,
                );
            }
        },
        Err(error) => refuse_error(stream, &error, &request),
    }
}

/// Returns what reading a connection along needs, where its target says so.
pub(super) async fn eyes(
    server: &Server,
    session: &PortSession,
    connection: &PortStream,
) -> Result<Option<Context>, ContextError> {
    match session.handle().facts.target().filter(|target| target.inspect) {
        Some(target) => Context::of(server, session, connection, target).await.map(Some),
        None => Ok(None),
    }
}

/// Carries a connection between a client and the node to its end, and reads it along if there are eyes.
pub(super) async fn carry<S: ByteStream + 'static>(
    server: &Arc<Server>,
    client: S,
    connection: PortStream,
    eyes: Option<Context>,
) {
    match eyes {
        Some(context) => inspect::serve(server, context, Box::new(client), connection).await,
        None => ports::relay(client, connection).await,
    }
}
