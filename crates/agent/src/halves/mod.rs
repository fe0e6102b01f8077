//! What the two halves of the agent say to each other, over one socket pair that keeps message boundaries.
//!
//! Messages are of fixed types and at most 64 KiB (T-74). Neither half trusts the other further than a message says:
//! the link half can ask only for what stands in [`ToSpawn`], and the privileged half verifies each grant itself.

mod channel;
mod terminal;
#[cfg(test)]
mod tests;

use munjigi_core::endpoint::{Endpoint, get_endpoints, put_endpoints};
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::{ExitStatus, Signal};
use munjigi_core::ssh::node_trust;
use munjigi_core::wire::bytes::{FieldError, FieldReader, FieldWriter};

use crate::config::MAX_DENIED;

pub(crate) use channel::{Channel, ChannelError, MAX_DESCRIPTORS};
pub(crate) use terminal::Terminal;

use terminal::{get_terminal, put_terminal};

/// Largest message in bytes (T-74).
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;
const MAX_GRANT: usize = 48 * 1024;
/// Most bytes of a piece of an account bundle, and of a report on it.
pub(crate) const MAX_PIECE: usize = 48 * 1024;
const MAX_HELLO: usize = 16 * 1024;
const MAX_TEXT: usize = 1024;
/// Largest trust anchor file in bytes that fits a message beside the rest.
pub(crate) const MAX_CA: usize = 48 * 1024;
/// Most environment variables of a start.
const MAX_ENVIRONMENT: usize = 64;

/// A wish to start a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// Names the wish in the answer.
    pub(crate) request: u64,
    /// The signed grant, as it came.
    pub(crate) grant: Vec<u8>,
    /// Terminal, if the client has one.
    pub(crate) terminal: Option<Terminal>,
    /// Environment, not yet checked.
    pub(crate) environment: Vec<(String, String)>,
}

/// From the link half to the privileged half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToSpawn {
    /// Sign the link request on this TLS session with the node's key.
    Sign {
        /// Names the wish in the answer.
        request: u64,
        /// The TLS session's exporter value.
        binding: [u8; 32],
        /// Value of the hello header.
        hello: String,
    },
    /// Verify this grant and start what it names.
    Start(Start),
    /// Verify this grant and let sshd accept the key that it names.
    Key {
        /// Names the wish in the answer.
        request: u64,
        /// The signed grant, as it came.
        grant: Vec<u8>,
    },
    /// A piece of the node's account bundle; the first one begins a new bundle.
    Accounts {
        /// Names the wish in the answer; the same for all pieces of a bundle.
        request: u64,
        /// Number of the newest change of accounts that the server has in its trail.
        recorded: u64,
        /// Bytes of the whole bundle.
        total: u32,
        /// The piece, at most [`MAX_PIECE`] bytes.
        piece: Vec<u8>,
    },
    /// Verify this document and have sshd's files say what it says.
    SshTrust {
        /// Names the wish in the answer.
        request: u64,
        /// The signed document, as it came.
        document: Vec<u8>,
    },
    /// A connection of this session is to go to this endpoint.
    Reach {
        /// Names the wish in the answer.
        request: u64,
        /// The session.
        session: SessionId,
        /// Where to.
        endpoint: Endpoint,
        /// The signed grant that adds the endpoint to the session, as it came; empty if there is none.
        grant: Vec<u8>,
    },
    /// Send a signal to the session's foreground process group.
    Signal {
        /// The session.
        session: SessionId,
        /// The signal.
        signal: Signal,
    },
    /// The program's input has ended: close the privileged half's copy of it too.
    InputEnd {
        /// The session.
        session: SessionId,
    },
    /// End the session now.
    End {
        /// The session.
        session: SessionId,
    },
    /// All is recorded: forget the session, and end what is left of it.
    Forget {
        /// The session.
        session: SessionId,
    },
    /// The link stands.
    Online,
    /// The link is gone or could not be made, and why.
    Offline {
        /// For people.
        why: String,
    },
    /// The server sent this signed trust bundle.
    Trust {
        /// As signed by the root.
        bundle: Vec<u8>,
    },
}

