//! Joining, leaving and asking: what `munjigi agent join`, `leave` and `status` do.
//!
//! The key is made on the node and never leaves it. The activation code comes from the environment, never from argv
//! (T-28), is used once, and proves only that somebody allowed this node to register.

use std::path::PathBuf;

use anyhow::{Context, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::NodeId;
use munjigi_core::secret::Secret;
use munjigi_core::time::Timestamp;
use munjigi_core::trust::{KeyId, TrustBundle};
use munjigi_core::wire::enrol::{leave_message, register_message};
use munjigi_link::tls::PinnedRoots;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::halves::MAX_CA;
use crate::identity::{DataDir, Identity, new_node_key};
use crate::spawn_half::{STATE_FILE, State};
use crate::{call, clock, config, inventory, lock};

/// Longest node name in bytes.
const MAX_NAME: usize = 128;
/// Most tags of a node, as in the AWS API.
const MAX_TAGS: usize = 50;

/// How to join.
pub struct JoinOptions {
    /// Where the identity goes.
    pub data_dir: PathBuf,
    /// `https://host[:port]`; fixed from then on (T-30).
    pub server: String,
    /// PEM file with the server's roots; the only ones believed (T-29).
    pub ca_file: PathBuf,
    /// Name to be found by; without one that of the activation, or the host's.
    pub name: Option<String>,
    /// Tags of the node.
    pub tags: Vec<(String, String)>,
    /// From `MUNJIGI_ACTIVATION_ID`.
    pub activation_id: String,
    /// From `MUNJIGI_ACTIVATION_CODE`.
    pub activation_code: Secret<String>,
    /// Replaces an identity that is there; the old one is kept beside it.
    pub replace: bool,
    /// Lets the server manage people's accounts on this node.
    pub manage_accounts: bool,
}

/// What joining gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    /// The node's id.
    pub node_id: NodeId,
    /// The name it is found by.
    pub name: String,
    /// SHA-256 of each root certificate, for comparing with the server's own.
    pub ca_fingerprints: Vec<String>,
    /// Id of the deployment's root key, which is pinned now.
    pub root_fingerprint: String,
}

/// What `status` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// The node's id.
    pub node_id: NodeId,
    /// The name it joined under.
    pub name: String,
    /// The server that it dials.
    pub server: String,
    /// When it joined, RFC 3339; empty when not known.
    pub joined: String,
    /// Process id of the agent, if it runs.
    pub process_id: Option<u32>,
    /// Whether the link stands.
    pub online: bool,
    /// Since when the link stands or not, RFC 3339; empty when not known.
    pub since: String,
    /// Why the link does not stand; empty when it does.
    pub why: String,
    /// The only OS user that it can serve; empty when it is root.
    pub only_user: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RegisterNode<'a> {
    activation_id: &'a str,
    activation_code: &'a str,
    public_key: String,
    public_key_signature: String,
    /// Absent: the server takes the activation's name for its nodes or the host's, and makes it unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    tags: Vec<Tag<'a>>,
    hostname: String,
    platform_name: String,
    platform_version: String,
    platform_type: &'static str,
    architecture: String,
    agent_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registered {
    node_id: NodeId,
    name: String,
    root_public_key: String,
    trust_bundle: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    account: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LeaveNode<'a> {
    node_id: &'a NodeId,
    timestamp: Timestamp,
    signature: String,
}

/// Registers this node at a server and stores what it needs to run.
pub async fn join(options: &JoinOptions) -> anyhow::Result<Joined> {
    let data = DataDir::new(&options.data_dir);
    data.create()?;
    config::load(&data)?;
    if data.path("agent.json").exists() && !options.replace {
        let node = data.identity().map_or_else(|_| "an identity".to_owned(), |identity| identity.node_id.to_string());
        bail!(
            "this data directory already holds {node}; `munjigi agent leave` gives it up, `--replace` joins anew and \
             keeps the old identity beside the new one"
        );
    }
    if let Some(process) = lock::holder(&data)? {
        bail!("an agent runs with this data directory (process {process}); stop it first");
    }
    check_words(options.name.as_deref(), &options.tags)?;
    let server: Url =
        options.server.parse().context("the server's address is no URL; it looks like https://host:8443")?;
    let ca = std::fs::read(&options.ca_file)
        .with_context(|| format!("failed to read the server's roots from {}", options.ca_file.display()))?;
    if ca.len() > MAX_CA {
        bail!("{} is over {MAX_CA} bytes; give only the server's own root", options.ca_file.display());
    }
    let roots = PinnedRoots::from_pem(&ca)?;
    let ca_fingerprints = roots.fingerprints();
    let (key, pkcs8) = new_node_key()?;
    let request = register_request(options, &key);
    let answer: Registered = call::unsigned(&server, roots, "Munjigi.RegisterNode", &request).await?;
    if answer.node_id != NodeId::from_public_key(key.public_key().as_ref()) {
        bail!("the server gave an id that does not belong to this node's key; it is no server of ours");
    }
    let identity = Identity {
        node_id: answer.node_id,
        name: answer.name,
        server: server.to_string().trim_end_matches('/').to_owned(),
        root_public_key: answer.root_public_key,
        trust_bundle: answer.trust_bundle,
        ca: String::from_utf8(ca).context("the server's roots are no PEM text")?,
        region: answer.region,
        account: answer.account,
        joined: clock::now().to_iso_seconds(),
    };
    let root = identity.root()?;
    let bundle = STANDARD.decode(&identity.trust_bundle).context("the server's trust bundle is not base64")?;
    TrustBundle::verify(&bundle, &root, 0).context("the server's trust bundle is not good")?;
    keep_old(&data)?;
    data.write("node.key", &pkcs8)?;
    data.store(&identity)?;
    if options.manage_accounts {
        config::allow_accounts(&data)?;
    }
    let root_fingerprint = KeyId::of(&root).to_string();
    // The journal has it through the unit's standard error (T-29, T-30).
    tracing::info!(node = %identity.node_id, server = %identity.server, root = root_fingerprint, "the node has joined");
    Ok(Joined { node_id: identity.node_id, name: identity.name, ca_fingerprints, root_fingerprint })
}

