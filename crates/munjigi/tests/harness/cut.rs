//! A TCP proxy that can fall silent or break: the faulty network between the parts.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The proxy. Connections are refused once it is dropped.
pub(crate) struct CutProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// While set, bytes are kept back (in both directions, nothing is lost) and new connections wait.
    silent: AtomicBool,
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl CutProxy {
    /// Listens on a free port and passes everything on to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            silent: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(near) = stream else { return };
                let shared = accepting.clone();
                thread::spawn(move || shared.relay(near, target));
            }
        });
        Self { address, shared }
    }

    /// Returns the port clients dial.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Falls silent: connections stay, nothing passes.
    pub(crate) fn silence(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
    }

    /// Passes everything on again.
    pub(crate) fn pass(&self) {
        self.shared.silent.store(false, Ordering::Relaxed);
    }

    /// Breaks every connection that is open now.
    pub(crate) fn reset(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.silent.store(false, Ordering::Relaxed);
        self.reset();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn relay(self: &Arc<Self>, near: TcpStream, target: SocketAddr) {
        self.wait_while_silent();
        let Ok(far) = TcpStream::connect(target) else { return };
        let _ = near.set_nodelay(true);
        let _ = far.set_nodelay(true);
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        self.streams.lock().unwrap().extend([clone(&near), clone(&far)]);
        let (shared, from, to) = (self.clone(), clone(&near), clone(&far));
        thread::spawn(move || shared.pump(from, to));
        self.pump(far, near);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            self.wait_while_silent();
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    }

    fn wait_while_silent(&self) {
        while self.silent.load(Ordering::Relaxed) && !self.stopped.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
