//! Logins: the client's as it arrives, the server's as it is made for the stored credential.

use super::capability::{self, MYSQL};
use super::field::{Fields, put_bytes, put_length};
use super::greeting::Greeting;
use super::reply::ServerError;

/// The way to prove a password that every client and server knows. What a client proves by it is not looked at.
pub const NATIVE_PASSWORD: &str = "mysql_native_password";
/// MySQL's own since version 8.
pub(super) const CACHING_SHA2: &str = "caching_sha2_password";

/// Length of the fields that every login begins with; a request for TLS has nothing else.
const FIXED_BYTES: usize = 32;
/// Most attributes of a client, in bytes, that are handed on; MySQL's own limit.
const MAX_ATTRIBUTES: usize = 64 * 1024;
/// Longest name of a database, in bytes: 64 characters of up to four bytes.
const MAX_DATABASE: usize = 256;
/// Attributes with this prefix are ours alone.
const OUR_PREFIX: &[u8] = b"munjigi_";

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The packet is not what it should be.
    #[error("a malformed {0} of the MySQL protocol arrived")]
    Malformed(&'static str),
    /// The server does not know what all servers since MySQL 5.5.7 and MariaDB 5.2 know.
    #[error("the server's version of the MySQL protocol is too old; reach it by a plain forward")]
    TooOld,
    /// The client does not.
    #[error("the client's version of the MySQL protocol is too old; use one of MySQL 5.5 or later")]
    ClientTooOld,
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(ServerError),
}

impl LoginError {
    /// Reads the error packet.
    pub(super) fn refused(payload: &[u8]) -> Self {
        ServerError::read(payload).map_or(Self::Malformed("error"), Self::Refused)
    }
}

/// What a client says when it logs in. What it proves is not kept: who the person is was decided before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLogin {
    /// What it wants to speak.
    pub capabilities: u64,
    /// Longest message it takes, in bytes.
    pub max_packet: u32,
    /// Its character set.
    pub charset: u8,
    /// The database user that it names; another one is logged in.
    pub user: String,
    /// The database that it wants.
    pub database: Option<Vec<u8>>,
    /// What it says of itself, as pairs.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    plugin: Option<String>,
}

impl ClientLogin {
    /// Tells whether the packet asks for TLS first.
    pub fn wants_tls(payload: &[u8]) -> bool {
        payload.len() == FIXED_BYTES
            && Fields::new(payload).u32().is_some_and(|bits| u64::from(bits) & capability::SSL != 0)
    }

    /// Reads the login.
    pub fn read(payload: &[u8], greeted: &Greeting) -> Result<Self, LoginError> {
        let mut bits = Fields::new(payload);
        let wanted = bits.u32().map(u64::from).ok_or(LoginError::Malformed("login"))?;
        if wanted & (capability::PROTOCOL_41 | capability::SECURE_CONNECTION) < capability::SECURE_CONNECTION {
            return Err(LoginError::ClientTooOld);
        }
        Self::fields(payload, wanted, greeted).ok_or(LoginError::Malformed("login"))
    }

    fn fields(payload: &[u8], wanted: u64, greeted: &Greeting) -> Option<Self> {
        let mut fields = Fields::new(payload);
        fields.u32()?;
        let max_packet = fields.u32()?;
        let charset = fields.u8()?;
        fields.bytes(19)?;
        let of_mariadb = u64::from(fields.u32()?) << 32;
        let wanted = if wanted & MYSQL == 0 { wanted | of_mariadb } else { wanted };
        let user = String::from_utf8_lossy(fields.until_nul()?).into_owned();
        // The proof: nobody looks at it (the link has proved who this is).
        if wanted & capability::PLUGIN_AUTH_LENENC != 0 {
            fields.length_encoded_bytes()?;
        } else {
            let length = fields.u8()?;
            fields.bytes(usize::from(length))?;
        }
        let database = if wanted & capability::CONNECT_WITH_DB != 0 { fields.until_nul_or_end() } else { &[] };
        let database = (!database.is_empty()).then(|| database.to_vec());
        if database.as_ref().is_some_and(|name| name.len() > MAX_DATABASE) {
            return None;
        }
        let plugin = (wanted & capability::PLUGIN_AUTH != 0)
            .then(|| String::from_utf8_lossy(fields.until_nul_or_end()).into_owned());
        let block = if wanted & capability::CONNECT_ATTRS != 0 { fields.rest() } else { &[] };
        let attributes = if block.is_empty() { Vec::new() } else { attributes(block)? };
        let capabilities = wanted & greeted.capabilities;
        Some(Self { capabilities, max_packet, charset, user, database, attributes, plugin })
    }

