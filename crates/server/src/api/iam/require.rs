//! What the operations of IAM need to be allowed, on the things they name. Something absent is named by the ARN it would
//! have at the path `/`, so that absent and forbidden look alike to a caller without permission.

use munjigi_core::arn::Arn;

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::Requirement;
use crate::api::tag;
use crate::identity::{Caller, PrincipalKind};
use crate::store::{StoreError, Tagged};

/// Requires an action on a user; its tags and its permissions boundary are condition keys.
pub(super) async fn on_user(server: &Server, action: &'static str, name: &str) -> Result<Requirement, ApiError> {
    let Some(user) = present(server.store.user(name).await)? else {
        return Ok(Requirement::new(action, server.deployment.user("/", name)).of_type("AWS::IAM::User"));
    };
    let tags = present(server.store.tags(Tagged::User(name)).await)?.unwrap_or_default();
    let arn = server.deployment.user(&user.path, &user.name);
    let requirement = Requirement::new(action, arn).of_type("AWS::IAM::User").resource_tags(tag::pairs(&tags));
    Ok(match user.boundary {
        Some(boundary) => requirement.with("iam:PermissionsBoundary", boundary.as_str()),
        None => requirement,
    })
}

/// Requires an action on a role; its tags and its permissions boundary are condition keys.
pub(super) async fn on_role(server: &Server, action: &'static str, name: &str) -> Result<Requirement, ApiError> {
    let Some(role) = present(server.store.role(name).await)? else {
        return Ok(Requirement::new(action, server.deployment.role("/", name)).of_type("AWS::IAM::Role"));
    };
    let tags = present(server.store.tags(Tagged::Role(name)).await)?.unwrap_or_default();
    let arn = server.deployment.role(&role.path, &role.name);
    let requirement = Requirement::new(action, arn).of_type("AWS::IAM::Role").resource_tags(tag::pairs(&tags));
    Ok(match role.boundary {
        Some(boundary) => requirement.with("iam:PermissionsBoundary", boundary.as_str()),
        None => requirement,
    })
}

/// Requires an action on a group.
pub(super) async fn on_group(server: &Server, action: &'static str, name: &str) -> Result<Requirement, ApiError> {
    let arn = match present(server.store.group(name).await)? {
        Some(group) => server.deployment.group(&group.path, &group.name),
        None => server.deployment.group("/", name),
    };
    Ok(Requirement::new(action, arn).of_type("AWS::IAM::Group"))
}

/// Requires an action on a managed policy; its tags are condition keys.
pub(super) async fn on_policy(server: &Server, action: &'static str, arn: &Arn) -> Result<Requirement, ApiError> {
    let requirement = Requirement::new(action, arn).of_type("AWS::IAM::Policy");
    match server.store.tags(Tagged::Policy(arn)).await {
        Ok(tags) => Ok(requirement.resource_tags(tag::pairs(&tags))),
        // Absent, or built in and without tags.
        Err(StoreError::NotFound { .. } | StoreError::Refused(_)) => Ok(requirement),
        Err(error) => Err(refused(error)),
    }
}

/// Returns the user that a call without `UserName` means: the caller, if that is a user.
pub(super) fn meant<'a>(name: Option<&'a str>, caller: &'a Caller) -> Result<&'a str, ApiError> {
    let principal = caller.principal();
    match name {
        Some(name) => Ok(name),
        None if principal.kind == PrincipalKind::User => Ok(&principal.name),
        // A role session's name is not that of a user, however it reads.
        None => Err(ApiError::Validation("Must specify userName when calling with non-User credentials".to_owned())),
    }
}

fn present<T>(found: Result<T, StoreError>) -> Result<Option<T>, ApiError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}
