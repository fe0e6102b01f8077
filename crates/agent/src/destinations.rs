//! Which addresses the connections of port sessions may go to (T-58): what is refused on every node, and what this
//! node's owner refuses besides.
//!
//! Judged are addresses, after names were resolved: a name can stand for anything. No resolving and no sockets here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use munjigi_core::destination::Destination;

/// Where clouds and their machines speak about keys and credentials, beside link-local addresses: AWS over IPv6
/// (session-manager-protocol 3.7), Alibaba Cloud, Azure's wire server, Oracle Cloud.
const METADATA: [IpAddr; 7] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x240)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];
/// Loopback ports that a session with a host never reaches: SSH and RDP have documents of their own, which policies
/// allow by name.
const LOGIN_PORTS: [u16; 2] = [22, 3389];

/// Why an address may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// 0.0.0.0/8 or `::`: the kernel takes them for the machine itself.
    #[error("an address that names no machine")]
    Unspecified,
    /// A name that stands for the node itself.
    #[error("the node's own loopback, which a name may not lead to; leave the host out to reach the node's own ports")]
    Loopback,
    /// SSH or RDP on the node itself, asked for with a host.
    #[error("a login service of the node itself; use AWS-StartSSHSession, or leave the host out")]
    LoginService,
    /// 169.254.0.0/16 or fe80::/10, where clouds give out credentials.
    #[error("a link-local address")]
    LinkLocal,
    /// A cloud's metadata service.
    #[error("the address of a cloud's metadata service")]
    Metadata,
    /// 224.0.0.0/4 or ff00::/8.
    #[error("a multicast address")]
    Multicast,
    /// 240.0.0.0/4, with 255.255.255.255.
    #[error("a broadcast or reserved address")]
    Reserved,
    /// The server that this node obeys.
    #[error("the address of the Munjigi server")]
    ControlNetwork,
    /// The node's owner said no.
    #[error("an address that this node's owner denies in agent.toml")]
    Owner,
}

/// What is refused on this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Destinations {
    denied: Vec<Rule>,
}

impl Destinations {
    /// Builds the rules from what `agent.toml` lists.
    pub(crate) fn new(denied: Vec<Rule>) -> Self {
        Self { denied }
    }

    /// Tells whether a connection of the session may go to `address`, to which its host was resolved. `server` is
    /// where the node's server is.
    pub(crate) fn check(
        &self,
        destination: &Destination,
        address: IpAddr,
        server: &[SocketAddr],
    ) -> Result<(), Denied> {
        let port = destination.port();
        for form in forms(address) {
            if !destination.is_node() {
                default_rules(destination, form)?;
            }
            let is_server = |at: &SocketAddr| {
                let same = at.ip().to_canonical() == form;
                same && (!form.is_loopback() || at.port() == port)
            };
            if server.iter().any(is_server) {
                return Err(Denied::ControlNetwork);
            }
            if self.denied.iter().any(|rule| rule.matches(form, port)) {
                return Err(Denied::Owner);
            }
        }
        Ok(())
    }
}

/// Returns the address and the IPv4 address that may be hidden in it: mapped (`::ffff:a.b.c.d`), compatible
/// (`::a.b.c.d`), translated (64:ff9b::/96, RFC 6052) or 6to4 (2002::/16, RFC 3056).
fn forms(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let canonical = address.to_canonical();
    let hidden = match canonical {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => Some((high, low)),
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
            [0x2002, high, low, ..] => Some((high, low)),
            _ => None,
        },
    };
    let hidden = hidden.map(|(high, low)| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))));
    std::iter::once(canonical).chain(hidden)
}

fn default_rules(destination: &Destination, address: IpAddr) -> Result<(), Denied> {
    if METADATA.contains(&address) {
        return Err(Denied::Metadata);
    }
    let denied = match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Some(Denied::Unspecified),
            [169, 254, ..] => Some(Denied::LinkLocal),
            [224..=239, ..] => Some(Denied::Multicast),
            [240..=255, ..] => Some(Denied::Reserved),
            _ => None,
        },
        IpAddr::V6(v6) if v6.is_unspecified() => Some(Denied::Unspecified),
        // Site-local (fec0::/10) is its forgotten neighbour.
        IpAddr::V6(v6) if v6.segments().first().is_some_and(|first| first & 0xff80 == 0xfe80) => {
            Some(Denied::LinkLocal)
        }
        IpAddr::V6(v6) if v6.is_multicast() => Some(Denied::Multicast),
        IpAddr::V6(_) => None,
    };
    match denied {
        Some(denied) => Err(denied),
        None if !address.is_loopback() => Ok(()),
        // Said in so many words it is what the grant names; found behind a name it is somebody's trick.
        None if !says_loopback(destination.host()) => Err(Denied::Loopback),
        None if LOGIN_PORTS.contains(&destination.port()) => Err(Denied::LoginService),
        None => Ok(()),
    }
}

fn says_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// One line of `denied_destinations` in `agent.toml`: `NETWORK`, `NETWORK:PORT` or `*:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `None`: every address.
    network: Option<IpNet>,
    /// `None`: every port.
    port: Option<u16>,
}

impl Rule {
    /// Reads a rule: `10.0.0.0/8`, `10.1.2.3:5432`, `fd00::/8`, `[fd00::/8]:22`, `*:25`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let network = |text: &str| {
            let text = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        if let Some(network) = network(text) {
            return Some(Self { network: Some(network), port: None });
        }
        let (head, port) = text.rsplit_once(':')?;
        let port = Some(port.parse().ok().filter(|port| *port != 0)?);
        match head {
            "*" => Some(Self { network: None, port }),
            _ => Some(Self { network: Some(network(head)?), port }),
        }
    }

    fn matches(&self, address: IpAddr, port: u16) -> bool {
        self.network.is_none_or(|network| network.contains(&address)) && self.port.is_none_or(|only| only == port)
    }
}

