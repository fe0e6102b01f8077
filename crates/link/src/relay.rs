//! Carries bytes between two ends, both ways at once, in one task.
//!
//! What is read is written in the same poll. A direction holds a buffer only while bytes are in it, and nothing is
//! allocated, locked or sent to another task on the way.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pool::Buffer;

/// Bytes that a direction carries in one turn. Then others on the thread have theirs, and the sockets are asked what is
/// new: a keystroke waits for a turn of this length, not for as much as the socket has. More bytes make longer waits
/// and hardly fewer turns, since a socket seldom has more.
const TURN_BYTES: u64 = 128 * 1024;

/// One direction on its way.
#[derive(Debug, Default)]
struct Direction {
    buffer: Buffer,
    carried: u64,
    unflushed: bool,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Carrying,
    /// The end was read and is to be written.
    Ending,
    Ended,
}

/// Two ends, and how far their bytes have come. It can stop between two turns and go on elsewhere.
#[derive(Debug)]
pub struct Relay<A, B> {
    a: A,
    b: B,
    there: Direction,
    back: Direction,
}

impl<A, B> Relay<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// Takes the ends.
    pub fn new(a: A, b: B) -> Self {
        Self { a, b, there: Direction::default(), back: Direction::default() }
    }

    /// Returns both ends, to prepare them for where it goes on.
    pub fn ends_mut(&mut self) -> (&mut A, &mut B) {
        (&mut self.a, &mut self.b)
    }

    /// Changes the second end; what was read of it already stays.
    pub fn try_map_b<C>(self, change: impl FnOnce(B) -> io::Result<C>) -> io::Result<Relay<A, C>> {
        let Self { a, b, there, back } = self;
        Ok(Relay { a, b: change(b)?, there, back })
    }

    /// Returns both ends; what was read of one and not written to the other is lost.
    pub fn into_ends(self) -> (A, B) {
        (self.a, self.b)
    }

    /// Carries bytes until both directions have ended, each by itself, and returns how many went from `a` to `b` and
    /// back. The first error ends both: the caller drops both ends, so that each side hears of what broke.
    pub async fn run(&mut self) -> io::Result<(u64, u64)> {
        loop {
            if let Some(carried) = self.run_until(|_, _| false).await? {
                return Ok(carried);
            }
        }
    }

    /// As [`Self::run`], until `leaves` says so when a turn begins: then `None`.
    pub async fn run_until(&mut self, leaves: impl Fn(&A, &B) -> bool) -> io::Result<Option<(u64, u64)>> {
        loop {
            let turn = poll_fn(|cx| {
                if leaves(&self.a, &self.b) {
                    return Poll::Ready(io::Result::Ok(None));
                }
                let Self { a, b, there, back } = &mut *self;
                match (there.poll(cx, a, b)?, back.poll(cx, b, a)?) {
                    (Poll::Ready(Turn::Over), Poll::Ready(Turn::Over)) => Poll::Ready(Ok(Some(Turn::Over))),
                    (Poll::Ready(Turn::Unfinished), _) | (_, Poll::Ready(Turn::Unfinished)) => {
                        Poll::Ready(Ok(Some(Turn::Unfinished)))
                    }
                    _ => Poll::Pending,
                }
            });
            match turn.await? {
                None => return Ok(None),
                Some(Turn::Over) => return Ok(Some((self.there.carried, self.back.carried))),
                // Not only waking oneself: that would come before the runtime looks at its sockets.
                Some(Turn::Unfinished) => tokio::task::yield_now().await,
            }
        }
    }
}

/// Carries bytes as [`Relay::run`] does.
pub async fn relay<A, B>(a: &mut A, b: &mut B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    Relay::new(a, b).run().await
}

/// How a turn of a direction went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The direction has ended.
    Over,
    /// There is more to carry at once.
    Unfinished,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<Turn>> {
        let enough = self.carried + TURN_BYTES;
        loop {
            match self.state {
                State::Ended => return Poll::Ready(Ok(Turn::Over)),
                State::Carrying if self.carried >= enough => return Poll::Ready(Ok(Turn::Unfinished)),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Carrying => ready!(self.poll_carry(cx, from, to))?,
            }
        }
    }

    fn poll_carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            // Waiting here is the back-pressure: nothing is read until this is gone.
            match ready!(Pin::new(&mut *to).poll_write(cx, self.buffer.filled()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.buffer.consume(count),
            }
            self.unflushed = true;
        }
        let mut space = ReadBuf::new(self.buffer.space());
        let read = Pin::new(from).poll_read(cx, &mut space);
        let count = space.filled().len();
        match read {
            Poll::Ready(Ok(())) if count > 0 => {
                self.buffer.fill(count);
                self.carried += count as u64;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                self.buffer.release();
                self.state = State::Ending;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.buffer.release();
                if self.unflushed {
                    ready!(Pin::new(to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_by_itself_and_both_are_counted() {
        let (mut client, mut a) = duplex(1000);
        let (mut b, mut target) = duplex(10);
        let carrying = tokio::spawn(async move { relay(&mut a, &mut b).await });
        let question = vec![7; 300_000];
        let (mut read, mut write) = tokio::io::split(&mut client);
        let asked = async {
            write.write_all(&question).await.unwrap();
            write.shutdown().await.unwrap();
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answered = async {
            let mut heard = Vec::new();
            target.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard.len(), 300_000);
            target.write_all(b"after the end").await.unwrap();
            drop(target);
        };
        let (answer, ()) = tokio::join!(asked, answered);
        assert_eq!(answer, b"after the end");
        assert_eq!(carrying.await.unwrap().unwrap(), (300_000, 13));
    }

    #[tokio::test]
    async fn who_is_not_read_stops_its_own_direction_only() {
        let (mut client, mut a) = duplex(1000);
        let (mut b, mut target) = duplex(1000);
        let carrying = tokio::spawn(async move { relay(&mut a, &mut b).await });
        // Nobody reads what goes to the target.
        let stuck = async {
            loop {
                client.write_all(&[1; 4096]).await.unwrap();
            }
        };
        let stuck = tokio::time::timeout(std::time::Duration::from_millis(200), stuck).await;
        assert!(stuck.is_err(), "what nobody reads was taken without bound");
        target.write_all(b"still here").await.unwrap();
        let mut answer = [0; 10];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"still here");
        drop(target);
        assert!(carrying.await.unwrap().is_err());
    }
}
