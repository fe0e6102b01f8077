//! What a start is asked with: members as in the AWS model, and what our own client adds; checked for form alone.

use std::collections::BTreeMap;

use munjigi_core::destination::Destination;
use munjigi_core::grant::{valid_command, valid_os_user, valid_variables};
use munjigi_core::session::TerminalSize;
use serde::{Deserialize, Serialize};

use super::{INTERACTIVE, NON_INTERACTIVE, PORT, REMOTE_PORT};
use crate::api::error::ApiError;
use crate::api::ssm::names::document_text;

/// Most parameters of a start, and most bytes of their names and values together.
const MAX_PARAMETERS: usize = 64;
const MAX_PARAMETER_BYTES: usize = 128 * 1024;
/// Longest name and value of a parameter in characters (the AWS model).
const MAX_PARAMETER_NAME: usize = 255;
const MAX_PARAMETER_VALUE: usize = 65_535;

/// Members as in the AWS model; `native` comes from our own client and never over HTTP.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct StartSessionInput {
    /// Node by id, name, tag or head of an id; 1 to 400 characters.
    pub target: String,
    /// Session document; absent for the default shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_name: Option<String>,
    /// Why; 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Parameters of the document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Vec<String>>,
    /// What our own client adds.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeStart>,
}

/// What our own client adds to a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NativeStart {
    /// Program and arguments; empty for the login shell.
    pub command: Vec<String>,
    /// Whether `command` is one text that the login shell runs, as `ssh HOST COMMAND` means it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_shell: bool,
    /// What an SSH connection tells its programs, [`munjigi_core::grant::SSH_VARIABLES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<(String, String)>,
    /// Wished OS user; empty for the one that policy gives.
    pub os_user: String,
    /// Size of the terminal; absent for pipes.
    pub terminal: Option<TerminalSize>,
    /// Value of `TERM`.
    pub term: String,
    /// Where the connections of a port session go; absent for a shell or a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Destination>,
}

impl StartSessionInput {
    /// Builds the input of a session over the link. A command is a session of AWS's command documents, so that a
    /// policy that lets somebody have shells does not thereby let him run commands unseen, nor the reverse; and the same
    /// holds for port sessions.
    pub fn native(target: String, document: String, reason: String, native: NativeStart) -> Self {
        let implied = match (&native.port, native.command.is_empty(), native.terminal.is_some()) {
            (Some(port), ..) if port.is_node() => Some(PORT.to_owned()),
            (Some(_), ..) => Some(REMOTE_PORT.to_owned()),
            (None, true, _) => None,
            (None, false, true) => Some(INTERACTIVE.to_owned()),
            (None, false, false) => Some(NON_INTERACTIVE.to_owned()),
        };
        Self {
            target,
            document_name: Some(document).filter(|document| !document.is_empty()).or(implied),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
            parameters: BTreeMap::new(),
            native: Some(native),
        }
    }

    pub(super) fn check(&self) -> Result<(), ApiError> {
        let invalid = |text: &str| Err(ApiError::Validation(text.to_owned()));
        if self.target.is_empty() || self.target.chars().count() > 400 {
            return invalid("Target has 1 to 400 characters: a node's id, name, tag:Key=Value or the head of its id");
        }
        if self.reason.as_ref().is_some_and(|reason| reason.is_empty() || reason.chars().count() > 256) {
            return invalid("Reason has 1 to 256 characters");
        }
        if self.document_name.as_deref().is_some_and(|name| !document_text(name)) {
            return invalid("DocumentName is a document's name of 3 to 128 letters, digits or _-. or its ARN");
        }
        self.check_parameters()?;
        let Some(native) = &self.native else { return Ok(()) };
        if !native.command.is_empty() && !valid_command(&native.command) {
            return invalid("a command has a program, at most 1024 arguments and 32 KiB, and no NUL bytes");
        }
        if native.by_shell && native.command.len() != 1 {
            return invalid("what a shell runs is one text");
        }
        if !valid_variables(&native.variables, &native.command) {
            return invalid("with its variables the command has more than 32 KiB");
        }
        if !native.os_user.is_empty() && !valid_os_user(&native.os_user) {
            return invalid(
                "an OS user's name has 1 to 32 characters of a-z, 0-9, _ . - and begins with a letter or _",
            );
        }
        Ok(())
    }

    fn check_parameters(&self) -> Result<(), ApiError> {
        let chars = |text: &String, most: usize| (1..=most).contains(&text.chars().count());
        let good = |(name, values): (&String, &Vec<String>)| {
            chars(name, MAX_PARAMETER_NAME) && values.iter().all(|value| chars(value, MAX_PARAMETER_VALUE))
        };
        let bytes: usize =
            self.parameters.iter().flat_map(|(name, values)| values.iter().chain([name])).map(String::len).sum();
        if self.parameters.len() <= MAX_PARAMETERS && bytes <= MAX_PARAMETER_BYTES && self.parameters.iter().all(good) {
            return Ok(());
        }
        Err(ApiError::Validation(format!(
            "Parameters has at most {MAX_PARAMETERS} names of 1 to {MAX_PARAMETER_NAME} characters with values of 1 to \
             {MAX_PARAMETER_VALUE} characters, and 128 KiB in all"
        )))
    }
}