fn register_request<'a>(options: &'a JoinOptions, key: &Ed25519KeyPair) -> RegisterNode<'a> {
    // Proves possession of the private key, for this activation only.
    let proof = register_message(&options.activation_id);
    let platform = inventory::platform();
    RegisterNode {
        activation_id: &options.activation_id,
        activation_code: options.activation_code.expose(),
        public_key: STANDARD.encode(key.public_key().as_ref()),
        public_key_signature: STANDARD.encode(key.sign(&proof).as_ref()),
        name: options.name.as_deref(),
        tags: options.tags.iter().map(|(key, value)| Tag { key, value }).collect(),
        hostname: inventory::hostname(),
        platform_name: platform.os_name,
        platform_version: platform.os_version,
        platform_type: "Linux",
        architecture: platform.arch,
        agent_version: env!("CARGO_PKG_VERSION"),
    }
}

fn check_words(name: Option<&str>, tags: &[(String, String)]) -> anyhow::Result<()> {
    if name.is_some_and(|name| name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control)) {
        bail!("the node's name must have 1 to {MAX_NAME} bytes and no control characters; give one with `--name`");
    }
    if tags.len() > MAX_TAGS {
        bail!("a node has at most {MAX_TAGS} tags");
    }
    for (key, value) in tags {
        let bad = key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256;
        if bad || key.chars().chain(value.chars()).any(char::is_control) {
            bail!("tag `{}` is not KEY=VALUE with 1 to 128 and 0 to 256 characters", key.escape_debug());
        }
    }
    Ok(())
}

/// Keeps the identity that is replaced, as the record that T-30 asks for; its key is not kept.
fn keep_old(data: &DataDir) -> anyhow::Result<()> {
    if data.path("agent.json").exists() {
        let old = data.read("agent.json")?;
        data.write(&format!("agent.json.replaced-{}", clock::now().to_basic()), &old)?;
    }
    Ok(())
}

/// Says what this data directory's agent is and does. Asks nobody but this machine.
pub fn status(data_dir: &std::path::Path) -> anyhow::Result<Status> {
    let data = DataDir::new(data_dir);
    let identity = data.identity()?;
    let process_id = lock::holder(&data)?;
    let state: Option<State> = process_id
        .and_then(|_| data.read(STATE_FILE).ok())
        .and_then(|content| serde_json::from_slice(&content).ok())
        .filter(|state: &State| Some(state.process_id) == process_id);
    let (online, since, why) = match (process_id, state) {
        (None, _) => (false, String::new(), "the agent does not run; `munjigi agent run` starts it".to_owned()),
        (Some(_), None) => (false, String::new(), "the agent has just been started".to_owned()),
        (Some(_), Some(state)) => (state.online, state.since, state.why),
    };
    Ok(Status {
        node_id: identity.node_id,
        name: identity.name,
        server: identity.server,
        joined: identity.joined,
        process_id,
        online,
        since,
        why,
        only_user: crate::spawn_half::only_user(),
    })
}

/// Deregisters this node with its own key and removes its identity. With `forget`, the identity is removed even when
/// the server cannot be asked; an administrator then removes the node there.
pub async fn leave(data_dir: &std::path::Path, forget: bool) -> anyhow::Result<NodeId> {
    let data = DataDir::new(data_dir);
    let identity = data.identity()?;
    if let Some(process) = lock::holder(&data)? {
        bail!("the agent still runs (process {process}); stop it first");
    }
    let told = say_goodbye(&data, &identity).await;
    match told {
        Ok(()) => {}
        Err(error) if forget => tracing::warn!(error = format!("{error:#}"), "the server was not told"),
        Err(error) => {
            return Err(error.context("the node is still registered; `--forget` gives up its identity all the same"));
        }
    }
    for name in ["node.key", "agent.json", STATE_FILE, "lock"] {
        data.remove(name)?;
    }
    Ok(identity.node_id)
}

async fn say_goodbye(data: &DataDir, identity: &Identity) -> anyhow::Result<()> {
    let key = data.node_key()?;
    identity.check_key(&key)?;
    let timestamp = clock::now();
    let message = leave_message(&identity.node_id, timestamp);
    let signature = STANDARD.encode(key.sign(&message).as_ref());
    let request = LeaveNode { node_id: &identity.node_id, timestamp, signature };
    let server: Url = identity.server.parse().context("the server's address in agent.json is no URL")?;
    let roots = PinnedRoots::from_pem(identity.ca.as_bytes())?;
    let _: serde_json::Value = call::unsigned(&server, roots, "Munjigi.LeaveNode", &request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_checked_before_anything_is_sent() {
        let tag = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        assert!(check_words(Some("웹-1"), &tag("Team", "")).is_ok());
        for (name, tags) in [
            ("", Vec::new()),
            ("a\nb", Vec::new()),
            (&"x".repeat(129), Vec::new()),
            ("a", tag("", "x")),
            ("a", tag("k", "a\u{1b}")),
            ("a", tag(&"k".repeat(129), "x")),
            ("a", vec![("k".to_owned(), "v".to_owned()); 51]),
        ] {
            assert!(check_words(Some(name), &tags).is_err(), "{name:?} {tags:?}");
        }
    }
}
