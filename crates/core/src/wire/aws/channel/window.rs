//! How much may be in flight towards a peer that has no window of its own.
//!
//! The peer's acknowledgements are all there is to go by. The window doubles per round trip while they come as fast as
//! ever, and shrinks when they come late: then what we send waits in a buffer, and what is typed waits behind it.

use super::super::Millis;
use super::limits::ChannelLimits;

/// Delay beyond the quickest round trip up to which the window still grows, in milliseconds.
const GROWS_BELOW: u64 = 100;
/// Delay beyond which it shrinks: a person at a terminal feels a third of a second.
const SHRINKS_ABOVE: u64 = 300;

/// The window of one socket, in bytes of payload.
#[derive(Debug)]
pub(super) struct Window {
    bytes: usize,
    least: usize,
    most: usize,
    quickest: Option<u64>,
    steady_until: Millis,
}

impl Window {
    pub(super) const fn new(limits: &ChannelLimits) -> Self {
        Self {
            bytes: limits.window_first,
            least: limits.window_least,
            most: limits.window_most,
            quickest: None,
            steady_until: Millis(0),
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Learns from an acknowledgement of a message sent once, that took so long with so much in flight.
    pub(super) fn acknowledged(&mut self, bytes: usize, in_flight: usize, milliseconds: u64, now: Millis) {
        let quickest = self.quickest.map_or(milliseconds, |quickest| quickest.min(milliseconds));
        self.quickest = Some(quickest);
        let delay = milliseconds - quickest;
        if delay > SHRINKS_ABOVE {
            // Once per round trip: the messages already on their way tell nothing about a smaller window.
            if now >= self.steady_until {
                self.bytes = (self.bytes / 4 * 3).max(self.least);
                self.steady_until = now.after(milliseconds);
            }
        } else if delay <= GROWS_BELOW && in_flight.saturating_mul(2) >= self.bytes {
            self.bytes = self.bytes.saturating_add(bytes).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::OVERHEAD;
    use super::*;

    #[test]
    fn it_doubles_per_round_trip_while_used_and_stops_at_the_most() {
        let limits = ChannelLimits::towards_plugin();
        let mut window = Window::new(&limits);
        for round in 1..20_u64 {
            let before = window.bytes();
            let message = limits.payload + OVERHEAD;
            for _ in 0..before / message {
                window.acknowledged(message, before, 20, Millis(round * 20));
            }
            assert_eq!(window.bytes(), (2 * before).min(limits.window_most));
        }
        let idle = Window::new(&limits).bytes();
        let mut window = Window::new(&limits);
        window.acknowledged(10, 10, 20, Millis(20));
        assert_eq!(window.bytes(), idle);
    }

    #[test]
    fn it_shrinks_once_per_round_trip_when_acknowledgements_come_late() {
        let limits = ChannelLimits::towards_plugin();
        let mut window = Window::new(&limits);
        window.acknowledged(1, 1, 5, Millis(0));
        for _ in 0..10 {
            window.acknowledged(limits.payload, limits.window_first, 1000, Millis(1000));
        }
        assert_eq!(window.bytes(), limits.window_first / 4 * 3);
        for round in 2..50 {
            window.acknowledged(limits.payload, limits.window_first, 1000, Millis(round * 1000));
        }
        assert_eq!(window.bytes(), limits.window_least);
    }
}
