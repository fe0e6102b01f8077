//! Start grants: what one is, its canonical bytes, signing and verification (T-20 to T-24).
//!
//! A decision becomes a grant, signed by the server's grant key, that names one session, node, agent epoch, OS user
//! and exact action, once, for at most 30 seconds. The agent's privileged half believes nothing else.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use crate::endpoint::{Endpoint, MAX_ENDPOINTS, get_endpoints, put_endpoints};
use crate::id::{NodeId, SessionId};
use crate::ssh::PublicKey;
use crate::time::Timestamp;
use crate::trust::{KeyId, TrustBundle};
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// Keeps a grant's signature from passing for one of another purpose (T-21).
const CONTEXT: &[u8] = b"munjigi start grant v1\0";
/// Longest life of a grant (T-23).
pub const MAX_LIFE: Duration = Duration::from_secs(30);
/// How far an agent's clock may be off (T-103).
pub const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// How long after its expiry a used grant's id is remembered (T-24).
pub const REMEMBERED_AFTER_EXPIRY: Duration = Duration::from_secs(120);
/// Most arguments of a command.
pub const MAX_ARGUMENTS: usize = 1024;
/// Most bytes of a command's arguments together; leaves room in a 64 KiB frame.
pub const MAX_COMMAND_BYTES: usize = 32 * 1024;
/// Most bytes of a shell's profile: the 512 characters of a session document in UTF-8.
pub const MAX_PROFILE_BYTES: usize = 4 * 512;
/// Most variables that a session document gives a program.
pub const MAX_VARIABLES: usize = 64;
/// Grants that an agent remembers as used before it refuses new ones; at 100 starts a second this is over 2 minutes.
pub const MAX_REMEMBERED: usize = 65_536;

/// Longest life of a pushed key, in seconds.
pub const MAX_KEY_LIFE_SECS: u32 = 3600;
/// Most bytes of a pushed key; the largest that is taken, RSA with 4096 bits, has about 540.
const MAX_KEY_BYTES: usize = 2048;

/// A nonce of 256 bits that an agent makes at each start (T-24).
pub type Epoch = [u8; 32];

/// What the grant lets the node do. Other kinds are denied until they are added (T-55).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The OS user's login shell.
    Shell {
        /// Lines of the session document that are typed into the shell when it starts; empty for none. They can do
        /// whatever the user can, so they are part of what was allowed.
        profile: String,
    },
    /// Exactly this program with exactly these arguments; no shell in between (T-78).
    Command(Vec<String>),
    /// Exactly this text, run by the OS user's login shell with `-c`: what `ssh HOST COMMAND` asks for. The shell is what
    /// it is for (T-78), and only the node knows which one it is.
    ShellCommand(String),
    /// A session of connections to exactly these endpoints, at most [`MAX_ENDPOINTS`]. It has no terminal, and names an
    /// OS user if one of them needs it. Without endpoints every connection needs a grant of its own.
    Connect(Vec<Endpoint>),
    /// Connections of a session that runs already go to these endpoints too.
    Extend(Vec<Endpoint>),
    /// Nothing starts: sshd may let the OS user in with this key for a while.
    AuthorizedKey(AuthorizedKey),
}

/// A public key that sshd may accept for the grant's OS user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// The key.
    pub key: PublicKey,
    /// For how long from its arrival, in seconds; 1 to [`MAX_KEY_LIFE_SECS`].
    pub life_secs: u32,
    /// Whether one login uses it up.
    pub single_use: bool,
    /// Id of the request that brought it, for the node's log.
    pub request_id: String,
}

/// A start grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Random, 128 bits; used once.
    pub id: [u8; 16],
    /// The session that begins.
    pub session: SessionId,
    /// The only node that may start it.
    pub node: NodeId,
    /// The only run of that node's agent that may start it.
    pub epoch: Epoch,
    /// Who acts: the principal's ARN.
    pub subject: String,
    /// What the subject proved itself with: SHA-256 of its access key id and the request's id (T-23).
    pub client: [u8; 32],
    /// The exact OS user; empty where none is needed ([`Action::Connect`]).
    pub os_user: String,
    /// The exact action.
    pub action: Action,
    /// Variables that carry parameters of the session document (`SSM_…`) or facts of an SSH connection
    /// ([`SSH_VARIABLES`]) to the program: part of the exact action, as they may be what a command runs.
    pub variables: Vec<(String, String)>,
    /// Whether the program gets a terminal.
    pub pty: bool,
    /// Whether the agent holds output back until it is stored.
    pub strict_recording: bool,
    /// Whether the OS user may be a privileged one: root, a uid below 1000, or a member of an administrators' group.
    /// Only the node can tell who is, so the decision travels in the grant (T-54).
    pub privileged: bool,
    /// Version of the policies that decided.
    pub policy_version: u64,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity, at most [`MAX_LIFE`] after the start.
    pub expires: Timestamp,
}

