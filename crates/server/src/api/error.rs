//! What an API call can end with besides its output, and the code and status each becomes on the wire.
//!
//! Operations build errors by what happened; the two wire forms spell some codes differently and the choice is made
//! here, in one place (aws-api B.4 and A.4).

use http::StatusCode;
use munjigi_core::sigv4::SigV4Error;

use super::operation::{Service, Wire};

/// Why a call failed. The message goes to the caller; causes stay in the log.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A refusal that the service models, for example `NoSuchEntity`.
    #[error("{message}")]
    Refused {
        /// The code on the wire.
        code: &'static str,
        /// The status in the query form; the JSON form says 400 for every client error.
        status: StatusCode,
        /// For people.
        message: String,
    },
    /// The input breaks a rule of form or range: `ValidationException` (json), `ValidationError` (query).
    #[error("{0}")]
    Validation(String),
    /// The body is not what its content type says: `SerializationException` (json), `MalformedInput` (query).
    #[error("{0}")]
    Malformed(String),
    /// Policy says no: `AccessDeniedException` (json), `AccessDenied` (query).
    #[error("{}", .0.message)]
    Denied(Denial),
    /// The signature or its form is not accepted; codes of the table of authentication failures.
    #[error(transparent)]
    Signature(#[from] SigV4Error),
    /// Unknown or inactive access key, or a session token that does not belong to it. Says nothing of which.
    #[error("The security token included in the request is invalid.")]
    InvalidClientToken,
    /// Temporary credentials that have ended: `ExpiredTokenException` (json), `ExpiredToken` (query).
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    /// No such operation: `UnknownOperationException` (json), `InvalidAction` (query).
    #[error("{0}")]
    UnknownOperation(String),
    /// More calls than allowed: `ThrottlingException` (json), `Throttling` (query). Clients repeat it.
    #[error("Rate exceeded")]
    Throttled,
    /// The server sheds load or stops: 503. Clients repeat it.
    #[error("{0}")]
    Unavailable(&'static str),
    /// A fault of ours: 500. The cause goes to the log alone.
    #[error("The request failed because of an internal error; its request id finds the cause in the server's log.")]
    Internal(anyhow::Error),
}

/// A decision that was no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Stable word for programs and the audit record, for example `implicit-deny`.
    pub reason: &'static str,
    /// Names caller, action and resource in the words that users of AWS know.
    pub message: String,
}

impl ApiError {
    /// Builds a refusal that the service models; `status` holds for the query form.
    pub fn refused(code: &'static str, status: StatusCode, message: impl Into<String>) -> Self {
        Self::Refused { code, status, message: message.into() }
    }

    /// Builds a refusal whose status is 400 in both forms.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(code, StatusCode::BAD_REQUEST, message)
    }

    /// Builds the refusal of IAM for something that does not exist (404).
    pub fn no_such_entity(message: impl Into<String>) -> Self {
        Self::refused("NoSuchEntity", StatusCode::NOT_FOUND, message)
    }

    /// Builds a fault of ours from its cause.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }

    /// Returns the code on the wire of a service.
    pub fn code(&self, service: Service) -> &'static str {
        let json = service.wire() == Wire::Json;
        let pick = |in_json, in_query| if json { in_json } else { in_query };
        match (service, self) {
            (Service::Ec2, error) => {
                if let Some(code) = error.ec2_code() {
                    return code;
                }
            }
            // This service has words of its own for the two.
            (Service::Ec2InstanceConnect, Self::Validation(_)) => return "InvalidArgsException",
            (Service::Ec2InstanceConnect, Self::Internal(_)) => return "ServiceException",
            _ => {}
        }
        match self {
            Self::Refused { code, .. } => code,
            Self::Validation(_) => pick("ValidationException", "ValidationError"),
            Self::Malformed(_) => pick("SerializationException", "MalformedInput"),
            Self::Denied(_) => pick("AccessDeniedException", "AccessDenied"),
            Self::Signature(cause) => match cause {
                SigV4Error::NoCredentials => pick("MissingAuthenticationTokenException", "MissingAuthenticationToken"),
                SigV4Error::Malformed(_)
                | SigV4Error::UnsupportedAlgorithm
                | SigV4Error::MixedForms
                | SigV4Error::Duplicate(_)
                | SigV4Error::TooLarge(_) => pick("IncompleteSignatureException", "IncompleteSignature"),
                SigV4Error::NotSigned(_)
                | SigV4Error::NotCanonical(_)
                | SigV4Error::UnsignedPayload
                | SigV4Error::PayloadMismatch
                | SigV4Error::WrongScope(_)
                | SigV4Error::Expired { .. }
                | SigV4Error::NotYetCurrent { .. }
                | SigV4Error::ExpiresTooLong(_)
                | SigV4Error::Mismatch => pick("InvalidSignatureException", "SignatureDoesNotMatch"),
            },
            Self::InvalidClientToken => pick("UnrecognizedClientException", "InvalidClientTokenId"),
            Self::ExpiredToken => pick("ExpiredTokenException", "ExpiredToken"),
            Self::UnknownOperation(_) => pick("UnknownOperationException", "InvalidAction"),
            Self::Throttled => pick("ThrottlingException", "Throttling"),
            Self::Unavailable(_) => pick("ServiceUnavailableException", "ServiceUnavailable"),
            Self::Internal(_) => pick("InternalServerError", "InternalFailure"),
        }
    }

    /// Returns the code of ec2 where it differs from that of query services (aws-api A.4 and B.4).
    fn ec2_code(&self) -> Option<&'static str> {
        match self {
            Self::Validation(_) => Some("InvalidParameterValue"),
            Self::Malformed(_) => Some("InvalidParameter"),
            Self::Denied(_) => Some("UnauthorizedOperation"),
            Self::Signature(_) | Self::InvalidClientToken => Some("AuthFailure"),
            Self::Throttled => Some("RequestLimitExceeded"),
            Self::Unavailable(_) => Some("Unavailable"),
            Self::Internal(_) => Some("InternalError"),
            _ => None,
        }
    }

    /// Returns the HTTP status on the wire of a service.
    pub fn status(&self, service: Service) -> StatusCode {
        let json = service.wire() == Wire::Json;
        match self {
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ if json => StatusCode::BAD_REQUEST,
            Self::Refused { status, .. } => *status,
            Self::Denied(_) | Self::InvalidClientToken | Self::ExpiredToken => StatusCode::FORBIDDEN,
            Self::Signature(_) if self.code(service) == "IncompleteSignature" => StatusCode::BAD_REQUEST,
            Self::Signature(_) => StatusCode::FORBIDDEN,
            Self::Validation(_) | Self::Malformed(_) | Self::UnknownOperation(_) | Self::Throttled => {
                StatusCode::BAD_REQUEST
            }
        }
    }

    /// Tells whether the fault is the server's (the query form's `Receiver`).
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Internal(_) | Self::Unavailable(_))
    }

    /// Returns the reason code of a denial.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Denied(denial) => Some(denial.reason),
            _ => None,
        }
    }
}
