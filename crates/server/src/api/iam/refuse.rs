//! The store's refusals in the words and codes of IAM.

use http::StatusCode;

use crate::api::error::ApiError;
use crate::store::{InvalidToken, Kind, StoreError};

/// Turns a refusal of the store into the one that IAM models.
pub(super) fn refused(error: StoreError) -> ApiError {
    let conflict = |code, message: String| ApiError::refused(code, StatusCode::CONFLICT, message);
    match error {
        StoreError::NotFound { kind, name } => {
            let what = match kind {
                Kind::User => "user with name",
                Kind::Group => "group with name",
                Kind::Role => "role with name",
                Kind::MfaDevice => "VirtualMFADevice with serial number",
                Kind::OidcProvider => "OpenIDConnect Provider for arn",
                Kind::AccessKey => "access key with id",
                Kind::SshKey => "Public Key with id",
                Kind::PolicyVersion => "policy version",
                Kind::Boundary => "permissions boundary of",
                _ => "policy",
            };
            ApiError::no_such_entity(format!("The {what} {name} cannot be found."))
        }
        StoreError::Exists { kind, name } => {
            let what = match kind {
                Kind::User => "User",
                Kind::Group => "Group",
                Kind::Role => "Role",
                Kind::MfaDevice => "MFADevice entity at the same path and",
                Kind::OidcProvider => "Provider",
                _ => "A policy",
            };
            conflict("EntityAlreadyExists", format!("{what} with name {name} already exists."))
        }
        error @ StoreError::InUse { .. } => conflict("DeleteConflict", error.to_string()),
        error @ StoreError::Limit { .. } => conflict("LimitExceeded", error.to_string()),
        StoreError::Refused(message) => ApiError::bad("InvalidInput", message),
        error @ (StoreError::Unreadable { .. } | StoreError::Seal(_) | StoreError::Database(_)) => {
            ApiError::internal(error)
        }
    }
}

/// Turns a marker that cannot be used into the error for it.
pub(super) fn bad_marker(error: InvalidToken) -> ApiError {
    ApiError::Validation(error.to_string())
}
