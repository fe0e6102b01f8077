//! What is fixed about a session when it starts, and what is known when it is over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use munjigi_core::destination::Destination;
use munjigi_core::document::Separated;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::Epoch;
use munjigi_core::id::{AccessKeyId, NodeId, SessionId, UniqueId};
use munjigi_core::session::{EndReason, ExitStatus, SessionKind, SessionLimits};
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{End, Exit};
use serde::{Deserialize, Serialize};

use super::ports::ConnectionSummary;
use crate::door::RequestMeta;
use crate::identity::session_token::Statement;
use crate::identity::ssh::SshProof;
use crate::targets::TargetFacts;

/// What was decided when the session was allowed. Nothing in it changes afterwards.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// The session.
    pub id: SessionId,
    /// Its node.
    pub node: NodeId,
    /// The run of the node's agent that has the program; another run never has it.
    pub epoch: Epoch,
    /// The node's name at the start.
    pub node_name: String,
    /// ARN of the principal that owns it.
    pub owner: String,
    /// Unchanging id of that principal; a namesake made later is somebody else.
    pub owner_id: Option<UniqueId>,
    /// What the temporary credentials stand for that it was started with; when they would not be good any more for
    /// another reason than their age, the session ends.
    pub credentials: Option<Arc<Statement>>,
    /// The access key it was started with; when that key goes, so does the session.
    pub access_key: Option<AccessKeyId>,
    /// What its owner proved themselves with at the SSH door; when that names nobody any more, the session ends.
    pub ssh: Option<Arc<SshProof>>,
    /// The OS user it runs as; empty for a port session, in which nothing runs.
    pub os_user: String,
    /// Shell, command or port.
    pub kind: SessionKind,
    /// Program and arguments of a command.
    pub command: Vec<String>,
    /// Whether `command` is one text that the OS user's login shell runs.
    pub by_shell: bool,
    /// Lines of the session document that are typed into the shell at its start; empty for none.
    pub profile: String,
    /// Variables that carry parameters of the session document, or facts of an SSH connection, to the program.
    pub variables: Vec<(String, String)>,
    /// What the connections of a port session may go to from its start on; empty for other kinds.
    pub endpoints: Vec<Endpoint>,
    /// What makes it a forward session; `None` for the port sessions of documents and tunnels, and for other kinds.
    pub forward: Option<Forward>,
    /// Properties of a port session as its document gives them to AWS's clients; empty for other kinds.
    pub port_properties: BTreeMap<String, String>,
    /// Whether AWS's clients get a command's errors apart, and what stands before each stream then.
    pub separated: Option<Separated>,
    /// Whether the program has a terminal.
    pub pty: bool,
    /// Whether it was started over the API, for a data channel, and not over the link.
    pub over_api: bool,
    /// The session document it was started with.
    pub document: String,
    /// Why the person wanted it.
    pub reason: Option<String>,
    /// When it started; recorded times count from here.
    pub started: Timestamp,
    /// Limits after everything that tightens them.
    pub limits: SessionLimits,
    /// Whether the OS user may be a privileged one (T-54).
    pub privileged: bool,
    /// Version of the policies that decided.
    pub policy_version: u64,
    /// What the client proved itself with; stands in the grant (T-23).
    pub client: [u8; 32],
    /// Whether typed bytes are recorded, or only how many there were (T-60).
    pub record_input: bool,
    /// What its start needed beside the node itself, for judging it again.
    pub needs: Needs,
    /// The request that started it.
    pub request: RequestMeta,
}

impl SessionFacts {
    /// Returns the target that a forward session was opened for, if it was one.
    pub fn target(&self) -> Option<&TargetFacts> {
        self.forward.as_ref()?.target.as_ref()
    }

    /// Returns the TCP destination of a session that has exactly one endpoint.
    pub fn destination(&self) -> Option<&Destination> {
        match self.endpoints.as_slice() {
            [only] => only.tcp(),
            _ => None,
        }
    }
}

/// A forward session: its connections name their endpoint, and policy is asked about each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    /// Whether connections may name endpoints that the start did not.
    pub dynamic: bool,
    /// Whether it is for logging in to the node's own SSH server, which is then its only endpoint: nothing of it is seen
    /// here, so a right of its own is asked for.
    #[serde(default)]
    pub passthrough: bool,
    /// What the client is for: `forward`, `copy`, `db` …; shown, not judged.
    pub purpose: String,
    /// The target that it was opened for, which is then its only endpoint; policy is asked about it instead of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetFacts>,
}

/// What a start needed beside `ssm:StartSession` on the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Needs {
    /// The document, because it was named or a policy asked for the check.
    pub document: bool,
    /// The right to choose the OS user.
    pub chosen_user: bool,
    /// Instead of all else, the right to a tunnel to the node's address for so many seconds (EC2 Instance Connect).
    pub tunnel: Option<(Ipv4Addr, u32)>,
}

/// How a session ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Why.
    pub reason: EndReason,
    /// For people; what happened and what to do next.
    pub message: String,
    /// How the program ended, if it did.
    pub exit: Option<ExitStatus>,
    /// Output bytes in all.
    pub output_end: u64,
    /// When.
    pub at: Timestamp,
    /// The connections of a port session, since this server's start.
    pub connections: Option<ConnectionSummary>,
}

impl Outcome {
    /// Returns the frame that tells a client.
    pub fn to_end(&self) -> End {
        End {
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
            exit: self.exit.as_ref().map(|exit| exit_message(exit, self.output_end)),
        }
    }
}

fn exit_message(exit: &ExitStatus, output_end: u64) -> Exit {
    match exit {
        ExitStatus::Code(code) => Exit { output_end, code: Some(*code), ..Exit::default() },
        ExitStatus::Signal { name, core_dumped } => {
            Exit { output_end, signal: Some(name.clone()), core_dumped: *core_dumped, ..Exit::default() }
        }
    }
}

/// Reads how the program ended from an agent's message; a signal name is cut to what names have.
pub fn exit_status(exit: &Exit) -> Option<ExitStatus> {
    match (&exit.code, &exit.signal) {
        (Some(code), _) => Some(ExitStatus::Code(*code)),
        (None, Some(name)) => {
            let name = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
            Some(ExitStatus::Signal { name, core_dumped: exit.core_dumped })
        }
        (None, None) => None,
    }
}