/// Why a grant starts nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The bytes are no grant of this version.
    #[error("the grant is malformed: {0}")]
    Malformed(#[from] FieldError),
    /// No current grant key has this id.
    #[error("the grant is signed by a key that this node does not trust")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the grant's signature is wrong")]
    BadSignature,
    /// Not yet or no longer valid, or valid for too long.
    #[error("the grant is not valid at this time; if it keeps happening, compare the clocks of node and server")]
    NotNow,
    /// For another node.
    #[error("the grant names another node")]
    OtherNode,
    /// For another run of the agent.
    #[error("the grant names another run of this agent")]
    OtherEpoch,
    /// Used before.
    #[error("the grant was used before")]
    Replayed,
    /// The OS user's name is not one (T-22).
    #[error("the grant names no valid OS user")]
    BadUser,
    /// The command is empty or too long.
    #[error("the grant's command is empty or too long")]
    BadCommand,
    /// The shell's profile is too long or holds NUL bytes.
    #[error("the grant's shell profile is too long or holds NUL bytes")]
    BadProfile,
    /// The document's variables are not such variables, or too many.
    #[error("the grant's variables are not those of a session document, or too many")]
    BadVariables,
    /// Connections have no terminal, and their endpoints are few.
    #[error("the grant gives connections a terminal, or names no or too many endpoints")]
    BadConnect,
    /// The key or its life is not one that is taken.
    #[error("the grant's key is none that sshd may be given, or it lives too long")]
    BadKey,
    /// Too many grants in a short time.
    #[error("the node has used too many grants in a short time; try again in a minute")]
    TooMany,
}

/// Tells whether the name may be an OS user's: `[a-z_][a-z0-9_.-]{0,31}` (T-22).
pub fn valid_os_user(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.len() <= 32
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
}

/// Tells whether the command can be run as it stands: a program, bounded, without NUL bytes.
pub fn valid_command(command: &[String]) -> bool {
    command.first().is_some_and(|program| !program.is_empty())
        && command.len() <= MAX_ARGUMENTS
        && command.iter().map(|argument| argument.len() + 1).sum::<usize>() <= MAX_COMMAND_BYTES
        && !command.iter().any(|argument| argument.contains('\0'))
}

/// Tells whether lines may be typed into a shell at its start: bounded, without NUL bytes.
pub fn valid_profile(profile: &str) -> bool {
    profile.len() <= MAX_PROFILE_BYTES && !profile.contains('\0')
}

/// Variables that the SSH door gives a program, as sshd does (sshd(8), environ(7)).
pub const SSH_VARIABLES: [&str; 4] = [SSH_AUTH_SOCK, SSH_CLIENT, SSH_CONNECTION, SSH_ORIGINAL_COMMAND];
/// The socket where the client's agent answers.
pub const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";
/// Address and port of the client, and the port that it reached.
pub const SSH_CLIENT: &str = "SSH_CLIENT";
/// Address and port of the client, and those that it reached.
pub const SSH_CONNECTION: &str = "SSH_CONNECTION";
/// What was asked for where something else runs.
pub const SSH_ORIGINAL_COMMAND: &str = "SSH_ORIGINAL_COMMAND";

/// Tells whether these may be a program's variables: `SSM_` and the name of a session document's parameter each, or one of
/// [`SSH_VARIABLES`]; no NUL bytes in the values, and together with the command no more bytes than a command may have.
pub fn valid_variables(variables: &[(String, String)], command: &[String]) -> bool {
    let name = |name: &str| {
        name.strip_prefix("SSM_").is_some_and(|rest| {
            (1..=255).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }) || SSH_VARIABLES.contains(&name)
    };
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let beside: usize = command.iter().map(|argument| argument.len() + 1).sum();
    variables.len() <= MAX_VARIABLES
        && bytes + beside <= MAX_COMMAND_BYTES
        && variables.iter().all(|(key, value)| name(key) && !value.contains('\0'))
}

