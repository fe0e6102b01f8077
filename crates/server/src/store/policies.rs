//! Managed policies: their versions, and to which users, groups and roles they are attached.

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use munjigi_core::time::Timestamp;

use super::row::{Columns, random_id, stored};
use super::{Group, Kind, Owner, Page, Role, Store, StoreError, Tag, User, fold, inline_policies, quota, tags};

/// A managed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Unchanging id, `ANPA…`.
    pub id: UniqueId,
    /// Its resource name.
    pub arn: Arn,
    /// Name, unique in the account without regard to case.
    pub name: String,
    /// Path, begins and ends with `/`.
    pub path: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it comes with the program and cannot be changed.
    pub builtin: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When its default version was last changed.
    pub updated: Timestamp,
    /// The version in force.
    pub default_version: u64,
    /// How many users, groups and roles it is attached to.
    pub attachments: u64,
    /// How many users and roles it bounds.
    pub bounds: u64,
}

/// A managed policy to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewPolicy<'a> {
    /// Its resource name, made of path and name.
    pub arn: &'a Arn,
    /// Its name.
    pub name: &'a str,
    /// Its path.
    pub path: &'a str,
    /// What it is for.
    pub description: Option<&'a str>,
    /// Its text, checked by the policy engine.
    pub document: &'a str,
    /// Its tags.
    pub tags: &'a [Tag],
}

/// A version of a managed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersion {
    /// Its number, from 1.
    pub version: u64,
    /// The policy's text as it was given.
    pub document: String,
    /// Whether it is the one in force.
    pub is_default: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// Which managed policies to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyScope {
    /// All.
    #[default]
    All,
    /// Those that come with the program.
    Builtin,
    /// The account's own.
    Own,
}

/// Which managed policies to list; all that is set must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyFilter {
    /// Whose.
    pub scope: PolicyScope,
    /// Only those attached to a user, group or role.
    pub attached: bool,
    /// Only those that bound a user or role.
    pub bounding: bool,
}

/// Where a managed policy is used, in the order of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyEntities {
    /// The groups it is attached to.
    pub groups: Vec<Group>,
    /// The users it is attached to.
    pub users: Vec<User>,
    /// The roles it is attached to.
    pub roles: Vec<Role>,
    /// The users it bounds.
    pub bounded: Vec<User>,
    /// The roles it bounds.
    pub bounded_roles: Vec<Role>,
}

impl Policy {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            id: row.parse("id")?,
            arn: row.parse("arn")?,
            name: row.get("name")?,
            path: row.get("path")?,
            description: row.get("description")?,
            builtin: row.get::<i64>("builtin")? == 1,
            created: row.time("created")?,
            updated: row.time("updated")?,
            default_version: row.count("default_version")?,
            attachments: row.count("attachments")?,
            bounds: row.count("bounds")?,
        })
    }
}

impl PolicyVersion {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        let version = row.count("version")?;
        Ok(Self {
            version,
            document: row.get("document")?,
            is_default: row.count("default_version")? == version,
            created: row.time("created")?,
        })
    }
}

