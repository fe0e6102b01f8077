//! The greeting: the server's first packet.

use super::capability::{self, LOGIN, MYSQL, PASSED};
use super::field::Fields;
use super::login::{LoginError, NATIVE_PASSWORD};

/// Longest name of a version that is taken, in bytes.
const MAX_VERSION: usize = 255;
/// Length of the challenge of all ways to prove a password that are spoken here, in bytes.
pub(super) const SALT_BYTES: usize = 20;
const FIRST_SALT: usize = 8;

/// A server's greeting, protocol version 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its version, as text for people and for clients that look at it.
    pub version: Vec<u8>,
    /// Its number for the connection; `KILL` names it.
    pub connection: u32,
    /// What it offers (see [`capability`]).
    pub capabilities: u64,
    /// Its character set, as a number of the server's.
    pub charset: u8,
    /// State of its session.
    pub status: u16,
    /// The challenge.
    pub salt: [u8; SALT_BYTES],
    /// How it would have the password proved.
    pub plugin: String,
}

impl Greeting {
    /// Reads a greeting. The server's refusal of the connection comes as [`LoginError::Refused`].
    pub fn read(payload: &[u8]) -> Result<Self, LoginError> {
        match payload.first() {
            Some(10) => Self::fields(payload).ok_or(LoginError::Malformed("greeting"))?.checked(),
            Some(0xff) => Err(LoginError::refused(payload)),
            _ => Err(LoginError::Malformed("greeting")),
        }
    }

    fn fields(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(payload.get(1..)?);
        let version = fields.until_nul().filter(|version| version.len() <= MAX_VERSION)?.to_vec();
        let connection = fields.u32()?;
        let first_salt = fields.bytes(FIRST_SALT)?;
        fields.u8()?;
        let low = fields.u16()?;
        let charset = fields.u8()?;
        let status = fields.u16()?;
        let high = fields.u16()?;
        let mut capabilities = u64::from(low) | u64::from(high) << 16;
        let salt_length = usize::from(fields.u8()?);
        fields.bytes(6)?;
        let of_mariadb = fields.u32()?;
        if capabilities & MYSQL == 0 {
            capabilities |= u64::from(of_mariadb) << 32;
        }
        // At least 13 bytes stand there, the last of which is a NUL.
        let second_salt = fields.bytes(salt_length.saturating_sub(FIRST_SALT).max(13))?;
        let mut salt = [0; SALT_BYTES];
        for (place, byte) in salt.iter_mut().zip(first_salt.iter().chain(second_salt)) {
            *place = *byte;
        }
        let plugin = String::from_utf8_lossy(fields.until_nul_or_end()).into_owned();
        Some(Self { version, connection, capabilities, charset, status, salt, plugin })
    }

    fn checked(self) -> Result<Self, LoginError> {
        if self.capabilities & LOGIN == LOGIN { Ok(self) } else { Err(LoginError::TooOld) }
    }

    /// Returns the greeting for the person's client: with a challenge of our own, which nobody looks at, and without
    /// what is not let through. `local_files` allows `LOAD DATA LOCAL`; `tls` offers TLS.
    pub fn for_client(&self, salt: [u8; SALT_BYTES], local_files: bool, tls: bool) -> Self {
        let mut capabilities = self.capabilities & PASSED;
        // The client may name a database and say what it is, whatever the server knows.
        capabilities |= capability::CONNECT_WITH_DB | capability::CONNECT_ATTRS | capability::PLUGIN_AUTH_LENENC;
        if !local_files {
            capabilities &= !capability::LOCAL_FILES;
        }
        if tls {
            capabilities |= capability::SSL;
        }
        // Zero ends texts, so it is no byte of a challenge.
        let salt = salt.map(|byte| byte.max(1));
        Self { capabilities, salt, plugin: NATIVE_PASSWORD.to_owned(), ..self.clone() }
    }

    /// Returns the packet's payload.
    pub fn write(&self) -> Vec<u8> {
        let [a, b, c, d, e, f, g, h] = self.capabilities.to_le_bytes();
        let (first, second) = self.salt.split_at(FIRST_SALT);
        let mut out = vec![10];
        out.extend_from_slice(&self.version);
        out.push(0);
        out.extend_from_slice(&self.connection.to_le_bytes());
        out.extend_from_slice(first);
        out.extend_from_slice(&[0, a, b, self.charset]);
        out.extend_from_slice(&self.status.to_le_bytes());
        // The length of the challenge counts the NUL behind it.
        out.extend_from_slice(&[c, d, 21, 0, 0, 0, 0, 0, 0]);
        out.extend(if self.capabilities & MYSQL == 0 { [e, f, g, h] } else { [0; 4] });
        out.extend_from_slice(second);
        out.push(0);
        out.extend_from_slice(self.plugin.as_bytes());
        out.push(0);
        out
    }
}