/// What the link half must know to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configure {
    /// This node.
    pub(crate) node: NodeId,
    /// The name it joined under.
    pub(crate) name: String,
    /// The run of the agent.
    pub(crate) epoch: [u8; 32],
    /// `https://host:port` of the server.
    pub(crate) server: String,
    /// PEM of the roots that the server is trusted by.
    pub(crate) ca: Vec<u8>,
    /// The only OS user that can be served; empty when the privileged half is root.
    pub(crate) only_user: String,
    /// The public host key of the node's sshd, one line; empty if there is none.
    pub(crate) ssh_host_key: String,
    /// What port sessions may not reach, by the node's owner.
    pub(crate) denied_destinations: Vec<String>,
    /// Sessions that follow, one [`Session`] message each, before anything is dialled.
    pub(crate) sessions: u64,
}

/// A running (or ended and not yet forgotten) session. Its descriptors travel with the message: the ring, then the
/// terminal's master, or the program's input (unless it has ended), output and error pipes. A program that never ran,
/// and a port session, in which none runs, have only the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// The session.
    pub(crate) session: SessionId,
    /// The wish that this answers; absent when a live session is handed to a new link half.
    pub(crate) request: Option<u64>,
    /// Process id of the program; 0 if it never ran.
    pub(crate) process_id: u32,
    /// The OS user.
    pub(crate) os_user: String,
    /// Whether it has a terminal.
    pub(crate) terminal: bool,
    /// Whether its input is still open.
    pub(crate) input: bool,
    /// How the program ended, if it has.
    pub(crate) exit: Option<ExitStatus>,
    /// Why, when it did not end by itself; else empty.
    pub(crate) detail: String,
    /// What the connections of a port session may go to, as its first grant says; `None` for other kinds.
    pub(crate) endpoints: Option<Vec<Endpoint>>,
}

/// Where sshd's logins are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// A pipe with entries of the journal in JSON.
    Journal,
    /// A log file.
    File,
}

/// From the privileged half to the link half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToLink {
    /// First message.
    Configure(Configure),
    /// The signature wished for.
    Signature {
        /// The wish.
        request: u64,
        /// Ed25519 signature.
        signature: [u8; 64],
    },
    /// A session and its descriptors.
    Session(Session),
    /// A start was refused; nothing was started.
    Refused {
        /// The wish.
        request: u64,
        /// Code as in the AWS API.
        code: String,
        /// For people.
        message: String,
        /// Machine-readable reason.
        reason: String,
    },
    /// sshd's logins are to be read from the descriptor that comes along; the one before has nothing new any more.
    LoginLog {
        /// What it is.
        kind: LogKind,
    },
    /// The session may reach the endpoint.
    Reached {
        /// The wish.
        request: u64,
    },
    /// The key or document was taken.
    KeyTaken {
        /// The wish.
        request: u64,
    },
    /// The account bundle was applied.
    AccountsApplied {
        /// The wish.
        request: u64,
        /// What the accounts are like now, as [`munjigi_core::wire::message::AccountReport`] in bytes.
        report: Vec<u8>,
    },
    /// What became of the node's accounts without anybody asking.
    AccountsChanged {
        /// As above.
        report: Vec<u8>,
    },
    /// Sshd was told a key that AWS pushed, or was not and why.
    AwsKey {
        /// As [`munjigi_core::wire::message::AwsKeyReport`] in bytes.
        report: Vec<u8>,
    },
    /// The program has ended; all that it wrote can be read without waiting.
    Exited {
        /// The session.
        session: SessionId,
        /// How.
        status: ExitStatus,
        /// Why, when it did not end by itself; else empty.
        detail: String,
    },
}

