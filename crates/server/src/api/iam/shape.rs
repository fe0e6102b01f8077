//! The structures that several answers of IAM hold, member by member as in the service's model.

use serde::Serialize;

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;

use super::document::encoded;
use crate::Server;
use crate::api::time::IsoTime;
use crate::identity::trust;
use crate::store::{self, Tag};

/// A user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct User {
    /// Its path.
    pub path: String,
    /// Its name.
    pub user_name: String,
    /// Its unchanging id.
    pub user_id: String,
    /// Its resource name.
    pub arn: Arn,
    /// When it was made.
    pub create_date: IsoTime,
    /// What bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_boundary: Option<Boundary>,
    /// Its tags; not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// A role.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Role {
    /// Its path.
    pub path: String,
    /// Its name.
    pub role_name: String,
    /// Its unchanging id.
    pub role_id: String,
    /// Its resource name.
    pub arn: Arn,
    /// When it was made.
    pub create_date: IsoTime,
    /// Who may assume it, percent-encoded.
    pub assume_role_policy_document: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How long its sessions may last, in seconds.
    pub max_session_duration: u64,
    /// What bounds it; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_boundary: Option<Boundary>,
    /// Its tags; not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// The permissions boundary of a user or role.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Boundary {
    /// Always `PermissionsBoundaryPolicy`.
    pub permissions_boundary_type: &'static str,
    /// The policy.
    pub permissions_boundary_arn: Arn,
}

/// A group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Group {
    /// Its path.
    pub path: String,
    /// Its name.
    pub group_name: String,
    /// Its unchanging id.
    pub group_id: String,
    /// Its resource name.
    pub arn: Arn,
    /// When it was made.
    pub create_date: IsoTime,
}

/// A managed policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    /// Its name.
    pub policy_name: String,
    /// Its unchanging id.
    pub policy_id: String,
    /// Its resource name.
    pub arn: Arn,
    /// Its path.
    pub path: String,
    /// The version in force.
    pub default_version_id: String,
    /// To how many users, groups and roles it is attached.
    pub attachment_count: u64,
    /// How many users and roles it bounds.
    pub permissions_boundary_usage_count: u64,
    /// Always true.
    pub is_attachable: bool,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made.
    pub create_date: IsoTime,
    /// When its default version was set.
    pub update_date: IsoTime,
    /// Its tags; not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// A version of a managed policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyVersion {
    /// Its text, percent-encoded; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Its number behind a `v`.
    pub version_id: String,
    /// Whether it is in force.
    pub is_default_version: bool,
    /// When it was made.
    pub create_date: IsoTime,
}

/// A managed policy that is attached to something.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachedPolicy {
    /// Its name.
    pub policy_name: String,
    /// Its resource name.
    pub policy_arn: Arn,
}

impl User {
    /// Shows a user.
    pub(super) fn new(server: &Server, user: store::User, tags: Vec<Tag>) -> Self {
        Self {
            arn: server.deployment.user(&user.path, &user.name),
            path: user.path,
            user_name: user.name,
            user_id: user.id.to_string(),
            create_date: IsoTime(user.created),
            permissions_boundary: user.boundary.map(Boundary::new),
            tags,
        }
    }
}

impl Role {
    /// Shows a role.
    pub(super) fn new(server: &Server, role: store::Role, tags: Vec<Tag>) -> Self {
        let arn_of = |id: &UniqueId| match server.identities.by_unique_id(id) {
            Some(user) => Some(user.arn.clone()),
            None => server.identities.role(id).map(|role| role.arn.clone()),
        };
        Self {
            arn: server.deployment.role(&role.path, &role.name),
            path: role.path,
            role_name: role.name,
            role_id: role.id.to_string(),
            create_date: IsoTime(role.created),
            assume_role_policy_document: encoded(&trust::shown(&role.trust, arn_of)),
            description: role.description.filter(|text| !text.is_empty()),
            max_session_duration: role.max_session.as_secs(),
            permissions_boundary: role.boundary.map(Boundary::new),
            tags,
        }
    }

    /// Shows a role in a list, which tells neither tags nor boundary.
    pub(super) fn listed(server: &Server, role: store::Role) -> Self {
        Self::new(server, store::Role { boundary: None, ..role }, Vec::new())
    }
}

impl Boundary {
    fn new(arn: Arn) -> Self {
        Self { permissions_boundary_type: "PermissionsBoundaryPolicy", permissions_boundary_arn: arn }
    }
}

impl Group {
    /// Shows a group.
    pub(super) fn new(server: &Server, group: store::Group) -> Self {
        Self {
            arn: server.deployment.group(&group.path, &group.name),
            path: group.path,
            group_name: group.name,
            group_id: group.id.to_string(),
            create_date: IsoTime(group.created),
        }
    }
}

impl Policy {
    /// Shows a managed policy.
    pub(super) fn new(policy: store::Policy, tags: Vec<Tag>) -> Self {
        Self {
            policy_name: policy.name,
            policy_id: policy.id.to_string(),
            arn: policy.arn,
            path: policy.path,
            default_version_id: format!("v{}", policy.default_version),
            attachment_count: policy.attachments,
            permissions_boundary_usage_count: policy.bounds,
            is_attachable: true,
            description: policy.description,
            create_date: IsoTime(policy.created),
            update_date: IsoTime(policy.updated),
            tags,
        }
    }
}

impl PolicyVersion {
    /// Shows a version, with its text or without.
    pub(super) fn new(version: &store::PolicyVersion, with_document: bool) -> Self {
        Self {
            document: with_document.then(|| encoded(&version.document)),
            version_id: format!("v{}", version.version),
            is_default_version: version.is_default,
            create_date: IsoTime(version.created),
        }
    }
}

impl From<store::Policy> for AttachedPolicy {
    fn from(policy: store::Policy) -> Self {
        Self { policy_name: policy.name, policy_arn: policy.arn }
    }
}
