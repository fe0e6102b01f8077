//! The messages inside frames, as Protocol Buffers: field numbers are for ever, unknown values mean "unsupported".
//!
//! Strings become types in [`crate::id`], [`crate::session`] and [`crate::grant`] where they are used; lengths are
//! bounded by the frame.

use std::collections::BTreeMap;
use std::fmt;

use crate::session::TerminalSize;

/// What a stream is for; its first frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Open {
    /// The one thing wished for.
    #[prost(oneof = "open::Wish", tags = "1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 25, 40, 41")]
    pub wish: Option<open::Wish>,
}

/// The wishes of [`Open`].
pub mod open {
    /// What the opener wants.
    #[derive(Clone, PartialEq, prost::Oneof)]
    #[expect(clippy::large_enum_variant, reason = "there is one per stream, and the frame holds it in a box")]
    pub enum Wish {
        /// Client to server: start a session.
        #[prost(message, tag = "1")]
        Session(super::OpenSession),
        /// Client to server: go on with, take over or watch a session.
        #[prost(message, tag = "2")]
        Attach(super::AttachSession),
        /// Server to agent: start what this grant names.
        #[prost(message, tag = "3")]
        Start(super::StartOnNode),
        /// Agent to server: a session that lived through a broken link or a restart of the server.
        #[prost(message, tag = "4")]
        Rejoin(super::Rejoin),
        /// Client to server, and server to agent: a connection of a running port session. Once it is accepted the
        /// stream carries the connection's bytes and no frames. To an endpoint that listens it carries nothing, and the
        /// node listens for as long as it lasts.
        #[prost(message, tag = "5")]
        Connect(super::Connect),
        /// Client to server: begin the session that a call of StartSession has prepared.
        #[prost(message, tag = "6")]
        Prepared(super::OpenPrepared),
        /// Agent to server, and server to client: somebody connected to a port on which the node listens for the
        /// session. Once it is accepted the stream carries the connection's bytes and no frames.
        #[prost(message, tag = "7")]
        Incoming(super::Incoming),
        /// Client to server: an SSH connection of the link's principal, of which the server is the server. Once it is
        /// accepted the stream carries the connection's bytes and no frames.
        #[prost(message, tag = "8")]
        Ssh(super::SshWish),
        /// Server to agent: let sshd accept the key that this grant names.
        #[prost(message, tag = "20")]
        Key(super::KeyOnNode),
        /// Agent to server: logins that the node's sshd has let in.
        #[prost(message, tag = "21")]
        Logins(super::Logins),
        /// Server to agent: whom the node's sshd may believe.
        #[prost(message, tag = "25")]
        SshTrust(super::SshTrustOnNode),
        /// Server to agent: the node's account bundle, in the `Input` frames that follow.
        #[prost(message, tag = "40")]
        Accounts(super::AccountsOnNode),
        /// Agent to server: what became of the node's accounts since the server asked, such as what failed then.
        #[prost(message, tag = "41")]
        AccountsChanged(super::AccountReport),
    }
}

/// A terminal as the client has it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pty {
    /// Value of `TERM`, at most 64 characters of `[A-Za-z0-9+._-]` (T-78).
    #[prost(string, tag = "1")]
    pub term: String,
    /// Rows, 1 to [`TerminalSize::MAX`].
    #[prost(uint32, tag = "2")]
    pub rows: u32,
    /// Columns, 1 to [`TerminalSize::MAX`].
    #[prost(uint32, tag = "3")]
    pub columns: u32,
    /// Width in pixels, 0 if unknown.
    #[prost(uint32, tag = "4")]
    pub width_pixels: u32,
    /// Height in pixels, 0 if unknown.
    #[prost(uint32, tag = "5")]
    pub height_pixels: u32,
    /// What keys mean, what is echoed and the like: [`crate::terminal_modes::TerminalModes`], encoded; empty for the node's
    /// own.
    #[prost(bytes = "bytes", tag = "6")]
    pub modes: bytes::Bytes,
}