impl ToSpawn {
    /// Encodes the message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::default();
        match self {
            Self::Sign { request, binding, hello } => out.u8(1).u64(*request).bytes(binding).text(hello),
            Self::Start(start) => {
                out.u8(2).u64(start.request).bytes(&start.grant);
                put_terminal(&mut out, start.terminal.as_ref());
                let flat: Vec<&str> =
                    start.environment.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
                out.texts(&flat)
            }
            Self::Signal { session, signal } => out.u8(3).text(session.as_str()).u8(signal.to_byte()),
            Self::End { session } => out.u8(4).text(session.as_str()),
            Self::Forget { session } => out.u8(5).text(session.as_str()),
            Self::Online => out.u8(6),
            Self::Offline { why } => out.u8(7).text(&shortened(why)),
            Self::Trust { bundle } => out.u8(8).bytes(bundle),
            Self::InputEnd { session } => out.u8(9).text(session.as_str()),
            Self::Key { request, grant } => out.u8(20).u64(*request).bytes(grant),
            Self::Accounts { request, recorded, total, piece } => {
                out.u8(40).u64(*request).u64(*recorded).u64(u64::from(*total)).bytes(piece)
            }
            Self::SshTrust { request, document } => out.u8(25).u64(*request).bytes(document),
            Self::Reach { request, session, endpoint, grant } => {
                endpoint.put(out.u8(22).u64(*request).text(session.as_str())).bytes(grant)
            }
        };
        out.finish()
    }

    /// Decodes one message; every length is checked before anything is copied.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut fields = FieldReader::new(bytes, b"")?;
        let message = match fields.u8()? {
            1 => Self::Sign {
                request: fields.u64()?,
                binding: fields.fixed()?,
                hello: fields.text(MAX_HELLO)?.to_owned(),
            },
            2 => Self::Start(Start {
                request: fields.u64()?,
                grant: fields.bytes(MAX_GRANT)?.to_vec(),
                terminal: get_terminal(&mut fields)?,
                environment: get_environment(&mut fields)?,
            }),
            3 => Self::Signal {
                session: get_session(&mut fields)?,
                signal: Signal::from_byte(fields.u8()?).ok_or(FieldError::Unknown)?,
            },
            4 => Self::End { session: get_session(&mut fields)? },
            5 => Self::Forget { session: get_session(&mut fields)? },
            6 => Self::Online,
            7 => Self::Offline { why: fields.text(MAX_TEXT)?.to_owned() },
            8 => Self::Trust { bundle: fields.bytes(16 * 1024)?.to_vec() },
            9 => Self::InputEnd { session: get_session(&mut fields)? },
            20 => Self::Key { request: fields.u64()?, grant: fields.bytes(MAX_GRANT)?.to_vec() },
            40 => Self::Accounts {
                request: fields.u64()?,
                recorded: fields.u64()?,
                total: u32::try_from(fields.u64()?).map_err(|_| FieldError::Unknown)?,
                piece: fields.bytes(MAX_PIECE)?.to_vec(),
            },
            25 => Self::SshTrust { request: fields.u64()?, document: fields.bytes(node_trust::MAX_BYTES)?.to_vec() },
            22 => Self::Reach {
                request: fields.u64()?,
                session: get_session(&mut fields)?,
                endpoint: Endpoint::get(&mut fields)?,
                grant: fields.bytes(MAX_GRANT)?.to_vec(),
            },
            _ => return Err(FieldError::Unknown),
        };
        fields.end()?;
        Ok(message)
    }
}

