//! A port session on a data channel: which of the three forms, where this program listens, and how it ends.

use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;

use super::calls::Calls;
use super::data_channel::DataChannel;
use super::handshake::{PortKind, PortMode};
use super::{End, Ended, port_mux, port_single};
use crate::client::signals::Signals;
use crate::plugin::local;
use crate::plugin::note;
use crate::plugin::words::Words;

/// Carries the session to its end.
pub(crate) async fn run(
    mut channel: DataChannel,
    port: &PortKind,
    words: &Words,
    calls: &Calls,
    signals: &mut Signals,
) -> anyhow::Result<End> {
    let how = match port.mode {
        PortMode::Stdio => Ok(port_single::stdio(&mut channel, signals).await?),
        PortMode::Multiplexed | PortMode::Single => forward(&mut channel, port, words, signals).await,
    };
    let how = match how {
        Ok(how) => how,
        // A port that cannot be listened on, or output that nobody reads: the session has no use any more.
        Err(error) => {
            terminate(channel, port, calls).await;
            return Err(error);
        }
    };
    let (how, channel) = match how {
        // Nothing runs in a port session that anybody would come back to: this program's end is the session's.
        Ended::Interrupted(_) | Ended::NoInput => {
            terminate(channel, port, calls).await;
            (how, None)
        }
        how => (how, Some(channel)),
    };
    Ok(End { how, exit: None, channel })
}

async fn forward(
    channel: &mut DataChannel,
    port: &PortKind,
    words: &Words,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    let listener = local::listen(&port.properties).await?;
    words.starting()?;
    words.listening(&local::place(&listener))?;
    Ok(match port.mode {
        PortMode::Multiplexed => port_mux::run(channel, port, &listener, words, signals).await?,
        PortMode::Single | PortMode::Stdio => port_single::forward(channel, &listener, words, signals).await?,
    })
}

/// Ends the session: by the flag where the agent knows it, by a call otherwise.
async fn terminate(mut channel: DataChannel, port: &PortKind, calls: &Calls) {
    if port.features.terminate_flag
        && !channel.is_lost()
        && channel.queue(PayloadType::Flag, Flag::TerminateSession.bytes()).is_ok()
    {
        return channel.finish().await;
    }
    if let Err(error) = calls.terminate().await {
        note(&format!("the session could not be ended, and ends after its idle time: {error}"));
    }
}
