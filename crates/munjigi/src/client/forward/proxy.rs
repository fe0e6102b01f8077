//! A program at a listener that is a proxy: what it asks for, and what it is told. The words are those of
//! `munjigi_core::proxy`.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::proxy::{Negotiation, Outcome, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::connect::{ConnectError, Connected, Early};
use super::serve::Failed;
use super::{Connector, Near};

/// How long a program may take to say where to; browsers open connections before they know.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How long a program that is sent away may take to hear it.
const GOODBYE: Duration = Duration::from_secs(2);
/// Most bytes read at once; the negotiation itself bounds how many there may be.
const READ_BYTES: usize = 4096;

/// What came of a program's request.
pub(super) enum Negotiated {
    /// It has its connection.
    Connected {
        /// The program.
        near: Near,
        /// The other end.
        connected: Box<Connected>,
        /// What the program sent behind its request.
        early: BytesMut,
    },
    /// It said nothing in time, or went away.
    Gone,
}

/// Hears where a program wants to, connects, and answers.
pub(super) async fn negotiate(
    mut near: Near,
    place: OwnedSemaphorePermit,
    connector: &Connector,
) -> Result<Negotiated, Failed> {
    let mut input = BytesMut::new();
    let step = match timeout(REQUEST_LIMIT, ask(&mut near, &mut input)).await {
        Ok(Ok(step)) => step,
        Ok(Err(_)) | Err(_) => return Ok(Negotiated::Gone),
    };
    let request = match step {
        Step::Connect(request) => request,
        Step::Close(answer, wrong) => {
            say_goodbye(near, &answer).await;
            return Err(wrong.into());
        }
        Step::More | Step::Send(_) => return Ok(Negotiated::Gone),
    };
    let endpoint = Endpoint::Tcp(request.destination.clone());
    match connector.connect_in(place, Some(&endpoint), &mut Early::none()).await {
        Ok(connected) => match near.write_all(&request.answer(Outcome::Connected, "")).await {
            Ok(()) => Ok(Negotiated::Connected { near, connected: Box::new(connected), early: input }),
            Err(_) => Ok(Negotiated::Gone),
        },
        Err(error) => {
            say_goodbye(near, &request.answer(outcome(&error), &error.to_string())).await;
            Err(Failed::Asked { to: endpoint.to_string(), error })
        }
    }
}

/// Reads and answers until there is nothing more to negotiate. An end of the program's input before that is an error.
async fn ask(near: &mut Near, input: &mut BytesMut) -> io::Result<Step> {
    let mut negotiation = Negotiation::default();
    loop {
        match negotiation.step(input) {
            Step::More => {
                input.reserve(READ_BYTES);
                if near.read_buf(input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Step::Send(reply) => near.write_all(&reply).await?,
            decided => return Ok(decided),
        }
    }
}

/// Sends a last answer, and reads what the program still sends: otherwise the system may throw the answer away.
async fn say_goodbye(mut near: Near, answer: &[u8]) {
    let said = async {
        near.write_all(answer).await?;
        near.shutdown().await?;
        tokio::io::copy(&mut near, &mut tokio::io::sink()).await
    };
    // A program that does not listen is none of our business.
    let _ = timeout(GOODBYE, said).await;
}

/// Finds the word of the proxy protocols for it.
fn outcome(error: &ConnectError) -> Outcome {
    match error {
        ConnectError::Refused { code, .. } => match code.as_str() {
            "AccessDeniedException" | "DestinationDenied" => Outcome::Denied,
            "HostNotFound" => Outcome::NotFound,
            "ConnectionRefused" => Outcome::Refused,
            "ConnectionTimedOut" => Outcome::TimedOut,
            "DestinationUnreachable" => Outcome::Unreachable,
            _ => Outcome::Failed,
        },
        ConnectError::Late => Outcome::TimedOut,
        ConnectError::Broken(_) | ConnectError::Over => Outcome::Failed,
    }
}
