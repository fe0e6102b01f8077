//! The first words of a link: what the dialling side says of itself and what the server answers.
//!
//! Both travel as protobuf in base64url (without padding) inside one HTTP header of the WebSocket upgrade, so that
//! they cost no round trip of their own. This file knows their layout and bounds; who is allowed to connect is
//! decided by whoever verified the signature over that header.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::id::{NodeId, SessionId};

/// The lowest protocol version this build speaks.
pub const VERSION_MIN: u32 = 1;
/// The highest protocol version this build speaks.
pub const VERSION_MAX: u32 = 1;
/// Largest encoded hello in bytes. In base64 it is 10.7 KiB, which fits the header block of 16 KiB (T-93) beside the
/// signature.
pub const MAX_HELLO_BYTES: usize = 8 * 1024;

/// Longest software or agent version text in bytes.
const MAX_VERSION_BYTES: usize = 64;
/// Longest host name in bytes (RFC 1035 allows 253; the rest is for odd local names).
const MAX_HOSTNAME_BYTES: usize = 255;
/// Longest operating system name, version or architecture in bytes.
const MAX_PLATFORM_BYTES: usize = 64;
/// Most sessions one node may report as alive.
const MAX_SESSIONS: usize = 64;
/// Most names one node may ask to be known by, and the longest of them in bytes.
const MAX_NAMES: usize = 8;
const MAX_NAME_BYTES: usize = 128;
/// Longest OS user name in bytes (T-22).
const MAX_OS_USER_BYTES: usize = 32;
/// Longest line of a host key in bytes; RSA with 4096 bits has 740.
const MAX_HOST_KEY_BYTES: usize = 1024;
/// Length of a node's epoch in bytes: random, made at each start of the agent.
const EPOCH_BYTES: usize = 32;
/// The server's ping interval must lie in this range, seconds.
const PING_INTERVAL_SECS: std::ops::RangeInclusive<u32> = 1..=60;

/// What the dialling side says of itself.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Hello {
    /// Lowest protocol version the sender speaks.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Highest protocol version the sender speaks.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// Program and version, e.g. `munjigi/0.1.0`; for logs only.
    #[prost(string, tag = "3")]
    pub software: String,
    /// Whether a client or an agent dials.
    #[prost(enumeration = "Role", tag = "4")]
    pub role: i32,
    /// Present exactly when an agent dials.
    #[prost(message, optional, tag = "5")]
    pub node: Option<NodeHello>,
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Role {
    /// Not said; refused.
    Unspecified = 0,
    /// A person's or a program's client.
    Client = 1,
    /// The agent of a node.
    Agent = 2,
}

/// What an agent says of its node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NodeHello {
    /// The node's id, `mi-…`.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// 32 random bytes made at each start of the agent's privileged half; grants name them.
    #[prost(bytes = "vec", tag = "2")]
    pub epoch: Vec<u8>,
    /// The host's own name.
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// Operating system and processor.
    #[prost(message, optional, tag = "4")]
    pub platform: Option<Platform>,
    /// The agent's version.
    #[prost(string, tag = "5")]
    pub agent_version: String,
    /// Ids of the sessions that are alive on the node, so that a restarted server takes them back.
    #[prost(string, repeated, tag = "6")]
    pub sessions: Vec<String>,
    /// Names the node would like to be found by, besides its host name.
    #[prost(string, repeated, tag = "7")]
    pub names: Vec<String>,
    /// The only OS user that an unprivileged agent can serve; empty when the agent can start programs as anybody.
    #[prost(string, tag = "8")]
    pub only_user: String,
    /// The public host key of the node's own sshd, one line as in an `.pub` file; empty if there is none.
    #[prost(string, tag = "9")]
    pub ssh_host_key: String,
}

/// The operating system and processor of a node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Platform {
    /// E.g. `Debian GNU/Linux`.
    #[prost(string, tag = "1")]
    pub os_name: String,
    /// E.g. `12`.
    #[prost(string, tag = "2")]
    pub os_version: String,
    /// E.g. `x86_64`.
    #[prost(string, tag = "3")]
    pub arch: String,
}

