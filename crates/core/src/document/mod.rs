//! Session documents (aws-api D): what a session runs, with which parameters, and the preferences it keeps to.
//!
//! A document is read strictly and completely before it is stored: a field nobody knows is refused by its path, so
//! that a misspelt limit does not silently stand for no limit. Starting a session *resolves* a document: parameters
//! are checked and put in, and what comes out is typed. Where documents are kept, who may use one, and how its limits
//! meet those of the server is decided elsewhere; a document never loosens anything by itself (T-53).

mod builtin;
mod error;
mod parameter;
mod pattern;
mod preferences;
mod properties;
mod read;
mod template;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use crate::policy::error::Lines;
use crate::policy::json::{self, Node};

pub use builtin::{BUILT_IN, BuiltIn, built_in};
pub use error::{DocumentError, ResolveError};
pub use parameter::{Interpolation, Parameter};
pub use preferences::Preferences;
pub use properties::{CommandProperties, Platform, PortProperties, PortType, Separated};

use read::Fields;
use template::Budget;

/// Largest document in bytes (aws-api C.5).
pub const MAX_BYTES: usize = 64 * 1024;
/// Most parameters of one document.
pub const MAX_PARAMETERS: usize = 64;
/// Most bytes of a resolved document's text: a placeholder may stand many times.
const MAX_RESOLVED_BYTES: usize = 256 * 1024;

/// Kinds of sessions, in the words of the documents and of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionType {
    /// The login shell on a terminal.
    StandardStream,
    /// One command on a terminal.
    InteractiveCommands,
    /// One command without a terminal.
    NonInteractiveCommands,
    /// Connections to a port.
    Port,
}

impl SessionType {
    const TABLE: [(Self, &'static str); 4] = [
        (Self::StandardStream, "Standard_Stream"),
        (Self::InteractiveCommands, "InteractiveCommands"),
        (Self::NonInteractiveCommands, "NonInteractiveCommands"),
        (Self::Port, "Port"),
    ];

    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        Self::TABLE.iter().find(|(kind, _)| *kind == self).map_or("Standard_Stream", |(_, word)| *word)
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
    }
}

/// A session document that is good: every field known and in range, every placeholder a parameter of it.
#[derive(Debug, Clone)]
pub struct Document {
    description: String,
    session_type: SessionType,
    parameters: Vec<Parameter>,
    inputs: Option<Node>,
    properties: Option<Node>,
}

/// What a session does and keeps to, after its parameters are put in.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// What it runs.
    pub run: Run,
    /// What it keeps to.
    pub preferences: Preferences,
    /// Parameters that reach the program as variables: names with `SSM_` in front, in the document's order.
    pub variables: Vec<(String, String)>,
}

/// What a resolved document runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    /// The login shell.
    Shell,
    /// A command on a terminal.
    Interactive(CommandProperties),
    /// A command without a terminal.
    NonInteractive(CommandProperties),
    /// Connections to a port.
    Port(PortProperties),
}

impl Run {
    /// Returns the kind of session that this is.
    pub fn session_type(&self) -> SessionType {
        match self {
            Self::Shell => SessionType::StandardStream,
            Self::Interactive(_) => SessionType::InteractiveCommands,
            Self::NonInteractive(_) => SessionType::NonInteractiveCommands,
            Self::Port(_) => SessionType::Port,
        }
    }
}

