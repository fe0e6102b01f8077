//! Carries SFTP between a client and the node's worker, with the follower in between. Neither direction ever waits for the
//! other one to be read: a client that writes while it does not read stops its own answers alone.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot};

use super::follow::Follower;
use super::packets::Packets;
use super::pending::{Broken, Passing};
use super::session::FilesSession;
use super::{FileEnd, FileJudge};
use crate::gateway::copying::outbox::{Entry, Outbox};
use crate::gateway::ports::PortStream;
use crate::{Server, lock};

/// How often policy is asked again about what is open (T-6: at most 5 s).
const JUDGED_AGAIN: Duration = Duration::from_secs(1);

/// What both directions share.
struct Shared {
    follower: Mutex<Follower>,
    outbox: Arc<Outbox>,
    /// Wakes the direction to the node.
    to_node: Notify,
    /// Wakes the direction to the client.
    to_client: Notify,
    /// Answers that the trail must have first.
    denied: Mutex<Vec<(oneshot::Receiver<()>, Vec<u8>)>>,
}

/// Serves the subsystem `sftp`.
pub(super) async fn sftp<S>(server: &Arc<Server>, session: &FilesSession, stream: S) -> FileEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Some((connection, judge)) = session.take() else { return FileEnd::failed("the session has no connection") };
    let journal = session.journal(&connection);
    let outbox = Arc::new(Outbox::default());
    let facts = Arc::clone(&session.session().handle().facts);
    let written = tokio::spawn(Arc::clone(&outbox).write(Arc::clone(server), facts, journal));
    let ended = follow(stream, connection, judge, &outbox).await;
    // What was done is written before its client hears that it is over.
    let _ = written.await;
    match ended {
        Ok(()) if outbox.is_lost() => FileEnd::failed("what was done could not be written into the trail"),
        Ok(()) => FileEnd::default(),
        Err(error) => FileEnd::failed(format!("the transfer ended: {error}")),
    }
}

/// Carries one connection to its end; the outbox is closed then.
async fn follow<S>(stream: S, connection: PortStream, judge: FileJudge, outbox: &Arc<Outbox>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let number = connection.number();
    carry(stream, connection, Follower::new(judge, number), outbox).await
}

