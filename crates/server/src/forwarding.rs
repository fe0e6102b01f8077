//! Whether a forward session may reach an endpoint: what policy is asked when it starts, for every connection, and while
//! connections run.

mod nodes;
mod running;
mod trail;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use munjigi_core::endpoint::{Endpoint, FileAccess};
use munjigi_core::policy::Tree;

use crate::api::error::Denial;
use crate::api::operation::Requirement;
use crate::api::ssm::target::node_requirement;
use crate::door::{self, Decided, RequestMeta};
use crate::gateway::copying::PathJudge;
use crate::gateway::facts::SessionFacts;
use crate::gateway::files::{FileJudge, FileQuestion};
use crate::gateway::ports::Ledger;
use crate::identity::{Caller, Principal};
use crate::store::{Node, StoreError, StoredTarget};
use crate::{Server, targets};

pub(crate) use nodes::KnownNodes;
pub(crate) use running::{judge_running, watch_bytes};
pub(crate) use trail::{Asked, Trail, closed, flush, held_up, keep, opened, refused};

/// Starts a session whose connections may name endpoints that the start did not.
pub(crate) const DYNAMIC: &str = "munjigi:OpenDynamicForward";
/// Opens a connection to a host, port or socket.
pub(crate) const OPEN: &str = "munjigi:OpenForward";
const REVERSE: &str = "munjigi:OpenReverseForward";
/// On an address that others reach: not with the right to listen at all, but with one of its own.
const REVERSE_NETWORK: &str = "munjigi:OpenReverseForwardToNetwork";
/// To the node's own SSH server, where what is done is not seen.
const PASSTHROUGH: &str = "munjigi:OpenSshPassthrough";
/// Lets programs on the node use the client's SSH agent.
const AGENT: &str = "munjigi:ForwardAgent";
const UPLOAD: &str = "munjigi:UploadFile";
const DOWNLOAD: &str = "munjigi:DownloadFile";
const ADDRESS: &str = "munjigi:DestinationAddress";
const BYTES: &str = "munjigi:TransferredBytes";
const PATH: &str = "munjigi:Path";

/// One endpoint as policy is asked about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaching<'a> {
    endpoint: &'a Endpoint,
    /// As whom the node reaches it; empty if nobody is named.
    os_user: &'a str,
    /// What a name stands for, once the node has said it.
    address: Option<IpAddr>,
    /// Bytes that the session has carried so far, both ways.
    carried: u64,
    /// Whether it is the node's own SSH server, for somebody who logs in there.
    passthrough: bool,
}

impl<'a> Reaching<'a> {
    /// Asks about an endpoint of a session that begins with this OS user; `passthrough` as in its facts.
    pub(crate) fn new(endpoint: &'a Endpoint, os_user: &'a str, passthrough: bool) -> Self {
        Self { endpoint, os_user, address: None, carried: 0, passthrough }
    }

    /// Asks about an endpoint of a session that runs.
    pub(crate) fn of(endpoint: &'a Endpoint, facts: &'a SessionFacts) -> Self {
        Self::new(endpoint, &facts.os_user, facts.forward.as_ref().is_some_and(|forward| forward.passthrough))
    }

    /// Asks about this address of the name.
    pub(crate) fn at(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// Asks after so many bytes of the session.
    pub(crate) fn after(self, carried: u64) -> Self {
        Self { carried, ..self }
    }

    /// Returns the actions that reaching the endpoint is, at least one.
    pub(crate) fn actions(self) -> &'static [&'static str] {
        match self.endpoint {
            Endpoint::Tcp(_) if self.passthrough => &[PASSTHROUGH],
            Endpoint::Tcp(_) | Endpoint::Unix(_) => &[OPEN],
            Endpoint::Listen(at) if at.socket().ip().to_canonical().is_loopback() => &[REVERSE],
            Endpoint::Listen(_) => &[REVERSE_NETWORK],
            Endpoint::ListenUnix(_) => &[REVERSE],
            Endpoint::Agent => &[AGENT],
            Endpoint::Upload(_) | Endpoint::Files(FileAccess::Upload) => &[UPLOAD],
            Endpoint::Download(_) | Endpoint::Files(FileAccess::Download) => &[DOWNLOAD],
            Endpoint::Files(FileAccess::Both) => &[UPLOAD, DOWNLOAD],
            Endpoint::Rsync(call) if call.sends() => &[DOWNLOAD],
            Endpoint::Rsync(_) => &[UPLOAD],
        }
    }

