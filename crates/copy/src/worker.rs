//! The worker on a node: one copy over one socket, at a place and in a direction that were granted, as the OS user that
//! this process already is.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::copy::{Hello, Kinds, Message, Ready, RootKind, VERSION};

use crate::chunk::{In, Out, channel};
use crate::error::CopyFailure;
use crate::place::Place;
use crate::progress::Progress;
use crate::receive::{Receive, farewell, receive};
use crate::send::{Send, send};
use crate::{pump, sources};

/// How long the client may take to read what was said last and to end its direction.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Which way the files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To this machine.
    Upload,
    /// From this machine.
    Download,
}

/// Serves one copy over the socket to its end. Blocks; uses threads.
pub fn serve(socket: OwnedFd, direction: Direction, root: &Path) -> Result<(), CopyFailure> {
    let socket = Arc::new(socket);
    let ((to_in, from_socket), (to_socket, from_out)) = (channel(), channel());
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let failed = |error: std::io::Error| CopyFailure::here("InternalError", format!("no thread starts: {error}"));
    let reading = Arc::clone(&socket);
    let (ended, end) = std::sync::mpsc::sync_channel(1);
    let read = move || {
        pump::read_in(&reading, &to_in);
        // Whoever waits for it may have waited long enough.
        let _ = ended.send(());
    };
    thread("copy-in").spawn(read).map_err(failed)?;
    let writer = thread("copy-out").spawn(move || pump::write_out(&socket, from_out)).map_err(failed)?;
    let result = converse(Out::new(to_socket), In::new(from_socket), direction, root);
    // What was said last is on its way only now.
    let _ = writer.join();
    let _ = end.recv_timeout(LAST_WORDS);
    result
}

fn converse(mut out: Out, mut input: In, direction: Direction, root: &Path) -> Result<(), CopyFailure> {
    let hello = match input.message(Kinds::OPENING)? {
        Message::Hello(hello) => hello,
        // The set lets nothing else through.
        _ => return Err(CopyFailure::Gone),
    };
    let progress = Arc::new(Progress::default());
    match prepare(hello, direction, root) {
        Ok((ready, work)) => {
            out.message(&Message::Ready(ready))?;
            out.flush()?;
            match work {
                Work::Receive(what) => receive(what, out, input, &progress),
                Work::Send(what) => send(what, out, input, &progress),
            }
        }
        Err(failure) => {
            if let Some(message) = farewell(&failure) {
                out.message(&message)?;
                out.flush()?;
            }
            Err(failure)
        }
    }
}

enum Work {
    Receive(Receive),
    Send(Send),
}

fn prepare(hello: Hello, direction: Direction, root: &Path) -> Result<(Ready, Work), CopyFailure> {
    if hello.version != VERSION {
        let why = format!("the node speaks version {VERSION} of the copy protocol, the client {}", hello.version);
        return Err(CopyFailure::here("VersionMismatch", why));
    }
    let ready =
        |kind: RootKind, path: &Path| Ready { version: VERSION, kind, real_path: path.as_os_str().as_bytes().to_vec() };
    match direction {
        Direction::Upload => {
            let found = Place::find(root)?;
            let work = Receive { place: found.place, preserve: hello.preserve, resume: hello.resume, expected: None };
            Ok((ready(found.kind, &found.real_path), Work::Receive(work)))
        }
        Direction::Download => {
            let found = sources::find(root)?;
            let ready = ready(found.kind, &found.real_path);
            let (recursive, resume, totals) = (hello.recursive, hello.resume, hello.totals);
            Ok((ready, Work::Send(Send { sources: found.sources, recursive, resume, totals })))
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
