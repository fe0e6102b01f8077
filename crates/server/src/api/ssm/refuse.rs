//! The store's refusals in the words and codes of SSM.

use crate::api::error::ApiError;
use crate::store::{InvalidToken, Kind, StoreError};

/// Turns a refusal of the store into the one that SSM models.
pub(crate) fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { kind: Kind::Activation, name } => {
            ApiError::bad("InvalidActivation", format!("there is no activation {name}"))
        }
        StoreError::NotFound { kind: Kind::Document, name } => {
            ApiError::bad("InvalidDocument", format!("there is no document {name}"))
        }
        StoreError::NotFound { kind: Kind::DocumentVersion, name } => ApiError::bad(
            "InvalidDocumentVersion",
            format!("the document has no version {name}, or it is not the newest"),
        ),
        StoreError::Exists { kind: Kind::Document, name } => {
            ApiError::bad("DocumentAlreadyExists", format!("there is a document {name} already"))
        }
        StoreError::Exists { kind: Kind::DocumentVersion, name } => {
            ApiError::bad("DuplicateDocumentVersionName", format!("the document has a version named {name} already"))
        }
        StoreError::Exists { kind: Kind::DocumentContent, .. } => {
            ApiError::bad("DuplicateDocumentContent", "the content is that of the newest version already")
        }
        error @ StoreError::InUse { kind: Kind::Document | Kind::DocumentVersion, .. } => {
            ApiError::bad("InvalidDocumentOperation", error.to_string())
        }
        StoreError::Limit { what: "documents", limit } => {
            ApiError::bad("DocumentLimitExceeded", format!("no more than {limit} documents; delete some"))
        }
        StoreError::Limit { what: "versions per document", limit } => {
            ApiError::bad("DocumentVersionLimitExceeded", format!("no more than {limit} versions; delete some"))
        }
        error @ StoreError::Limit { what: "accounts that a document is shared with", .. } => {
            ApiError::bad("DocumentPermissionLimit", error.to_string())
        }
        StoreError::NotFound { kind, name } => {
            let code = if kind == Kind::Session { "DoesNotExistException" } else { "InvalidInstanceId" };
            ApiError::bad(code, format!("there is no {} {name}", kind.as_str()))
        }
        error @ StoreError::Limit { .. } => ApiError::bad("TooManyTagsError", error.to_string()),
        StoreError::Refused(message) => ApiError::Validation(message.to_owned()),
        error => ApiError::internal(error),
    }
}

/// Turns a page token that cannot be used into the error for it.
pub(crate) fn bad_token(error: InvalidToken) -> ApiError {
    ApiError::bad("InvalidNextToken", error.to_string())
}