impl Pty {
    /// Returns the size, if it is one a terminal can have.
    pub fn size(&self) -> Option<TerminalSize> {
        let side = |value: u32| u16::try_from(value).ok();
        TerminalSize {
            rows: side(self.rows)?,
            columns: side(self.columns)?,
            width_pixels: side(self.width_pixels)?,
            height_pixels: side(self.height_pixels)?,
        }
        .checked()
    }
}

/// Client to server: start a session. Everything that the AWS operation `StartSession` takes, and what a terminal needs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenSession {
    /// Node by id, name, id prefix or `tag:Key=Value`.
    #[prost(string, tag = "1")]
    pub target: String,
    /// Session document; empty for the default one.
    #[prost(string, tag = "2")]
    pub document: String,
    /// Why the person wants it; at most 256 characters.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// Program and arguments; empty for the login shell.
    #[prost(string, repeated, tag = "4")]
    pub command: Vec<String>,
    /// Wished OS user; empty for the one that policy gives.
    #[prost(string, tag = "5")]
    pub os_user: String,
    /// Terminal; absent for pipes.
    #[prost(message, optional, tag = "6")]
    pub pty: Option<Pty>,
    /// Environment, by allow-list (T-78): `LANG`, `LC_*`.
    #[prost(btree_map = "string, string", tag = "7")]
    pub environment: BTreeMap<String, String>,
    /// UUID of this wish; a repeat within five minutes gets the same session.
    #[prost(string, tag = "8")]
    pub client_token: String,
    /// Where the connections of a port session go; absent for a shell or a command.
    #[prost(message, optional, tag = "9")]
    pub port: Option<PortWish>,
    /// Parameters of the document; a name that stands twice has two values.
    #[prost(message, repeated, tag = "10")]
    pub parameters: Vec<Parameter>,
    /// A forward session is wished for; then there is no document, command, terminal, port or parameter.
    #[prost(message, optional, tag = "11")]
    pub forward: Option<ForwardWish>,
}

/// What a forward session is to reach.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForwardWish {
    /// At most [`crate::endpoint::MAX_ENDPOINTS`]; none only if `dynamic`.
    #[prost(message, repeated, tag = "1")]
    pub endpoints: Vec<EndpointWish>,
    /// Whether connections may name further endpoints.
    #[prost(bool, tag = "2")]
    pub dynamic: bool,
    /// Wished OS user, for endpoints that the node reaches as one; empty for the one that policy gives.
    #[prost(string, tag = "3")]
    pub os_user: String,
    /// What the client is: a word of `[a-z]` with at most 16 letters, such as `forward`, `copy` or `db`; shown, not judged.
    #[prost(string, tag = "4")]
    pub purpose: String,
}

/// What a connection of a forward session goes to; [`crate::endpoint::Endpoint`] says what it may be.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EndpointWish {
    /// One of the kinds.
    #[prost(oneof = "endpoint_wish::Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub kind: Option<endpoint_wish::Kind>,
}

/// The kinds of [`EndpointWish`].
pub mod endpoint_wish {
    /// What is connected to.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
    pub enum Kind {
        /// A TCP destination.
        #[prost(message, tag = "1")]
        Tcp(super::PortWish),
        /// Path of a stream socket on the node.
        #[prost(string, tag = "2")]
        Unix(String),
        /// Path on the node at or below which files are written.
        #[prost(string, tag = "3")]
        Upload(String),
        /// Path on the node at or below which files are read.
        #[prost(string, tag = "4")]
        Download(String),
        /// A port on which the node listens.
        #[prost(message, tag = "5")]
        Listen(super::ListenWish),
        /// A socket on which the node listens; a path.
        #[prost(string, tag = "8")]
        ListenUnix(String),
        /// A socket behind which is the client's SSH agent; always true.
        #[prost(bool, tag = "9")]
        Agent(bool),
        /// Files of the OS user by SFTP; the word says what may be done with them at most. From the server to the node.
        #[prost(string, tag = "6")]
        Files(String),
        /// `rsync` as the OS user, with these arguments. From the server to the node.
        #[prost(string, tag = "7")]
        Rsync(String),
    }
}