impl Store {
    /// Makes a managed policy with its first version.
    pub async fn create_policy(&self, new: &NewPolicy<'_>, now: Timestamp) -> Result<Policy, StoreError> {
        let mut transaction = self.write().await?;
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM policies WHERE builtin = 0").fetch_one(&mut *transaction).await?;
        if count >= stored(quota::POLICIES) {
            return Err(StoreError::Limit { what: "managed policies in an account", limit: quota::POLICIES });
        }
        let id: UniqueId = random_id::<_, 17>("ANPA")?;
        let made = sqlx::query(
            "INSERT INTO policies (id, arn, name, name_key, path, description, builtin, created, updated,
                                   default_version, last_version)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $7, 1, 1)",
        )
        .bind(id.as_str())
        .bind(new.arn.as_str())
        .bind(new.name)
        .bind(fold(new.name))
        .bind(new.path)
        .bind(new.description)
        .bind(now.0)
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match error {
            error if StoreError::is_taken(&error) => {
                StoreError::Exists { kind: Kind::Policy, name: new.name.to_owned() }
            }
            error => error.into(),
        })?;
        add_version(&mut transaction, id.as_str(), 1, new.document, now).await?;
        tags::put(&mut transaction, id.as_str(), new.tags).await?;
        let policy = find(&mut transaction, new.arn).await?;
        transaction.commit().await?;
        Ok(policy)
    }

    /// Returns a managed policy.
    pub async fn policy(&self, arn: &Arn) -> Result<Policy, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, arn).await
    }

    /// Lists managed policies whose path begins with `path_prefix`, in the order of their ARNs, behind the ARN `after`.
    pub async fn list_policies(
        &self,
        filter: PolicyFilter,
        path_prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Policy>, StoreError> {
        let builtin = match filter.scope {
            PolicyScope::All => None,
            PolicyScope::Builtin => Some(1_i64),
            PolicyScope::Own => Some(0),
        };
        let rows = sqlx::query(
            "SELECT * FROM (
                SELECT p.*, (SELECT COUNT(*) FROM policy_attachments a WHERE a.policy_id = p.id) AS attachments,
                       (SELECT COUNT(*) FROM users u WHERE u.boundary_arn = p.arn)
                         + (SELECT COUNT(*) FROM roles r WHERE r.boundary_arn = p.arn) AS bounds
                FROM policies p
             ) AS listed
             WHERE ($1 IS NULL OR builtin = $1) AND ($2 = 0 OR attachments > 0) AND ($3 = 0 OR bounds > 0)
                   AND substr(path, 1, length($4)) = $4 AND arn > $5
             ORDER BY arn LIMIT $6",
        )
        .bind(builtin)
        .bind(i64::from(filter.attached))
        .bind(i64::from(filter.bounding))
        .bind(path_prefix)
        .bind(after.unwrap_or_default())
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let policies = rows.iter().map(Policy::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(policies, limit, |last| last.arn.as_str().to_owned()))
    }

    /// Deletes a managed policy that is attached nowhere, bounds nobody and has no versions but its default.
    pub async fn delete_policy(&self, arn: &Arn) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        own_id_of(&mut transaction, arn).await?;
        let policy = find(&mut transaction, arn).await?;
        let versions: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM policy_versions WHERE policy_id = $1")
            .bind(policy.id.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let left = match (policy.attachments, policy.bounds, versions) {
            (1.., _, _) => Some("attachments to users, groups or roles"),
            (_, 1.., _) => Some("users or roles that it bounds"),
            (_, _, 2..) => Some("versions besides the default one"),
            _ => None,
        };
        if let Some(left) = left {
            return Err(StoreError::InUse { kind: Kind::Policy, name: policy.name, left });
        }
        tags::remove_all(&mut transaction, policy.id.as_str()).await?;
        for delete in ["DELETE FROM policy_versions WHERE policy_id = $1", "DELETE FROM policies WHERE id = $1"] {
            sqlx::query(delete).bind(policy.id.as_str()).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Adds a version to a managed policy and, if wanted, puts it in force.
    pub async fn create_policy_version(
        &self,
        arn: &Arn,
        document: &str,
        set_default: bool,
        now: Timestamp,
    ) -> Result<PolicyVersion, StoreError> {
        let mut transaction = self.write().await?;
        let id = own_id_of(&mut transaction, arn).await?;
        let versions: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM policy_versions WHERE policy_id = $1")
            .bind(&id)
            .fetch_one(&mut *transaction)
            .await?;
        if versions >= stored(quota::VERSIONS_PER_POLICY) {
            return Err(StoreError::Limit { what: "versions per policy", limit: quota::VERSIONS_PER_POLICY });
        }
        let version: i64 = sqlx::query_scalar(
            "UPDATE policies SET last_version = last_version + 1 WHERE id = $1 RETURNING last_version",
        )
        .bind(&id)
        .fetch_one(&mut *transaction)
        .await?;
        add_version(&mut transaction, &id, version, document, now).await?;
        if set_default {
            set_default_version(&mut transaction, &id, version, now).await?;
        }
        transaction.commit().await?;
        Ok(PolicyVersion {
            version: u64::try_from(version).unwrap_or_default(),
            document: document.to_owned(),
            is_default: set_default,
            created: now,
        })
    }

    /// Returns one version of a managed policy.
    pub async fn policy_version(&self, arn: &Arn, version: u64) -> Result<PolicyVersion, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let id = id_of(&mut transaction, arn).await?;
        let row = sqlx::query(
            "SELECT p.id, v.version, v.document, v.created, p.default_version
             FROM policy_versions v JOIN policies p ON p.id = v.policy_id WHERE p.id = $1 AND v.version = $2",
        )
        .bind(id)
        .bind(stored(version))
        .fetch_optional(&mut *transaction)
        .await?;
        row.as_ref().map(PolicyVersion::read).transpose()?.ok_or_else(|| no_version(version))
    }

    /// Lists the versions of a managed policy, the newest first; there are at most five.
    pub async fn list_policy_versions(&self, arn: &Arn) -> Result<Vec<PolicyVersion>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let id = id_of(&mut transaction, arn).await?;
        let rows = sqlx::query(
            "SELECT p.id, v.version, v.document, v.created, p.default_version
             FROM policy_versions v JOIN policies p ON p.id = v.policy_id WHERE p.id = $1 ORDER BY v.version DESC",
        )
        .bind(id)
        .fetch_all(&mut *transaction)
        .await?;
        rows.iter().map(PolicyVersion::read).collect()
    }

    /// Puts a version of a managed policy in force.
    pub async fn set_default_policy_version(&self, arn: &Arn, version: u64, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let id = own_id_of(&mut transaction, arn).await?;
        set_default_version(&mut transaction, &id, stored(version), now).await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a version that is not in force.
    pub async fn delete_policy_version(&self, arn: &Arn, version: u64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        own_id_of(&mut transaction, arn).await?;
        let policy = find(&mut transaction, arn).await?;
        if policy.default_version == version {
            let left = "this version as its default; set another default version";
            return Err(StoreError::InUse { kind: Kind::Policy, name: policy.name, left });
        }
        let removed = sqlx::query("DELETE FROM policy_versions WHERE policy_id = $1 AND version = $2")
            .bind(policy.id.as_str())
            .bind(stored(version))
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(no_version(version));
        }
        Ok(transaction.commit().await?)
    }

    /// Attaches a managed policy to a user, group or role; nothing happens if it is.
    pub async fn attach_policy(&self, owner: Owner<'_>, arn: &Arn, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let owner = inline_policies::owner_id(&mut transaction, owner).await?;
        let policy = id_of(&mut transaction, arn).await?;
        attach(&mut transaction, owner.as_str(), &policy, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Detaches a managed policy; an error if it is not attached.
    pub async fn detach_policy(&self, owner: Owner<'_>, arn: &Arn) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let owner = inline_policies::owner_id(&mut transaction, owner).await?;
        let policy = id_of(&mut transaction, arn).await?;
        let removed = sqlx::query("DELETE FROM policy_attachments WHERE owner = $1 AND policy_id = $2")
            .bind(owner.as_str())
            .bind(policy)
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::Policy, arn.as_str()));
        }
        Ok(transaction.commit().await?)
    }

    /// Returns where a managed policy is used.
    pub async fn policy_entities(&self, arn: &Arn) -> Result<PolicyEntities, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let id = id_of(&mut transaction, arn).await?;
        let groups = sqlx::query(
            "SELECT g.id, g.name, g.path, g.created FROM user_groups g
             JOIN policy_attachments a ON a.owner = g.id WHERE a.policy_id = $1 ORDER BY g.name_key",
        )
        .bind(&id)
        .fetch_all(&mut *transaction)
        .await?;
        let users = sqlx::query(
            "SELECT u.id, u.name, u.path, u.created, u.boundary_arn FROM users u
             JOIN policy_attachments a ON a.owner = u.id WHERE a.policy_id = $1 ORDER BY u.name_key",
        )
        .bind(&id)
        .fetch_all(&mut *transaction)
        .await?;
        let bounded = sqlx::query(
            "SELECT id, name, path, created, boundary_arn FROM users WHERE boundary_arn = $1 ORDER BY name_key",
        )
        .bind(arn.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        let roles = sqlx::query(
            "SELECT r.* FROM roles r JOIN policy_attachments a ON a.owner = r.id WHERE a.policy_id = $1
             ORDER BY r.name_key",
        )
        .bind(&id)
        .fetch_all(&mut *transaction)
        .await?;
        let bounded_roles = sqlx::query("SELECT * FROM roles WHERE boundary_arn = $1 ORDER BY name_key")
            .bind(arn.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        Ok(PolicyEntities {
            roles: roles.iter().map(Role::read).collect::<Result<_, _>>()?,
            bounded_roles: bounded_roles.iter().map(Role::read).collect::<Result<_, _>>()?,
            groups: groups.iter().map(Group::read).collect::<Result<_, _>>()?,
            users: users.iter().map(User::read).collect::<Result<_, _>>()?,
            bounded: bounded.iter().map(User::read).collect::<Result<_, _>>()?,
        })
    }

    /// Lists the managed policies of a user, group or role whose path begins with `path_prefix`; there are at most ten.
    pub async fn attached_policies(&self, owner: Owner<'_>, path_prefix: &str) -> Result<Vec<Policy>, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let owner = inline_policies::owner_id(&mut transaction, owner).await?;
        let rows = sqlx::query(
            "SELECT p.*, (SELECT COUNT(*) FROM policy_attachments b WHERE b.policy_id = p.id) AS attachments,
                    (SELECT COUNT(*) FROM users u WHERE u.boundary_arn = p.arn)
                         + (SELECT COUNT(*) FROM roles r WHERE r.boundary_arn = p.arn) AS bounds
             FROM policies p JOIN policy_attachments a ON a.policy_id = p.id
             WHERE a.owner = $1 AND substr(p.path, 1, length($2)) = $2 ORDER BY p.arn",
        )
        .bind(owner.as_str())
        .bind(path_prefix)
        .fetch_all(&mut *transaction)
        .await?;
        rows.iter().map(Policy::read).collect()
    }
}

