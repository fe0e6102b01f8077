//! The link half's view of the privileged half: what it may ask for, and the answers.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::id::SessionId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::halves::{Channel, ChannelError, MAX_MESSAGE, MAX_PIECE, Start, ToLink, ToSpawn};

use crate::sys;

use super::session::Handle;

/// Why a program was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartRefused {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) reason: String,
}

/// Answer to a start.
pub(crate) type StartAnswer = Result<(crate::halves::Session, Handle), StartRefused>;

#[derive(Default)]
struct Waiting {
    last: u64,
    signatures: HashMap<u64, oneshot::Sender<[u8; 64]>>,
    starts: HashMap<u64, oneshot::Sender<StartAnswer>>,
    /// Account bundles to be applied.
    reports: HashMap<u64, oneshot::Sender<Report>>,
    /// Keys and documents to be taken and endpoints to be reached.
    others: HashMap<u64, oneshot::Sender<Answer>>,
}

/// Answer to a wish for which nothing starts, with the descriptors that came along.
pub(crate) type Answer = Result<Vec<OwnedFd>, StartRefused>;

/// Answer to an account bundle: the report, in bytes.
pub(crate) type Report = Result<Vec<u8>, StartRefused>;

/// Asks the privileged half.
pub(crate) struct SpawnClient {
    channel: AsyncFd<Channel>,
    waiting: Mutex<Waiting>,
}

impl SpawnClient {
    /// Takes the channel over; call inside the runtime.
    pub(crate) fn new(channel: Channel) -> io::Result<Self> {
        Ok(Self { channel: sys::watched(channel, Interest::READABLE | Interest::WRITABLE)?, waiting: Mutex::default() })
    }

    /// Sends a message; waiting here is the back-pressure of the privileged half.
    pub(crate) async fn send(&self, message: &ToSpawn) -> Result<(), ChannelError> {
        let bytes = message.encode();
        if bytes.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLarge);
        }
        self.exchange(Interest::WRITABLE, |channel| channel.send(&bytes, &[])).await
    }

    /// Receives the next message.
    pub(crate) async fn receive(&self) -> Result<(ToLink, Vec<OwnedFd>), ChannelError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (count, descriptors) = self.exchange(Interest::READABLE, |channel| channel.receive(&mut buffer)).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        // A message that cannot be read comes from another version of this program: as bad as none.
        let message = ToLink::decode(bytes).map_err(|_| ChannelError::Closed)?;
        Ok((message, descriptors))
    }

    async fn exchange<T>(
        &self,
        interest: Interest,
        mut act: impl FnMut(&Channel) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let result = self.channel.async_io(interest, |channel| match act(channel) {
            Err(ChannelError::NotReady) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        result.await.map_err(|_| ChannelError::Closed)?
    }

    /// Has a link request signed.
    pub(crate) async fn sign(&self, binding: [u8; 32], hello: String) -> Result<[u8; 64], ChannelError> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let request = waiting.last;
            waiting.signatures.insert(request, answer);
            request
        };
        self.send(&ToSpawn::Sign { request, binding, hello }).await?;
        answered.await.map_err(|_| ChannelError::Closed)
    }

    /// Has a program started.
    pub(crate) async fn start(&self, mut start: Start) -> Result<StartAnswer, ChannelError> {
        let (answer, answered) = oneshot::channel();
        start.request = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let request = waiting.last;
            waiting.starts.insert(request, answer);
            request
        };
        let request = start.request;
        if let Err(error) = self.send(&ToSpawn::Start(start)).await {
            self.lock().starts.remove(&request);
            return Err(error);
        }
        answered.await.map_err(|_| ChannelError::Closed)
    }

    /// Has a key given to sshd.
    pub(crate) async fn key(&self, grant: Vec<u8>) -> Result<Answer, ChannelError> {
        self.ask(|request| ToSpawn::Key { request, grant }).await
    }

    /// Hands the node's account bundle over, in pieces; answered once it is applied.
    pub(crate) async fn accounts(&self, recorded: u64, bundle: &[u8]) -> Result<Report, ChannelError> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let request = waiting.last;
            waiting.reports.insert(request, answer);
            request
        };
        let total = u32::try_from(bundle.len()).map_err(|_| ChannelError::TooLarge)?;
        for piece in bundle.chunks(MAX_PIECE) {
            let message = ToSpawn::Accounts { request, recorded, total, piece: piece.to_vec() };
            if let Err(error) = self.send(&message).await {
                self.lock().reports.remove(&request);
                return Err(error);
            }
        }
        answered.await.map_err(|_| ChannelError::Closed)
    }

    /// Delivers the report on an account bundle. Returns a refusal if nobody waits for it as such.
    pub(crate) fn reported(&self, request: u64, report: Report) -> Option<StartRefused> {
        match self.lock().reports.remove(&request) {
            // Whoever asked may have given up.
            Some(waiter) => {
                let _ = waiter.send(report);
                None
            }
            None => report.err(),
        }
    }

    /// Has what sshd may believe written down.
    pub(crate) async fn ssh_trust(&self, document: Vec<u8>) -> Result<Answer, ChannelError> {
        self.ask(|request| ToSpawn::SshTrust { request, document }).await
    }

    /// Asks whether a session may reach an endpoint, with the grant that adds it if there is one.
    pub(crate) async fn reach(
        &self,
        session: &SessionId,
        endpoint: &Endpoint,
        grant: Vec<u8>,
    ) -> Result<Answer, ChannelError> {
        let (session, endpoint) = (session.clone(), endpoint.clone());
        self.ask(|request| ToSpawn::Reach { request, session, endpoint, grant }).await
    }

    async fn ask(&self, wish: impl FnOnce(u64) -> ToSpawn) -> Result<Answer, ChannelError> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let request = waiting.last;
            waiting.others.insert(request, answer);
            request
        };
        if let Err(error) = self.send(&wish(request)).await {
            self.lock().others.remove(&request);
            return Err(error);
        }
        answered.await.map_err(|_| ChannelError::Closed)
    }

    /// Delivers the answer to such a wish. Returns it if nobody waits for it as such.
    pub(crate) fn answered(&self, request: u64, answer: Answer) -> Option<StartRefused> {
        match self.lock().others.remove(&request) {
            // Whoever asked may have given up.
            Some(waiter) => {
                let _ = waiter.send(answer);
                None
            }
            None => answer.err(),
        }
    }

    /// Delivers a signature to whoever waits for it.
    pub(crate) fn signed(&self, request: u64, signature: [u8; 64]) {
        let waiting = self.lock().signatures.remove(&request);
        // Whoever asked may have given up.
        if let Some(waiter) = waiting {
            let _ = waiter.send(signature);
        }
    }

    /// Delivers the answer to a start to whoever waits for it; without anybody the session stays, unattached.
    pub(crate) fn started(&self, request: u64, answer: StartAnswer) {
        let waiting = self.lock().starts.remove(&request);
        if let Some(waiter) = waiting {
            drop(waiter.send(answer));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