/// Where a node listens.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ListenWish {
    /// An IP address of the node.
    #[prost(string, tag = "1")]
    pub address: String,
    /// TCP port; 0 for one that the node picks.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// A parameter of a session document with one value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Parameter {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What a port session connects to.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PortWish {
    /// Name or address; empty for the node itself. [`crate::destination::Destination`] says what it may be.
    #[prost(string, tag = "1")]
    pub host: String,
    /// TCP port, 1 to 65535.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// An SSH connection to a node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SshWish {
    /// Node by id, name, id prefix or `tag:Key=Value`.
    #[prost(string, tag = "1")]
    pub node: String,
}

/// Make one connection of a port session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Connect {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Where to; absent for the only endpoint that the session has.
    #[prost(message, optional, tag = "2")]
    pub endpoint: Option<EndpointWish>,
    /// From the server to the node alone, if the endpoint is new to the session: a signed [`crate::grant::Grant`] whose
    /// action extends it.
    #[prost(bytes = "bytes", tag = "3")]
    pub grant: bytes::Bytes,
    /// From the server to the node alone: answer with [`Resolved`] and connect only to the address that [`Go`] brings.
    #[prost(bool, tag = "4")]
    pub reveal: bool,
    /// From the server to the node alone: 16 bytes with which the node may dial a lane for this stream; else empty.
    #[prost(bytes = "bytes", tag = "5")]
    pub lane: bytes::Bytes,
}

/// Agent to server, before it connects: what the host was resolved to. Every address has passed the node's own rules.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resolved {
    /// IP addresses in the order in which the node would try them, at most [`MAX_RESOLVED`].
    #[prost(string, repeated, tag = "1")]
    pub addresses: Vec<String>,
}

/// Most addresses of a name that a node looks at.
pub const MAX_RESOLVED: usize = 16;

/// Server to agent: connect to these of the addresses that [`Resolved`] named. A server that allows none of them answers
/// [`Refused`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Go {
    /// At least one, in the order in which they are tried.
    #[prost(string, repeated, tag = "1")]
    pub addresses: Vec<String>,
}

/// Somebody connected to a port on which the node listens for a session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Incoming {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Which of the session's listeners: [`Accepted::listener`] of the stream that stands for it.
    #[prost(uint64, tag = "2")]
    pub listener: u64,
    /// `address:port` of whoever connected.
    #[prost(string, tag = "3")]
    pub address: String,
    /// From the server to the client alone: as [`Accepted::lane`].
    #[prost(bytes = "bytes", tag = "4")]
    pub lane: bytes::Bytes,
}

/// Client to server: begin the session that a call of StartSession has prepared. Made by whoever called it, in a
/// program of AWS's that knows no link.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct OpenPrepared {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// The token that StartSession gave for it. It opens one channel, a stream like this or AWS's WebSocket.
    #[prost(string, tag = "2")]
    pub token: String,
    /// Terminal; absent if there is none. Only a session whose document gives a terminal takes it.
    #[prost(message, optional, tag = "3")]
    pub pty: Option<Pty>,
    /// Environment, by allow-list (T-78).
    #[prost(btree_map = "string, string", tag = "4")]
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for OpenPrepared {
    /// Without the token (T-83).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session_id, pty, environment, token: _ } = self;
        f.debug_struct("OpenPrepared")
            .field("session_id", session_id)
            .field("pty", pty)
            .field("environment", environment)
            .finish_non_exhaustive()
    }
}