    /// Adds the endpoint's condition keys to what the action needs.
    pub(crate) fn describe(self, requirement: Requirement) -> Requirement {
        let requirement = requirement.with(BYTES, self.carried.to_string());
        let described = match self.endpoint {
            Endpoint::Tcp(to) => {
                let host = if to.is_node() { "localhost" } else { to.host() };
                let named = requirement
                    .with("munjigi:DestinationHost", host)
                    .with("munjigi:DestinationPort", to.port().to_string());
                let literal = if to.is_node() { Some(Ipv4Addr::LOCALHOST.into()) } else { to.host().parse().ok() };
                match self.address.or(literal) {
                    Some::<IpAddr>(address) => named.with(ADDRESS, address.to_canonical().to_string()),
                    // Who asks that gets the name resolved on the node first, and is asked again about each address.
                    None => named.with_open(ADDRESS),
                }
            }
            Endpoint::Unix(path) => requirement.with("munjigi:DestinationPath", path.as_str()),
            Endpoint::Upload(path) | Endpoint::Download(path) => requirement.with(PATH, path.as_str()),
            // Which files there will be is not known yet; each is asked about by itself.
            Endpoint::Files(_) | Endpoint::Rsync(_) => requirement.with_open(PATH),
            Endpoint::ListenUnix(path) => requirement.with("munjigi:ListenPath", path.as_str()),
            Endpoint::Agent => requirement,
            Endpoint::Listen(at) => {
                let at = at.socket();
                requirement
                    .with("munjigi:ListenAddress", at.ip().to_canonical().to_string())
                    .with("munjigi:ListenPort", at.port().to_string())
            }
        };
        self.as_user(described)
    }

    /// Adds the OS user, where the node acts as one.
    fn as_user(self, requirement: Requirement) -> Requirement {
        match self.os_user {
            user if self.endpoint.needs_user() && !user.is_empty() => requirement.with("munjigi:OsUser", user),
            _ => requirement,
        }
    }
}

/// What policy says about a connection.
pub(crate) struct Judged {
    /// The requirement and its decision.
    pub(crate) decided: Vec<Decided>,
    /// Why not, if not.
    pub(crate) denial: Option<String>,
    /// Whether the answer hangs on what the name stands for.
    pub(crate) asks_address: bool,
}

/// Judges whether a session may reach something now.
pub(crate) async fn judge(
    server: &Server,
    principal: &Principal,
    facts: &SessionFacts,
    reaching: Reaching<'_>,
    request: &RequestMeta,
) -> Result<Judged, StoreError> {
    let node = server.known_nodes.get(server, &facts.node).await?;
    let resource = match Resource::of(server, facts, node).await? {
        Ok(resource) => resource,
        Err(gone) => return Ok(Judged { decided: Vec::new(), denial: Some(gone.message), asks_address: false }),
    };
    let needed = resource.requirements(server, reaching).collect();
    let (decided, verdict) = door::judge(server, principal, needed, request);
    let asked = |one: &Decided| one.decision.missing_context_keys.iter().any(|key| key.eq_ignore_ascii_case(ADDRESS));
    let asks_address = decided.iter().any(asked);
    Ok(Judged { decided, denial: verdict.err().map(|denial| denial.message), asks_address })
}

/// Tells whether the bytes that a session carries matter to the principal's policies.
pub(crate) fn asks_bytes(principal: &Principal) -> bool {
    principal.policies.asks_for(BYTES)
}

/// Returns what a forward session that runs must be allowed to go on, or why it may not whatever policies say.
pub(crate) async fn standing(
    server: &Server,
    facts: &SessionFacts,
    node: Node,
) -> Result<Result<Vec<Requirement>, Denial>, StoreError> {
    let resource = match Resource::of(server, facts, Arc::new(node)).await? {
        Ok(resource) => resource,
        Err(gone) => return Ok(Err(gone)),
    };
    let reaching = facts.endpoints.iter().map(|endpoint| Reaching::of(endpoint, facts));
    let mut needed: Vec<_> = reaching.flat_map(|reaching| resource.requirements(server, reaching)).collect();
    if facts.forward.as_ref().is_some_and(|forward| forward.dynamic) {
        needed.push(resource.about(server, DYNAMIC));
    }
    Ok(Ok(needed))
}

/// What policy is asked about when a forward session reaches something: its node, or the target it was opened for.
enum Resource {
    Node(Arc<Node>),
    Target(Box<StoredTarget>),
}

impl Resource {
    /// Finds it as it is now.
    async fn of(server: &Server, facts: &SessionFacts, node: Arc<Node>) -> Result<Result<Self, Denial>, StoreError> {
        let Some(opened_for) = facts.target() else { return Ok(Ok(Self::Node(node))) };
        let name = &opened_for.name;
        let gone = |why: &str| Denial { reason: "TargetChanged", message: format!("the target {name} {why}") };
        Ok(match targets::present(server, opened_for).await? {
            None => Err(gone("was changed or deleted; open it again")),
            Some(target) if !targets::serves(&node, &target) => Err(gone("is not reached through this node any more")),
            Some(target) => Ok(Self::Target(Box::new(target))),
        })
    }

