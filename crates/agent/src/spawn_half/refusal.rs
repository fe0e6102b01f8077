//! Why the privileged half refuses a wish, as the server is told.

use munjigi_core::grant::GrantError;

/// Why a start is refused.
pub(super) struct Refusal {
    /// As in the AWS API.
    pub(super) code: &'static str,
    /// For machines.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
}

impl Refusal {
    /// It may not be.
    pub(super) fn denied(reason: &'static str, message: String) -> Self {
        Self { code: "AccessDeniedException", reason, message }
    }

    /// It cannot be.
    pub(super) fn failed(reason: &'static str, message: &str) -> Self {
        Self { code: "InternalServerError", reason, message: message.to_owned() }
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        let reason = match error {
            GrantError::Malformed(_) => "GrantMalformed",
            GrantError::UnknownKey => "GrantKeyUnknown",
            GrantError::BadSignature => "GrantSignatureWrong",
            GrantError::NotNow => "GrantNotValidNow",
            GrantError::OtherNode => "GrantForOtherNode",
            GrantError::OtherEpoch => "GrantForOtherEpoch",
            GrantError::Replayed => "GrantReplayed",
            GrantError::BadUser => "OsUserInvalid",
            GrantError::BadCommand | GrantError::BadProfile | GrantError::BadVariables => "CommandInvalid",
            GrantError::BadConnect => "PortGrantInvalid",
            GrantError::BadKey => "KeyInvalid",
            GrantError::TooMany => "GrantsTooMany",
        };
        Self::denied(reason, error.to_string())
    }
}
