//! What follows from changes: certificates whose owner would not get them any more are revoked (T-104), and nodes are
//! told whom their own sshd may believe: when they connect, when something changes, and once a day.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use munjigi_core::id::NodeId;
use munjigi_core::ssh::login_name::{HOST_SUFFIX, PASSTHROUGH_SUFFIX};
use munjigi_core::ssh::node_trust::NodeSshTrust;
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{Open, SshTrustOnNode, open};
use munjigi_core::wire::{Frame, FrameSet};
use uuid::Uuid;

use super::host::{self, HOST_RENEWAL};
use crate::api::munjigi::issue_ssh_certificate::standing_requirements;
use crate::api::munjigi::revoke_ssh_certificate::revoke;
use crate::door::{self, RequestMeta, TlsDetails, Via};
use crate::gateway::nodes::NodeLink;
use crate::gateway::peer::FrameStream;
use crate::identity::session_token::Statement;
use crate::store::{IssuedCertificate, Node, Revocation, Revoked};
use crate::{Server, clock};

/// The node's tag with further names, separated by blanks, under which people reach its sshd.
pub(crate) const HOST_NAMES_TAG: &str = "SshHostNames";
/// How long a node may take to answer; it writes three files.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Nodes that are told at once.
const AT_ONCE: usize = 32;
/// After this, nodes that did not answer are told again.
const AGAIN: Duration = Duration::from_secs(10);
/// Certificates that are looked at at once.
const PAGE: usize = 500;
/// What an agent answers to a wish that it does not know.
const UNKNOWN_WISH: &str = "UnsupportedOperation";

/// Watches until the server stops.
pub(crate) async fn watch(server: Arc<Server>) {
    let stop = server.stop.clone();
    let mut identities = server.identities.changed();
    let mut authorities = server.ssh_authority.changed.subscribe();
    let mut told = content(&server);
    let mut nodes = server.nodes_changed.subscribe();
    let mut names = HashMap::new();
    renamed(&server, &mut names).await;
    let mut untold = BTreeSet::new();
    let mut renewed = clock::now();
    loop {
        let wait = if untold.is_empty() { HOST_RENEWAL } else { AGAIN };
        let woken = stop.run_until_cancelled(async {
            tokio::select! {
                changed = identities.changed() => changed.is_ok(),
                changed = authorities.changed() => changed.is_ok(),
                changed = nodes.changed() => changed.is_ok(),
                () = tokio::time::sleep(wait) => true,
            }
        });
        if woken.await != Some(true) {
            return;
        }
        if let Err(error) = revoke_what_would_not_be_issued(&server).await {
            // The next change or tomorrow; meanwhile our own door judges each by itself.
            tracing::error!(error = format!("{error:#}"), "the certificates that are out could not be judged again");
        }
        let (present, now) = (content(&server), clock::now());
        if present != told || now.since(renewed) >= HOST_RENEWAL {
            (told, renewed) = (present, now);
            untold = server.gateway.nodes.all().into_iter().map(|link| link.node).collect();
        }
        untold.extend(renamed(&server, &mut names).await);
        untold = tell_all(&server, untold).await;
    }
}

/// Returns the nodes whose names are others than when this was asked last, and those that are new since.
async fn renamed(server: &Server, names: &mut HashMap<NodeId, Vec<String>>) -> Vec<NodeId> {
    let nodes = match crate::targets::all_nodes(server).await {
        Ok(nodes) => nodes,
        Err(error) => {
            tracing::error!(%error, "the nodes could not be looked up; they keep their host certificates");
            return Vec::new();
        }
    };
    let present: HashMap<NodeId, Vec<String>> =
        nodes.iter().map(|node| (node.id.clone(), host_names(server, node))).collect();
    let former = std::mem::replace(names, present);
    let is_other = |(node, names): &(&NodeId, &Vec<String>)| former.get(*node).is_none_or(|former| former != *names);
    names.iter().filter(is_other).map(|(node, _)| node.clone()).collect()
}

