//! Which registered keys the sshd of a node may take, for which accounts: those of people who may log in there as that
//! OS user (`munjigi:LoginThroughSshd`).
//!
//! Asked about each person with a key and each OS user that person could mean on the node. There is no connection yet
//! whose address policy could look at: `aws:SourceIp` is 0.0.0.0, so that what is allowed from one network alone is not
//! allowed here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use munjigi_core::account::bundle::{
    AccountMode, AccountState, BundleAccount, BundleKey, MAX_ACCOUNTS, MAX_KEYS, Sudo,
};
use munjigi_core::arn::Arn;
use munjigi_core::grant::valid_os_user;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::ssh::key_options::KeyOptions;
use uuid::Uuid;

use crate::api::os_user::{RUN_AS_TAG, privileged_requirement};
use crate::api::ssm::target::node_requirement;
use crate::door::{RequestMeta, Via, judge};
use crate::identity::{Principal, SshKey};
use crate::store::Node;
use crate::{Server, clock};

/// Lets a person's registered keys in at a node's own sshd.
const ACTION: &str = "munjigi:LoginThroughSshd";

/// Whether somebody may also be an OS user who is privileged on the node, which the node itself knows (T-54).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Privileged(bool);

/// Puts the keys of people into a node's bundle: into its accounts, and for others beside them. Policy is asked once for
/// each person and OS user, however many keys they have.
pub(super) fn fill(server: &Server, node: &Node, accounts: &mut Vec<BundleAccount>) {
    let mut given: BTreeMap<String, Vec<BundleKey>> = BTreeMap::new();
    let mut by_rule: BTreeSet<String> = BTreeSet::new();
    let mut people: HashMap<Arn, Vec<(String, Privileged)>> = HashMap::new();
    let request = request(server);
    for (key, owner) in server.identities.active_ssh_keys() {
        let judged = people.entry(owner.arn.clone()).or_insert_with(|| {
            by_rule.extend(server.accounts.os_user(&owner, node).filter(|name| valid_os_user(name)));
            let users = candidates(server, &owner, node).into_iter();
            let asked = users.map(|os_user| (judged_as(server, node, &owner, &os_user, &request), os_user));
            asked.filter_map(|(may, os_user)| Some((os_user, may?))).collect()
        });
        for (os_user, privileged) in &*judged {
            given.entry(os_user.clone()).or_default().push(bundled(&key, &owner, *privileged));
        }
    }
    for account in accounts.iter_mut() {
        if let Some(keys) = given.remove(&account.os_user) {
            account.keys = bounded(&account.os_user, keys);
        }
    }
    for (os_user, keys) in given {
        if accounts.len() >= MAX_ACCOUNTS {
            tracing::error!(node = %node.id, "too many accounts to tell the node all keys");
            return;
        }
        let keys = bounded(&os_user, keys);
        // One that a rule gives and that is not there now: whoever has an account of that name on the node is a stranger.
        let state = if by_rule.contains(&os_user) { AccountState::Awaited } else { AccountState::Foreign };
        accounts.push(unmanaged(os_user, state, keys));
    }
}

/// Returns whom a login on a node is explained by, if a registered key allows it now: the principal's ARN and the key's id.
pub(crate) fn explains(
    server: &Server,
    node: &Node,
    os_user: &str,
    fingerprint: &Fingerprint,
) -> Option<(String, String)> {
    let (key, owner) = server.identities.ssh_key(fingerprint).filter(|(key, _)| key.active)?;
    if !candidates(server, &owner, node).contains(os_user) {
        return None;
    }
    judged_as(server, node, &owner, os_user, &request(server))?;
    Some((owner.arn.to_string(), key.id.to_string()))
}

/// Returns the OS users that a person could mean on a node: the one that a rule gives, that of the person's tag, and the
/// server's default.
fn candidates(server: &Server, person: &Principal, node: &Node) -> BTreeSet<String> {
    let given = server.accounts.os_user(person, node);
    let tagged = person.tags.get(RUN_AS_TAG).cloned();
    let usual = server.config.session.default_os_user.clone();
    given.into_iter().chain(tagged).chain(usual).filter(|name| valid_os_user(name)).collect()
}

/// Judges whether a person may log in as an OS user.
fn judged_as(
    server: &Server,
    node: &Node,
    owner: &Principal,
    os_user: &str,
    request: &RequestMeta,
) -> Option<Privileged> {
    let may = |requirement| judge(server, owner, vec![requirement], request).1.is_ok();
    let plain = may(node_requirement(server, ACTION, node).with("munjigi:OsUser", os_user));
    plain.then(|| Privileged(may(privileged_requirement(server, node, os_user))))
}

fn bundled(key: &SshKey, owner: &Principal, privileged: Privileged) -> BundleKey {
    BundleKey {
        key: key.key.clone(),
        principal: owner.arn.to_string(),
        key_id: key.id.to_string(),
        sources: Vec::new(),
        expires: None,
        privileged: privileged.0,
        options: KeyOptions::default(),
    }
}

fn bounded(os_user: &str, mut keys: Vec<BundleKey>) -> Vec<BundleKey> {
    if keys.len() > MAX_KEYS {
        tracing::error!(os_user, keys = keys.len(), "too many keys for one account; sshd is told the first {MAX_KEYS}");
        keys.truncate(MAX_KEYS);
    }
    keys
}

/// An account that is not ours, or not there: only its keys count.
fn unmanaged(os_user: String, state: AccountState, keys: Vec<BundleKey>) -> BundleAccount {
    BundleAccount {
        os_user,
        uid: 0,
        state,
        mode: AccountMode::Synchronised,
        owner: String::new(),
        groups: Vec::new(),
        sudo: Sudo::None,
        shell: String::new(),
        remove_home: false,
        keys,
    }
}

fn request(server: &Server) -> RequestMeta {
    RequestMeta {
        request_id: Uuid::new_v4(),
        time: clock::now(),
        source_ip: Ipv4Addr::UNSPECIFIED.into(),
        user_agent: String::new(),
        referer: None,
        tls: None,
        host: String::new(),
        region: server.deployment.region.to_string(),
        invocation_id: None,
        via: Via::Ssh,
    }
}
