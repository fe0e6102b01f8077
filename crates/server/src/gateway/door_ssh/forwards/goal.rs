//! Where a `direct-tcpip` channel leads: through the node of the login, to a target, into another login (`ssh -J`), or
//! through to a node's own sshd.

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::ssh::login_name::{HOST_SUFFIX, LoginName, PASSTHROUGH_SUFFIX};

use super::Refusal;
use super::sessions::Aim;
use crate::api::ssm::target::Target;
use crate::door::hidden;
use crate::forwarding::{self, Reaching};
use crate::gateway::door_ssh::Conn;
use crate::identity::Caller;
use crate::store::StoredTarget;
use crate::targets;

/// Where SSH servers listen.
const SSH_PORT: u32 = 22;
/// Longest name of a node, characters, as for every operation.
const MAX_HOST: usize = 400;

/// Where a channel leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// A connection of a forward session; to the session's only endpoint if none is named.
    Forward(Aim, Option<Endpoint>),
    /// Another login at this door, for the node.
    Inner(String),
}

/// What stands for a node in a login's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'l> {
    /// A node, or several.
    Node(&'l str),
    /// No node that there is, or none that the caller may know of: often the person's own name. Which of the two it is
    /// changes nothing, so that nobody can probe for nodes.
    Unseen(&'l str),
    /// Nothing, and the caller may know that: who may list nodes, and logins that name none.
    Nothing,
}

impl<'l> Named<'l> {
    /// Finds what a connection's login names.
    pub(super) async fn of(conn: &'l Conn, caller: &Caller) -> Result<Self, Refusal> {
        let LoginName { node: Some(text), .. } = &conn.login else { return Ok(Self::Nothing) };
        let (server, request) = (&conn.server, conn.request());
        let target = Target::resolve(server, text).await?;
        let wishes = [forwarding::DYNAMIC, "ssm:StartSession"];
        let wishes = wishes.into_iter().flat_map(|action| target.requirements(server, action, text)).collect();
        let seen = match &target {
            Target::Unknown => hidden::lists_nodes(server, caller, &request),
            Target::Node(_) | Target::Ambiguous(_) => hidden::sees(server, caller, wishes, &request),
        };
        Ok(match target {
            _ if !seen => Self::Unseen(text),
            Target::Unknown => Self::Nothing,
            Target::Node(_) | Target::Ambiguous(_) => Self::Node(text),
        })
    }
}

impl Goal {
    /// Finds where a channel leads.
    pub(super) async fn of(conn: &Conn, caller: &Caller, host: &str, port: u32) -> Result<Self, Refusal> {
        let named = Named::of(conn, caller).await?;
        let target = targets::find(&conn.server, host).await;
        let target = target.map_err(|_| Refusal::unavailable("the server could not look the host up; try again"))?;
        let target = target.filter(|target| sees_target(conn, caller, target));
        decide(named, host, port, target.as_ref())
    }
}

/// Tells whether a caller may know of a target: to anybody else its name is that of any host.
fn sees_target(conn: &Conn, caller: &Caller, target: &StoredTarget) -> bool {
    let endpoint = Endpoint::Tcp(target.settings.address.destination().clone());
    let wish = targets::requirement(&conn.server, forwarding::OPEN, &target.name, Some(target));
    let wish = Reaching::new(&endpoint, "", false).describe(wish);
    hidden::sees(&conn.server, caller, vec![wish], &conn.request())
}

fn decide(named: Named<'_>, host: &str, port: u32, target: Option<&StoredTarget>) -> Result<Goal, Refusal> {
    if let Some(target) = target {
        let address = &target.settings.address;
        if port != u32::from(address.destination().port()) {
            let name = &target.name;
            return Err(Refusal::prohibited(format!("{name} is a target and leads to {address} alone: use its port")));
        }
        return Ok(Goal::Forward(Aim::Target(format!("{}{}", targets::PREFIX, target.name)), None));
    }
    // What is unseen is asked for as well: the operation refuses it, and the trail has it.
    let through = match named {
        Named::Node(node) => Some(node),
        Named::Unseen(node) => Some(node).filter(|_| port != SSH_PORT),
        Named::Nothing => None,
    };
    if let Some(node) = through {
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
    // The host's certificate is made for the name, and kept.
    if host.chars().count() > MAX_HOST || host.chars().any(char::is_control) {
        return Err(Refusal::prohibited("a node is named by 1 to 400 characters without control characters"));
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

    const WEB: Named<'_> = Named::Node("web-1");

    fn decided(named: Named<'_>, host: &str, port: u32) -> Goal {
        decide(named, host, port, None).unwrap()
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
            assert_eq!(decided(WEB, host, port), through(endpoint), "{host}");
        }
        for (host, port) in [("db", 0), ("db", 65536), ("a b", 1)] {
            assert!(decide(WEB, host, port, None).is_err(), "{host}:{port}");
        }
    }

    #[test]
    fn a_login_without_a_node_jumps() {
        let inner = |node: &str| Goal::Inner(node.to_owned());
        let passed = Goal::Forward(Aim::Passthrough("web-1".to_owned()), None);
        for named in [Named::Nothing, Named::Unseen("kim")] {
            assert_eq!(decided(named, "web-1", 22), inner("web-1"));
            assert_eq!(decided(named, "web-1.munjigi", 22), inner("web-1"));
            assert_eq!(decided(named, "web-1.passthrough", 22), passed);
            assert_eq!(decided(named, "web-1.passthrough.munjigi", 22), passed);
        }
        assert!(decide(Named::Nothing, "db.internal", 5432, None).is_err());
        for bad in ["w".repeat(MAX_HOST + 1).as_str(), "web\n1", "web\u{1b}[2J"] {
            assert!(decide(Named::Nothing, bad, 22, None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_unseen_is_asked_for_like_any_node() {
        let asked = decided(Named::Unseen("web-9"), "db.internal", 5432);
        let endpoint = "db.internal:5432".parse().unwrap();
        assert_eq!(asked, Goal::Forward(Aim::Node("web-9".to_owned()), Some(endpoint)));
    }
}