/// What nodes are told beside their host certificates: keys that are believed, and what is revoked.
fn content(server: &Server) -> (Vec<munjigi_core::ssh::Fingerprint>, Arc<crate::store::RevokedSsh>) {
    (server.ssh_authority.believed(clock::now()), server.identities.revoked_ssh())
}

/// Tells nodes, and returns those that have to be told again.
async fn tell_all(server: &Server, nodes: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    // One that is not connected is told when it connects.
    let links: Vec<NodeLink> = nodes.iter().filter_map(|node| server.gateway.nodes.get(node)).collect();
    let told = futures_util::stream::iter(links).map(|link| async move {
        let told = tell(server, &link).await;
        (link.node, told)
    });
    let told: Vec<_> = told.buffer_unordered(AT_ONCE).collect().await;
    told.into_iter()
        .filter_map(|(node, told)| match told {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%node, error = format!("{error:#}"), "a node does not know whom its sshd may believe");
                Some(node)
            }
        })
        .collect()
}

/// Tells a node that has just connected.
pub(crate) async fn tell_new(server: Arc<Server>, link: NodeLink) {
    let told = server.stop.run_until_cancelled(link.cancel.run_until_cancelled(tell(&server, &link))).await;
    if let Some(Some(Err(error))) = told {
        let node = &link.node;
        tracing::warn!(%node, error = format!("{error:#}"), "a node does not know whom its sshd may believe");
    }
}

/// Tells a node whom its sshd may believe, and waits until it has written it down.
async fn tell(server: &Server, link: &NodeLink) -> anyhow::Result<()> {
    if !link.is_ours() {
        return Ok(());
    }
    let node = server.store.node(&link.node).await.context("the node could not be looked up")?;
    let document = Bytes::from(document(server, &node, link.ssh_host_key.as_deref(), clock::now())?);
    let mut stream = FrameStream::new(link.open().await?);
    let wish = open::Wish::SshTrust(SshTrustOnNode { document });
    stream.feed(&Frame::Open(Box::new(Open { wish: Some(wish) })));
    let exchange = async {
        stream.writer.flush().await?;
        anyhow::Ok(stream.reader.read(FrameSet::ANSWER).await?)
    };
    match tokio::time::timeout(ANSWER_LIMIT, exchange).await.context("it did not answer in time")?? {
        Some(Frame::Accepted(_)) => Ok(()),
        Some(Frame::Refused(refused)) if refused.code == UNKNOWN_WISH => {
            tracing::info!(node = %link.node, "the node's agent is too old to be told about SSH certificates");
            Ok(())
        }
        Some(Frame::Refused(refused)) => anyhow::bail!("it refuses: {}", refused.message),
        _ => anyhow::bail!("it did not answer"),
    }
}

/// Writes and signs what a node is told. When what is revoked takes more room than there is, the node is told that
/// nobody may come in by certificate: that is safe, and a rotation makes room.
fn document(server: &Server, node: &Node, host_key: Option<&str>, now: Timestamp) -> anyhow::Result<Vec<u8>> {
    let authority = &server.ssh_authority;
    let version = authority.next_version(now);
    let revocations = authority.revocations(&server.identities.revoked_ssh(), now);
    let user = authority.user();
    let user_authorities = user.believed(now).map(|key| key.public().to_openssh()).collect::<Result<Vec<_>, _>>()?;
    let host_certificate = host_key.and_then(|key| host_certificate(server, node, key, now));
    let full = NodeSshTrust {
        node: node.id.clone(),
        version,
        user_authorities,
        revoked: revocations.to_krl(version, now, "munjigi"),
        host_certificate,
    };
    let (key_id, key) = server.keys.grant();
    if let Some(signed) = full.sign(key_id, key) {
        return Ok(signed);
    }
    tracing::error!("so much is revoked that nodes cannot hold it; rotate the user authority with --distrust");
    let none = NodeSshTrust { user_authorities: Vec::new(), revoked: Vec::new(), ..full };
    none.sign(key_id, key).context("the node cannot be told even the least")
}

