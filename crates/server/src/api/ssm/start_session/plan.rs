//! What a start comes to: its document with the parameters put in, under the preferences of the account and the
//! limits of the server. Who may start it is asked elsewhere.
//!
//! Every layer can only tighten (T-53): limits are the shortest of all, run-as holds if the document or the account's
//! preferences ask for it, and a key that one of them demands is demanded.

use std::collections::BTreeMap;

use munjigi_core::destination::Destination;
use munjigi_core::document::{CommandProperties, Document, PortProperties, Preferences, ResolveError, Run, Separated};
use munjigi_core::grant::{valid_command, valid_variables};
use munjigi_core::session::{SessionKind, SessionLimits};

use super::{DEFAULT_DOCUMENT, INTERACTIVE, NON_INTERACTIVE, PORT, REMOTE_PORT, StartSessionInput};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::ssm::document::{Reference, SESSION};
use crate::store::VersionRef;

/// A start, planned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The document's name, as the session shows it.
    pub(super) document: String,
    /// Shell, command or port.
    pub(super) kind: SessionKind,
    /// Program and arguments of a command.
    pub(super) command: Vec<String>,
    /// Whether the login shell runs the command, which is one text then.
    pub(super) by_shell: bool,
    /// Lines typed into a shell at its start.
    pub(super) profile: String,
    /// Parameters that reach the program as variables.
    pub(super) variables: Vec<(String, String)>,
    /// Whether it runs on a terminal.
    pub(super) pty: bool,
    /// Whether it must run as root (`runAsElevated`).
    pub(super) elevated: bool,
    /// The account that sessions run as if run-as is on; empty: the principal's tag must name one.
    pub(super) run_as: Option<String>,
    /// Where a port session goes.
    pub(super) destination: Option<Destination>,
    /// What AWS's clients are told of a port session.
    pub(super) port_properties: BTreeMap<String, String>,
    /// How a command's errors are kept apart for AWS's clients.
    pub(super) separated: Option<Separated>,
    /// Limits after everything that tightens them.
    pub(super) limits: SessionLimits,
}

impl Plan {
    /// Plans a start. An error speaks of documents, so it is only for those who may use them.
    pub(super) async fn make(
        server: &Server,
        input: &StartSessionInput,
        limits: SessionLimits,
    ) -> Result<Self, ApiError> {
        // They hold for every session, whatever its document.
        let account = server.preferences.get(&server.store).await?;
        let shell = Self {
            document: input.document_name.clone().unwrap_or_else(|| DEFAULT_DOCUMENT.to_owned()),
            kind: SessionKind::Shell,
            command: Vec::new(),
            by_shell: false,
            profile: String::new(),
            variables: input.native.as_ref().map(|native| native.variables.clone()).unwrap_or_default(),
            pty: input.native.as_ref().is_none_or(|native| native.terminal.is_some()),
            elevated: false,
            run_as: None,
            destination: None,
            port_properties: BTreeMap::new(),
            separated: None,
            limits,
        };
        let plan = match &input.native {
            Some(native) if native.port.is_some() || !native.command.is_empty() => {
                let implied = [INTERACTIVE, NON_INTERACTIVE, PORT, REMOTE_PORT];
                if !implied.contains(&shell.document.as_str()) || !input.parameters.is_empty() {
                    let message =
                        format!("the document {} brings its own command or port; name none beside it", shell.document);
                    return Err(ApiError::Validation(message));
                }
                let kind = if native.port.is_some() { SessionKind::Port } else { SessionKind::Command };
                let by_shell = native.by_shell;
                Self { kind, command: native.command.clone(), by_shell, destination: native.port.clone(), ..shell }
            }
            _ => shell.with_document(server, input, &account).await?,
        };
        plan.under(&account)
    }

    async fn with_document(
        mut self,
        server: &Server,
        input: &StartSessionInput,
        account: &Preferences,
    ) -> Result<Self, ApiError> {
        if self.document == DEFAULT_DOCUMENT {
            if let Some(name) = input.parameters.keys().next() {
                let name = name.escape_debug();
                return Err(ApiError::Validation(format!("{DEFAULT_DOCUMENT} has no parameter {name}")));
            }
            return Ok(Self { profile: account.profile.clone(), ..self });
        }
        let found = Reference::read(server, &self.document).find(server, &VersionRef::Default).await?;
        let name = found.name.clone();
        if found.document_type != SESSION {
            return Err(ApiError::bad("InvalidDocument", format!("{name} is not a document of type Session")));
        }
        let invalid = |error: &dyn std::fmt::Display| ApiError::bad("InvalidDocument", format!("{name}: {error}"));
        let document = Document::parse(&found.version.content).map_err(|error| invalid(&error))?;
        let resolved = document.resolve(&input.parameters).map_err(|error| match error {
            ResolveError::Unknown(_) | ResolveError::Missing(_) | ResolveError::NotOne(_) => {
                ApiError::Validation(format!("{name}: {error}"))
            }
            ResolveError::Refused { .. } | ResolveError::Document(_) => invalid(&error),
        })?;
        self.document.clone_from(&name);
        self.variables.extend(resolved.variables);
        match resolved.run {
            Run::Shell => self.profile.clone_from(&resolved.preferences.profile),
            Run::Interactive(command) => self.runs(command.for_shell(), command),
            Run::NonInteractive(command) => {
                // The built-in document hands its text to a shell, which is what it is for. In others the author wrote
                // the command, and a parameter must not become another one.
                let words = if name == NON_INTERACTIVE { Some(command.for_shell()) } else { command.split() };
                let words = words.ok_or_else(|| invalid(&"the command has a quote that is not closed"))?;
                self.runs(words, command);
                self.pty = false;
            }
            Run::Port(port) => self.connects(&port).map_err(|error| invalid(&error))?,
        }
        if self.kind == SessionKind::Command && !valid_command(&self.command)
            || !valid_variables(&self.variables, &self.command)
        {
            return Err(invalid(&"with these parameters the command has more than 32 KiB or 1024 words, or is empty"));
        }
        self.under(&resolved.preferences)
    }

    fn runs(&mut self, words: Vec<String>, properties: CommandProperties) {
        self.kind = SessionKind::Command;
        self.command = words;
        self.elevated = properties.elevated;
        self.separated = properties.separated;
    }

    fn connects(&mut self, port: &PortProperties) -> Result<(), munjigi_core::destination::DestinationError> {
        self.kind = SessionKind::Port;
        self.pty = false;
        self.destination = Some(Destination::new(&port.host, port.port)?);
        self.port_properties = port.handshake();
        Ok(())
    }

    /// Holds the plan to preferences.
    fn under(mut self, preferences: &Preferences) -> Result<Self, ApiError> {
        // What is demanded and cannot be done is refused, not left out. Port sessions are never encrypted with a key
        // (session-manager-protocol 3.2).
        if !preferences.kms_key.is_empty() && self.kind != SessionKind::Port {
            return Err(ApiError::bad(
                "InvalidDocument",
                "the preferences demand that the session is encrypted with a KMS key (kmsKeyId), which this server \
                 cannot do, so it is not started; remove kmsKeyId from the document to rely on TLS alone",
            ));
        }
        let demanded = SessionLimits { idle: preferences.idle, maximum: preferences.maximum, ..self.limits.clone() };
        self.limits = self.limits.tightened_by(&demanded);
        if preferences.run_as && self.run_as.as_ref().is_none_or(String::is_empty) {
            self.run_as = Some(preferences.run_as_user.clone());
        }
        Ok(self)
    }
}