    /// Returns the packet that has the client begin again in the way that it likes, if it did not prove anything in the
    /// way of the greeting. What it answers is to be read and passed to [`Self::fast_path`].
    pub fn switch(&self, salt: &[u8]) -> Option<Vec<u8>> {
        let plugin = match self.plugin.as_deref() {
            None | Some(NATIVE_PASSWORD) => return None,
            Some(CACHING_SHA2) => CACHING_SHA2,
            Some(_) => NATIVE_PASSWORD,
        };
        let mut out = vec![0xfe];
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
        out.extend_from_slice(salt);
        out.push(0);
        Some(out)
    }

    /// Returns the packet that goes before the OK when a client answered [`Self::switch`] with a proof: that it
    /// suffices.
    pub fn fast_path(&self, answer: &[u8]) -> Option<&'static [u8]> {
        (self.plugin.as_deref() == Some(CACHING_SHA2) && answer.len() > 1).then_some(&[1, 3])
    }
}

fn attributes(block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = Fields::new(Fields::new(block).length_encoded_bytes()?);
    let (mut pairs, mut bytes) = (Vec::new(), 0);
    loop {
        let name = match fields.length_encoded_bytes() {
            Some(name) => name,
            None if fields.rest().is_empty() => return Some(pairs),
            None => return None,
        };
        let value = fields.length_encoded_bytes()?;
        bytes += name.len() + value.len();
        if bytes > MAX_ATTRIBUTES {
            return None;
        }
        if !name.starts_with(OUR_PREFIX) {
            pairs.push((name.to_vec(), value.to_vec()));
        }
    }
}

/// A login to the server.
pub struct ServerLogin<'l> {
    /// The server's greeting.
    pub greeting: &'l Greeting,
    /// What was agreed with the client.
    pub agreed: u64,
    /// Longest message the client takes.
    pub max_packet: u32,
    /// The client's character set.
    pub charset: u8,
    /// The database user.
    pub user: &'l str,
    /// The database to begin with.
    pub database: Option<&'l [u8]>,
    /// What the server may know of client and person.
    pub attributes: &'l [(Vec<u8>, Vec<u8>)],
}

impl ServerLogin<'_> {
    fn capabilities(&self) -> u64 {
        let offered = self.greeting.capabilities;
        let mut bits = capability::towards_server(self.agreed, offered);
        if self.database.is_some() {
            bits |= capability::CONNECT_WITH_DB;
        }
        bits | (offered & capability::CONNECT_ATTRS)
    }

    fn fixed(&self, capabilities: u64) -> Vec<u8> {
        let [low, high] = [capabilities & 0xffff_ffff, capabilities >> 32].map(|half| half.to_le_bytes());
        let mut out = Vec::with_capacity(FIXED_BYTES);
        out.extend(low.iter().take(4));
        out.extend_from_slice(&self.max_packet.to_le_bytes());
        out.push(self.charset);
        out.extend_from_slice(&[0; 19]);
        out.extend(high.iter().take(4));
        out
    }

    /// Returns the packet that asks for TLS; the login is written behind it, inside.
    pub fn tls_request(&self) -> Vec<u8> {
        self.fixed(self.capabilities() | capability::SSL)
    }

    /// Returns the login. `proof` is [`super::Auth`]'s first answer; it is a secret, and the packet with it.
    pub fn write(&self, tls: bool, plugin: &str, proof: &[u8]) -> Vec<u8> {
        let mut capabilities = self.capabilities();
        if tls {
            capabilities |= capability::SSL;
        }
        let mut out = self.fixed(capabilities);
        out.extend_from_slice(self.user.as_bytes());
        out.push(0);
        if capabilities & capability::PLUGIN_AUTH_LENENC != 0 {
            put_bytes(&mut out, proof);
        } else {
            // The proofs of the ways that are begun with are shorter than 251 bytes, where both forms are one.
            put_length(&mut out, proof.len() as u64);
            out.extend_from_slice(proof);
        }
        if let Some(database) = self.database {
            out.extend_from_slice(database);
            out.push(0);
        }
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
        if capabilities & capability::CONNECT_ATTRS != 0 {
            let mut block = Vec::new();
            for (name, value) in self.attributes {
                put_bytes(&mut block, name);
                put_bytes(&mut block, value);
            }
            put_bytes(&mut out, &block);
        }
        out
    }
}
