//! The store's refusals in the words and codes of SSM.

use crate::api::error::ApiError;
use crate::store::{InvalidToken, Kind, StoreError};

/// Turns a refusal of the store into the one that SSM models.
pub(crate) fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { kind: Kind::Activation, name } => {
            ApiError::bad("InvalidActivation", format!("there is no activation {name}"))
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
