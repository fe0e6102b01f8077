//! Everything about identities in one read: what the snapshot in memory is built from.

use std::collections::HashMap;

use sqlx::Row as _;

use munjigi_core::arn::Arn;
use munjigi_core::id::{AccessKeyId, UniqueId};

use super::row::Columns;
use super::{
    Group, InlinePolicy, KeySecret, RegisteredKey, RevokedSsh, Role, Store, StoreError, Tag, User, access_keys, roles,
    ssh_certificates, ssh_keys, tags,
};

/// All identities, their policies and keys, as of one moment.
#[derive(Debug, Default)]
pub struct IdentityRows {
    /// The users.
    pub users: Vec<User>,
    /// The groups.
    pub groups: Vec<Group>,
    /// The roles.
    pub roles: Vec<Role>,
    /// Which groups each user is in, by their ids.
    pub memberships: HashMap<UniqueId, Vec<UniqueId>>,
    /// The managed policies with the version in force.
    pub policies: Vec<PolicyInForce>,
    /// The managed policies attached to each user, group and role.
    pub attachments: HashMap<UniqueId, Vec<Arn>>,
    /// The inline policies of each user, group and role.
    pub inline: HashMap<UniqueId, Vec<InlinePolicy>>,
    /// The tags of each user and role.
    pub owner_tags: HashMap<UniqueId, Vec<Tag>>,
    /// All access keys.
    pub access_keys: Vec<SealedKey>,
    /// All registered SSH public keys.
    pub ssh_keys: Vec<RegisteredKey>,
    /// What SSH's authorities have revoked.
    pub revoked_ssh: RevokedSsh,
}

/// A managed policy as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInForce {
    /// Its resource name.
    pub arn: Arn,
    /// Whether it comes with the program.
    pub builtin: bool,
    /// The text of its default version.
    pub document: String,
}

/// An access key with its secret sealed; [`Store::open_key_secret`] opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Its id.
    pub id: AccessKeyId,
    /// The user it belongs to.
    pub owner: UniqueId,
    /// Whether it can be used.
    pub active: bool,
    /// The sealed secret.
    pub sealed_secret: Vec<u8>,
}

impl Store {
    /// Reads all identities in one transaction.
    pub async fn load_identities(&self) -> Result<IdentityRows, StoreError> {
        let mut loaded = IdentityRows::default();
        let mut transaction = self.readers().begin().await?;
        let rows = sqlx::query("SELECT id, name, path, created, boundary_arn FROM users ORDER BY id")
            .fetch_all(&mut *transaction)
            .await?;
        loaded.users = rows.iter().map(User::read).collect::<Result<_, _>>()?;
        let rows = sqlx::query("SELECT id, name, path, created FROM user_groups ORDER BY id")
            .fetch_all(&mut *transaction)
            .await?;
        loaded.groups = rows.iter().map(Group::read).collect::<Result<_, _>>()?;

        loaded.roles = roles::all(&mut transaction).await?;

        let rows = sqlx::query("SELECT user_id AS id, group_id FROM memberships").fetch_all(&mut *transaction).await?;
        for row in &rows {
            let row = Columns::new(row)?;
            loaded.memberships.entry(row.parse("id")?).or_default().push(row.parse("group_id")?);
        }
        let rows = sqlx::query(
            "SELECT p.arn AS id, p.builtin, v.document FROM policies p
             JOIN policy_versions v ON v.policy_id = p.id AND v.version = p.default_version ORDER BY p.arn",
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let row = Columns::new(row)?;
            let builtin = row.get::<i64>("builtin")? == 1;
            loaded.policies.push(PolicyInForce { arn: row.parse("id")?, builtin, document: row.get("document")? });
        }
        let rows = sqlx::query(
            "SELECT a.owner AS id, p.arn FROM policy_attachments a JOIN policies p ON p.id = a.policy_id ORDER BY p.arn",
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let row = Columns::new(row)?;
            loaded.attachments.entry(row.parse("id")?).or_default().push(row.parse("arn")?);
        }
        let rows = sqlx::query("SELECT owner AS id, name, document FROM inline_policies ORDER BY name_key")
            .fetch_all(&mut *transaction)
            .await?;
        for row in &rows {
            let row = Columns::new(row)?;
            let policy = InlinePolicy { name: row.get("name")?, document: row.get("document")? };
            loaded.inline.entry(row.parse("id")?).or_default().push(policy);
        }
        let rows = sqlx::query(
            "SELECT t.resource, t.tag_key, t.value FROM tags t
             JOIN (SELECT id FROM users UNION ALL SELECT id FROM roles) o ON o.id = t.resource ORDER BY t.fold_key",
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let owner: &str = row.try_get("resource")?;
            let owner = UniqueId::parse(owner)
                .map_err(|_| StoreError::Unreadable { what: "owner of a tag", row: owner.to_owned() })?;
            loaded.owner_tags.entry(owner).or_default().push(tags::read(row)?);
        }
        let rows = sqlx::query("SELECT id, user_id, active, sealed_secret FROM access_keys")
            .fetch_all(&mut *transaction)
            .await?;
        for row in &rows {
            let row = Columns::new(row)?;
            loaded.access_keys.push(SealedKey {
                id: row.parse("id")?,
                owner: row.parse("user_id")?,
                active: row.get::<i64>("active")? == 1,
                sealed_secret: row.get("sealed_secret")?,
            });
        }
        loaded.ssh_keys = ssh_keys::all(&mut transaction).await?;
        loaded.revoked_ssh = ssh_certificates::revoked(&mut transaction).await?;
        Ok(loaded)
    }

    /// Opens the secret of a loaded access key.
    pub fn open_key_secret(&self, key: &AccessKeyId, sealed: &[u8]) -> Result<KeySecret, StoreError> {
        access_keys::open(self.master(), key, sealed)
    }
}