/// What the server answers in its 101.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ServerHello {
    /// The protocol version chosen: the highest that both speak.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Program and version of the server; for logs only.
    #[prost(string, tag = "2")]
    pub software: String,
    /// The server's clock, microseconds since 1970 UTC; a peer that differs much says so.
    #[prost(int64, tag = "3")]
    pub server_time_micros: i64,
    /// After so many seconds without a byte from the peer each end sends a ping; 1 to 60.
    #[prost(uint32, tag = "4")]
    pub ping_interval_secs: u32,
    /// The public keys that grants are signed with, as the agent's privileged half stores them; empty for clients.
    #[prost(bytes = "vec", tag = "5")]
    pub trust_bundle: Vec<u8>,
}

/// Why a hello was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The header's value is not base64url without padding.
    #[error("the hello is not base64url without padding")]
    NotBase64,
    /// More than [`MAX_HELLO_BYTES`].
    #[error("the hello has {bytes} bytes, more than the allowed {MAX_HELLO_BYTES}")]
    TooLong {
        /// Its encoded length.
        bytes: usize,
    },
    /// The bytes are not a protobuf message of this layout.
    #[error("the hello is not a message of this protocol")]
    Malformed,
    /// Lowest above highest, or zero.
    #[error("the hello names the impossible version range {min} to {max}")]
    VersionRange {
        /// Its lowest version.
        min: u32,
        /// Its highest version.
        max: u32,
    },
    /// Both ends speak, but nothing in common (T-111): there is no silent fallback.
    #[error(
        "the peer speaks link versions {min} to {max}, this server {VERSION_MIN} to {VERSION_MAX}: install a matching \
         munjigi"
    )]
    NoCommonVersion {
        /// The peer's lowest version.
        min: u32,
        /// The peer's highest version.
        max: u32,
    },
    /// A field is longer than its bound, or a list has too many entries.
    #[error("field `{field}` of the hello exceeds its bound of {bound}")]
    FieldTooLong {
        /// The field's name.
        field: &'static str,
        /// Bytes, or entries of a list.
        bound: usize,
    },
    /// A field holds what it must not.
    #[error("field `{field}` of the hello is not {expected}")]
    FieldInvalid {
        /// The field's name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl Hello {
    /// Encodes for the header. The result is ASCII; errors are those of [`Hello::validate`].
    pub fn to_header(&self) -> Result<String, HelloError> {
        self.validate()?;
        to_header(self)
    }

    /// Decodes and validates the header's value.
    pub fn from_header(value: &[u8]) -> Result<Self, HelloError> {
        let hello: Self = from_header(value)?;
        hello.validate()?;
        Ok(hello)
    }

    /// Checks ranges, lengths and that node facts come with an agent and only with an agent.
    pub fn validate(&self) -> Result<(), HelloError> {
        if self.version_min == 0 || self.version_min > self.version_max {
            return Err(HelloError::VersionRange { min: self.version_min, max: self.version_max });
        }
        check_text("software", &self.software, MAX_VERSION_BYTES)?;
        match (Role::try_from(self.role), &self.node) {
            (Ok(Role::Client), None) => Ok(()),
            (Ok(Role::Agent), Some(node)) => node.validate(),
            (Ok(Role::Client), Some(_)) => {
                Err(HelloError::FieldInvalid { field: "node", expected: "absent for a client" })
            }
            (Ok(Role::Agent), None) => {
                Err(HelloError::FieldInvalid { field: "node", expected: "present for an agent" })
            }
            (Ok(Role::Unspecified) | Err(_), _) => {
                Err(HelloError::FieldInvalid { field: "role", expected: "client or agent" })
            }
        }
    }

    /// Returns the highest version both ends speak.
    pub fn negotiate(&self) -> Result<u32, HelloError> {
        let version = self.version_max.min(VERSION_MAX);
        if version < self.version_min.max(VERSION_MIN) {
            return Err(HelloError::NoCommonVersion { min: self.version_min, max: self.version_max });
        }
        Ok(version)
    }
}

