//! A running ssh-agent: a key with its certificate goes in for a time, and out again. Only what `munjigi login` needs of
//! the protocol (draft-miller-ssh-agent); russh's client takes keys, but no certificates.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// Largest message that OpenSSH's agent knows.
const MAX_MESSAGE: usize = 256 * 1024;
/// For one request and its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Most keys of an agent that are looked at.
const MAX_KEYS: u32 = 4096;

const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const REMOVE_IDENTITY: u8 = 18;
const ADD_ID_CONSTRAINED: u8 = 25;
const CONSTRAIN_LIFETIME: u8 = 1;
/// The only kind of certificate that we put in.
const CERTIFICATE_KIND: &[u8] = b"ssh-ed25519-cert-v01@openssh.com";

/// A connection to an agent.
pub(crate) struct SshAgent(UnixStream);

/// A key that an agent holds.
pub(crate) struct Held {
    /// The key or certificate, in SSH's own encoding.
    pub(crate) blob: Vec<u8>,
    /// What stands beside it.
    pub(crate) comment: String,
}

impl SshAgent {
    /// Connects to the agent at a socket.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let connected = tokio::time::timeout(ANSWER_LIMIT, UnixStream::connect(socket)).await;
        let stream = connected.context("the ssh-agent does not answer")?;
        Ok(Self(stream.with_context(|| format!("no ssh-agent answers at {} (SSH_AUTH_SOCK)", socket.display()))?))
    }

    /// Puts in an ed25519 key with its certificate; the agent forgets both after `life` seconds.
    pub(crate) async fn add(
        &mut self,
        certificate: &[u8],
        public: &[u8; 32],
        seed: &[u8; 32],
        comment: &str,
        life: u32,
    ) -> anyhow::Result<()> {
        // Never grows, so that no copy of the key is left behind.
        let mut message = Zeroizing::new(Vec::with_capacity(certificate.len() + comment.len() + 512));
        message.push(ADD_ID_CONSTRAINED);
        put(&mut message, CERTIFICATE_KIND);
        put(&mut message, certificate);
        put(&mut message, public);
        put(&mut message, &Zeroizing::new([*seed, *public].concat()));
        put(&mut message, comment.as_bytes());
        message.push(CONSTRAIN_LIFETIME);
        message.extend_from_slice(&life.to_be_bytes());
        match self.ask(&message).await?.first() {
            Some(&SUCCESS) => Ok(()),
            _ => bail!("the ssh-agent does not take the certificate; is it locked, or none that knows certificates?"),
        }
    }

    /// Returns what the agent holds.
    pub(crate) async fn list(&mut self) -> anyhow::Result<Vec<Held>> {
        let answer = self.ask(&[REQUEST_IDENTITIES]).await?;
        read_identities(&answer).context("the ssh-agent answers what no agent says")
    }

    /// Takes out a key or certificate.
    pub(crate) async fn remove(&mut self, blob: &[u8]) -> anyhow::Result<()> {
        let mut message = vec![REMOVE_IDENTITY];
        put(&mut message, blob);
        match self.ask(&message).await?.first() {
            Some(&SUCCESS) => Ok(()),
            _ => bail!("the ssh-agent does not give up the certificate"),
        }
    }

    async fn ask(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let length = u32::try_from(message.len()).context("the request is too long")?;
        let exchange = async {
            self.0.write_all(&length.to_be_bytes()).await?;
            self.0.write_all(message).await?;
            let length = usize::try_from(self.0.read_u32().await?)?;
            anyhow::ensure!((1..=MAX_MESSAGE).contains(&length), "its answer has no good length");
            let mut answer = vec![0; length];
            self.0.read_exact(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answered = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
        answered.context("the ssh-agent does not answer")?.context("the ssh-agent cannot be asked")
    }
}

/// Reads the answer with all keys; `None` if it is none.
fn read_identities(answer: &[u8]) -> Option<Vec<Held>> {
    let (&IDENTITIES_ANSWER, rest) = answer.split_first()? else { return None };
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_be_bytes(*count);
    if count > MAX_KEYS {
        return None;
    }
    let mut held = Vec::new();
    for _ in 0..count {
        let blob = take(&mut rest)?.to_vec();
        let comment = String::from_utf8_lossy(take(&mut rest)?).into_owned();
        held.push(Held { blob, comment });
    }
    Some(held)
}

fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (bytes, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = behind;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let mut answer = vec![IDENTITIES_ANSWER, 0, 0, 0, 2];
        for part in [&b"one"[..], b"first", b"two", b""] {
            put(&mut answer, part);
        }
        let held = read_identities(&answer).unwrap();
        assert_eq!(held.len(), 2);
        assert_eq!((held[0].blob.as_slice(), held[0].comment.as_str()), (&b"one"[..], "first"));
        for end in 0..answer.len() {
            assert!(read_identities(&answer[..end]).is_none(), "{end}");
        }
        assert!(read_identities(&[IDENTITIES_ANSWER, 0xff, 0xff, 0xff, 0xff]).is_none());
        assert!(read_identities(&[SUCCESS]).is_none());
    }

    #[test]
    fn no_answer_makes_it_panic_or_take_room() {
        let mut answer = vec![IDENTITIES_ANSWER, 0, 0, 0, 1];
        put(&mut answer, b"key");
        put(&mut answer, b"comment");
        let mut state = 0x6167_656e_u64;
        for _ in 0..1 << 18 {
            let mut altered = answer.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = usize::try_from(state >> 33).unwrap() % altered.len();
                altered[at] = state as u8;
            }
            if let Some(held) = read_identities(&altered) {
                assert!(held.iter().map(|held| held.blob.len()).sum::<usize>() <= altered.len());
            }
        }
    }
}
