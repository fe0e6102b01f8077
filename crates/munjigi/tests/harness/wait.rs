//! Waiting for what a test wants to see, and what no other test has: ports and processes.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::output;

/// Ports that the system gives to nobody by itself: it begins at 32768 (`ip_local_port_range`).
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// How long anything may take before a test gives up. Generous: it is no measurement.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Asks again and again until there is an answer; panics with `what` after [`LIMIT`].
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns a port on which nobody listens. No other test gets it, and no connection takes it for its own end while a server
/// that had it starts again.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Other runs begin elsewhere.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(211)));
    let count = PORTS.end - PORTS.start;
    let ports = std::iter::repeat_with(|| PORTS.start + next.fetch_add(1, Ordering::Relaxed) % count);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.take(count as usize).filter_map(|port| u16::try_from(port).ok()).find(free).unwrap()
}

/// Returns a command that lasts, and that no other test runs.
pub(crate) fn lasting() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("sleep 1000.{:08}{:03}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Waits until a command runs: a key that interrupts it must not come before.
pub(crate) fn wait_until_runs(command: &str) {
    wait_for(command, || (!output(Command::new("pgrep").args(["-xf", command])).stdout.is_empty()).then_some(()));
}
