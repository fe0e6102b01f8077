//! From the store's rows to principals with compiled policies. A stored policy that does not parse denies everything it
//! takes part in (T-56) and is reported in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use munjigi_core::arn::{Arn, Deployment};
use munjigi_core::id::UniqueId;
use munjigi_core::policy::{NamedPolicy, Policy, PolicyKind, PolicyList, PolicySet};

use super::{AccessKey, LoadedIdentities, Principal, PrincipalKind, Role, SshKey, trust};
use crate::store::{self, IdentityRows, User};

/// The policies of all owners, each document parsed once.
pub(crate) struct Compiler<'r> {
    rows: &'r IdentityRows,
    managed: HashMap<&'r str, NamedPolicy>,
    inline: HashMap<&'r UniqueId, Vec<NamedPolicy>>,
}

impl<'r> Compiler<'r> {
    /// Parses every policy in force.
    ///
    /// Decisions name a managed policy by its ARN, and an inline one by its owner's ARN, `/` and its name.
    pub(crate) fn new(rows: &'r IdentityRows, deployment: &Deployment) -> Self {
        let managed = rows.policies.iter();
        let managed =
            managed.map(|policy| (policy.arn.as_str(), named(policy.arn.as_str(), &policy.document, KIND))).collect();
        let users = rows.users.iter().map(|user| (&user.id, deployment.user(&user.path, &user.name)));
        let groups = rows.groups.iter().map(|group| (&group.id, deployment.group(&group.path, &group.name)));
        let roles = rows.roles.iter().map(|role| (&role.id, deployment.role(&role.path, &role.name)));
        let inline = users.chain(groups).chain(roles).filter_map(|(id, arn)| {
            let policies = rows.inline.get(id)?.iter();
            let policies = policies.map(|policy| named(&format!("{arn}/{}", policy.name), &policy.document, KIND));
            Some((id, policies.collect()))
        });
        Self { rows, managed, inline: inline.collect() }
    }

    /// Returns the identity policies of a user: its own and its groups'.
    pub(crate) fn identity_policies(&self, user: &User) -> Vec<NamedPolicy> {
        let groups = self.rows.memberships.get(&user.id).into_iter().flatten();
        let owners = std::iter::once(&user.id).chain(groups);
        owners.flat_map(|owner| self.owner_policies(owner)).collect()
    }

    /// Returns the policies that hang on one user, group or role.
    pub(crate) fn owner_policies(&self, owner: &UniqueId) -> impl Iterator<Item = NamedPolicy> {
        let inline = self.inline.get(owner).into_iter().flatten().cloned();
        let attached = self.rows.attachments.get(owner).into_iter().flatten();
        inline.chain(attached.map(|arn| self.managed(arn)))
    }

    /// Returns the permissions boundary of a user or role.
    pub(crate) fn boundary(&self, boundary: Option<&Arn>) -> Option<Arc<PolicyList>> {
        boundary.map(|arn| Arc::new(PolicyList::new([self.managed(arn)])))
    }

    /// Compiles a role.
    fn role(&self, role: &store::Role, arn: Arn) -> Role {
        let tags = self.rows.owner_tags.get(&role.id).into_iter().flatten();
        let trust = named(arn.as_str(), &trust::evaluated(&role.trust), PolicyKind::Trust);
        Role {
            id: role.id.clone(),
            name: role.name.as_str().into(),
            path: role.path.as_str().into(),
            arn,
            tags: tags.map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
            policies: PolicySet {
                identity: Arc::new(PolicyList::new(self.owner_policies(&role.id))),
                boundary: self.boundary(role.boundary.as_ref()),
                ..PolicySet::default()
            },
            trust: Arc::new(PolicyList::new([trust])),
            max_session: role.max_session,
        }
    }

    /// A policy that is named and not there denies, as one that cannot be read.
    fn managed(&self, arn: &Arn) -> NamedPolicy {
        self.managed.get(arn.as_str()).cloned().unwrap_or_else(|| NamedPolicy::broken(arn.as_str()))
    }
}

/// Managed policies are parsed once, for identities and boundaries alike: the grammar is the same.
const KIND: PolicyKind = PolicyKind::Identity;