/// As it is read.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.port) {
            (Some(network), None) => write!(f, "{network}"),
            (Some(network), Some(port)) => write!(f, "[{network}]:{port}"),
            (None, port) => write!(f, "*:{}", port.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, port: u16, address: &str) -> Result<(), Denied> {
        let rules = ["10.9.0.0/16", "10.8.0.1:5432", "[fd09::/16]:22", "*:25"].map(|text| Rule::parse(text).unwrap());
        let server = ["192.0.2.1:8443", "[2001:db8::1]:8443", "127.0.0.1:8443"].map(|at| at.parse().unwrap());
        let destination = Destination::new(host, port).unwrap();
        Destinations::new(rules.to_vec()).check(&destination, address.parse().unwrap(), &server)
    }

    #[test]
    fn what_t_58_names_is_refused_in_every_form() {
        let cases = [
            (Denied::LinkLocal, "169.254.169.254"),
            (Denied::LinkLocal, "169.254.169.253"),
            (Denied::LinkLocal, "169.254.0.1"),
            (Denied::LinkLocal, "::ffff:169.254.169.254"),
            (Denied::LinkLocal, "::169.254.169.254"),
            (Denied::LinkLocal, "64:ff9b::169.254.169.254"),
            (Denied::LinkLocal, "2002:a9fe:a9fe::1"),
            (Denied::LinkLocal, "fe80::1"),
            (Denied::LinkLocal, "febf::1"),
            (Denied::LinkLocal, "fec0::1"),
            (Denied::Metadata, "fd00:ec2::254"),
            (Denied::Metadata, "fd00:ec2::253"),
            (Denied::Metadata, "fd00:ec2::123"),
            (Denied::Metadata, "fd00:ec2::240"),
            (Denied::Metadata, "100.100.100.200"),
            (Denied::Metadata, "::ffff:168.63.129.16"),
            (Denied::Metadata, "192.0.0.192"),
            (Denied::Multicast, "224.0.0.1"),
            (Denied::Multicast, "239.255.255.255"),
            (Denied::Multicast, "ff02::1"),
            (Denied::Multicast, "::ffff:224.0.0.1"),
            (Denied::Reserved, "255.255.255.255"),
            (Denied::Reserved, "240.0.0.1"),
            (Denied::Reserved, "::ffff:255.255.255.255"),
            (Denied::Unspecified, "0.0.0.0"),
            (Denied::Unspecified, "0.1.2.3"),
            (Denied::Unspecified, "::"),
            (Denied::Unspecified, "::ffff:0.0.0.0"),
            (Denied::Loopback, "127.0.0.1"),
            (Denied::Loopback, "127.255.255.254"),
            (Denied::Loopback, "::1"),
            (Denied::Loopback, "::ffff:127.0.0.1"),
            (Denied::Loopback, "64:ff9b::7f00:1"),
            (Denied::ControlNetwork, "192.0.2.1"),
            (Denied::ControlNetwork, "::ffff:192.0.2.1"),
            (Denied::ControlNetwork, "2001:db8::1"),
            (Denied::Owner, "10.9.255.1"),
            (Denied::Owner, "::ffff:10.9.0.1"),
            (Denied::Owner, "10.8.0.1"),
        ];
        for (denied, address) in cases {
            assert_eq!(check("db.internal", 5432, address), Err(denied), "{address}");
        }
    }

    #[test]
    fn everything_else_may_be_reached() {
        let addresses = [
            "10.8.0.2",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "8.8.8.8",
            "fd00::1",
            "fd09::1",
            "2606::1",
            "192.0.2.2",
        ];
        for address in addresses {
            assert_eq!(check("db.internal", 5432, address), Ok(()), "{address}");
        }
        assert_eq!(check("db.internal", 5433, "10.8.0.1"), Ok(()));
        assert_eq!(check("db.internal", 22, "fd09::1"), Err(Denied::Owner));
        assert_eq!(check("db.internal", 25, "8.8.8.8"), Err(Denied::Owner));
    }

    #[test]
    fn the_nodes_own_ports_are_reached_when_they_are_asked_for() {
        for port in [22, 3389, 5432] {
            assert_eq!(check("", port, "127.0.0.1"), Ok(()), "{port}");
            assert_eq!(check("", port, "::1"), Ok(()), "{port}");
        }
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(host, 5432, "127.0.0.1"), Ok(()), "{host}");
            assert_eq!(check(host, 22, "127.0.0.1"), Err(Denied::LoginService), "{host}");
            assert_eq!(check(host, 3389, "::1"), Err(Denied::LoginService), "{host}");
        }
        // The server on the same machine, and the owner's word, stand above that.
        assert_eq!(check("", 8443, "127.0.0.1"), Err(Denied::ControlNetwork));
        assert_eq!(check("", 25, "127.0.0.1"), Err(Denied::Owner));
    }

    #[test]
    fn rules_are_read_and_shown() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3:5432", "[10.1.2.3/32]:5432"),
            ("fd00::/8", "fd00::/8"),
            ("[fd00::/8]:22", "[fd00::/8]:22"),
            ("::1", "::1/128"),
            ("*:25", "*:25"),
        ] {
            let rule = Rule::parse(text).unwrap();
            assert_eq!(rule.to_string(), shown);
            assert_eq!(Rule::parse(shown), Some(rule));
        }
        for bad in ["", "*", "*:0", "*:65536", "10.0.0.0/33", "db.internal", "db:22", "10.1.2.3:", ":22", "[::1"] {
            assert_eq!(Rule::parse(bad), None, "{bad}");
        }
    }
}