impl ToLink {
    /// Encodes the message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::default();
        match self {
            Self::Configure(configure) => out
                .u8(1)
                .text(configure.node.as_str())
                .text(&configure.name)
                .bytes(&configure.epoch)
                .text(&configure.server)
                .bytes(&configure.ca)
                .text(&configure.only_user)
                .text(&configure.ssh_host_key)
                .texts(&configure.denied_destinations)
                .u64(configure.sessions),
            Self::Signature { request, signature } => out.u8(2).u64(*request).bytes(signature),
            Self::Session(session) => {
                out.u8(3).text(session.session.as_str());
                match session.request {
                    Some(request) => out.u8(1).u64(request),
                    None => out.u8(0),
                };
                out.u64(u64::from(session.process_id)).text(&session.os_user).u8(u8::from(session.terminal));
                out.u8(u8::from(session.input)).text(&shortened(&session.detail));
                match &session.exit {
                    Some(status) => put_status(out.u8(1), status),
                    None => out.u8(0),
                };
                match &session.endpoints {
                    Some(endpoints) => put_endpoints(endpoints, out.u8(1)),
                    None => out.u8(0),
                }
            }
            Self::Refused { request, code, message, reason } => {
                out.u8(4).u64(*request).text(code).text(&shortened(message)).text(reason)
            }
            Self::KeyTaken { request } => out.u8(20).u64(*request),
            Self::AccountsApplied { request, report } => out.u8(40).u64(*request).bytes(report),
            Self::AccountsChanged { report } => out.u8(41).bytes(report),
            Self::Reached { request } => out.u8(22).u64(*request),
            Self::AwsKey { report } => out.u8(23).bytes(report),
            Self::LoginLog { kind } => out.u8(21).u8(u8::from(*kind == LogKind::File)),
            Self::Exited { session, status, detail } => {
                put_status(out.u8(5).text(session.as_str()), status).text(&shortened(detail))
            }
        };
        out.finish()
    }

    /// Decodes one message; every length is checked before anything is copied.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut fields = FieldReader::new(bytes, b"")?;
        let message = match fields.u8()? {
            1 => Self::Configure(Configure {
                node: NodeId::parse(fields.text(32)?).map_err(|_| FieldError::Unknown)?,
                name: fields.text(256)?.to_owned(),
                epoch: fields.fixed()?,
                server: fields.text(2048)?.to_owned(),
                ca: fields.bytes(MAX_CA)?.to_vec(),
                only_user: fields.text(64)?.to_owned(),
                ssh_host_key: fields.text(MAX_TEXT)?.to_owned(),
                denied_destinations: fields.texts(MAX_DENIED, MAX_DENIED * 64)?,
                sessions: fields.u64()?,
            }),
            2 => Self::Signature { request: fields.u64()?, signature: fields.fixed()? },
            3 => Self::Session(Session {
                session: get_session(&mut fields)?,
                request: if get_flag(&mut fields)? { Some(fields.u64()?) } else { None },
                process_id: u32::try_from(fields.u64()?).map_err(|_| FieldError::Unknown)?,
                os_user: fields.text(32)?.to_owned(),
                terminal: get_flag(&mut fields)?,
                input: get_flag(&mut fields)?,
                detail: fields.text(MAX_TEXT)?.to_owned(),
                exit: if get_flag(&mut fields)? { Some(get_status(&mut fields)?) } else { None },
                endpoints: if get_flag(&mut fields)? { Some(get_endpoints(&mut fields)?) } else { None },
            }),
            20 => Self::KeyTaken { request: fields.u64()? },
            40 => Self::AccountsApplied { request: fields.u64()?, report: fields.bytes(MAX_PIECE)?.to_vec() },
            41 => Self::AccountsChanged { report: fields.bytes(MAX_PIECE)?.to_vec() },
            22 => Self::Reached { request: fields.u64()? },
            23 => Self::AwsKey { report: fields.bytes(MAX_PIECE)?.to_vec() },
            21 => Self::LoginLog { kind: if get_flag(&mut fields)? { LogKind::File } else { LogKind::Journal } },
            4 => Self::Refused {
                request: fields.u64()?,
                code: fields.text(128)?.to_owned(),
                message: fields.text(MAX_TEXT)?.to_owned(),
                reason: fields.text(128)?.to_owned(),
            },
            5 => Self::Exited {
                session: get_session(&mut fields)?,
                status: get_status(&mut fields)?,
                detail: fields.text(MAX_TEXT)?.to_owned(),
            },
            _ => return Err(FieldError::Unknown),
        };
        fields.end()?;
        Ok(message)
    }
}

fn get_environment(fields: &mut FieldReader<'_>) -> Result<Vec<(String, String)>, FieldError> {
    let mut flat = fields.texts(MAX_ENVIRONMENT * 2, 16 * 1024)?.into_iter();
    let mut environment = Vec::new();
    while let Some(name) = flat.next() {
        environment.push((name, flat.next().ok_or(FieldError::Short)?));
    }
    Ok(environment)
}

fn put_status<'a>(out: &'a mut FieldWriter, status: &ExitStatus) -> &'a mut FieldWriter {
    match status {
        ExitStatus::Code(code) => out.u8(1).i64(i64::from(*code)),
        ExitStatus::Signal { name, core_dumped } => out.u8(2).text(name).u8(u8::from(*core_dumped)),
    }
}

fn get_status(fields: &mut FieldReader<'_>) -> Result<ExitStatus, FieldError> {
    match fields.u8()? {
        1 => Ok(ExitStatus::Code(i32::try_from(fields.i64()?).map_err(|_| FieldError::Unknown)?)),
        2 => Ok(ExitStatus::Signal { name: fields.text(16)?.to_owned(), core_dumped: get_flag(fields)? }),
        _ => Err(FieldError::Unknown),
    }
}

fn get_session(fields: &mut FieldReader<'_>) -> Result<SessionId, FieldError> {
    SessionId::parse(fields.text(96)?).map_err(|_| FieldError::Unknown)
}

fn get_flag(fields: &mut FieldReader<'_>) -> Result<bool, FieldError> {
    match fields.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FieldError::Unknown),
    }
}

/// Returns the head of a text that has at most `limit` bytes and ends between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Cuts a text for people so that it fits its field.
fn shortened(text: &str) -> String {
    cut(text, MAX_TEXT).to_owned()
}
