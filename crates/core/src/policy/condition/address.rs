//! Addresses and networks for the `IpAddress` operators.

use std::net::IpAddr;

use ipnet::IpNet;

/// A network of a policy; host bits of its text are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network(IpNet);

impl Network {
    /// Reads `203.0.113.0/24`, `2001:db8::/32`, or a bare address, which stands for itself only.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().ok()?,
        };
        Some(Self(network.trunc()))
    }

    /// Tells whether the address lies in the network; the two families never meet.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

/// Reads the address of a caller; the IPv4-mapped form of IPv6 is the IPv4 address it carries.
pub(super) fn parse_caller(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}
