//! What became of the node's accounts without the server asking, on its way there: the newest report, until the server has it.

use std::time::Duration;

use munjigi_core::wire::message::{AccountReport, Open, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Opener;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::session::Attached;

/// For the server's answer: it may be waiting for this node's work on a bundle.
const ANSWER: Duration = Duration::from_secs(300);
/// After a report that the server did not take; a server that is too old for reports never does.
const AGAIN: Duration = Duration::from_secs(30);

/// The report that waits. A newer one says all that an older one said, as changes stay in it until the server has them.
pub(super) struct AccountChanges {
    newest: watch::Sender<Option<Vec<u8>>>,
    link: watch::Sender<Option<Opener>>,
}

impl AccountChanges {
    /// Makes the place for reports and what sends them; call inside the runtime.
    pub(super) fn start() -> Self {
        let changes = Self { newest: watch::Sender::new(None), link: watch::Sender::new(None) };
        // Lives as long as this process.
        tokio::spawn(send_all(changes.newest.clone(), changes.link.subscribe()));
        changes
    }

    /// Takes a report.
    pub(super) fn tell(&self, report: Vec<u8>) {
        self.newest.send_replace(Some(report));
    }

    /// Takes note of a standing link.
    pub(super) fn connected(&self, opener: Opener) {
        self.link.send_replace(Some(opener));
    }

    /// Takes note that there is no link.
    pub(super) fn disconnected(&self) {
        self.link.send_replace(None);
    }
}

async fn send_all(waiting: watch::Sender<Option<Vec<u8>>>, mut link: watch::Receiver<Option<Opener>>) {
    let mut newest = waiting.subscribe();
    loop {
        let Ok(report) = newest.wait_for(Option::is_some).await.map(|report| report.clone()) else { return };
        let Ok(opener) = link.wait_for(Option::is_some).await.map(|link| link.clone()) else { return };
        let (Some(bytes), Some(opener)) = (&report, opener) else { continue };
        match timeout(ANSWER, send(&opener, bytes)).await {
            // One that came meanwhile is next.
            Ok(Some(())) => drop(waiting.send_if_modified(|now| {
                let sent = *now == report;
                if sent {
                    *now = None;
                }
                sent
            })),
            Ok(None) | Err(_) => sleep(AGAIN).await,
        }
    }
}

async fn send(opener: &Opener, report: &[u8]) -> Option<()> {
    let report = AccountReport::decode(report).ok()?;
    let mut stream = Attached::new(opener.open().await.ok()?);
    let open = Open { wish: Some(open::Wish::AccountsChanged(report)) };
    stream.writer.feed(&Frame::Open(Box::new(open))).ok()?;
    stream.writer.flush().await.ok()?;
    match stream.reader.read(FrameSet::ANSWER).await.ok()?? {
        Frame::Accepted(_) => Some(()),
        _ => None,
    }
}
