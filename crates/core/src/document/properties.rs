//! `properties`: the command or the port of a document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::DocumentError;
use super::read::{At, Fields};
use super::{Run, SessionType, words};
use crate::destination::Destination;
use crate::policy::json::{Node, Value};

/// Platforms that documents speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Windows.
    Windows,
    /// Linux; the only one whose nodes this server has.
    Linux,
    /// macOS.
    MacOs,
}

impl Platform {
    /// All of them, in the order of the AWS model.
    pub const ALL: [Self; 3] = [Self::Windows, Self::Linux, Self::MacOs];

    /// Returns the word of the AWS model.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Windows => "Windows",
            Self::Linux => "Linux",
            Self::MacOs => "MacOS",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Windows => "windows",
            Self::Linux => "linux",
            Self::MacOs => "macos",
        }
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandProperties {
    /// The text as in the document, with its parameters.
    pub commands: String,
    /// Whether it runs as root (T-54: policy must allow that).
    pub elevated: bool,
    /// How output and errors are kept apart for the client; `None`: they are not.
    pub separated: Option<Separated>,
}

/// What stands before the two streams of a command when they are told apart; each at most 30 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Separated {
    /// Before output.
    pub stdout_prefix: String,
    /// Before errors.
    pub stderr_prefix: String,
}

impl CommandProperties {
    /// Returns the command for a shell.
    pub fn for_shell(&self) -> Vec<String> {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), self.commands.clone()]
    }

    /// Returns the words of the command, without a shell; `None` if a quote is not closed.
    pub fn split(&self) -> Option<Vec<String>> {
        words::split(&self.commands)
    }
}

/// How the client of a port session is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortType {
    /// It listens itself and brings many connections (`LocalPortForwarding`).
    LocalForwarding,
    /// Its standard input and output are the one connection.
    Stdio,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortProperties {
    /// Where the node connects: a name or address; empty for the node itself.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// How the client is served.
    pub port_type: PortType,
    /// Where the client listens; 0: any free port.
    pub local_port: u16,
    /// The unix socket on which it listens instead; empty for none.
    pub local_socket: String,
}

impl PortProperties {
    /// Returns `Properties` of the handshake: texts only, and only those that are set (session-manager-protocol 3.1).
    pub fn handshake(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            if !value.is_empty() {
                out.insert(name.to_owned(), value.to_owned());
            }
        };
        set("portNumber", &self.port.to_string());
        set("host", &self.host);
        if self.port_type == PortType::LocalForwarding {
            set("type", "LocalPortForwarding");
            set("localPortNumber", &self.local_port.to_string());
            set("localUnixSocket", &self.local_socket);
            // The word that clients look for; documents also say `socket`.
            set("localConnectionType", if self.local_socket.is_empty() { "" } else { "unix" });
        }
        out
    }
}

/// Reads `properties` for the kind of session; `open`: parameters are still to be put in.
pub(super) fn read(kind: SessionType, properties: Option<&Node>, open: bool) -> Result<Run, DocumentError> {
    let fields = properties.map(|node| Fields::of_template(node, "$.properties", open)).transpose()?;
    let missing = || DocumentError::at("$.properties", "is required");
    match kind {
        SessionType::StandardStream => shell(fields.as_ref()).map(|()| Run::Shell),
        SessionType::InteractiveCommands => commands(&fields.ok_or_else(missing)?, kind).map(Run::Interactive),
        SessionType::NonInteractiveCommands => commands(&fields.ok_or_else(missing)?, kind).map(Run::NonInteractive),
        SessionType::Port => port(&fields.ok_or_else(missing)?).map(Run::Port),
    }
}

/// Returns the platforms that a command document names.
pub(super) fn platforms(properties: &Node) -> Vec<Platform> {
    let Value::Object(members) = &properties.value else { return Vec::new() };
    let named = |platform: &Platform| members.iter().any(|member| member.name == platform.field());
    Platform::ALL.into_iter().filter(named).collect()
}

/// A shell has no command: what shall run at its start stands in the profile.
fn shell(fields: Option<&Fields<'_>>) -> Result<(), DocumentError> {
    let Some(fields) = fields else { return Ok(()) };
    fields.only(&Platform::ALL.map(Platform::field))?;
    for (_, found) in fields.all() {
        let fields = found.fields()?;
        fields.only(&["commands", "runAsElevated"])?;
        if let Some(commands) = fields.get("commands")
            && !commands.text()?.is_empty()
        {
            return Err(commands.wrong(
                "must be empty for Standard_Stream; write what runs at the start of a shell into inputs.shellProfile",
            ));
        }
        if let Some(elevated) = fields.get("runAsElevated")
            && elevated.flag()?
        {
            return Err(
                elevated.wrong("must be false for Standard_Stream; name the OS user in inputs.runAsDefaultUser")
            );
        }
    }
    Ok(())
}