/// As above, for any stream to a worker.
pub(super) async fn carry<S, N>(stream: S, node: N, follower: Follower, outbox: &Arc<Outbox>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    N: AsyncRead + AsyncWrite + Send + Unpin,
{
    let shared = Shared {
        follower: Mutex::new(follower),
        outbox: Arc::clone(outbox),
        to_node: Notify::new(),
        to_client: Notify::new(),
        denied: Mutex::default(),
    };
    let (from_client, to_client) = tokio::io::split(stream);
    let (from_node, to_node) = tokio::io::split(node);
    let towards_node = shared.towards_node(from_client, to_node);
    let towards_client = shared.towards_client(from_node, to_client);
    let no_longer_allowed = denied_by(|| lock(&shared.follower).judge_again());
    tokio::pin!(towards_node, towards_client, no_longer_allowed);
    let mut asks = true;
    let ended = loop {
        tokio::select! {
            ended = &mut towards_client => break ended,
            // The node's end is the end; the client's only says that it asks for nothing more.
            ended = &mut towards_node, if asks => match ended {
                Ok(()) => asks = false,
                Err(error) => break Err(error),
            },
            why = &mut no_longer_allowed => break Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
        }
    };
    let why = match &ended {
        Ok(()) => "the connection ended before the file was closed".to_owned(),
        Err(error) => format!("the connection broke before the file was closed: {error}"),
    };
    lock(&shared.follower).end(&why);
    shared.hand_over();
    outbox.close();
    ended
}

/// Asks policy again and again; returns why, once it says no.
pub(super) async fn denied_by(judge: impl Fn() -> Result<(), String>) -> String {
    let mut time = tokio::time::interval(JUDGED_AGAIN);
    loop {
        time.tick().await;
        if let Err(why) = judge() {
            return why;
        }
    }
}

impl Shared {
    /// Hands what happened to those who write it down; what was denied is answered afterwards.
    fn hand_over(&self) {
        let events = lock(&self.follower).take_events();
        if events.is_empty() {
            return;
        }
        let mut denied = Vec::new();
        let entries = events.into_iter().map(|event| {
            let waiting = event.denied.map(|answer| {
                let (tell, told) = oneshot::channel();
                denied.push((told, answer));
                tell
            });
            Entry { what: event.what, denied: waiting }
        });
        let entries: Vec<_> = entries.collect();
        lock(&self.denied).extend(denied);
        self.outbox.push(entries);
    }

    /// Waits until there is room for what happens next, which is the backpressure of the trail.
    async fn room(&self) -> io::Result<()> {
        poll_fn(|cx| if self.outbox.has_room(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        if self.outbox.is_lost() { Err(io::Error::other("the trail cannot be written")) } else { Ok(()) }
    }

    async fn towards_node<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &self,
        mut from: R,
        mut to: W,
    ) -> io::Result<()> {
        let mut input = Packets::new();
        let mut is_over = false;
        loop {
            let (has_room, is_holding) = {
                let follower = lock(&self.follower);
                (follower.has_room(), follower.is_holding())
            };
            let is_waiting = input.is_whole().map_err(invalid)?;
            if is_over && !is_holding && !is_waiting {
                if !input.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let rest = lock(&self.follower).take_for_node();
                to.write_all(&rest).await?;
                return to.shutdown().await;
            }
            tokio::select! {
                read = from.read(input.space()), if has_room && !is_over && !is_waiting => {
                    let count = read?;
                    is_over = count == 0;
                    input.fill(count);
                }
                // What came while there was no room.
                () = std::future::ready(()), if has_room && is_waiting => {}
                () = self.to_node.notified() => {}
            }
            self.room().await?;
            let (runs, seen) = self.look(&mut input, Follower::has_room, Follower::client)?;
            self.hand_over();
            for run in runs {
                to.write_all(input.filled().get(run).unwrap_or_default()).await?;
            }
            input.consume(seen);
            let behind = lock(&self.follower).take_for_node();
            to.write_all(&behind).await?;
            to.flush().await?;
            // An answer may have been found here.
            if lock(&self.follower).has_answers() || !lock(&self.denied).is_empty() {
                self.to_client.notify_one();
            }
        }
    }

    async fn towards_client<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &self,
        mut from: R,
        mut to: W,
    ) -> io::Result<()> {
        let mut input = Packets::new();
        loop {
            let mut is_over = false;
            tokio::select! {
                read = from.read(input.space()) => {
                    let count = read?;
                    is_over = count == 0;
                    input.fill(count);
                }
                () = self.to_client.notified() => {}
            }
            let (runs, seen) = self.look(&mut input, |_| true, Follower::node)?;
            self.hand_over();
            // There may be room again, or something for the node.
            if seen > 0 {
                self.to_node.notify_one();
            }
            for run in runs {
                to.write_all(input.filled().get(run).unwrap_or_default()).await?;
            }
            input.consume(seen);
            let behind = lock(&self.follower).take_for_client();
            to.write_all(&behind).await?;
            let denied = std::mem::take(&mut *lock(&self.denied));
            for (told, answer) in denied {
                // Without the trail there is no answer.
                told.await.map_err(|_| io::Error::other("the trail cannot be written"))?;
                to.write_all(&answer).await?;
            }
            to.flush().await?;
            if !behind.is_empty() {
                self.to_node.notify_one();
            }
            if is_over {
                if !input.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                poll_fn(|cx| if self.outbox.is_settled(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
                // A client that is gone already has heard enough.
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
    }

    /// Has the follower look at whole packets while it has room; returns which of their bytes pass, in runs, and how many
    /// bytes it has looked at.
    fn look(
        &self,
        input: &mut Packets,
        has_room: impl Fn(&Follower) -> bool,
        mut with: impl FnMut(&mut Follower, &mut [u8]) -> Result<Passing, Broken>,
    ) -> io::Result<(Vec<Range<usize>>, usize)> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        let mut follower = lock(&self.follower);
        while has_room(&follower)
            && let Some(packet) = input.whole(at).map_err(invalid)?
        {
            let end = at + packet.len();
            if with(&mut follower, packet).map_err(invalid)? == Passing::On {
                match runs.last_mut().filter(|run| run.end == at) {
                    Some(run) => run.end = end,
                    None => runs.push(at..end),
                }
            }
            at = end;
        }
        Ok((runs, at))
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
