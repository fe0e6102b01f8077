//! Why a forward is refused, and how SSH says it.

use munjigi_core::destination::DestinationError;
use munjigi_core::endpoint::EndpointError;
use russh::ChannelOpenFailure;

use crate::api::error::ApiError;
use crate::api::operation::Service;
use crate::gateway::inspect::ContextError;
use crate::gateway::ports::PortError;

/// Longest description that is sent, characters.
const MAX_DESCRIPTION: usize = 400;
/// The numbers of RFC 4254 section 5.1.
const PROHIBITED: u32 = 1;
const CONNECT_FAILED: u32 = 2;
const RESOURCE_SHORTAGE: u32 = 4;

/// Why a forward is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// The word for programs, as on every other road.
    code: String,
    /// For people.
    message: String,
}

impl Refusal {
    /// Refuses what is not allowed here, whatever policy says.
    pub(super) fn prohibited(message: impl Into<String>) -> Self {
        Self { code: "AccessDeniedException".to_owned(), message: message.into() }
    }

    /// Refuses because something is gone or does not answer.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: "TargetNotConnected".to_owned(), message: message.into() }
    }

    /// Refuses because there are too many.
    pub(super) fn too_many(message: impl Into<String>) -> Self {
        Self { code: "TooManyConnections".to_owned(), message: message.into() }
    }

    /// Returns the word for programs.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Returns it as the answer to a channel that the client wished to open.
    pub(super) fn failure(&self) -> ChannelOpenFailure {
        let code = match self.code.as_str() {
            "ConnectionRefused"
            | "ConnectionTimedOut"
            | "DestinationUnreachable"
            | "HostNotFound"
            | "TargetNotConnected"
            | "SessionEnded"
            | "DoesNotExistException"
            | "InternalServerError"
            | "ServiceUnavailableException" => CONNECT_FAILED,
            "TooManyConnections"
            | "ThrottlingException"
            | "LimitExceededException"
            | "ServiceQuotaExceededException" => RESOURCE_SHORTAGE,
            // What policy, the node's rules or the form of the request forbid.
            _ => PROHIBITED,
        };
        let reason = self.message.chars().filter(|c| !c.is_control()).take(MAX_DESCRIPTION).collect();
        ChannelOpenFailure::Other { code, reason }
    }
}

impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        Self { code: error.code().to_owned(), message: error.to_string() }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { code: error.code(Service::Munjigi).to_owned(), message: error.to_string() }
    }
}

impl From<ContextError> for Refusal {
    fn from(error: ContextError) -> Self {
        Self { code: error.code().to_owned(), message: error.to_string() }
    }
}

impl From<DestinationError> for Refusal {
    fn from(error: DestinationError) -> Self {
        Self::prohibited(error.to_string())
    }
}

impl From<EndpointError> for Refusal {
    fn from(error: EndpointError) -> Self {
        Self::prohibited(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_number_and_its_words() {
        let node = |code: &str| PortError::Refused { code: code.to_owned(), message: format!("because of {code}") };
        for (error, number) in [
            (PortError::Denied("policy says no".to_owned()), PROHIBITED),
            (node("DestinationDenied"), PROHIBITED),
            (node("ConnectionRefused"), CONNECT_FAILED),
            (node("ConnectionTimedOut"), CONNECT_FAILED),
            (node("HostNotFound"), CONNECT_FAILED),
            (node("DestinationUnreachable"), CONNECT_FAILED),
            (PortError::NotConnected("web-1".to_owned()), CONNECT_FAILED),
            (PortError::Ended, CONNECT_FAILED),
            (PortError::TimedOut, CONNECT_FAILED),
            (PortError::TooMany, RESOURCE_SHORTAGE),
        ] {
            let text = error.to_string();
            let failure = Refusal::from(error).failure();
            assert_eq!((failure.code(), failure.description()), (number, text.as_str()));
        }
    }

    #[test]
    fn what_is_sent_is_one_short_line() {
        let failure = Refusal::unavailable(format!("a\r\n\u{1b}[2J{}", "b".repeat(5000))).failure();
        assert_eq!(failure.description(), format!("a[2J{}", "b".repeat(MAX_DESCRIPTION - 4)));
    }
}
