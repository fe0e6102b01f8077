//! Whether a forward session may reach an endpoint: what policy is asked when it starts and for every connection.

use std::net::{IpAddr, Ipv4Addr};

use munjigi_core::endpoint::Endpoint;

use crate::api::error::Denial;
use crate::api::operation::Requirement;
use crate::api::ssm::target::node_requirement;
use crate::door::{self, RequestMeta};
use crate::gateway::facts::SessionFacts;
use crate::identity::Principal;
use crate::store::{Node, StoreError, StoredTarget};
use crate::{Server, targets};

/// Starts a session whose connections may name endpoints that the start did not.
pub(crate) const DYNAMIC: &str = "munjigi:OpenDynamicForward";
const OPEN: &str = "munjigi:OpenForward";
const REVERSE: &str = "munjigi:OpenReverseForward";
const UPLOAD: &str = "munjigi:UploadFile";
const DOWNLOAD: &str = "munjigi:DownloadFile";

/// One endpoint as policy is asked about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaching<'a> {
    endpoint: &'a Endpoint,
    /// As whom the node reaches it; empty if nobody is named.
    os_user: &'a str,
}

impl<'a> Reaching<'a> {
    /// Asks about an endpoint of a session that has this OS user.
    pub(crate) fn new(endpoint: &'a Endpoint, os_user: &'a str) -> Self {
        Self { endpoint, os_user }
    }

    /// Returns the action that reaching the endpoint is.
    pub(crate) fn action(self) -> &'static str {
        match self.endpoint {
            Endpoint::Tcp(_) | Endpoint::Unix(_) => OPEN,
            Endpoint::Listen(_) => REVERSE,
            Endpoint::Upload(_) => UPLOAD,
            Endpoint::Download(_) => DOWNLOAD,
        }
    }

    /// Adds the endpoint's condition keys to what the action needs.
    pub(crate) fn describe(self, requirement: Requirement) -> Requirement {
        let described = match self.endpoint {
            Endpoint::Tcp(to) => {
                let host = if to.is_node() { "localhost" } else { to.host() };
                let named = requirement
                    .with("munjigi:DestinationHost", host)
                    .with("munjigi:DestinationPort", to.port().to_string());
                let address = if to.is_node() { Some(Ipv4Addr::LOCALHOST.into()) } else { to.host().parse().ok() };
                match address {
                    Some::<IpAddr>(address) => {
                        named.with("munjigi:DestinationAddress", address.to_canonical().to_string())
                    }
                    None => named,
                }
            }
            Endpoint::Unix(path) => requirement.with("munjigi:DestinationPath", path.as_str()),
            Endpoint::Upload(path) | Endpoint::Download(path) => requirement.with("munjigi:Path", path.as_str()),
            Endpoint::Listen(at) => {
                let at = at.socket();
                requirement
                    .with("munjigi:ListenAddress", at.ip().to_canonical().to_string())
                    .with("munjigi:ListenPort", at.port().to_string())
            }
        };
        match self.os_user {
            user if self.endpoint.needs_user() && !user.is_empty() => described.with("munjigi:OsUser", user),
            _ => described,
        }
    }
}

/// Judges whether a connection of a forward session may be made now.
pub(crate) async fn judge(
    server: &Server,
    principal: &Principal,
    facts: &SessionFacts,
    endpoint: &Endpoint,
    request: &RequestMeta,
) -> Result<Result<(), Denial>, StoreError> {
    let node = server.store.node(&facts.node).await?;
    match Resource::of(server, facts, node).await? {
        Ok(resource) => {
            let needed = resource.requirement(server, Reaching::new(endpoint, &facts.os_user));
            Ok(door::judge(server, principal, vec![needed], request).1)
        }
        Err(gone) => Ok(Err(gone)),
    }
}

/// Returns what a forward session that runs must be allowed to go on, or why it may not whatever policies say.
pub(crate) async fn standing(
    server: &Server,
    facts: &SessionFacts,
    node: Node,
) -> Result<Result<Vec<Requirement>, Denial>, StoreError> {
    let resource = match Resource::of(server, facts, node).await? {
        Ok(resource) => resource,
        Err(gone) => return Ok(Err(gone)),
    };
    let reaching = facts.endpoints.iter().map(|endpoint| Reaching::new(endpoint, &facts.os_user));
    let mut needed: Vec<_> = reaching.map(|reaching| resource.requirement(server, reaching)).collect();
    if facts.forward.as_ref().is_some_and(|forward| forward.dynamic) {
        needed.push(resource.about(server, DYNAMIC));
    }
    Ok(Ok(needed))
}

/// What policy is asked about when a forward session reaches something: its node, or the target it was opened for.
enum Resource {
    Node(Box<Node>),
    Target(Box<StoredTarget>),
}

impl Resource {
    /// Finds it as it is now.
    async fn of(server: &Server, facts: &SessionFacts, node: Node) -> Result<Result<Self, Denial>, StoreError> {
        let Some(opened_for) = facts.target() else { return Ok(Ok(Self::Node(Box::new(node)))) };
        let name = &opened_for.name;
        let gone = |why: &str| Denial { reason: "TargetChanged", message: format!("the target {name} {why}") };
        Ok(match targets::present(server, opened_for).await? {
            None => Err(gone("was changed or deleted; open it again")),
            Some(target) if !targets::serves(&node, &target) => Err(gone("is not reached through this node any more")),
            Some(target) => Ok(Self::Target(Box::new(target))),
        })
    }

    fn requirement(&self, server: &Server, reaching: Reaching<'_>) -> Requirement {
        reaching.describe(self.about(server, reaching.action()))
    }

    fn about(&self, server: &Server, action: &'static str) -> Requirement {
        match self {
            Self::Node(node) => node_requirement(server, action, node),
            Self::Target(target) => targets::requirement(server, action, &target.name, Some(target)),
        }
    }
}
