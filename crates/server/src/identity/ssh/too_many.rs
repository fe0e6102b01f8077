//! How many proofs were refused of late (T-90). A key cannot be guessed, so who has a good one is let in whatever others
//! do from the same address; beyond the bounds, though, each connection has one try, and the trail says so.
//!
//! Accounts are not counted: nobody shall be able to lock somebody else out. Codes of approvals have bounds of their own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use munjigi_core::time::Timestamp;

use super::SshRefusal;
use super::approval::network;
use crate::lock;

/// Refused proofs in [`WINDOW`] from one address, and from one network of 24 bits (IPv6: 64).
const PER_ADDRESS: u32 = 20;
const PER_NETWORK: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Refused proofs in a second, wherever they come from.
const PER_SECOND: u32 = 200;
const SECOND: Duration = Duration::from_secs(1);
/// Most addresses and networks counted at once; those beyond are counted with all others only.
const MAX_COUNTED: usize = 8192;

/// The refused proofs of the last minute.
#[derive(Default)]
pub(crate) struct LoginFailures(Mutex<State>);

#[derive(Default)]
struct State {
    counted: HashMap<(IpAddr, Counted), Count>,
    all: Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Address,
    Network,
}

/// How many since when.
#[derive(Default)]
struct Count {
    since: Option<Timestamp>,
    failures: u32,
}

impl Count {
    fn is_over(&self, now: Timestamp, window: Duration) -> bool {
        self.since.is_none_or(|since| since.plus(window) <= now)
    }

    /// Counts one more; tells whether there are more than `most` in the window.
    fn note(&mut self, now: Timestamp, window: Duration, most: u32) -> bool {
        if self.is_over(now, window) {
            *self = Self { since: Some(now), failures: 0 };
        }
        self.failures = self.failures.saturating_add(1);
        self.failures > most
    }
}

impl LoginFailures {
    /// Counts a refused proof, and returns what its refusal is: what it was, or that there are too many.
    pub(super) fn judge(&self, refusal: SshRefusal, source: IpAddr, now: Timestamp) -> SshRefusal {
        if matches!(refusal, SshRefusal::Failed(_)) {
            // A fault of ours.
            return refusal;
        }
        let mut state = lock(&self.0);
        let mut too_many = state.all.note(now, SECOND, PER_SECOND);
        let places = [((source, Counted::Address), PER_ADDRESS), ((network(source), Counted::Network), PER_NETWORK)];
        for (place, most) in places {
            if state.counted.len() >= MAX_COUNTED && !state.counted.contains_key(&place) {
                state.counted.retain(|_, count| !count.is_over(now, WINDOW));
            }
            if state.counted.len() < MAX_COUNTED || state.counted.contains_key(&place) {
                too_many |= state.counted.entry(place).or_default().note(now, WINDOW, most);
            }
        }
        if too_many { SshRefusal::TooManyFailures } else { refusal }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(network: u8, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, network, host).into()
    }

    #[test]
    fn an_address_a_network_and_all_have_their_bounds_and_a_minute_later_it_is_forgotten() {
        let failures = LoginFailures::default();
        let too_many = |source, now| failures.judge(SshRefusal::UnknownKey, source, now) == SshRefusal::TooManyFailures;
        let now = Timestamp(0);
        for n in 0..PER_ADDRESS {
            assert!(!too_many(address(1, 1), now), "{n}");
        }
        assert!(too_many(address(1, 1), now));
        assert!(!too_many(address(1, 2), now), "another address is no worse off");
        assert!(!too_many(address(1, 1), now.plus(WINDOW)));

        let later = now.plus(2 * WINDOW);
        for n in 0..PER_NETWORK {
            assert!(!too_many(address(2, u8::try_from(n).unwrap()), later), "{n}");
        }
        assert!(too_many(address(2, 200), later));
        assert!(!too_many(address(3, 200), later));

        let later = now.plus(4 * WINDOW);
        for n in 0..PER_SECOND {
            assert!(!too_many(address(u8::try_from(n).unwrap(), 1), later), "{n}");
        }
        assert!(too_many(address(249, 1), later), "as many as all may have");
        assert!(!too_many(address(249, 2), later.plus(SECOND)));
        let fault = SshRefusal::Failed("x".into());
        assert_eq!(failures.judge(fault.clone(), address(249, 1), later), fault);
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let failures = LoginFailures::default();
        for n in 0..20_000_u32 {
            let now = Timestamp(i64::from(n) * 1_000);
            failures.judge(SshRefusal::UnknownKey, Ipv4Addr::from(0x0a00_0000 + n * 256).into(), now);
        }
        assert!(lock(&failures.0).counted.len() <= MAX_COUNTED);
    }
}