/// Client to server: read an existing session's output from an offset, and type into it unless `watch`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttachSession {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Only read.
    #[prost(bool, tag = "2")]
    pub watch: bool,
    /// Combined output offset from which to deliver.
    #[prost(uint64, tag = "3")]
    pub output_from: u64,
    /// Deliver from "now" instead of `output_from`.
    #[prost(bool, tag = "4")]
    pub from_end: bool,
    /// The terminal as it is now; the program's terminal takes its size.
    #[prost(message, optional, tag = "5")]
    pub pty: Option<Pty>,
}

/// The wish was granted. To a client: the session. To a server: the program runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Accepted {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Its node.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// The node's name.
    #[prost(string, tag = "3")]
    pub node_name: String,
    /// The OS user it runs as.
    #[prost(string, tag = "4")]
    pub os_user: String,
    /// Next input offset that is wanted.
    #[prost(uint64, tag = "5")]
    pub input_from: u64,
    /// Offset of the first output that follows.
    #[prost(uint64, tag = "6")]
    pub output_from: u64,
    /// Seconds for which the session lives on without a client.
    #[prost(uint32, tag = "7")]
    pub resume_window_secs: u32,
    /// Whether the program has a terminal.
    #[prost(bool, tag = "8")]
    pub has_pty: bool,
    /// Process id on the node, from the agent.
    #[prost(uint32, tag = "10")]
    pub process_id: u32,
    /// `address:port` that the node connected to, in answer to [`Connect`].
    #[prost(string, tag = "11")]
    pub address: String,
    /// Kind of the session, [`crate::session::SessionKind`] as text, in answer to [`OpenPrepared`].
    #[prost(string, tag = "12")]
    pub kind: String,
    /// Properties of a port session as its document gives them to AWS's clients, in answer to [`OpenPrepared`].
    #[prost(btree_map = "string, string", tag = "13")]
    pub port_properties: BTreeMap<String, String>,
    /// 16 bytes with which a client may dial a lane for this stream, in answer to [`Connect`]; else empty.
    #[prost(bytes = "bytes", tag = "14")]
    pub lane: bytes::Bytes,
    /// Number of the listener, in answer to [`Connect`] to an endpoint that listens.
    #[prost(uint64, tag = "15")]
    pub listener: u64,
    /// Public keys that vouch for hosts, as `authorized_keys` has them, in answer to [`SshWish`].
    #[prost(string, repeated, tag = "16")]
    pub host_authorities: Vec<String>,
    /// The public key of the node's own sshd, as its agent says, in answer to [`SshWish`] for that sshd; empty if it is not
    /// known.
    #[prost(string, tag = "17")]
    pub host_key: String,
    /// What the node's accounts are like now, in answer to [`AccountsOnNode`].
    #[prost(message, optional, tag = "40")]
    pub accounts: Option<AccountReport>,
}

/// The wish was refused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Error code as in the AWS API, e.g. `AccessDeniedException`, `TargetNotConnected`.
    #[prost(string, tag = "1")]
    pub code: String,
    /// What happened, why, and what to do next.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Machine-readable reason behind the code, e.g. `NoIdentityPolicyAllows`.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// Id of the request in the audit trail.
    #[prost(string, tag = "4")]
    pub request_id: String,
}

/// Server to agent: start what the grant names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StartOnNode {
    /// A [`crate::grant::SignedGrant`].
    #[prost(bytes = "bytes", tag = "1")]
    pub grant: bytes::Bytes,
    /// Terminal; absent for pipes. Not part of the grant: it gives no power.
    #[prost(message, optional, tag = "2")]
    pub pty: Option<Pty>,
    /// Environment by allow-list.
    #[prost(btree_map = "string, string", tag = "3")]
    pub environment: BTreeMap<String, String>,
}

/// Server to agent: let sshd accept the key that the grant names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyOnNode {
    /// A signed [`crate::grant::Grant`] whose action is a key.
    #[prost(bytes = "bytes", tag = "1")]
    pub grant: bytes::Bytes,
}

