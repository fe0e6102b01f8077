//! The proof of the stored user towards the server: nothing, SCRAM-SHA-256, MD5, or the password itself under TLS.

use bytes::BytesMut;
use munjigi_core::postgres::{Violation, error_code};
use munjigi_core::secret::Secret;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroize as _;

use super::Failure;
use super::login::told;
use super::message::Whole;
use crate::gateway::inspect::Context;
use crate::gateway::nodes::NodeStream;

/// Most messages of a proof.
const MAX_STEPS: usize = 16;

/// What the server asks for in a message `R`.
#[derive(Debug, PartialEq, Eq)]
enum Asks<'a> {
    Nothing,
    Password,
    Md5([u8; 4]),
    Sasl(Vec<&'a [u8]>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other(u32),
}

impl<'a> Asks<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Violation> {
        let malformed = || Violation::Malformed { from: "server", what: "request for a proof" };
        let (code, rest) = body.split_first_chunk::<4>().ok_or_else(malformed)?;
        Ok(match u32::from_be_bytes(*code) {
            0 => Self::Nothing,
            3 => Self::Password,
            5 => Self::Md5(rest.try_into().map_err(|_| malformed())?),
            10 => Self::Sasl(rest.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect()),
            11 => Self::SaslContinue(rest),
            12 => Self::SaslFinal(rest),
            other => Self::Other(other),
        })
    }
}

/// How far a proof by SCRAM has come.
#[derive(Default)]
enum Scram {
    #[default]
    Unused,
    First(Box<ScramSha256>),
    Final(Box<ScramSha256>),
    /// The server has proved that it knows the password too.
    Verified,
}

/// Proves the stored user to the server. What the server says against it is told to the client.
pub(super) async fn prove(context: &Context, client: &mut NodeStream, target: &mut NodeStream) -> Result<(), Failure> {
    let mut scram = Scram::Unused;
    for _ in 0..MAX_STEPS {
        let message = Whole::read(target).await?;
        match message.kind {
            b'R' => {}
            // A server of an older protocol's minor version says so; what was asked for is the oldest.
            b'v' | b'N' => continue,
            b'E' => return Err(told(client, &message, error_code(&message.body)).await),
            kind => return Err(Violation::Kind { from: "server", kind: char::from(kind) }.into()),
        }
        let mut answer = BytesMut::new();
        scram = match (Asks::read(&message.body)?, scram) {
            (Asks::Nothing, Scram::Unused | Scram::Verified) => return Ok(()),
            (Asks::Password, Scram::Unused) if context.wants_tls() => {
                frontend::password_message(password(context)?.expose(), &mut answer)?;
                Scram::Unused
            }
            (Asks::Password, Scram::Unused) => {
                let message =
                    "the server asks for the password in the clear, and the connection to it is not encrypted";
                return Err(Failure::Refused("28000", message.to_owned()));
            }
            (Asks::Md5(salt), Scram::Unused) => {
                let mut proof = md5_hash(context.user_name.as_bytes(), password(context)?.expose(), salt);
                frontend::password_message(proof.as_bytes(), &mut answer)?;
                proof.zeroize();
                Scram::Unused
            }
            (Asks::Sasl(mechanisms), Scram::Unused) => begin(context, &mechanisms, &mut answer)?,
            (Asks::SaslContinue(challenge), Scram::First(scram)) => {
                let (scram, response) = respond(scram, challenge.to_vec()).await?;
                frontend::sasl_response(&response, &mut answer)?;
                Scram::Final(scram)
            }
            (Asks::SaslFinal(proof), Scram::Final(mut scram)) => {
                scram.finish(proof).map_err(|_| {
                    let message = "the server could not prove that it knows the password; it may be an impostor";
                    Failure::Refused("28000", message.to_owned())
                })?;
                Scram::Verified
            }
            (Asks::Other(code), _) => {
                let message = format!("the server asks for a proof of kind {code}, which cannot be given here");
                return Err(Failure::Refused("28000", message));
            }
            _ => return Err(Violation::Kind { from: "server", kind: 'R' }.into()),
        };
        if !answer.is_empty() {
            target.write_all(&answer).await?;
            target.flush().await?;
            answer.zeroize();
        }
    }
    Err(Failure::Refused("08P01", "the server asks for one proof after the other".to_owned()))
}

fn password(context: &Context) -> Result<&Secret<Vec<u8>>, Failure> {
    context.password.as_ref().ok_or_else(|| {
        let message = format!("the server asks for a password, and the target {} has none stored", context.target);
        Failure::Refused("28P01", message)
    })
}

fn begin(context: &Context, mechanisms: &[&[u8]], answer: &mut BytesMut) -> Result<Scram, Failure> {
    if !mechanisms.contains(&SCRAM_SHA_256.as_bytes()) {
        let message = "the server offers no way of proof that is known here (SCRAM-SHA-256)";
        return Err(Failure::Refused("28000", message.to_owned()));
    }
    let scram = ScramSha256::new(password(context)?.expose(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), answer)?;
    Ok(Scram::First(Box::new(scram)))
}

/// Computes the answer to a challenge: thousands of rounds of hashing, off the runtime's own threads.
async fn respond(mut scram: Box<ScramSha256>, challenge: Vec<u8>) -> Result<(Box<ScramSha256>, Vec<u8>), Failure> {
    let computed = tokio::task::spawn_blocking(move || {
        scram.update(&challenge).map(|()| {
            let response = scram.message().to_vec();
            (scram, response)
        })
    });
    let malformed = || Violation::Malformed { from: "server", what: "challenge of SCRAM" };
    let computed = computed.await.map_err(|_| malformed())?;
    computed.map_err(|_| malformed().into())
}
