//! SSH as far as Munjigi has to read it: public keys as people hand them in, the question sshd's helper asks the
//! agent, and what sshd writes about logins. No private keys, no SSH connections.

pub mod login;
pub mod lookup;
mod public_key;

pub use public_key::{Fingerprint, KeyKind, MAX_KEY_TEXT, PublicKey, PublicKeyError};
