//! Starts forward sessions for clients of the link.

use std::collections::BTreeMap;
use std::sync::Arc;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{ForwardWish, OpenSession};
use tokio::time::Instant;

use super::launch::{Surroundings, launch};
use super::peer::FrameStream;
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
