//! A node's bundle: its planned accounts, those that are wanted just in time, and the keys of groups.

use munjigi_core::account::bundle::{
    AccountBundle, AccountMode, AccountState, BundleAccount, BundleKey, KeyFile, Sudo,
};
use munjigi_core::account::plan::{Row, State};
use munjigi_core::time::Timestamp;

use super::{View, just_in_time, keys};
use crate::Server;
use crate::store::Node;

/// Builds it; version and time are the sender's.
pub(super) async fn bundle(server: &Server, node: &Node, view: &View, rows: &[Row]) -> anyhow::Result<AccountBundle> {
    let mut accounts: Vec<BundleAccount> = rows.iter().map(planned).collect();
    for (os_user, principal) in just_in_time::wanted(server, view, &node.id) {
        let person = view.people.get(&principal);
        let pair = view.pairs.0.iter().find(|pair| pair.os_user == os_user && pair.principal == principal);
        let given = view.entitlement(&principal, node).filter(|given| given.mode == AccountMode::JustInTime);
        let (Some(person), Some(pair), Some(given)) = (person, pair, given) else { continue };
        accounts.retain(|account| account.os_user != os_user);
        accounts.push(BundleAccount {
            os_user,
            uid: pair.uid,
            state: AccountState::Active,
            mode: AccountMode::JustInTime,
            owner: person.arn.clone(),
            groups: given.groups,
            sudo: given.sudo,
            shell: given.shell,
            remove_home: given.remove_home,
            keys: Vec::new(),
        });
    }
    keys::fill(server, node, &mut accounts);
    accounts.sort_by(|one, other| one.os_user.cmp(&other.os_user));
    let bundle = AccountBundle {
        node: node.id.clone(),
        version: 0,
        issued: Timestamp(0),
        accounts,
        key_files: key_files(view, node),
    };
    bundle.check()?;
    Ok(bundle)
}

fn planned(row: &Row) -> BundleAccount {
    let (state, sudo, groups) = match row.state {
        State::Active => (AccountState::Active, row.rights.sudo(), row.rights.groups.clone()),
        State::Locked(_) => (AccountState::Locked, Sudo::None, Vec::new()),
        State::Removed(_) => (AccountState::Removed, Sudo::None, Vec::new()),
    };
    BundleAccount {
        os_user: row.os_user.clone(),
        uid: row.uid,
        state,
        mode: AccountMode::Synchronised,
        owner: row.owner.clone(),
        groups,
        sudo,
        shell: row.rights.shell.clone(),
        remove_home: row.rights.remove_home,
        keys: Vec::new(),
    }
}

/// Keys of groups that are good on the node; one that cannot be read is left out.
fn key_files(view: &View, node: &Node) -> Vec<KeyFile> {
    let tags = node.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str()));
    let holding =
        view.key_files.iter().filter(|file| file.settings.holds_on(node.id.as_str(), &node.name, tags.clone()));
    let read = |file: &crate::store::StoredKeyFile| {
        let name = file.name.as_str();
        let keys = file.settings.check().ok()?.into_iter().map(|line| BundleKey {
            key: line.key,
            options: line.options,
            principal: String::new(),
            key_id: format!("group/{name}"),
            sources: Vec::new(),
            expires: None,
            privileged: false,
        });
        let mut os_users = file.settings.os_users.clone();
        os_users.sort();
        os_users.dedup();
        Some(KeyFile { group: name.to_owned(), os_users, keys: keys.collect() })
    };
    let mut files: Vec<KeyFile> = holding.filter_map(read).collect();
    files.sort_by(|one, other| one.group.cmp(&other.group));
    files
}