    fn requirements<'a>(
        &'a self,
        server: &'a Server,
        reaching: Reaching<'a>,
    ) -> impl Iterator<Item = Requirement> + 'a {
        reaching.actions().iter().map(move |action| reaching.describe(self.about(server, action)))
    }

    fn about(&self, server: &Server, action: &'static str) -> Requirement {
        match self {
            Self::Node(node) => node_requirement(server, action, node),
            Self::Target(target) => targets::requirement(server, action, &target.name, Some(target)),
        }
    }
}

/// Prepares to judge every file of a copy by its real path, as the caller is permitted at that moment.
pub(crate) async fn file_judge(
    server: &Arc<Server>,
    caller: &Caller,
    facts: &Arc<SessionFacts>,
    endpoint: &Endpoint,
    request: &RequestMeta,
) -> Result<PathJudge, StoreError> {
    let node = server.known_nodes.get(server, &facts.node).await?;
    let resource = Resource::of(server, facts, node).await?;
    let (server, caller, facts) = (Arc::clone(server), caller.clone(), Arc::clone(facts));
    let (endpoint, request) = (endpoint.clone(), request.clone());
    Ok(Box::new(move |path: &str| {
        let gone = || "the caller's access has ended".to_owned();
        let present = server.identities.present(&caller).ok_or_else(gone)?;
        let reaching = Reaching::of(&endpoint, &facts);
        let resource = resource.as_ref().map_err(|denial| denial.message.clone())?;
        let about = reaching.actions().iter().map(|action| resource.about(&server, action).with(PATH, path));
        let asked = about.map(|about| reaching.as_user(about)).collect();
        let judged = door::judge(&server, present.principal(), asked, &request).1;
        judged.map_err(|denial| format!("{path:?}: {}", denial.message))
    }))
}

/// Prepares to judge every use of a file over SFTP, `scp` or `rsync`, as the caller is permitted at that moment.
pub(crate) async fn sftp_judge(
    server: &Arc<Server>,
    caller: &Caller,
    facts: &Arc<SessionFacts>,
    ledger: &Arc<Ledger>,
    request: &RequestMeta,
) -> Result<FileJudge, StoreError> {
    let node = server.known_nodes.get(server, &facts.node).await?;
    let resource = Resource::of(server, facts, node).await?;
    let (server, caller, facts) = (Arc::clone(server), caller.clone(), Arc::clone(facts));
    let (ledger, request) = (Arc::clone(ledger), request.clone());
    Ok(Box::new(move |question: FileQuestion<'_>| {
        let gone = || "the caller's access has ended".to_owned();
        let present = server.identities.present(&caller).ok_or_else(gone)?;
        let resource = resource.as_ref().map_err(|denial| denial.message.clone())?;
        let (action, path) = match question {
            FileQuestion::Upload(path) | FileQuestion::UploadTree(path) => (UPLOAD, path),
            FileQuestion::Download(path) | FileQuestion::DownloadTree(path) | FileQuestion::DownloadSome(path) => {
                (DOWNLOAD, path)
            }
        };
        let mut asked = resource.about(&server, action).with("munjigi:OsUser", facts.os_user.as_str());
        asked = asked.with(BYTES, ledger.carried().to_string());
        let tree = match question {
            FileQuestion::Upload(_) | FileQuestion::Download(_) => None,
            FileQuestion::UploadTree(_) | FileQuestion::DownloadTree(_) => Some(Tree::All),
            FileQuestion::DownloadSome(_) => Some(Tree::Some),
        };
        asked = match tree {
            Some(tree) => asked.with_tree(PATH, path, tree),
            None => asked.with(PATH, path),
        };
        let request = RequestMeta { time: crate::clock::now(), ..request.clone() };
        let judged = door::judge(&server, present.principal(), vec![asked], &request).1;
        judged.map_err(|denial| match tree.is_some() {
            true => format!("policies do not allow everything below {path:?}: {}", denial.message),
            false => format!("{path:?}: {}", denial.message),
        })
    }))
}

/// Returns what a caller's policies leave possible with files on a node, before any path is known; nothing is audited, since
/// the start of a session asks again.
pub(crate) fn possible_access(
    server: &Server,
    principal: &Principal,
    node: &Node,
    os_user: &str,
    request: &RequestMeta,
) -> Option<FileAccess> {
    let may = |action: &'static str| {
        let asked = node_requirement(server, action, node).with(BYTES, "0").with_open(PATH);
        let asked = if os_user.is_empty() { asked } else { asked.with("munjigi:OsUser", os_user) };
        door::judge(server, principal, vec![asked], request).1.is_ok()
    };
    match (may(UPLOAD), may(DOWNLOAD)) {
        (true, true) => Some(FileAccess::Both),
        (true, false) => Some(FileAccess::Upload),
        (false, true) => Some(FileAccess::Download),
        (false, false) => None,
    }
}
