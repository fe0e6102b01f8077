//! Carries chunks between a socket and the channels, each direction on a thread of its own: files are read and written
//! while bytes travel.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{read, write};
use std::os::fd::AsRawFd as _;
use tokio::sync::mpsc;

use crate::chunk::{CHUNK_BYTES, Chunk, Pool};

/// Reads the socket until it ends. What nobody takes any more is dropped: a socket that is closed while the other end
/// still writes would be broken there before what we said last is read.
pub(crate) fn read_in(socket: &Arc<OwnedFd>, to: &mpsc::Sender<Chunk>) {
    let pool = Pool::default();
    loop {
        let mut chunk = pool.take();
        let buffer = chunk.buffer();
        buffer.resize(CHUNK_BYTES, 0);
        let count = loop {
            match read(socket, buffer.as_mut_slice()) {
                Err(Errno::EINTR) => {}
                // A broken socket and an ended one are the same here: whoever waits for more knows that it is missing.
                count => break count.unwrap_or(0),
            }
        };
        buffer.truncate(count);
        if count == 0 {
            return;
        }
        // Nobody takes it any more; see above.
        let _ = to.blocking_send(chunk);
    }
}

/// Writes to the socket until there is nothing more, then ends its direction.
pub(crate) fn write_out(socket: &Arc<OwnedFd>, mut from: mpsc::Receiver<Chunk>) {
    while let Some(chunk) = from.blocking_recv() {
        let mut bytes = chunk.bytes();
        while !bytes.is_empty() {
            match write(socket, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
    // A socket that is broken has no direction to end.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}