impl NodeHello {
    /// Lists the sessions alive on the node, as many as the bound allows. The list is a hint for the server; each
    /// session, listed or not, rejoins by a stream of its own.
    pub fn report_sessions(&mut self, alive: impl IntoIterator<Item = SessionId>) {
        self.sessions = alive.into_iter().take(MAX_SESSIONS).map(|id| id.to_string()).collect();
    }

    fn validate(&self) -> Result<(), HelloError> {
        if NodeId::parse(&self.node_id).is_err() {
            return Err(HelloError::FieldInvalid { field: "node_id", expected: "a node id" });
        }
        if self.epoch.len() != EPOCH_BYTES {
            return Err(HelloError::FieldInvalid { field: "epoch", expected: "32 bytes" });
        }
        check_text("hostname", &self.hostname, MAX_HOSTNAME_BYTES)?;
        check_text("agent_version", &self.agent_version, MAX_VERSION_BYTES)?;
        if let Some(platform) = &self.platform {
            check_text("os_name", &platform.os_name, MAX_PLATFORM_BYTES)?;
            check_text("os_version", &platform.os_version, MAX_PLATFORM_BYTES)?;
            check_text("arch", &platform.arch, MAX_PLATFORM_BYTES)?;
        }
        if self.sessions.len() > MAX_SESSIONS {
            return Err(HelloError::FieldTooLong { field: "sessions", bound: MAX_SESSIONS });
        }
        if self.sessions.iter().any(|id| SessionId::parse(id).is_err()) {
            return Err(HelloError::FieldInvalid { field: "sessions", expected: "a list of session ids" });
        }
        if self.names.len() > MAX_NAMES {
            return Err(HelloError::FieldTooLong { field: "names", bound: MAX_NAMES });
        }
        check_text("ssh_host_key", &self.ssh_host_key, MAX_HOST_KEY_BYTES)?;
        check_text("only_user", &self.only_user, MAX_OS_USER_BYTES)?;
        self.names.iter().try_for_each(|name| check_text("names", name, MAX_NAME_BYTES))
    }
}

impl ServerHello {
    /// Encodes for the answer's header.
    pub fn to_header(&self) -> Result<String, HelloError> {
        self.validate()?;
        to_header(self)
    }

    /// Decodes and validates the answer's header.
    pub fn from_header(value: &[u8]) -> Result<Self, HelloError> {
        let hello: Self = from_header(value)?;
        hello.validate()?;
        Ok(hello)
    }

    /// Checks ranges and lengths, and that the chosen version is one this build speaks.
    pub fn validate(&self) -> Result<(), HelloError> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&self.version) {
            return Err(HelloError::NoCommonVersion { min: self.version, max: self.version });
        }
        check_text("software", &self.software, MAX_VERSION_BYTES)?;
        if !PING_INTERVAL_SECS.contains(&self.ping_interval_secs) {
            return Err(HelloError::FieldInvalid { field: "ping_interval_secs", expected: "1 to 60" });
        }
        Ok(())
    }
}

/// Keeps a node's signature over a link request from passing for one of another purpose (T-21).
const NODE_LINK_CONTEXT: &[u8] = b"munjigi node link v1\0";

/// Returns the bytes that a node signs to prove itself on one TLS session: context, the session's exporter value, and
/// the SHA-256 of the hello header, so that neither can be used with another.
pub fn node_link_message(binding: &[u8; 32], hello_header: &str) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, hello_header.as_bytes());
    [NODE_LINK_CONTEXT, binding, digest.as_ref()].concat()
}

/// Bounds a text and keeps control characters out of logs and terminals (T-57).
fn check_text(field: &'static str, text: &str, bound: usize) -> Result<(), HelloError> {
    if text.len() > bound {
        return Err(HelloError::FieldTooLong { field, bound });
    }
    if text.chars().any(char::is_control) {
        return Err(HelloError::FieldInvalid { field, expected: "text without control characters" });
    }
    Ok(())
}