/// Builds the principals and keys of a snapshot.
pub(super) fn compile(rows: IdentityRows, deployment: &Deployment) -> LoadedIdentities {
    let compiler = Compiler::new(&rows, deployment);
    let principals = rows.users.iter().map(|user| {
        let tags = rows.owner_tags.get(&user.id).into_iter().flatten();
        Principal {
            kind: PrincipalKind::User,
            arn: deployment.user(&user.path, &user.name),
            unique_id: Some(user.id.clone()),
            name: user.name.as_str().into(),
            path: user.path.as_str().into(),
            tags: tags.map(|tag| (tag.key.clone(), tag.value.clone())).collect::<BTreeMap<_, _>>(),
            policies: PolicySet {
                identity: Arc::new(PolicyList::new(compiler.identity_policies(user))),
                boundary: compiler.boundary(user.boundary.as_ref()),
                ..PolicySet::default()
            },
            session: None,
        }
    });
    let principals = principals.collect();
    let roles = rows.roles.iter().map(|role| compiler.role(role, deployment.role(&role.path, &role.name))).collect();
    let managed = compiler.managed.iter().map(|(arn, policy)| ((*arn).into(), policy.clone())).collect();
    let keys = rows.access_keys.into_iter().map(|key| AccessKey {
        id: key.id,
        owner: key.owner,
        active: key.active,
        sealed_secret: key.sealed_secret,
    });
    let ssh_keys =
        rows.ssh_keys.into_iter().map(|key| SshKey { id: key.id, owner: key.owner, active: key.active, key: key.key });
    let revoked_ssh = Arc::new(rows.revoked_ssh);
    LoadedIdentities { principals, roles, managed, keys: keys.collect(), ssh_keys: ssh_keys.collect(), revoked_ssh }
}

/// Compiles a policy; one that cannot be read denies everything it takes part in.
pub(super) fn named(id: &str, document: &str, kind: PolicyKind) -> NamedPolicy {
    match Policy::parse(document, kind) {
        Ok(policy) => NamedPolicy::new(id, Arc::new(policy)),
        Err(error) => {
            tracing::error!(policy = id, %error, "a stored policy cannot be read; it denies everything it is part of");
            NamedPolicy::broken(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use munjigi_core::id::AccountId;
    use munjigi_core::policy::{Principal as Asker, Request, evaluate};
    use munjigi_core::time::Timestamp;

    use super::*;
    use crate::store::{Group, InlinePolicy, PolicyInForce};

    fn allow(action: &str) -> String {
        format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"{action}","Resource":"*"}}}}"#)
    }

    fn id(text: &str) -> UniqueId {
        UniqueId::parse(text).unwrap()
    }

    #[test]
    fn a_users_policies_are_its_own_and_its_groups_within_its_boundary() {
        let deployment = Deployment { account: AccountId::parse("123456789012").unwrap(), region: "local-1".into() };
        let (alice, eng) = (id("AIDAAAAAAAAAAAAAAAAAA"), id("AGPAAAAAAAAAAAAAAAAAA"));
        let arn = |name| deployment.policy("/", name);
        let policy = |name, document| PolicyInForce { arn: arn(name), builtin: false, document };
        let path = || "/".to_owned();
        let created = Timestamp(0);
        let mut rows = IdentityRows {
            users: vec![User { id: alice.clone(), name: "alice".into(), path: path(), created, boundary: None }],
            groups: vec![Group { id: eng.clone(), name: "eng".into(), path: path(), created }],
            memberships: [(alice.clone(), vec![eng.clone()])].into(),
            policies: vec![policy("managed", allow("ssm:StartSession")), policy("edge", allow("ssm:*"))],
            attachments: [(eng, vec![arn("managed")])].into(),
            inline: [(alice, vec![InlinePolicy { name: "own".into(), document: allow("iam:*") }])].into(),
            ..IdentityRows::default()
        };
        let decide = |rows: &IdentityRows, action: &str| {
            let compiler = Compiler::new(rows, &deployment);
            let user = &rows.users[0];
            let set = PolicySet {
                identity: Arc::new(PolicyList::new(compiler.identity_policies(user))),
                boundary: compiler.boundary(user.boundary.as_ref()),
                ..PolicySet::default()
            };
            let asker = Asker {
                kind: PrincipalKind::User,
                arn: deployment.user("/", "alice").to_string(),
                account: "123456789012".into(),
                source_arn: None,
                unique_id: None,
            };
            evaluate(&set, &Request::new(asker, action, "*"))
        };
        assert!(decide(&rows, "ssm:StartSession").is_allowed(), "by the group's managed policy");
        let own = decide(&rows, "iam:CreateUser");
        assert_eq!(&*own.statements[0].policy_id, "arn:aws:iam::123456789012:user/alice/own");
        assert!(!decide(&rows, "cloudtrail:LookupEvents").is_allowed());

        rows.users[0].boundary = Some(arn("edge"));
        assert!(decide(&rows, "ssm:StartSession").is_allowed());
        assert!(!decide(&rows, "iam:CreateUser").is_allowed(), "the boundary does not allow it");
        rows.users[0].boundary = Some(arn("gone"));
        assert!(!decide(&rows, "ssm:StartSession").is_allowed(), "a boundary that is not there denies");
        rows.users[0].boundary = None;
        rows.policies[0].document = "{".into();
        assert!(!decide(&rows, "iam:CreateUser").is_allowed(), "an unreadable policy denies all");
    }
}
