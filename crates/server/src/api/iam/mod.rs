//! Users, groups, access keys, policies and tags: a file per operation, and the helpers they share.
//!
//! An operation that changes something loads the identities in memory anew before it answers, so that its effect holds
//! from the answer on, running sessions included.

mod add_user_to_group;
mod attach_group_policy;
mod attach_user_policy;
mod create_access_key;
mod create_group;
mod create_policy;
mod create_policy_version;
mod create_user;
mod delete_access_key;
mod delete_group;
mod delete_group_policy;
mod delete_policy;
mod delete_policy_version;
mod delete_user;
mod delete_user_permissions_boundary;
mod delete_user_policy;
mod detach_group_policy;
mod detach_user_policy;
mod document;
mod get_access_key_last_used;
mod get_group;
mod get_group_policy;
mod get_policy;
mod get_policy_version;
mod get_user;
mod get_user_policy;
mod list_access_keys;
mod list_attached_group_policies;
mod list_attached_user_policies;
mod list_entities_for_policy;
mod list_group_policies;
mod list_groups;
mod list_groups_for_user;
mod list_policies;
mod list_policy_tags;
mod list_policy_versions;
mod list_user_policies;
mod list_user_tags;
mod list_users;
mod names;
mod page;
mod put_group_policy;
mod put_user_permissions_boundary;
mod put_user_policy;
mod refuse;
mod remove_user_from_group;
mod require;
mod set_default_policy_version;
mod shape;
mod simulate_custom_policy;
mod simulate_principal_policy;
mod simulation;
mod tag_policy;
mod tag_user;
#[cfg(test)]
mod tests;
mod untag_policy;
mod untag_user;
mod update_access_key;
mod update_group;
mod update_user;

use std::sync::Arc;

pub use add_user_to_group::AddUserToGroup;
pub use attach_group_policy::AttachGroupPolicy;
pub use attach_user_policy::AttachUserPolicy;
pub use create_access_key::CreateAccessKey;
pub use create_group::CreateGroup;
pub use create_policy::CreatePolicy;
pub use create_policy_version::CreatePolicyVersion;
pub use create_user::CreateUser;
pub use delete_access_key::DeleteAccessKey;
pub use delete_group::DeleteGroup;
pub use delete_group_policy::DeleteGroupPolicy;
pub use delete_policy::DeletePolicy;
pub use delete_policy_version::DeletePolicyVersion;
pub use delete_user::DeleteUser;
pub use delete_user_permissions_boundary::DeleteUserPermissionsBoundary;
pub use delete_user_policy::DeleteUserPolicy;
pub use detach_group_policy::DetachGroupPolicy;
pub use detach_user_policy::DetachUserPolicy;
pub use get_access_key_last_used::GetAccessKeyLastUsed;
pub use get_group::GetGroup;
pub use get_group_policy::GetGroupPolicy;
pub use get_policy::GetPolicy;
pub use get_policy_version::GetPolicyVersion;
pub use get_user::GetUser;
pub use get_user_policy::GetUserPolicy;
pub use list_access_keys::ListAccessKeys;
pub use list_attached_group_policies::ListAttachedGroupPolicies;
pub use list_attached_user_policies::ListAttachedUserPolicies;
pub use list_entities_for_policy::ListEntitiesForPolicy;
pub use list_group_policies::ListGroupPolicies;
pub use list_groups::ListGroups;
pub use list_groups_for_user::ListGroupsForUser;
pub use list_policies::ListPolicies;
pub use list_policy_tags::ListPolicyTags;
pub use list_policy_versions::ListPolicyVersions;
pub use list_user_policies::ListUserPolicies;
pub use list_user_tags::ListUserTags;
pub use list_users::ListUsers;
pub use put_group_policy::PutGroupPolicy;
pub use put_user_permissions_boundary::PutUserPermissionsBoundary;
pub use put_user_policy::PutUserPolicy;
pub use remove_user_from_group::RemoveUserFromGroup;
pub use set_default_policy_version::SetDefaultPolicyVersion;
pub use simulate_custom_policy::SimulateCustomPolicy;
pub use simulate_principal_policy::SimulatePrincipalPolicy;
pub use tag_policy::TagPolicy;
pub use tag_user::TagUser;
pub use untag_policy::UntagPolicy;
pub use untag_user::UntagUser;
pub use update_access_key::UpdateAccessKey;
pub use update_group::UpdateGroup;
pub use update_user::UpdateUser;

use crate::Server;
use crate::api::error::ApiError;

/// Brings the identities in memory up to the store after a change.
async fn changed(server: &Arc<Server>) -> Result<(), ApiError> {
    server.identities.reload(&server.store).await.map_err(ApiError::internal)
}
