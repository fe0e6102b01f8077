//! `ListEntitiesForPolicy`: lists the users and groups that a managed policy is attached to or bounds.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::{Marker, MaxItems, PathPrefix};
use super::page::begin;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store;

/// The operation.
pub struct ListEntitiesForPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// Only this kind of entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_filter: Option<Entity>,
    /// Only those whose path begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<PathPrefix>,
    /// Only those used so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_usage_filter: Option<Usage>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How many entries at most; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The groups.
    pub policy_groups: Vec<PolicyGroup>,
    /// The users.
    pub policy_users: Vec<PolicyUser>,
    /// Roles.
    pub policy_roles: Vec<PolicyRole>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

/// A kind of entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Entity {
    /// Users.
    User,
    /// Roles.
    Role,
    /// Groups.
    Group,
}

/// What a policy is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Usage {
    /// Attached to a user, group or role.
    PermissionsPolicy,
    /// Bounding a user or role.
    PermissionsBoundary,
}

/// A group that the policy is attached to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyGroup {
    /// Its name.
    pub group_name: String,
    /// Its unchanging id.
    pub group_id: String,
}

/// A user that the policy is attached to or bounds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyUser {
    /// Its name.
    pub user_name: String,
    /// Its unchanging id.
    pub user_id: String,
}

/// A role that the policy is attached to or bounds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyRole {
    /// Its name.
    pub role_name: String,
    /// Its unchanging id.
    pub role_id: String,
}

/// A user, group or role on the way into a page: groups come first, roles last.
enum Found {
    Group(store::Group),
    User(store::User),
    Role(store::Role),
}

impl Found {
    fn path(&self) -> &str {
        match self {
            Self::Group(group) => &group.path,
            Self::User(user) => &user.path,
            Self::Role(role) => &role.path,
        }
    }

    fn key(&self) -> String {
        match self {
            Self::Group(group) => format!("1{}", group.name.to_lowercase()),
            Self::User(user) => format!("2{}", user.name.to_lowercase()),
            Self::Role(role) => format!("3{}", role.name.to_lowercase()),
        }
    }
}

impl Operation for ListEntitiesForPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListEntitiesForPolicy";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_policy(server, "iam:ListEntitiesForPolicy", &input.policy_arn).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let prefix = input.path_prefix.as_deref().unwrap_or("/");
        let parameters = format!("{} {:?} {:?}", input.policy_arn, input.entity_filter, input.policy_usage_filter);
        let paging = begin(call, server, &[prefix, &parameters], input.marker.as_ref(), input.max_items)?;
        let entities = server.store.policy_entities(&input.policy_arn).await.map_err(refused)?;
        let attached = input.policy_usage_filter != Some(Usage::PermissionsBoundary);
        let bounded = input.policy_usage_filter != Some(Usage::PermissionsPolicy);
        let wanted = |entity| input.entity_filter.is_none_or(|filter| filter == entity);
        let mut found = Vec::new();
        if wanted(Entity::Group) && attached {
            found.extend(entities.groups.into_iter().map(Found::Group));
        }
        if wanted(Entity::User) {
            let users = if attached { entities.users } else { Vec::new() };
            let others = entities.bounded.into_iter().filter(|user| bounded && !users.contains(user));
            let mut all: Vec<_> = others.chain(users.iter().cloned()).collect();
            all.sort_by_key(|user| user.name.to_lowercase());
            found.extend(all.into_iter().map(Found::User));
        }
        if wanted(Entity::Role) {
            let roles = if attached { entities.roles } else { Vec::new() };
            let others = entities.bounded_roles.into_iter().filter(|role| bounded && !roles.contains(role));
            let mut all: Vec<_> = others.chain(roles.iter().cloned()).collect();
            all.sort_by_key(|role| role.name.to_lowercase());
            found.extend(all.into_iter().map(Found::Role));
        }
        found.retain(|found| found.path().starts_with(prefix));
        let page = paging.cut(found, Found::key);
        let (mut policy_groups, mut policy_users, mut policy_roles) = (Vec::new(), Vec::new(), Vec::new());
        for found in page.items {
            match found {
                Found::Group(group) => {
                    policy_groups.push(PolicyGroup { group_name: group.name, group_id: group.id.to_string() });
                }
                Found::User(user) => {
                    policy_users.push(PolicyUser { user_name: user.name, user_id: user.id.to_string() });
                }
                Found::Role(role) => {
                    policy_roles.push(PolicyRole { role_name: role.name, role_id: role.id.to_string() });
                }
            }
        }
        Ok(Output {
            policy_groups,
            policy_users,
            policy_roles,
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