fn commands(fields: &Fields<'_>, kind: SessionType) -> Result<CommandProperties, DocumentError> {
    fields.only(&Platform::ALL.map(Platform::field))?;
    let mut linux = None;
    for (name, found) in fields.all() {
        let command = command(&found, kind)?;
        if name == Platform::Linux.field() {
            linux = Some(command);
        }
    }
    linux.ok_or_else(|| DocumentError::at("$.properties.linux", "is required; this server's nodes run Linux"))
}

fn command(found: &At<'_>, kind: SessionType) -> Result<CommandProperties, DocumentError> {
    let fields = found.fields()?;
    let known = ["commands", "runAsElevated", "separateOutputStream", "stdOutSeparatorPrefix", "stdErrSeparatorPrefix"];
    let non_interactive = kind == SessionType::NonInteractiveCommands;
    fields.only(known.get(..if non_interactive { known.len() } else { 2 }).unwrap_or_default())?;
    let text = fields.required("commands")?;
    let commands = text.text_of(crate::grant::MAX_COMMAND_BYTES)?;
    if !text.is_open() && commands.trim().is_empty() {
        return Err(text.wrong("is empty"));
    }
    if non_interactive && !text.is_open() && words::split(&commands).is_none() {
        return Err(text.wrong("has a quote that is not closed, or ends with a backslash"));
    }
    let flag = |name: &str| fields.get(name).map_or(Ok(false), |found| found.flag());
    let prefix = |name: &str| fields.get(name).map_or(Ok(String::new()), |found| prefix(&found));
    let separated =
        Separated { stdout_prefix: prefix("stdOutSeparatorPrefix")?, stderr_prefix: prefix("stdErrSeparatorPrefix")? };
    Ok(CommandProperties {
        commands,
        elevated: flag("runAsElevated")?,
        separated: flag("separateOutputStream")?.then_some(separated),
    })
}

/// `^[0-9a-zA-Z\r\n_:-]{0,30}$`.
fn prefix(found: &At<'_>) -> Result<String, DocumentError> {
    let text = found.text_of(30)?;
    if found.is_open() || text.bytes().all(|b| b.is_ascii_alphanumeric() || b"\r\n_:-".contains(&b)) {
        return Ok(text);
    }
    Err(found.wrong("may hold letters, digits, line ends and _ : - only"))
}

fn port(fields: &Fields<'_>) -> Result<PortProperties, DocumentError> {
    fields.only(&["portNumber", "localPortNumber", "host", "type", "localUnixSocket", "localConnectionType"])?;
    let number = |name: &str, least: u32| -> Result<u16, DocumentError> {
        let number = fields.get(name).map(|found| found.number(least, u32::from(u16::MAX))).transpose()?.flatten();
        Ok(number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0))
    };
    let wanted = fields.required("portNumber")?;
    let port = number("portNumber", 1)?;
    if port == 0 && !wanted.is_open() {
        return Err(wanted.wrong("must be a port from 1 to 65535"));
    }
    let port_type = match fields.get("type") {
        None => PortType::Stdio,
        Some(found) if found.text()? == "LocalPortForwarding" => PortType::LocalForwarding,
        Some(found) => {
            return Err(
                found.wrong("must be LocalPortForwarding, or be left out for a session on standard input and output")
            );
        }
    };
    if let Some(found) = fields.get("localConnectionType")
        && !["", "socket", "unix"].contains(&found.text()?)
    {
        return Err(found.wrong("must be socket"));
    }
    // Linux has 108 bytes for the path of a socket, its end included (unix(7)).
    let local_socket = fields.get("localUnixSocket").map_or(Ok(String::new()), |found| found.text_of(107))?;
    Ok(PortProperties {
        host: fields.get("host").map_or(Ok(String::new()), |found| host(&found))?,
        port,
        port_type,
        local_port: number("localPortNumber", 0)?,
        local_socket,
    })
}

/// A name or address; what it stands for is found and judged on the node (T-58).
fn host(found: &At<'_>) -> Result<String, DocumentError> {
    let host = found.text_of(253)?;
    if found.is_open() || Destination::new(&host, 1).is_ok() {
        return Ok(host);
    }
    Err(found.wrong("must be a host name or an address"))
}