/// Server to agent: a signed [`crate::account::bundle::AccountBundle`] follows in `Input` frames. Answered once the node has
/// applied it, with an [`AccountReport`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountsOnNode {
    /// Bytes of the bundle, at most [`crate::account::bundle::MAX_BUNDLE_BYTES`] and the signature's.
    #[prost(uint32, tag = "1")]
    pub total: u32,
    /// Number of the newest change of this node's accounts that is in the server's trail; the node forgets them up to it.
    #[prost(uint64, tag = "2")]
    pub recorded: u64,
}

/// Most changes, and most problems, in one [`AccountReport`].
pub const MAX_ACCOUNT_LINES: usize = 128;

/// What became of a node's accounts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountReport {
    /// Version of the bundle that the node holds.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Whether the node manages accounts; if not it only holds their keys.
    #[prost(bool, tag = "2")]
    pub managed: bool,
    /// What the node did that is not yet in the server's trail, oldest first; at most [`MAX_ACCOUNT_LINES`].
    #[prost(message, repeated, tag = "3")]
    pub changes: Vec<AccountLine>,
    /// Accounts that are not as they should be; at most [`MAX_ACCOUNT_LINES`].
    #[prost(message, repeated, tag = "4")]
    pub problems: Vec<AccountLine>,
}

/// A change of an account, or what is wrong with one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountLine {
    /// Number of the change, rising on each node; 0 for a problem.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// When, microseconds since 1970 UTC by the node's clock.
    #[prost(int64, tag = "2")]
    pub at_micros: i64,
    /// The account.
    #[prost(string, tag = "3")]
    pub os_user: String,
    /// A word of [`crate::account::book`], for example `created` or `conflict`.
    #[prost(string, tag = "4")]
    pub what: String,
    /// For people; at most 200 bytes.
    #[prost(string, tag = "5")]
    pub detail: String,
}

/// Server to agent: whom the node's sshd may believe, and what its host key is called. Answered with [`Accepted`] once it
/// is on the node's disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SshTrustOnNode {
    /// A signed [`crate::ssh::node_trust::NodeSshTrust`].
    #[prost(bytes = "bytes", tag = "1")]
    pub document: bytes::Bytes,
}

/// Most logins in one [`Logins`].
pub const MAX_LOGINS: usize = 64;
/// Most reports on AWS's keys in one [`Logins`].
pub const MAX_AWS_KEYS: usize = 16;

/// Agent to server: logins that the node's sshd has let in. Answered with [`Accepted`] once they are in the trail.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Logins {
    /// At most [`MAX_LOGINS`], oldest first.
    #[prost(message, repeated, tag = "1")]
    pub logins: Vec<SshLogin>,
    /// Logins before these that the agent could not keep.
    #[prost(uint64, tag = "2")]
    pub missed: u64,
    /// What became of keys that AWS pushed, before these logins; at most [`MAX_AWS_KEYS`].
    #[prost(message, repeated, tag = "3")]
    pub aws_keys: Vec<AwsKeyReport>,
}

/// A key that AWS itself pushed to the EC2 instance that the node is: sshd was told it, or it was not good.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AwsKeyReport {
    /// When, microseconds since 1970 UTC by the node's clock.
    #[prost(int64, tag = "1")]
    pub read_micros: i64,
    /// The account.
    #[prost(string, tag = "2")]
    pub os_user: String,
    /// `SHA256:…` of the key that the client offered; empty if it offered none.
    #[prost(string, tag = "3")]
    pub fingerprint: String,
    /// ARN of who pushed it, as AWS signed it; empty if AWS does not say.
    #[prost(string, tag = "4")]
    pub caller: String,
    /// Id of the request that pushed it, as AWS signed it; empty if AWS does not say.
    #[prost(string, tag = "5")]
    pub request_id: String,
    /// Until when it is good, microseconds since 1970 UTC; 0 for one that is not good.
    #[prost(int64, tag = "6")]
    pub expires_micros: i64,
    /// Why it was not good: a code of [`crate::instance_connect::Distrust`]; empty if sshd was told it.
    #[prost(string, tag = "7")]
    pub reason: String,
}

