//! Signed checkpoints of a log (T-67): so many events, this head hash, at this time. Kept outside the log's own file
//! as well, they show what was cut off, rolled back or rewritten.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{Link, LogId};
use crate::time::Timestamp;
use crate::trust::{KeyId, KeyPurpose, TrustedKey};
use crate::wire::bytes::FieldWriter;

const CONTEXT: &[u8] = b"munjigi audit checkpoint v1\0";
/// Longest line of a checkpoint.
const MAX_BYTES: usize = 1024;

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no checkpoint.
    #[error("the checkpoint cannot be read")]
    Form,
    /// It is of another log.
    #[error("the checkpoint is of another log")]
    OtherLog,
    /// Its key is not trusted for checkpoints at its time.
    #[error("the checkpoint is signed with a key that is not trusted for it")]
    UntrustedKey,
    /// The signature is wrong.
    #[error("the checkpoint's signature is wrong")]
    Signature,
}

/// A signed statement of how the log stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub log: LogId,
    /// How many events it had, and the hash of the last one's line.
    pub head: Link,
    /// When that was.
    pub time: Timestamp,
    /// The key that signed.
    pub key: KeyId,
    signature: [u8; 64],
}

/// The JSON form: one line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<'a> {
    log_id: String,
    count: u64,
    head_hash: String,
    time: Timestamp,
    key_id: String,
    #[serde(borrow)]
    signature: std::borrow::Cow<'a, str>,
}

impl Checkpoint {
    pub(super) fn sign(log: LogId, head: Link, time: Timestamp, key: &Ed25519KeyPair) -> Self {
        let id = KeyId::of(key.public_key().as_ref());
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(key.sign(&signed_bytes(log, head, time, id)).as_ref()) {
            *to = *from;
        }
        Self { log, head, time, key: id, signature }
    }

    /// Returns the checkpoint as one line of JSON without a line break; `time` in microseconds since 1970.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            log_id: self.log.to_string(),
            count: self.head.sequence,
            head_hash: hex::encode(self.head.hash),
            time: self.time,
            key_id: self.key.to_string(),
            signature: BASE64.encode(self.signature).into(),
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads a checkpoint; its signature is checked by [`Checkpoint::verify`].
    pub fn parse(json: &str) -> Result<Self, CheckpointError> {
        const FORM: CheckpointError = CheckpointError::Form;
        if json.len() > MAX_BYTES {
            return Err(FORM);
        }
        let wire: Wire<'_> = serde_json::from_str(json).map_err(|_| FORM)?;
        let (mut hash, mut key) = ([0; 32], [0; 16]);
        hex::decode_to_slice(&wire.head_hash, &mut hash).map_err(|_| FORM)?;
        hex::decode_to_slice(&wire.key_id, &mut key).map_err(|_| FORM)?;
        let signature = BASE64.decode(wire.signature.as_bytes()).map_err(|_| FORM)?;
        Ok(Self {
            log: LogId::parse(&wire.log_id).ok_or(FORM)?,
            head: Link { sequence: wire.count, hash },
            time: wire.time,
            key: KeyId(key),
            signature: signature.as_slice().try_into().map_err(|_| FORM)?,
        })
    }

    /// Checks that a key trusted for checkpoints at the checkpoint's time signed it for this log.
    pub fn verify(&self, log: LogId, keys: &[TrustedKey]) -> Result<(), CheckpointError> {
        if self.log != log {
            return Err(CheckpointError::OtherLog);
        }
        let trusted = |key: &&TrustedKey| {
            key.id == self.key
                && key.purpose == KeyPurpose::Checkpoint
                && (key.not_before..=key.not_after).contains(&self.time)
        };
        let key = keys.iter().find(trusted).ok_or(CheckpointError::UntrustedKey)?;
        UnparsedPublicKey::new(&ED25519, &key.public)
            .verify(&signed_bytes(self.log, self.head, self.time, self.key), &self.signature)
            .map_err(|_| CheckpointError::Signature)
    }
}

fn signed_bytes(log: LogId, head: Link, time: Timestamp, key: KeyId) -> Vec<u8> {
    let mut fields = FieldWriter::new(CONTEXT);
    fields.bytes(&log.0).u64(head.sequence).bytes(&head.hash).i64(time.0).bytes(&key.0);
    fields.finish()
}