/// Returns the id of a managed policy.
pub(super) async fn id_of(connection: &mut SqliteConnection, arn: &Arn) -> Result<String, StoreError> {
    let id: Option<String> = sqlx::query_scalar("SELECT id FROM policies WHERE arn = $1")
        .bind(arn.as_str())
        .fetch_optional(connection)
        .await?;
    id.ok_or_else(|| StoreError::not_found(Kind::Policy, arn.as_str()))
}

/// Returns the id of a managed policy that may be changed.
pub(super) async fn own_id_of(connection: &mut SqliteConnection, arn: &Arn) -> Result<String, StoreError> {
    let row: Option<(String, i64)> = sqlx::query_as("SELECT id, builtin FROM policies WHERE arn = $1")
        .bind(arn.as_str())
        .fetch_optional(connection)
        .await?;
    match row {
        Some((id, 0)) => Ok(id),
        Some(_) => Err(StoreError::Refused("built-in policies cannot be changed; create a policy of your own")),
        None => Err(StoreError::not_found(Kind::Policy, arn.as_str())),
    }
}

pub(super) async fn add_version(
    connection: &mut SqliteConnection,
    policy: &str,
    version: i64,
    document: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO policy_versions (policy_id, version, document, created) VALUES ($1, $2, $3, $4)")
        .bind(policy)
        .bind(version)
        .bind(document)
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn attach(
    connection: &mut SqliteConnection,
    owner: &str,
    policy: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let others: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM policy_attachments WHERE owner = $1 AND policy_id <> $2")
            .bind(owner)
            .bind(policy)
            .fetch_one(&mut *connection)
            .await?;
    if others >= stored(quota::ATTACHED_POLICIES) {
        return Err(StoreError::Limit {
            what: "attached policies per user, group or role",
            limit: quota::ATTACHED_POLICIES,
        });
    }
    sqlx::query(
        "INSERT INTO policy_attachments (owner, policy_id, attached) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(owner)
    .bind(policy)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

async fn find(connection: &mut SqliteConnection, arn: &Arn) -> Result<Policy, StoreError> {
    let row = sqlx::query(
        "SELECT p.*, (SELECT COUNT(*) FROM policy_attachments a WHERE a.policy_id = p.id) AS attachments,
                (SELECT COUNT(*) FROM users u WHERE u.boundary_arn = p.arn)
                         + (SELECT COUNT(*) FROM roles r WHERE r.boundary_arn = p.arn) AS bounds
         FROM policies p WHERE p.arn = $1",
    )
    .bind(arn.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(Policy::read).transpose()?.ok_or_else(|| StoreError::not_found(Kind::Policy, arn.as_str()))
}

async fn set_default_version(
    connection: &mut SqliteConnection,
    policy: &str,
    version: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE policies SET default_version = $2, updated = $3
         WHERE id = $1 AND EXISTS (SELECT 1 FROM policy_versions WHERE policy_id = $1 AND version = $2)",
    )
    .bind(policy)
    .bind(version)
    .bind(now.0)
    .execute(connection)
    .await?;
    if changed.rows_affected() == 0 {
        return Err(no_version(u64::try_from(version).unwrap_or_default()));
    }
    Ok(())
}

fn no_version(version: u64) -> StoreError {
    StoreError::not_found(Kind::PolicyVersion, &format!("v{version}"))
}
