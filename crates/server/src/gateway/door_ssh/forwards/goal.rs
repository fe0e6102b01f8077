//! Where a `direct-tcpip` channel leads: through the node of the login, to a target, into another login (`ssh -J`), or
//! through to a node's own sshd.

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::ssh::login_name::{HOST_SUFFIX, LoginName, PASSTHROUGH_SUFFIX};

use super::Refusal;
use super::sessions::Aim;
use crate::api::ssm::target::Target;
use crate::store::StoredTarget;
use crate::{Server, targets};

/// Where SSH servers listen.
const SSH_PORT: u32 = 22;

/// Where a channel leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// A connection of a forward session; to the session's only endpoint if none is named.
    Forward(Aim, Option<Endpoint>),
    /// Another login at this door, for the node.
    Inner(String),
}

impl Goal {
    /// Returns the node that a login names, if it names one: a login without one comes with the person's own name.
    pub(super) async fn node<'l>(server: &Server, login: &'l LoginName) -> Result<Option<&'l str>, Refusal> {
        let Some(node) = login.node.as_deref() else { return Ok(None) };
        Ok(match Target::resolve(server, node).await? {
            Target::Unknown => None,
            Target::Node(_) | Target::Ambiguous(_) => Some(node),
        })
    }

    /// Finds it.
    pub(super) async fn of(server: &Server, login: &LoginName, host: &str, port: u32) -> Result<Self, Refusal> {
        let node = Self::node(server, login).await?;
        let target = targets::find(server, host).await;
        let target = target.map_err(|_| Refusal::unavailable("the server could not look the host up; try again"))?;
        decide(node, host, port, target.as_ref())
    }
}

fn decide(node: Option<&str>, host: &str, port: u32, target: Option<&StoredTarget>) -> Result<Goal, Refusal> {
    if let Some(target) = target {
        let address = &target.settings.address;
        if port != u32::from(address.destination().port()) {
            let name = &target.name;
            return Err(Refusal::prohibited(format!("{name} is a target and leads to {address} alone: use its port")));
        }
        return Ok(Goal::Forward(Aim::Target(format!("{}{}", targets::PREFIX, target.name)), None));
    }
    if let Some(node) = node {
        // An empty host is the node beyond the rules for names (T-58): nobody gets that by leaving one out.
        let host = if host.is_empty() { "localhost" } else { host };
        let port = u16::try_from(port).map_err(|_| Refusal::prohibited("a port is a number from 1 to 65535"))?;
        let endpoint = Endpoint::Tcp(Destination::new(host, port)?);
        return Ok(Goal::Forward(Aim::Node(node.to_owned()), Some(endpoint)));
    }
    if port != SSH_PORT {
        return Err(Refusal::prohibited(
            "this login names no node to forward through: log in as NODE@… or OSUSER%NODE@…, or name a target",
        ));
    }
    let host = host.strip_suffix(HOST_SUFFIX).unwrap_or(host);
    Ok(match host.strip_suffix(PASSTHROUGH_SUFFIX) {
        Some(node) => Goal::Forward(Aim::Passthrough(node.to_owned()), None),
        None => Goal::Inner(host.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(node: Option<&str>, host: &str, port: u32) -> Goal {
        decide(node, host, port, None).unwrap()
    }

    #[test]
    fn a_login_that_names_a_node_forwards_through_it() {
        let through = |endpoint: &str| Goal::Forward(Aim::Node("web-1".to_owned()), Some(endpoint.parse().unwrap()));
        for (host, port, endpoint) in [
            ("db.internal", 5432, "db.internal:5432"),
            ("localhost", 22, "localhost:22"),
            ("", 22, "localhost:22"),
            ("fd00::7", 80, "[fd00::7]:80"),
            // Not for this login: the name is one of the node's network then.
            ("web-2.munjigi", 22, "web-2.munjigi:22"),
            ("web-2.passthrough", 22, "web-2.passthrough:22"),
        ] {
            assert_eq!(decided(Some("web-1"), host, port), through(endpoint), "{host}");
        }
        for (host, port) in [("db", 0), ("db", 65536), ("a b", 1)] {
            assert!(decide(Some("web-1"), host, port, None).is_err(), "{host}:{port}");
        }
    }

    #[test]
    fn a_login_without_a_node_jumps() {
        let inner = |node: &str| Goal::Inner(node.to_owned());
        assert_eq!(decided(None, "web-1", 22), inner("web-1"));
        assert_eq!(decided(None, "web-1.munjigi", 22), inner("web-1"));
        let passed = Goal::Forward(Aim::Passthrough("web-1".to_owned()), None);
        assert_eq!(decided(None, "web-1.passthrough", 22), passed);
        assert_eq!(decided(None, "web-1.passthrough.munjigi", 22), passed);
        assert!(decide(None, "db.internal", 5432, None).is_err());
    }
}
