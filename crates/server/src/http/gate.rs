//! How many connections may be open that have not proved anybody yet (T-91).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections that have not authenticated.
#[derive(Debug, Default)]
pub(super) struct Gate {
    most: usize,
    most_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The place of one connection, free again once it has authenticated or ended.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    address: IpAddr,
    held: Mutex<bool>,
}

impl Gate {
    pub(super) fn new(most: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_address, open: Mutex::default() })
    }

    /// Lets a connection in. Above half of all places newcomers are turned away at random, the more the fuller it is,
    /// so that a flood does not shut out everybody else. `chance` is random.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, chance: u16) -> Option<Pass> {
        let address = group(address);
        let mut open = self.lock();
        let half = self.most / 2;
        let above = open.total.saturating_sub(half);
        let turned_away = usize::from(chance) * (self.most - half).max(1) < above * usize::from(u16::MAX);
        let of_address = open.by_address.get(&address).copied().unwrap_or_default();
        if open.total >= self.most || of_address >= self.most_per_address || turned_away {
            return None;
        }
        open.total = open.total.saturating_add(1);
        *open.by_address.entry(address).or_default() += 1;
        drop(open);
        Some(Pass { gate: self.clone(), address, held: Mutex::new(true) })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Gives the place back: the connection has authenticated.
    pub(crate) fn authenticated(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut *held) {
            return;
        }
        let mut open = self.gate.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.authenticated();
    }
}

/// One customer of IPv6 has a /64 at least: it counts as one address.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_and_gets_it_back() {
        let gate = Gate::new(1000, 2);
        let a: IpAddr = "10.0.0.1".parse().unwrap();
        let first = gate.admit(a, u16::MAX).unwrap();
        let _second = gate.admit("::ffff:10.0.0.1".parse().unwrap(), u16::MAX).unwrap();
        assert!(gate.admit(a, u16::MAX).is_none());
        first.authenticated();
        first.authenticated();
        let _third = gate.admit(a, u16::MAX).unwrap();
        drop(first);
        assert!(gate.admit(a, u16::MAX).is_none(), "a place is given back once");
        assert!(gate.admit("2001:db8::1".parse().unwrap(), u16::MAX).is_some());
    }

    #[test]
    fn a_fuller_gate_turns_more_away_and_a_full_one_all() {
        let gate = Gate::new(8, 100);
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let mut passes: Vec<Pass> = (0..6).map(|_| gate.admit(ip, u16::MAX).unwrap()).collect();
        assert!(gate.admit(ip, 0).is_none(), "half of the upper half is taken: chance decides");
        passes.extend((0..2).map(|_| gate.admit(ip, u16::MAX).unwrap()));
        assert!(gate.admit(ip, u16::MAX).is_none());
        passes.clear();
        assert!(gate.admit(ip, 0).is_some());
    }
}
