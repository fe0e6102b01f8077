//! SSH as far as Munjigi has to read it: public keys as people hand them in, the question sshd's helper asks the
//! agent, what sshd writes about logins, the names that people log in with, certificates, and lists of revoked ones. No
//! private keys, no SSH connections.

pub mod certificate;
pub mod key_options;
pub mod krl;
pub mod login;
pub mod login_name;
pub mod login_reason;
pub mod lookup;
pub mod node_trust;
mod public_key;

pub use public_key::{Fingerprint, KeyKind, MAX_KEY_TEXT, PublicKey, PublicKeyError};
