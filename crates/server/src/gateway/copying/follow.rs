//! The node's end of a copy with the eye in it: reading gives whole messages only, so that a word of ours can stand
//! between two of them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use munjigi_core::copy::Message;
use munjigi_core::recording::FileCopied;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::eye::{Eye, From};
use super::outbox::{Entry, Noted, Outbox};

/// How much is read at once behind the beginning of a message for which the reader has no room, bytes.
const ASIDE: usize = 4 * 1024;

/// A copy's stream to the node.
pub(super) struct Followed<S> {
    /// `None` once the copy was denied: the node hears no more of it.
    node: Option<S>,
    /// Tells the node's stream why it is dropped.
    break_off: fn(&mut S, &str),
    eye: Eye,
    outbox: Arc<Outbox>,
    /// The beginning of a message of the node that is not complete.
    pending: Vec<u8>,
    /// Whole messages for which the reader had no room.
    whole: Vec<u8>,
    /// Bytes that were looked at and that the node's stream has not taken yet.
    ahead: usize,
    last_word: Option<LastWord>,
    /// The node has ended its direction.
    has_ended: bool,
}

/// The last word to the client.
struct LastWord {
    /// Told once the trail has it.
    written: Option<oneshot::Receiver<()>>,
    bytes: Vec<u8>,
}

impl<S> Followed<S> {
    pub(super) fn new(node: S, break_off: fn(&mut S, &str), eye: Eye, outbox: Arc<Outbox>) -> Self {
        let (pending, whole, ahead, last_word) = (Vec::new(), Vec::new(), 0, None);
        Self { node: Some(node), break_off, eye, outbox, pending, whole, ahead, last_word, has_ended: false }
    }

    /// Looks at bytes; returns how many were looked at, and how many of those are held back.
    fn look(&mut self, from: From, bytes: &[u8]) -> io::Result<(usize, usize)> {
        let looked = self.eye.look(from, bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let files = self.eye.take();
        match looked.denied {
            None if files.is_empty() => {}
            None => self.outbox.push(files.into_iter().map(|file| Entry { what: Noted::Copied(file), denied: None })),
            Some(why) => self.deny(why, files),
        }
        Ok((looked.taken, looked.held))
    }

    fn deny(&mut self, why: String, files: Vec<FileCopied>) {
        let (tell, written) = oneshot::channel();
        let mut tell = Some(tell);
        let entries: Vec<_> = files
            .into_iter()
            .map(|file| {
                let denied = if file.why == why { tell.take() } else { None };
                Entry { what: Noted::Copied(file), denied }
            })
            .collect();
        self.outbox.push(entries);
        if let Some(mut node) = self.node.take() {
            (self.break_off)(&mut node, &format!("policy: {why}"));
        }
        let mut bytes = Vec::new();
        Message::Failed { code: "AccessDeniedException".to_owned(), why }.encode(&mut bytes);
        self.last_word = Some(LastWord { written: Some(written), bytes });
    }

    /// Tells the client the last word, then the end.
    fn poll_last_word(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(word) = &mut self.last_word else { return Poll::Ready(Ok(())) };
        if let Some(written) = &mut word.written {
            // If the trail is gone the server ends; the client hears no more then.
            if ready!(Pin::new(written).poll(cx)).is_err() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            word.written = None;
        }
        give(&mut word.bytes, buf);
        Poll::Ready(Ok(()))
    }

    /// Notes the node's end; one inside of a message is no good one.
    fn end_of_node(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.has_ended = true;
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> Followed<S> {
    /// Reads behind the beginning of a message, whatever room the reader has; whole messages are `whole` then.
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(node) = &mut self.node else { return Poll::Ready(Ok(())) };
        let mut room = [0; ASIDE];
        let mut read = ReadBuf::new(&mut room);
        ready!(Pin::new(node).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(self.end_of_node());
        }
        let before = self.pending.len();
        let (taken, held) = self.look(From::Node, read.filled())?;
        self.pending.extend_from_slice(read.filled());
        let rest = self.pending.split_off((before + taken).saturating_sub(held));
        self.whole = std::mem::replace(&mut self.pending, rest);
        if self.node.is_none() {
            self.pending.clear();
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves as many bytes as there is room for.
fn give(bytes: &mut Vec<u8>, buf: &mut ReadBuf<'_>) {
    let count = bytes.len().min(buf.remaining());
    buf.put_slice(bytes.get(..count).unwrap_or_default());
    bytes.drain(..count);
}

impl<S: AsyncRead + Unpin> AsyncRead for Followed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.whole.is_empty() || buf.remaining() == 0 {
                give(&mut this.whole, buf);
                return Poll::Ready(Ok(()));
            }
            let Some(node) = &mut this.node else { return this.poll_last_word(cx, buf) };
            if this.has_ended {
                // The client takes this for the end of the copy, and may end the session: all is written by then.
                return if this.outbox.is_settled(cx) { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            if !this.outbox.has_room(cx) {
                return Poll::Pending;
            }
            // The rest of a message goes behind its beginning. The relay always has room for both.
            if buf.remaining() <= this.pending.len() {
                ready!(this.poll_aside(cx))?;
                continue;
            }
            let begin = buf.filled().len();
            buf.put_slice(&this.pending);
            let before = buf.filled().len();
            let read = Pin::new(node).poll_read(cx, buf);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buf.set_filled(begin);
                return read;
            }
            if buf.filled().len() == before {
                buf.set_filled(begin);
                this.end_of_node()?;
                continue;
            }
            let (taken, held) = this.look(From::Node, buf.filled().get(before..).unwrap_or_default())?;
            let whole = (before + taken).saturating_sub(held).max(begin);
            this.pending.clear();
            if this.node.is_some() {
                this.pending.extend_from_slice(buf.filled().get(whole..).unwrap_or_default());
            }
            buf.set_filled(whole);
            if whole > begin {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Followed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Whoever writes offers again what was not taken, so this much was looked at already.
        let new = buf.get(this.ahead..).unwrap_or_default();
        if this.node.is_some() && !new.is_empty() {
            if !this.outbox.has_room(cx) {
                return Poll::Pending;
            }
            this.look(From::Client, new)?;
            this.ahead = buf.len();
        }
        let Some(node) = &mut this.node else {
            // Denied: what still comes is for nobody.
            return Poll::Ready(Ok(buf.len()));
        };
        let written = ready!(Pin::new(node).poll_write(cx, buf));
        if let Ok(count) = &written {
            this.ahead = this.ahead.saturating_sub(*count);
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().node {
            Some(node) => Pin::new(node).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().node {
            Some(node) => Pin::new(node).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<S> Drop for Followed<S> {
    fn drop(&mut self) {
        self.eye.end("the connection ended before it was complete");
        self.outbox.push(self.eye.take().into_iter().map(|file| Entry { what: Noted::Copied(file), denied: None }));
        self.outbox.close();
    }
}
