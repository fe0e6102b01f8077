//! The door of lanes: who dials proves to be the client or node at the other end of a stream, as for a link, and names
//! the stream by its token.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use munjigi_link::lane_upgrade;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::door_link::{self, Refused};
use super::lanes::NoLane;
use crate::Server;
use crate::api::operation::{Effect, Service};
use crate::door::{Event, Outcome, RequestMeta, Via, Who, failures};
use crate::http::{Body, Connected, problem};

/// The name under which refused lanes stand in the trail.
const EVENT_NAME: &str = "OpenLane";

/// Answers a request for a lane. A lane that is accepted is brought to its stream in a task of its own.
pub(crate) async fn lane_door(
    server: &Arc<Server>,
    mut request: Request<Incoming>,
    connected: Arc<Connected>,
    mut meta: RequestMeta,
) -> Response<Body> {
    meta.via = Via::Link;
    let pending = match lane_upgrade::parse(&request) {
        Ok(pending) => pending,
        Err(error) => return problem(error.status(), error.code(), &error.to_string()),
    };
    let peer = match door_link::authenticate_peer(server, &request, &pending.upgrade, &connected, &mut meta).await {
        Ok(peer) => peer,
        Err(Refused { status, error, presented }) => {
            let who = Who::Unknown(presented.as_deref());
            let event = Event::named(server, &meta, who, Service::Munjigi, EVENT_NAME, Effect::Write);
            failures::record(server, meta.source_ip, event.complete(Outcome::Failure(&error))).await;
            return problem(status, error.code(Service::Munjigi), &error.to_string());
        }
    };
    connected.authenticated();
    let mut claim = match server.gateway.lanes.claim(pending.token, &peer) {
        Ok(claim) => claim,
        Err(NoLane::Unknown) => {
            return problem(StatusCode::NOT_FOUND, "LaneNotFound", "no stream of yours waits for this lane");
        }
        Err(NoLane::Full) => {
            let message = "the server has as many lanes as it can hold; the stream stays on its link";
            return problem(StatusCode::SERVICE_UNAVAILABLE, "TooManyLanes", message);
        }
    };
    let upgrading = hyper::upgrade::on(&mut request);
    server.tasks.spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() else {
            return tracing::error!("an upgraded connection is not the TLS connection it was");
        };
        let place = claim.place();
        match lane_upgrade::bring(parts.io.into_inner(), parts.read_buf, claim.berth(), place).await {
            Ok(()) => claim.used(),
            Err(error) => tracing::debug!(%error, "a lane did not come to its stream"),
        }
    });
    lane_upgrade::switching().map(|()| Body::default())
}
