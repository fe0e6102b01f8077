//! Rules, people and their local names as of one moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use munjigi_core::account::names::local_name;
use munjigi_core::account::pairs::Pairs;
use munjigi_core::account::rule::{Entitlement, Person, RuleSettings, entitle, holding};
use munjigi_core::arn::Deployment;

use crate::store::{IdentityRows, Node, StoreError, StoredKeyFile, StoredRule};
use crate::{Server, lock};

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The identities and changes that it belongs to.
    seen: Option<(u64, u64)>,
    /// The rules, in the order of their names.
    pub(super) rules: Vec<RuleSettings>,
    /// Keys of groups.
    pub(super) key_files: Vec<StoredKeyFile>,
    /// Everybody, by unchanging id.
    pub(super) people: BTreeMap<String, Person>,
    /// Who has which local name.
    pub(super) pairs: Pairs,
}

impl View {
    /// Sees to it that what was read last is what holds now.
    pub(crate) async fn fresh(server: &Server) -> Result<Arc<Self>, StoreError> {
        let present = server.accounts.view();
        // Read before the store, so that what changes in between is read again.
        let now = (server.identities.version(), *server.accounts.changes.borrow());
        if present.seen == Some(now) { Ok(present) } else { Self::read(server).await }
    }

    /// Reads everything anew. An answer that fails is no answer: nothing of it is taken (T-27).
    pub(super) async fn read(server: &Server) -> Result<Arc<Self>, StoreError> {
        let seen = (server.identities.version(), *server.accounts.changes.borrow());
        let rules: Vec<StoredRule> = server.store.account_rules().await?;
        let key_files = server.store.account_key_files().await?;
        let people = match rules.is_empty() {
            // Nobody can be meant, and to read everybody after each change would cost for nothing.
            true => BTreeMap::new(),
            false => people(server.store.load_identities().await?, &server.deployment),
        };
        let pairs = server.store.account_pairs().await?;
        let rules = rules.into_iter().map(|rule| rule.settings).collect();
        let view = Arc::new(Self { seen: Some(seen), rules, key_files, people, pairs });
        *lock(&server.accounts.view) = view.clone();
        Ok(view)
    }

    /// Puts changed pairs in place.
    pub(super) fn with_pairs(&self, pairs: Pairs) -> Self {
        Self {
            seen: self.seen,
            rules: self.rules.clone(),
            key_files: self.key_files.clone(),
            people: self.people.clone(),
            pairs,
        }
    }

    /// Returns the rules that hold on a node.
    pub(super) fn rules_on(&self, node: &Node) -> Vec<&RuleSettings> {
        let tags = node.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str()));
        holding(&self.rules, node.id.as_str(), &node.name, tags)
    }

    /// Returns what rules give a person on a node.
    pub(super) fn entitlement(&self, principal: &str, node: &Node) -> Option<Entitlement> {
        entitle(&self.rules_on(node), self.people.get(principal)?)
    }

    /// Returns the OS user that rules give a person on a node: the name that the person has, or would get.
    pub(super) fn os_user(&self, principal: &str, node: &Node) -> Option<String> {
        let entitlement = self.entitlement(principal, node)?;
        let form = entitlement.form.to_string();
        if let Some(pair) = self.pairs.0.iter().find(|pair| pair.principal == principal && pair.form == form) {
            return Some(pair.os_user.clone());
        }
        let name = local_name(entitlement.name_of(self.people.get(principal)?)?, entitlement.mapping).ok()?;
        let taken = self.pairs.0.iter().any(|pair| pair.os_user == name && pair.principal != principal);
        (!taken).then_some(name)
    }
}

fn people(rows: IdentityRows, deployment: &Deployment) -> BTreeMap<String, Person> {
    let groups: HashMap<_, _> = rows.groups.iter().map(|group| (group.id.clone(), group.name.clone())).collect();
    let person = |user: crate::store::User| {
        let memberships = rows.memberships.get(&user.id);
        let names: BTreeSet<String> =
            memberships.into_iter().flatten().filter_map(|id| groups.get(id).cloned()).collect();
        let tags = rows.owner_tags.get(&user.id).into_iter().flatten();
        let person = Person {
            principal: user.id.to_string(),
            arn: deployment.user(&user.path, &user.name).to_string(),
            groups: names,
            tags: tags.map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
            name: user.name,
        };
        (person.principal.clone(), person)
    };
    rows.users.into_iter().map(person).collect()
}
