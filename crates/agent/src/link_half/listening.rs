//! Ports on which the node listens for a session (`-R`): the stream that stands for one, and who connects to it.
//!
//! The listening socket is a process of its own, started by the privileged half; what is accepted comes from there. This
//! half opens a stream to the server for each, and carries it once the client has taken it up.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{Accepted, Incoming, Open, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::{MovingStream, Opener};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::near::Near;
use super::port::{Port, carry, refusal};
use super::session::Attached;
use super::spawn_client::{SpawnClient, StartRefused};
use crate::listener::{self, Said};
use crate::sys;

/// How long the listener may take to say that it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long the client may take to connect to where the port leads.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);

/// Serves the stream that stands for a listener: the node listens for as long as it lasts.
pub(super) async fn serve(
    mut attached: Attached,
    port: Arc<Port>,
    (at, number): (Endpoint, u64),
    grant: Vec<u8>,
    spawn: &SpawnClient,
    opener: &Opener,
    permits: &Arc<Semaphore>,
) {
    let (listener, address) = match begin(&port, &at, grant, spawn).await {
        Ok(begun) => begun,
        Err(why) => return super::dialing::refuse(attached, why).await,
    };
    let session_id = port.id().to_string();
    let accepted = Accepted { session_id, address, listener: number, ..Accepted::default() };
    if attached.writer.send(&Frame::Accepted(Box::new(accepted))).await.is_err() {
        return;
    }
    loop {
        let said = tokio::select! {
            said = listener::receive(&listener) => said,
            // Nothing may come: whatever does is the end.
            _ = attached.reader.read(FrameSet::of(&[])) => return,
            () = port.over().cancelled() => return,
        };
        let Some(Said { address, socket: Some(socket), .. }) = said else { return };
        // Whoever finds no place is turned away, as from a port where nobody listens any more.
        let Ok(place) = Arc::clone(permits).try_acquire_owned() else { continue };
        let near = if matches!(at, Endpoint::Listen(_)) { tcp(socket).map(Near::Tcp) } else { Near::from_fd(socket) };
        let Ok(near) = near else { continue };
        tokio::spawn(take(opener.clone(), port.clone(), number, address, near, place));
    }
}

async fn begin(
    port: &Port,
    at: &Endpoint,
    grant: Vec<u8>,
    spawn: &SpawnClient,
) -> Result<(AsyncFd<OwnedFd>, String), StartRefused> {
    let failed = |error: &dyn std::fmt::Display| refusal("InternalServerError", error.to_string());
    let answer = spawn.reach(port.id(), at, grant).await;
    let listener = answer.map_err(|error| failed(&error))??.pop();
    let listener = listener.ok_or_else(|| failed(&"the privileged half sent no listener"))?;
    let listener = sys::watched(listener, Interest::READABLE).map_err(|error| failed(&error))?;
    let said = timeout(START_LIMIT, listener::receive(&listener)).await.ok().flatten();
    match said.ok_or_else(|| failed(&format!("the node could not listen on {}", shown(at))))? {
        Said { errno: 0, address, .. } => Ok((listener, address)),
        Said { errno: libc::EACCES, .. } => {
            let hint = if matches!(at, Endpoint::Listen(_)) { "; take a port from 1024 on" } else { "" };
            let message = format!("the session's OS user may not listen on {}{hint}", shown(at));
            Err(refusal("DestinationDenied", message))
        }
        Said { errno: libc::EADDRINUSE, .. } => {
            Err(refusal("ConnectionRefused", format!("another program listens on {} of the node", shown(at))))
        }
        Said { errno, .. } => {
            let error = std::io::Error::from_raw_os_error(errno);
            Err(refusal("DestinationUnreachable", format!("the node cannot listen on {}: {error}", shown(at))))
        }
    }
}

fn shown(at: &Endpoint) -> String {
    match at {
        Endpoint::Listen(at) => at.to_string(),
        Endpoint::ListenUnix(path) => path.to_string(),
        _ => "a socket of its own".to_owned(),
    }
}

/// Offers one connection to the client, and carries it.
async fn take(
    opener: Opener,
    port: Arc<Port>,
    listener: u64,
    address: String,
    near: Near,
    _place: OwnedSemaphorePermit,
) {
    let Ok(stream) = opener.open().await else { return near.reset() };
    let mut attached = Attached::new(stream);
    let session_id = port.id().to_string();
    let incoming = Incoming { session_id, listener, address: address.clone(), ..Incoming::default() };
    let answer = async {
        attached.writer.send(&Frame::Open(Box::new(Open { wish: Some(open::Wish::Incoming(incoming)) }))).await.ok()?;
        attached.reader.read(FrameSet::ANSWER).await.ok()?
    };
    let answer = port.over().run_until_cancelled(timeout(ANSWER_LIMIT, answer)).await;
    if !matches!(answer, Some(Ok(Some(Frame::Accepted(_))))) {
        return near.reset();
    }
    let (stream, early) = attached.into_stream();
    let mut stream = MovingStream::staying(stream);
    stream.unread(early);
    carry(stream, near, address, port.over(), None).await;
}

fn tcp(socket: OwnedFd) -> std::io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    // What is typed goes at once; failing that it goes a little later.
    let _ = socket.set_nodelay(true);
    TcpStream::from_std(socket)
}
