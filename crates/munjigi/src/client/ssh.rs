//! An SSH connection over our own link: the server is its other end, and knows already who we are.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use munjigi_core::wire::message::{Open, SshWish, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::{Connection, MovingStream};

use super::context::Context;
use super::link;
use super::road::why;

/// Most keys that vouch for hosts at once, and most bytes of one; there are three at most, of some 100 bytes.
const MAX_KEYS: usize = 16;
const MAX_KEY: usize = 1024;

/// An SSH connection's bytes, and the link that they travel on.
pub(crate) struct Way {
    /// Kept for as long as the bytes travel.
    pub(crate) link: Connection,
    /// The bytes.
    pub(crate) far: MovingStream,
    /// The keys that vouch for hosts.
    authorities: Vec<String>,
    /// The key of the host that was asked for, if the server knows it and is not that host itself.
    host_key: String,
}

impl Way {
    /// Returns what ssh's `known_hosts` has to hold: whoever vouches for hosts here does so for all of them.
    pub(crate) fn known_hosts(&self) -> String {
        let keys = self.authorities.iter().take(MAX_KEYS).filter(|key| is_key(key));
        keys.map(|key| format!("@cert-authority * {key}\n")).collect()
    }

    /// Returns what a `known_hosts` of this host alone has to hold: the same, and the host's own key.
    pub(crate) fn known_host(&self) -> String {
        let own = Some(&self.host_key).filter(|key| is_key(key)).map(|key| format!("* {key}\n"));
        self.known_hosts() + &own.unwrap_or_default()
    }
}

/// Tells whether a text looks like a public key, and like nothing else that `known_hosts` could hold.
fn is_key(text: &str) -> bool {
    let kind = ["ssh-", "ecdsa-"].iter().any(|kind| text.starts_with(kind));
    kind && text.len() <= MAX_KEY && !text.contains(char::is_control)
}

/// Opens an SSH connection to a node. Nothing is waited for but the server's word that it is there.
pub(crate) async fn open(context: Arc<Context>, node: String) -> anyhow::Result<Way> {
    let options = link::dial_options(&context)?;
    let dialed =
        link::connect(&context, &options).await.with_context(|| format!("cannot reach {}", context.endpoint))?;
    let link = dialed.connection;
    link.set_lanes(link::lanes(context, options));
    let opener = link.opener();
    let broken = |why: String| anyhow!("the connection to the server broke: {why}");
    let stream = opener.open().await.map_err(|error| broken(error.to_string()))?;
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let wish = open::Wish::Ssh(SshWish { node });
    writer.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))).map_err(|error| broken(error.to_string()))?;
    writer.flush().await.map_err(|error| broken(why(&error)))?;
    let accepted = match reader.read(FrameSet::ANSWER).await {
        Ok(Some(Frame::Accepted(accepted))) => accepted,
        Ok(Some(Frame::Refused(refused))) => bail!("{} ({})", refused.message, refused.code),
        Ok(_) => return Err(broken("it was closed".to_owned())),
        Err(error) => return Err(broken(why(&error))),
    };
    let (read, early) = reader.into_parts();
    let mut far = opener.moving(read.unsplit(writer.into_inner()), &accepted.lane);
    far.unread(early);
    Ok(Way { link, far, authorities: accepted.host_authorities, host_key: accepted.host_key })
}