impl Grant {
    /// Signs the grant: its canonical bytes behind the key's id and the signature.
    pub fn sign(&self, key_id: KeyId, key: &Ed25519KeyPair) -> Vec<u8> {
        let body = self.body();
        let mut signed = FieldWriter::default();
        signed.bytes(&key_id.0).bytes(key.sign(&body).as_ref()).bytes(&body);
        signed.finish()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = FieldWriter::new(CONTEXT);
        body.bytes(&self.id)
            .text(self.session.as_str())
            .text(self.node.as_str())
            .bytes(&self.epoch)
            .text(&self.subject)
            .bytes(&self.client)
            .text(&self.os_user);
        match &self.action {
            Action::Shell { profile } => body.u8(1).text(profile),
            Action::Command(command) => body.u8(2).texts(command),
            Action::ShellCommand(text) => body.u8(5).text(text),
            Action::Connect(endpoints) => put_endpoints(endpoints, body.u8(3)),
            Action::Extend(endpoints) => put_endpoints(endpoints, body.u8(4)),
            Action::AuthorizedKey(pushed) => body
                .u8(8)
                .text(pushed.key.kind().as_str())
                .bytes(pushed.key.blob())
                .u64(u64::from(pushed.life_secs))
                .u8(u8::from(pushed.single_use))
                .text(&pushed.request_id),
        };
        let variables: Vec<&str> =
            self.variables.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
        body.texts(&variables);
        body.u8(u8::from(self.pty))
            .u8(u8::from(self.strict_recording))
            .u8(u8::from(self.privileged))
            .u64(self.policy_version)
            .i64(self.not_before.0)
            .i64(self.expires.0);
        body.finish()
    }

    fn read(body: &[u8]) -> Result<Self, GrantError> {
        let mut fields = FieldReader::new(body, CONTEXT)?;
        let flag = |byte: u8| match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FieldError::Unknown),
        };
        let grant = Self {
            id: fields.fixed()?,
            session: SessionId::parse(fields.text(96)?).map_err(|_| FieldError::Unknown)?,
            node: NodeId::parse(fields.text(32)?).map_err(|_| FieldError::Unknown)?,
            epoch: fields.fixed()?,
            subject: fields.text(2048)?.to_owned(),
            client: fields.fixed()?,
            os_user: fields.text(32)?.to_owned(),
            action: match fields.u8()? {
                1 => Action::Shell { profile: fields.text(MAX_PROFILE_BYTES)?.to_owned() },
                2 => Action::Command(fields.texts(MAX_ARGUMENTS, MAX_COMMAND_BYTES)?),
                3 => Action::Connect(get_endpoints(&mut fields)?),
                4 => Action::Extend(get_endpoints(&mut fields)?),
                5 => Action::ShellCommand(fields.text(MAX_COMMAND_BYTES)?.to_owned()),
                8 => Action::AuthorizedKey(AuthorizedKey {
                    key: PublicKey::from_parts(fields.text(64)?, fields.bytes(MAX_KEY_BYTES)?)
                        .map_err(|_| GrantError::BadKey)?,
                    life_secs: u32::try_from(fields.u64()?).map_err(|_| FieldError::Unknown)?,
                    single_use: flag(fields.u8()?)?,
                    request_id: fields.text(64)?.to_owned(),
                }),
                _ => return Err(FieldError::Unknown.into()),
            },
            variables: pairs(fields.texts(2 * MAX_VARIABLES, MAX_COMMAND_BYTES)?)?,
            pty: flag(fields.u8()?)?,
            strict_recording: flag(fields.u8()?)?,
            privileged: flag(fields.u8()?)?,
            policy_version: fields.u64()?,
            not_before: Timestamp(fields.i64()?),
            expires: Timestamp(fields.i64()?),
        };
        fields.end()?;
        Ok(grant)
    }
}

/// What an agent holds to judge grants: its own identity, what it trusts, and what was used already.
pub struct GrantJudge {
    node: NodeId,
    epoch: Epoch,
    trust: TrustBundle,
    used: BTreeMap<[u8; 16], Timestamp>,
}

impl GrantJudge {
    /// Builds the judge of one run of one agent.
    pub fn new(node: NodeId, epoch: Epoch, trust: TrustBundle) -> Self {
        Self { node, epoch, trust, used: BTreeMap::new() }
    }

    /// Takes a newer trust bundle; the caller has verified it against the pinned root.
    pub fn trust(&mut self, bundle: TrustBundle) {
        if bundle.version > self.trust.version {
            self.trust = bundle;
        }
    }

