//! A port session over the link: every local connection is a stream of its own, with its own window and both ends of
//! each direction kept apart.

use anyhow::Context as _;
use munjigi_core::wire::aws::payload::{LOCAL_PORT_FORWARDING, PortProperties};
use munjigi_core::wire::message::Accepted;

use super::local;
use super::note;
use super::words::Words;
use crate::client::forward::{Lead, Listener, PeerEnd, Served, Standing, ended, serve, stdio};
use crate::client::road::{Dialer, Way};
use crate::client::signals::Signals;
use crate::client::text::escaped;
use crate::client::wish::Outcome;

/// Carries the session to its end.
pub(crate) async fn run(
    dialer: Dialer,
    way: Way,
    granted: Accepted,
    words: &Words,
    mut signals: Signals,
) -> anyhow::Result<Outcome> {
    let properties = properties(&granted)?;
    let session = Standing::carry(dialer, way, granted, note);
    if properties.kind.as_deref() != Some(LOCAL_PORT_FORWARDING) {
        return Ok(carry_stdio(session, &mut signals).await);
    }
    let listener = match local::listen(&properties).await {
        Ok(listener) => listener,
        Err(error) => {
            session.end().await;
            return Err(error);
        }
    };
    words.starting()?;
    words.listening(&local::place(&listener))?;
    let outcome = forward(session, &listener, words, &mut signals).await?;
    if matches!(outcome, Outcome::Ended { .. }) {
        words.exiting()?;
    }
    Ok(outcome)
}

fn properties(granted: &Accepted) -> anyhow::Result<PortProperties> {
    let map = serde_json::to_value(&granted.port_properties)?;
    serde_json::from_value(map).context("the properties of the port session are not usable")
}

async fn forward(
    mut session: Standing,
    listener: &Listener,
    words: &Words,
    signals: &mut Signals,
) -> anyhow::Result<Outcome> {
    let mut any = false;
    let connector = session.connector().clone();
    let tell = |served: Served| match served {
        Served::Accepted if std::mem::replace(&mut any, true) => Ok(()),
        Served::Accepted => words.connected(),
        Served::Failed(error) => {
            note(&escaped(&error.to_string()));
            words.unreachable()
        }
    };
    tokio::select! {
        error = serve(listener, &connector, &Lead::To(None), tell) => return Err(error.into()),
        outcome = session.over() => return Ok(outcome),
        _ = signals.next_ending() => {}
    }
    words.terminating()?;
    session.end().await;
    Ok(ended())
}

/// Carries the one connection that is standard input and output.
async fn carry_stdio(session: Standing, signals: &mut Signals) -> Outcome {
    let carried = tokio::select! {
        carried = stdio(session.connector(), None, PeerEnd::EndsAll) => carried,
        signal = signals.next_ending() => {
            session.end().await;
            return Outcome::Interrupted(signal);
        }
    };
    session.end().await;
    match carried {
        Ok(()) => ended(),
        Err(error) => Outcome::Lost(error.to_string()),
    }
}
