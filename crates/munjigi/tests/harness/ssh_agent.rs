//! An ssh-agent with one security key in software: what hardware does after somebody touched it, and what it does when
//! nobody did.
//!
//! The agent protocol is draft-ietf-sshm-ssh-agent, the signatures are OpenSSH's `PROTOCOL.u2f`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What keys are for, as `ssh-keygen -t …-sk` says without `-O application`.
const APPLICATION: &[u8] = b"ssh:";
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES: u8 = 12;
const SIGN: u8 = 13;
const SIGNED: u8 = 14;
const FAILURE: u8 = 5;

/// What kind of key it is.
pub(crate) enum SecurityKey {
    /// `sk-ssh-ed25519@openssh.com`.
    Ed25519(Ed25519KeyPair),
    /// `sk-ecdsa-sha2-nistp256@openssh.com`.
    Ecdsa(EcdsaKeyPair),
}

impl SecurityKey {
    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn ecdsa() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Self::Ecdsa(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = string(self.kind().as_bytes());
        match self {
            Self::Ed25519(key) => blob.extend(string(key.public_key().as_ref())),
            Self::Ecdsa(key) => {
                blob.extend(string(b"nistp256"));
                blob.extend(string(key.public_key().as_ref()));
            }
        }
        blob.extend(string(APPLICATION));
        blob
    }

    /// Returns the public key as one line.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.kind(), STANDARD.encode(self.blob()))
    }

    /// Signs, saying with the flags whether somebody was there.
    fn sign(&self, data: &[u8], flags: u8) -> Vec<u8> {
        let counter = 7_u32.to_be_bytes();
        let mut message = digest(&SHA256, APPLICATION).as_ref().to_vec();
        message.push(flags);
        message.extend(counter);
        message.extend(digest(&SHA256, data).as_ref());
        let raw = match self {
            Self::Ed25519(key) => key.sign(&message).as_ref().to_vec(),
            Self::Ecdsa(key) => {
                let both = key.sign(&SystemRandom::new(), &message).unwrap();
                let (r, s) = both.as_ref().split_at(32);
                [number(r), number(s)].concat()
            }
        };
        let mut signature = string(self.kind().as_bytes());
        signature.extend(string(&raw));
        signature.push(flags);
        signature.extend(counter);
        signature
    }
}

/// Serves the key at a socket below `directory`, signing with these flags, until the test ends; returns the socket.
pub(crate) fn serve(directory: &Path, name: &str, key: SecurityKey, flags: u8) -> PathBuf {
    let socket = directory.join(name);
    let listener = UnixListener::bind(&socket).unwrap();
    // Ends with the test's process; a client that breaks off ends its own connection alone.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.map(|stream| answer(stream, &key, flags));
        }
    });
    socket
}

/// Answers what one client asks until it leaves.
fn answer(mut stream: UnixStream, key: &SecurityKey, flags: u8) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut message).ok()?;
        let reply = match message.split_first()? {
            (&REQUEST_IDENTITIES, _) => {
                let mut reply = vec![IDENTITIES, 0, 0, 0, 1];
                reply.extend(string(&key.blob()));
                reply.extend(string(b"security key"));
                reply
            }
            (&SIGN, rest) => {
                let (blob, rest) = take(rest);
                let (data, _) = take(rest);
                assert_eq!(blob, key.blob());
                [vec![SIGNED], string(&key.sign(data, flags))].concat()
            }
            _ => vec![FAILURE],
        };
        stream.write_all(&string(&reply)).ok()?;
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// A positive number as SSH writes it.
fn number(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let mut out = if bytes[start] >= 0x80 { vec![0] } else { Vec::new() };
    out.extend(&bytes[start..]);
    string(&out)
}

fn take(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<4>().unwrap();
    rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap())
}