/// A login that the node's sshd has let in, as [`crate::ssh::login::AcceptedLogin`] reads it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SshLogin {
    /// When the agent read it, microseconds since 1970 UTC by the node's clock.
    #[prost(int64, tag = "1")]
    pub read_micros: i64,
    /// The account.
    #[prost(string, tag = "2")]
    pub os_user: String,
    /// Where from.
    #[prost(string, tag = "3")]
    pub address: String,
    /// The port there.
    #[prost(uint32, tag = "4")]
    pub port: u32,
    /// `publickey`, `password` …
    #[prost(string, tag = "5")]
    pub method: String,
    /// sshd's word for the key's type; empty without a key.
    #[prost(string, tag = "6")]
    pub key_kind: String,
    /// `SHA256:…` of the key; empty without a key.
    #[prost(string, tag = "7")]
    pub fingerprint: String,
    /// `SHA256:…` of the authority that signed the certificate; empty without one.
    #[prost(string, tag = "8")]
    pub authority: String,
    /// sshd's process id; 0 if the log does not say.
    #[prost(uint32, tag = "9")]
    pub process_id: u32,
    /// Whether what was read came from sshd for certain: the journal says so, or the named process is sshd's.
    #[prost(bool, tag = "10")]
    pub attested: bool,
    /// The certificate's serial number; 0 without one.
    #[prost(uint64, tag = "11")]
    pub serial: u64,
    /// Whether sshd refused it: a certificate for an account that exists.
    #[prost(bool, tag = "12")]
    pub refused: bool,
    /// Why, if sshd said so: a code of [`crate::ssh::login_reason::SaidReason`]; empty otherwise. With
    /// `CertificateAltered` the key and what belongs to it are empty.
    #[prost(string, tag = "13")]
    pub reason: String,
    /// ARN of who pushed the key through AWS, if that let it in; empty otherwise.
    #[prost(string, tag = "14")]
    pub aws_caller: String,
    /// Id of the request that pushed it.
    #[prost(string, tag = "15")]
    pub aws_request_id: String,
}

/// Agent to server: a session that is still alive (or ended while the server was away) on the node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rejoin {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Input bytes taken so far.
    #[prost(uint64, tag = "2")]
    pub input_received: u64,
    /// Oldest output byte still held.
    #[prost(uint64, tag = "3")]
    pub output_from: u64,
    /// Output bytes so far.
    #[prost(uint64, tag = "4")]
    pub output_end: u64,
}

/// Server to agent: the session was recognised; go on behind what is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rejoined {
    /// All output before this offset is stored.
    #[prost(uint64, tag = "1")]
    pub output_stored: u64,
}

/// How the program ended. Exactly one of code and signal is set; neither when it is not known.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exit {
    /// Output bytes in all; the exit follows them.
    #[prost(uint64, tag = "1")]
    pub output_end: u64,
    /// Exit code.
    #[prost(int32, optional, tag = "2")]
    pub code: Option<i32>,
    /// Signal name without `SIG`, e.g. `TERM`.
    #[prost(string, optional, tag = "3")]
    pub signal: Option<String>,
    /// Whether a core was dumped.
    #[prost(bool, tag = "4")]
    pub core_dumped: bool,
    /// Why, when the program did not end by itself (e.g. "cgroup limit", "the privileged half died").
    #[prost(string, tag = "5")]
    pub detail: String,
}

/// The session has ended (to a client), or shall end (to an agent).
#[derive(Clone, PartialEq, prost::Message)]
pub struct End {
    /// [`crate::session::EndReason`] as text.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// For the person: what happened and what to do next.
    #[prost(string, tag = "2")]
    pub message: String,
    /// How the program ended, if it did.
    #[prost(message, optional, tag = "3")]
    pub exit: Option<Exit>,
}

/// A text for the person at the terminal, e.g. the warning before an idle timeout.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notice {
    /// One line.
    #[prost(string, tag = "1")]
    pub text: String,
}