    /// Returns the keys that are believed.
    pub fn trusted(&self) -> &TrustBundle {
        &self.trust
    }

    /// Verifies a signed grant and marks it as used; only then may anything be started.
    pub fn admit(&mut self, signed: &[u8], now: Timestamp) -> Result<Grant, GrantError> {
        let mut fields = FieldReader::new(signed, b"")?;
        let key_id = KeyId(fields.fixed()?);
        let signature: [u8; 64] = fields.fixed()?;
        let body = fields.bytes(MAX_COMMAND_BYTES + MAX_ARGUMENTS * 4 + 4096)?;
        fields.end()?;
        let key = self.trust.grant_key(key_id, now).ok_or(GrantError::UnknownKey)?;
        UnparsedPublicKey::new(&ED25519, key).verify(body, &signature).map_err(|_| GrantError::BadSignature)?;
        let grant = Grant::read(body)?;
        // Freshness comes from the epoch; the time window only bounds how long a grant must be remembered (T-24, T-103).
        let life = grant.expires.since(grant.not_before);
        let earliest = grant.not_before.plus(Duration::ZERO).0.saturating_sub(skew_micros());
        let latest = grant.expires.0.saturating_add(skew_micros());
        if life.is_zero() || life > MAX_LIFE || now.0 < earliest || now.0 > latest {
            return Err(GrantError::NotNow);
        }
        if grant.node != self.node {
            return Err(GrantError::OtherNode);
        }
        if aws_lc_rs::constant_time::verify_slices_are_equal(&grant.epoch, &self.epoch).is_err() {
            return Err(GrantError::OtherEpoch);
        }
        let needs_user = match &grant.action {
            Action::Connect(endpoints) => endpoints.iter().any(Endpoint::needs_user) || !grant.os_user.is_empty(),
            Action::Extend(endpoints) if endpoints.is_empty() => return Err(GrantError::BadConnect),
            Action::Extend(endpoints) => endpoints.iter().any(Endpoint::needs_user) || !grant.os_user.is_empty(),
            _ => true,
        };
        if needs_user && !valid_os_user(&grant.os_user) {
            return Err(GrantError::BadUser);
        }
        let command: &[String] = match &grant.action {
            Action::Command(command) if !valid_command(command) => return Err(GrantError::BadCommand),
            Action::Shell { profile } if !valid_profile(profile) => return Err(GrantError::BadProfile),
            Action::Command(command) => command,
            Action::ShellCommand(text) if !valid_command(slice::from_ref(text)) => return Err(GrantError::BadCommand),
            Action::ShellCommand(text) => slice::from_ref(text),
            Action::Connect(endpoints) | Action::Extend(endpoints) if grant.pty || endpoints.len() > MAX_ENDPOINTS => {
                return Err(GrantError::BadConnect);
            }
            Action::Shell { .. } | Action::Connect(_) | Action::Extend(_) | Action::AuthorizedKey(_) => &[],
        };
        if !valid_variables(&grant.variables, command) {
            return Err(GrantError::BadVariables);
        }
        let key_life = 1..=MAX_KEY_LIFE_SECS;
        if matches!(&grant.action, Action::AuthorizedKey(pushed) if !key_life.contains(&pushed.life_secs)) {
            return Err(GrantError::BadKey);
        }
        self.remember(&grant, now)?;
        Ok(grant)
    }

    fn remember(&mut self, grant: &Grant, now: Timestamp) -> Result<(), GrantError> {
        if self.used.contains_key(&grant.id) {
            return Err(GrantError::Replayed);
        }
        if self.used.len() >= MAX_REMEMBERED {
            self.used.retain(|_, until| *until >= now);
            if self.used.len() >= MAX_REMEMBERED {
                return Err(GrantError::TooMany);
            }
        }
        self.used.insert(grant.id, grant.expires.plus(CLOCK_SKEW).plus(REMEMBERED_AFTER_EXPIRY));
        Ok(())
    }
}

fn pairs(flat: Vec<String>) -> Result<Vec<(String, String)>, FieldError> {
    let mut flat = flat.into_iter();
    let mut pairs = Vec::new();
    while let Some(name) = flat.next() {
        pairs.push((name, flat.next().ok_or(FieldError::Short)?));
    }
    Ok(pairs)
}