fn host_certificate(server: &Server, node: &Node, key: &str, now: Timestamp) -> Option<String> {
    let key = munjigi_core::ssh::PublicKey::parse(key).ok();
    let key = key.and_then(|key| russh::keys::PublicKey::from_bytes(key.blob()).ok());
    let Some(key) = key else {
        tracing::warn!(node = %node.id, "the node's SSH host key is none that can be certified");
        return None;
    };
    let certificate = host::certify(
        &server.ssh_authority.host(),
        &key,
        &format!("munjigi:{}", node.id),
        &host_names(server, node),
        now,
    );
    match certificate.and_then(|certificate| Ok(certificate.to_openssh()?)) {
        Ok(line) => Some(line),
        Err(error) => {
            tracing::error!(node = %node.id, error = format!("{error:#}"), "no host certificate could be made");
            None
        }
    }
}

/// Returns the names that the server vouches for: the node's ids and name, which are its own, and those that an
/// administrator wrote into its tag; never one of the server's own. A name with a dot is somebody's in DNS, so it counts
/// only in the tag.
fn host_names(server: &Server, node: &Node) -> Vec<String> {
    let instance = node.id.as_str().replacen("mi-", "i-", 1);
    let own = [node.id.to_string(), instance, node.name.to_ascii_lowercase()];
    let plain = own.into_iter().filter(|name| valid_name(name) && !name.contains('.'));
    // As people write them on each of the ways to its sshd.
    let both = plain.flat_map(|name| {
        let through = format!("{name}{PASSTHROUGH_SUFFIX}");
        [format!("{name}{HOST_SUFFIX}"), format!("{through}{HOST_SUFFIX}"), through, name]
    });
    let tagged = node.tags.iter().filter(|tag| tag.key == HOST_NAMES_TAG).flat_map(|tag| tag.value.split(' '));
    let mut names: Vec<String> = both.chain(tagged.filter(|name| valid_name(name)).map(str::to_owned)).collect();
    names.retain(|name| !server.names.contains(name) || is_tagged(node, name));
    names.dedup();
    names
}

/// An administrator may run node and server on one machine, and say so.
fn is_tagged(node: &Node, name: &str) -> bool {
    node.tags.iter().any(|tag| tag.key == HOST_NAMES_TAG && tag.value.split(' ').any(|word| word == name))
}

fn valid_name(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
}

/// Revokes certificates whose owner, or what they were issued with, is gone, and those that policy would not give out
/// any more: asked what was asked then, as of then, under the policies of now.
async fn revoke_what_would_not_be_issued(server: &Server) -> anyhow::Result<()> {
    let now = clock::now();
    let mut after = (Timestamp(i64::MIN), 0);
    loop {
        let page = server.store.list_certificates(None, now, after, PAGE).await?;
        for issued in page.items.iter().filter(|issued| issued.revoked.is_none()) {
            let Some(reason) = lost(server, issued) else { continue };
            tracing::info!(serial = issued.serial, owner = %issued.principal_arn, reason, "a certificate is revoked");
            let revoked = Revoked { reason, by: "munjigi".to_owned(), at: now };
            revoke(server, &[Revocation::Serial(issued.serial)], revoked).await?;
        }
        match page.next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// Returns why a certificate would not be issued any more, if so.
fn lost(server: &Server, issued: &IssuedCertificate) -> Option<String> {
    let statement: Option<Statement> = serde_json::from_str(&issued.statement).ok();
    let principal = statement.and_then(|statement| server.identities.of_statement(&Arc::new(statement)));
    let Some(principal) = principal else {
        return Some("its owner, or the credentials that it was issued with, are gone".to_owned());
    };
    let request = RequestMeta {
        request_id: Uuid::new_v4(),
        time: issued.issued,
        source_ip: issued.source_ip.parse().ok()?,
        user_agent: String::new(),
        referer: None,
        // It came over TLS, like every call of an operation.
        tls: Some(TlsDetails { version: "TLSv1.3".to_owned(), cipher_suite: String::new() }),
        host: String::new(),
        region: server.deployment.region.to_string(),
        invocation_id: None,
        via: Via::Api,
    };
    let (_, verdict) = door::judge(server, &principal, standing_requirements(&principal, issued), &request);
    verdict.err().map(|denial| format!("policy does not allow it any more: {}", denial.message))
}