impl Document {
    /// Reads and checks a document of type Session in JSON.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_BYTES {
            return Err(DocumentError::TooLarge);
        }
        let root = json::read(text).map_err(|fault| {
            let place = Lines::new(text).position(fault.at);
            DocumentError::Content { path: place.to_string(), message: fault.message }
        })?;
        let fields = Fields::of(&root, "$")?;
        let version = fields.required("schemaVersion")?;
        if version.text().ok() != Some("1.0") {
            return Err(DocumentError::SchemaVersion);
        }
        fields.only(&["schemaVersion", "description", "sessionType", "inputs", "parameters", "properties"])?;
        let session_type = fields.required("sessionType")?;
        let session_type = SessionType::parse(session_type.text()?).ok_or_else(|| {
            let known = "Standard_Stream, InteractiveCommands, NonInteractiveCommands and Port";
            session_type.wrong(format!("is none of {known}"))
        })?;
        let description = fields.get("description").map(|found| found.text().map(str::to_owned)).transpose()?;
        let parameters = match fields.get("parameters") {
            Some(found) => parameter::read_all(&found)?,
            None => Vec::new(),
        };
        let document = Self {
            description: description.unwrap_or_default(),
            session_type,
            parameters,
            inputs: fields.get("inputs").map(|found| found.node.clone()),
            properties: fields.get("properties").map(|found| found.node.clone()),
        };
        document.check()?;
        Ok(document)
    }

    /// Checks what cannot be seen field by field: placeholders, and inputs and properties as far as they do not depend
    /// on parameters.
    fn check(&self) -> Result<(), DocumentError> {
        let needs = match self.session_type {
            SessionType::StandardStream => ("inputs", self.inputs.is_none()),
            _ => ("properties", self.properties.is_none()),
        };
        if let (name, true) = needs {
            let message = format!("is required for the session type {}", self.session_type.as_str());
            return Err(DocumentError::at(&format!("$.{name}"), message));
        }
        for (node, path) in [(&self.inputs, "$.inputs"), (&self.properties, "$.properties")] {
            if let Some(node) = node {
                template::each(node, path, &mut |place, name| self.check_placeholder(place, name))?;
            }
        }
        Preferences::read(self.inputs.as_ref(), true)?;
        properties::read(self.session_type, self.properties.as_ref(), true).map(drop)
    }

    fn check_placeholder(&self, place: &str, name: &str) -> Result<(), DocumentError> {
        let Some(parameter) = self.parameters.iter().find(|one| one.name == name) else {
            return Err(DocumentError::at(place, format!("the placeholder {{{{ {name} }}}} names no parameter")));
        };
        // A variable's placeholder becomes a reference, which only a shell can follow.
        let in_shell = self.session_type == SessionType::InteractiveCommands && place.ends_with(".commands");
        if parameter.interpolation == Interpolation::Variable && !in_shell {
            let message = format!(
                "{{{{ {name} }}}} has the interpolationType ENV_VAR, which only commands of the session type InteractiveCommands can use"
            );
            return Err(DocumentError::at(place, message));
        }
        Ok(())
    }

    /// Returns what the author says of it.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the kind of session it starts.
    pub fn session_type(&self) -> SessionType {
        self.session_type
    }

    /// Returns its parameters in the order of the document.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Returns the platforms it has something for.
    pub fn platforms(&self) -> Vec<Platform> {
        match (self.session_type, &self.properties) {
            (SessionType::InteractiveCommands | SessionType::NonInteractiveCommands, Some(properties)) => {
                properties::platforms(properties)
            }
            _ => Platform::ALL.to_vec(),
        }
    }

    /// Returns what its author should know: legal, but weaker or less than it looks.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings =
            Preferences::read(self.inputs.as_ref(), true).map(|found| found.warnings()).unwrap_or_default();
        let commands =
            matches!(self.session_type, SessionType::InteractiveCommands | SessionType::NonInteractiveCommands);
        let free = |one: &&Parameter| one.interpolation == Interpolation::Text && !one.is_narrowed();
        for parameter in self.parameters.iter().filter(free).filter(|_| commands) {
            warnings.push(format!(
                "the parameter {} is put into a command and has neither allowedPattern nor allowedValues, so whoever \
                 may use the document chooses what the command becomes",
                parameter.name
            ));
        }
        warnings
    }

    /// Checks the given parameters, puts them in, and reads what comes out. A String parameter takes a list of one.
    pub fn resolve(&self, given: &BTreeMap<String, Vec<String>>) -> Result<Resolved, ResolveError> {
        let values = parameter::values(&self.parameters, given)?;
        let mut budget = Budget::new(MAX_RESOLVED_BYTES);
        let mut fill = |node: &Option<Node>| -> Result<Option<Node>, DocumentError> {
            node.as_ref().map(|node| template::fill(node, &values, &mut budget)).transpose()
        };
        let (inputs, properties) = (fill(&self.inputs)?, fill(&self.properties)?);
        let run = properties::read(self.session_type, properties.as_ref(), false)?;
        let variables = values.iter().filter_map(|value| value.variable.clone()).collect();
        Ok(Resolved { run, preferences: Preferences::read(inputs.as_ref(), false)?, variables })
    }
}