fn skew_micros() -> i64 {
    i64::try_from(CLOCK_SKEW.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{KeyPurpose, TrustedKey};
    use aws_lc_rs::signature::KeyPair;

    const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn bundle(seed: u8, purpose: KeyPurpose) -> TrustBundle {
        let public: [u8; 32] = key(seed).public_key().as_ref().try_into().unwrap();
        let trusted = TrustedKey {
            id: KeyId::of(&public),
            purpose,
            public,
            not_before: Timestamp(0),
            not_after: Timestamp(i64::MAX),
        };
        TrustBundle { version: 1, keys: vec![trusted] }
    }

    fn grant() -> Grant {
        Grant {
            id: [1; 16],
            session: SessionId::parse("alice-0123456789abcdef0").unwrap(),
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            epoch: [9; 32],
            subject: "arn:aws:iam::123456789012:user/alice".into(),
            client: [3; 32],
            os_user: "alice".into(),
            action: Action::Command(vec!["echo".into(), "안녕".into()]),
            variables: vec![("SSM_name".into(), "값 $(id)".into())],
            pty: true,
            strict_recording: false,
            privileged: false,
            policy_version: 4,
            not_before: NOW,
            expires: NOW.plus(MAX_LIFE),
        }
    }

    fn judge() -> GrantJudge {
        GrantJudge::new(NodeId::parse("mi-0123456789abcdef0").unwrap(), [9; 32], bundle(7, KeyPurpose::Grant))
    }

    fn signed(grant: &Grant) -> Vec<u8> {
        let key = key(7);
        grant.sign(KeyId::of(key.public_key().as_ref()), &key)
    }

    #[test]
    fn a_good_grant_is_admitted_once() {
        let mut judge = judge();
        let bytes = signed(&grant());
        assert_eq!(judge.admit(&bytes, NOW), Ok(grant()));
        assert_eq!(judge.admit(&bytes, NOW), Err(GrantError::Replayed));
    }

    #[test]
    fn a_grant_for_connections_names_a_user_only_where_one_is_needed() {
        let endpoints = |texts: &[&str]| texts.iter().map(|text| text.parse::<Endpoint>().unwrap()).collect::<Vec<_>>();
        let of = |action: Action, os_user: &str, pty: bool| Grant { action, os_user: os_user.into(), pty, ..grant() };
        let (tcp, unix) = (endpoints(&["db.internal:5432", ":22"]), endpoints(&[":22", "unix:/run/x.sock"]));
        for (granted, expected) in [
            (of(Action::Connect(tcp.clone()), "", false), None),
            (of(Action::Connect(Vec::new()), "", false), None),
            (of(Action::Connect(unix.clone()), "alice", false), None),
            (of(Action::Extend(tcp.clone()), "", false), None),
            (of(Action::Extend(unix.clone()), "alice", false), None),
            (of(Action::Extend(unix.clone()), "", false), Some(GrantError::BadUser)),
            (of(Action::Connect(unix), "", false), Some(GrantError::BadUser)),
            (of(Action::Connect(tcp.clone()), "Root", false), Some(GrantError::BadUser)),
            (of(Action::Connect(tcp.clone()), "", true), Some(GrantError::BadConnect)),
            (of(Action::Extend(Vec::new()), "", false), Some(GrantError::BadConnect)),
            (
                of(Action::Extend(vec![tcp[0].clone(); MAX_ENDPOINTS + 1]), "", false),
                Some(GrantError::Malformed(FieldError::Unknown)),
            ),
            // A shell or command always names its user.
            (of(grant().action, "", true), Some(GrantError::BadUser)),
        ] {
            let verdict = judge().admit(&signed(&granted), NOW);
            match expected {
                None => assert_eq!(verdict, Ok(granted)),
                Some(error) => assert_eq!(verdict, Err(error), "{granted:?}"),
            }
        }
    }

    #[test]
    fn a_pushed_key_travels_whole_and_only_for_a_bounded_time() {
        let key = PublicKey::parse("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f");
        let pushed = |life_secs| Grant {
            action: Action::AuthorizedKey(AuthorizedKey {
                key: key.clone().unwrap(),
                life_secs,
                single_use: true,
                request_id: "a-b".into(),
            }),
            ..grant()
        };
        assert_eq!(judge().admit(&signed(&pushed(60)), NOW), Ok(pushed(60)));
        for life in [0, MAX_KEY_LIFE_SECS + 1] {
            assert_eq!(judge().admit(&signed(&pushed(life)), NOW), Err(GrantError::BadKey));
        }
    }

    #[test]
    fn each_wrong_field_has_its_own_refusal() {
        type Change = fn(&mut Grant);
        let cases: [(Change, GrantError); 17] = [
            (|g| g.node = NodeId::parse("mi-0123456789abcdef1").unwrap(), GrantError::OtherNode),
            (|g| g.epoch = [8; 32], GrantError::OtherEpoch),
            (|g| g.os_user = "Root".into(), GrantError::BadUser),
            (|g| g.os_user = "a\0".into(), GrantError::BadUser),
            (|g| g.action = Action::Command(vec![]), GrantError::BadCommand),
            (|g| g.action = Action::Command(vec!["a\0b".into()]), GrantError::BadCommand),
            (|g| g.action = Action::ShellCommand(String::new()), GrantError::BadCommand),
            (|g| g.action = Action::ShellCommand("a\0b".into()), GrantError::BadCommand),
            (|g| g.action = Action::Shell { profile: "a\0b".into() }, GrantError::BadProfile),
            (|g| g.variables[0].0 = "PATH".into(), GrantError::BadVariables),
            (|g| g.variables[0].0 = "SSM_a=b".into(), GrantError::BadVariables),
            (|g| g.variables[0].0 = "SSH_TTY".into(), GrantError::BadVariables),
            (|g| g.variables[0].1 = "a\0b".into(), GrantError::BadVariables),
            (|g| g.variables[0].1 = "a".repeat(MAX_COMMAND_BYTES - 20), GrantError::BadVariables),
            (|g| g.expires = g.not_before.plus(Duration::from_secs(31)), GrantError::NotNow),
            (|g| g.expires = g.not_before, GrantError::NotNow),
            (
                |g| {
                    g.not_before = Timestamp::from_secs(NOW.as_secs() - 3600);
                    g.expires = Timestamp::from_secs(NOW.as_secs() - 3580);
                },
                GrantError::NotNow,
            ),
        ];
        for (change, expected) in cases {
            let mut wrong = grant();
            change(&mut wrong);
            assert_eq!(judge().admit(&signed(&wrong), NOW), Err(expected));
        }
    }

    #[test]
    fn another_key_or_a_key_of_another_purpose_signs_nothing() {
        let stranger = key(8);
        let bytes = grant().sign(KeyId::of(stranger.public_key().as_ref()), &stranger);
        assert_eq!(judge().admit(&bytes, NOW), Err(GrantError::UnknownKey));
        let borrowed_id = grant().sign(KeyId::of(key(7).public_key().as_ref()), &stranger);
        assert_eq!(judge().admit(&borrowed_id, NOW), Err(GrantError::BadSignature));
        let mut checkpoint_only = GrantJudge::new(grant().node, [9; 32], bundle(7, KeyPurpose::Checkpoint));
        assert_eq!(checkpoint_only.admit(&signed(&grant()), NOW), Err(GrantError::UnknownKey));
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let bytes = signed(&grant());
        for at in 0..bytes.len() {
            for flip in [1_u8, 0x80] {
                let mut altered = bytes.clone();
                altered[at] ^= flip;
                assert!(judge().admit(&altered, NOW).is_err(), "byte {at}");
            }
        }
        for cut in 0..bytes.len() {
            assert!(judge().admit(&bytes[..cut], NOW).is_err());
        }
    }

    #[test]
    fn a_profile_is_part_of_what_was_allowed() {
        let shell = Grant { action: Action::Shell { profile: "cd /srv\n한글".into() }, ..grant() };
        assert_eq!(judge().admit(&signed(&shell), NOW), Ok(shell));
    }

    #[test]
    fn a_shells_command_and_what_it_is_told_of_its_connection_are_part_of_what_was_allowed() {
        let variables = SSH_VARIABLES.map(|name| (name.to_owned(), "값 $(id)".to_owned()));
        let action = Action::ShellCommand("echo 한글; exit 3".into());
        let shell = Grant { action, variables: variables.into(), ..grant() };
        assert_eq!(judge().admit(&signed(&shell), NOW), Ok(shell));
    }

    #[test]
    fn os_user_names_are_those_of_useradd() {
        for good in ["root", "_apt", "a.b-c_9", &"a".repeat(32)] {
            assert!(valid_os_user(good), "{good}");
        }
        for bad in ["", "1a", "A", "a b", "a:b", "../a", "a\n", "앨", &"a".repeat(33)] {
            assert!(!valid_os_user(bad), "{bad:?}");
        }
    }
}