fn to_header(message: &impl prost::Message) -> Result<String, HelloError> {
    let bytes = message.encoded_len();
    if bytes > MAX_HELLO_BYTES {
        return Err(HelloError::TooLong { bytes });
    }
    Ok(URL_SAFE_NO_PAD.encode(message.encode_to_vec()))
}

fn from_header<M: prost::Message + Default>(value: &[u8]) -> Result<M, HelloError> {
    // Checked before anything is allocated (T-93).
    let bytes = value.len() / 4 * 3 + value.len() % 4;
    if bytes > MAX_HELLO_BYTES + 3 {
        return Err(HelloError::TooLong { bytes });
    }
    let decoded = URL_SAFE_NO_PAD.decode(value).map_err(|_| HelloError::NotBase64)?;
    if decoded.len() > MAX_HELLO_BYTES {
        return Err(HelloError::TooLong { bytes: decoded.len() });
    }
    M::decode(decoded.as_slice()).map_err(|_| HelloError::Malformed)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn agent() -> Hello {
        Hello {
            version_min: 1,
            version_max: 3,
            software: "munjigi/0.1.0".into(),
            role: Role::Agent.into(),
            node: Some(NodeHello {
                node_id: "mi-0123456789abcdef0".into(),
                epoch: vec![7; 32],
                hostname: "웹-1".into(),
                platform: Some(Platform {
                    os_name: "Debian GNU/Linux".into(),
                    os_version: "12".into(),
                    arch: "x86_64".into(),
                }),
                agent_version: "0.1.0".into(),
                sessions: vec!["alice-0123456789abcdef0".into()],
                names: vec!["web-1".into()],
                only_user: "alice".into(),
                ssh_host_key: "ssh-ed25519 AAAA".into(),
            }),
        }
    }

    fn server() -> ServerHello {
        ServerHello {
            version: 1,
            software: "munjigi/0.1.0".into(),
            server_time_micros: 1_790_000_000_000_000,
            ping_interval_secs: 10,
            trust_bundle: vec![9; 64],
        }
    }

    #[test]
    fn hellos_survive_the_header() {
        let hello = agent();
        assert_eq!(Hello::from_header(hello.to_header().unwrap().as_bytes()), Ok(hello));
        let client = Hello { role: Role::Client.into(), node: None, ..agent() };
        assert_eq!(Hello::from_header(client.to_header().unwrap().as_bytes()), Ok(client));
        assert_eq!(ServerHello::from_header(server().to_header().unwrap().as_bytes()), Ok(server()));
    }

    #[test]
    fn the_fullest_hello_fits_and_more_sessions_than_fit_are_left_out() {
        let mut hello = agent();
        let longest = SessionId::parse(&format!("{}-0123456789abcdef0", "a".repeat(78))).unwrap();
        let node = hello.node.as_mut().unwrap();
        node.report_sessions(vec![longest; 200]);
        assert_eq!(node.sessions.len(), 64);
        node.hostname = "x".repeat(255);
        node.agent_version = "x".repeat(64);
        node.names = vec!["x".repeat(128); 8];
        node.only_user = "x".repeat(32);
        let platform = node.platform.as_mut().unwrap();
        for text in [&mut platform.os_name, &mut platform.os_version, &mut platform.arch] {
            *text = "x".repeat(64);
        }
        hello.software = "x".repeat(64);
        assert!(hello.to_header().is_ok_and(|header| header.len() < 11_000));
    }

    #[test]
    fn the_layout_on_the_wire_does_not_change() {
        let client =
            Hello { version_min: 1, version_max: 1, software: "m".into(), role: Role::Client.into(), node: None };
        assert_eq!(client.to_header().unwrap(), "CAEQARoBbSAB");
    }

    #[test]
    fn highest_common_version_is_chosen_and_no_overlap_is_refused() {
        for (min, max, chosen) in [(1, 1, Some(1)), (1, 9, Some(1)), (2, 9, None), (9, 9, None)] {
            let hello = Hello { version_min: min, version_max: max, ..agent() };
            assert_eq!(hello.negotiate().ok(), chosen, "{min} to {max}");
        }
        let message = Hello { version_min: 2, version_max: 3, ..agent() }.negotiate().unwrap_err().to_string();
        assert!(message.contains("versions 2 to 3, this server 1 to 1"), "{message}");
    }

    #[test]
    fn every_bound_is_checked_and_named() {
        type Spoil = fn(&mut Hello);
        fn node(hello: &mut Hello) -> &mut NodeHello {
            hello.node.as_mut().unwrap()
        }
        let cases: [(Spoil, &str); 16] = [
            (|h| h.version_min = 0, "version range"),
            (|h| h.version_min = 4, "version range"),
            (|h| h.software = "x".repeat(65), "software"),
            (|h| h.software = "a\nb".into(), "software"),
            (|h| h.role = 0, "role"),
            (|h| h.role = 77, "role"),
            (|h| h.role = Role::Client.into(), "node"),
            (|h| h.node = None, "node"),
            (|h| node(h).node_id = "mi-1".into(), "node_id"),
            (|h| node(h).epoch = vec![1; 31], "epoch"),
            (|h| node(h).hostname = "x".repeat(256), "hostname"),
            (|h| node(h).agent_version = "x".repeat(65), "agent_version"),
            (|h| node(h).platform.as_mut().unwrap().arch = "\u{1b}[2J".into(), "arch"),
            (|h| node(h).sessions = vec!["nope".into()], "sessions"),
            (|h| node(h).sessions = vec!["a-0123456789abcdef0".into(); 65], "sessions"),
            (|h| node(h).names = vec!["n".into(); 9], "names"),
        ];
        for (spoil, word) in cases {
            let mut hello = agent();
            spoil(&mut hello);
            let error = hello.validate().unwrap_err().to_string();
            assert!(error.contains(word), "{error} should name {word}");
            let raw = URL_SAFE_NO_PAD.encode(hello.encode_to_vec());
            assert!(Hello::from_header(raw.as_bytes()).is_err());
        }
        let late = ServerHello { ping_interval_secs: 0, ..server() };
        assert!(late.validate().is_err());
        let huge = ServerHello { trust_bundle: vec![0; MAX_HELLO_BYTES], ..server() };
        assert!(matches!(huge.to_header(), Err(HelloError::TooLong { .. })));
        assert_eq!(Hello::from_header(b"!!"), Err(HelloError::NotBase64));
        assert!(matches!(Hello::from_header(&vec![b'A'; 64 * 1024]), Err(HelloError::TooLong { .. })));
    }

    #[test]
    fn mutated_hellos_never_panic_and_what_is_accepted_is_valid() {
        let seeds = [agent().to_header().unwrap(), server().to_header().unwrap()];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut accepted = 0u32;
        for case in 0..(1u32 << 18) {
            // Half of the cases mutate the message, half the text of the header.
            let text = seeds[case as usize % 2].as_bytes();
            let mut bytes = if case & 2 == 0 { URL_SAFE_NO_PAD.decode(text).unwrap() } else { text.to_vec() };
            for _ in 0..=(next() % 3) {
                let at = (next() as usize) % bytes.len();
                match next() % 4 {
                    0 => bytes[at] = next() as u8,
                    1 => bytes[at] ^= 1 << (next() % 8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, next() as u8),
                }
            }
            let header = if case & 2 == 0 { URL_SAFE_NO_PAD.encode(&bytes).into_bytes() } else { bytes };
            if let Ok(hello) = Hello::from_header(&header) {
                assert!(hello.validate().is_ok());
                accepted += 1;
            }
            if let Ok(hello) = ServerHello::from_header(&header) {
                assert!(hello.validate().is_ok());
            }
        }
        assert!(accepted > 0, "the mutations should leave some hellos valid");
    }
}
