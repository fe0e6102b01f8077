//! Proving the stored password to the server, in the ways that servers ask for.
//!
//! `mysql_native_password` and the quick form of `caching_sha2_password` show only a hash. The full form of the latter,
//! `sha256_password` and `mysql_clear_password` show the password itself: inside TLS, or (the first two) encrypted to
//! the key that the server names. Encrypting is the caller's, since it needs randomness.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use zeroize::Zeroizing;

use super::field::Fields;
use super::greeting::{Greeting, SALT_BYTES};
use super::login::{CACHING_SHA2, LoginError, NATIVE_PASSWORD};
use super::reply::ServerError;

const SHA256_PASSWORD: &str = "sha256_password";
const CLEAR_PASSWORD: &str = "mysql_clear_password";
/// Packets that a server may send until the login is decided; an honest one needs four.
const MAX_ROUNDS: u8 = 8;

/// What the login runs through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Readable on its way.
    Plain,
    /// TLS.
    Encrypted,
}

/// Why the password could not be proved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// As in all logins.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The server wants a way that is not known here.
    #[error(
        "the server wants the password proved by {0:?}, which is not spoken here; give the account \
         caching_sha2_password or mysql_native_password"
    )]
    UnknownPlugin(String),
    /// The server wants the password itself, where others could read it.
    #[error("the server wants the password itself ({0}); that needs TLS to the server: set the target's TLS mode")]
    NeedsTls(&'static str),
    /// The server asks on and on.
    #[error("the server does not come to an end of the login")]
    Endless,
}

/// What is to be done next.
pub enum AuthStep {
    /// Send this packet; it is a secret.
    Send(Zeroizing<Vec<u8>>),
    /// Encrypt `password` to the RSA key in `key_pem` with OAEP and SHA-1, and send that.
    Encrypt {
        /// The key as the server names it: PEM of a `SubjectPublicKeyInfo`.
        key_pem: Vec<u8>,
        /// What to encrypt.
        password: Zeroizing<Vec<u8>>,
    },
    /// Read the next packet.
    Wait,
    /// The login is done; this is the OK packet's payload.
    Accepted(Vec<u8>),
    /// The server said no.
    Refused(ServerError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
    Sha256,
    Clear,
}

impl Plugin {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            NATIVE_PASSWORD => Self::Native,
            CACHING_SHA2 => Self::CachingSha2,
            SHA256_PASSWORD => Self::Sha256,
            CLEAR_PASSWORD => Self::Clear,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => NATIVE_PASSWORD,
            Self::CachingSha2 => CACHING_SHA2,
            Self::Sha256 => SHA256_PASSWORD,
            Self::Clear => CLEAR_PASSWORD,
        }
    }
}

/// One login's proof.
pub struct Auth<'p> {
    password: &'p [u8],
    channel: Channel,
    plugin: Plugin,
    salt: [u8; SALT_BYTES],
    rounds: u8,
}

impl<'p> Auth<'p> {
    /// Begins in the way that the greeting names, or in the oldest one: the server may switch.
    pub fn begin(greeting: &Greeting, password: &'p [u8], channel: Channel) -> Self {
        // The password itself is only shown when the account asks for it.
        let plugin = match Plugin::of(&greeting.plugin) {
            Some(plugin @ (Plugin::Native | Plugin::CachingSha2)) => plugin,
            _ => Plugin::Native,
        };
        Self { password, channel, plugin, salt: greeting.salt, rounds: 0 }
    }

    /// Returns the way begun with, and the proof that stands in the login.
    pub fn first(&self) -> (&'static str, Zeroizing<Vec<u8>>) {
        (self.plugin.name(), self.hashed())
    }

    /// The proof of the two ways that show a hash.
    fn hashed(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self.plugin {
            Plugin::Native if self.password.is_empty() => Vec::new(),
            Plugin::CachingSha2 if self.password.is_empty() => vec![0],
            Plugin::Native => {
                let once = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[self.password]);
                let twice = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&once]);
                xor(&once, &hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&self.salt, &twice]))
            }
            _ => {
                let once = hash(&SHA256, &[self.password]);
                let twice = hash(&SHA256, &[&once]);
                xor(&once, &hash(&SHA256, &[&twice, &self.salt]))
            }
        })
    }

    /// Takes the server's next packet.
    pub fn heard(&mut self, payload: &[u8]) -> Result<AuthStep, AuthError> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(AuthError::Endless);
        }
        match payload {
            [0, ..] => Ok(AuthStep::Accepted(payload.to_vec())),
            [0xff, ..] => match LoginError::refused(payload) {
                LoginError::Refused(error) => Ok(AuthStep::Refused(error)),
                error => Err(error.into()),
            },
            [0xfe, data @ ..] => self.switched(data),
            [1, data @ ..] => self.more(data),
            _ => Err(LoginError::Malformed("answer to the login").into()),
        }
    }

    fn switched(&mut self, data: &[u8]) -> Result<AuthStep, AuthError> {
        let mut fields = Fields::new(data);
        let name = fields.until_nul().ok_or(LoginError::Malformed("change of the way to log in"))?;
        let name = String::from_utf8_lossy(name);
        let plugin = Plugin::of(&name).ok_or_else(|| AuthError::UnknownPlugin(name.chars().take(64).collect()))?;
        self.plugin = plugin;
        if plugin != Plugin::Clear {
            let salt = fields.bytes(SALT_BYTES).and_then(|salt| salt.try_into().ok());
            self.salt = salt.ok_or(LoginError::Malformed("challenge"))?;
        }
        Ok(AuthStep::Send(match plugin {
            Plugin::Native | Plugin::CachingSha2 => self.hashed(),
            Plugin::Sha256 | Plugin::Clear => return self.shown(),
        }))
    }

    /// Shows the password, or asks for the key to encrypt it to.
    fn shown(&self) -> Result<AuthStep, AuthError> {
        let ask_for_key = match (self.channel, self.plugin) {
            (Channel::Encrypted, _) => return Ok(AuthStep::Send(self.terminated())),
            (Channel::Plain, Plugin::CachingSha2) => 2,
            (Channel::Plain, Plugin::Sha256) => 1,
            (Channel::Plain, plugin) => return Err(AuthError::NeedsTls(plugin.name())),
        };
        Ok(AuthStep::Send(Zeroizing::new(vec![ask_for_key])))
    }

    fn more(&self, data: &[u8]) -> Result<AuthStep, AuthError> {
        match (self.plugin, data) {
            (Plugin::CachingSha2, [3]) => Ok(AuthStep::Wait),
            (Plugin::CachingSha2, [4]) => self.shown(),
            (Plugin::CachingSha2 | Plugin::Sha256, key) if self.channel == Channel::Plain && key.starts_with(b"--") => {
                let mut password = self.terminated();
                for (byte, salt) in password.iter_mut().zip(self.salt.iter().cycle()) {
                    *byte ^= salt;
                }
                Ok(AuthStep::Encrypt { key_pem: key.to_vec(), password })
            }
            _ => Err(LoginError::Malformed("answer to the login").into()),
        }
    }

    fn terminated(&self) -> Zeroizing<Vec<u8>> {
        // Room for the NUL from the start: growing would leave a copy behind.
        let mut password = Zeroizing::new(Vec::with_capacity(self.password.len() + 1));
        password.extend_from_slice(self.password);
        password.push(0);
        password
    }
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let joined = Zeroizing::new(parts.concat());
    Zeroizing::new(digest(algorithm, &joined).as_ref().to_vec())
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}
