//! The session's log as its readers see it: the newest output in memory, everything in the recording.
//!
//! INVARIANT: nothing is delivered to anybody that is not in here first, and `visible` never runs ahead of what the
//! recording's mode allows (T-4): in strict mode it stops at what is safely on disk.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use munjigi_core::session::OutputStream;
use munjigi_core::wire::MAX_DATA;
use tokio::sync::watch;

/// Recent output that stays in memory for watchers although the primary client has it, in bytes.
const KEEP_RECENT: u64 = 16 * 1024;
/// Pieces smaller than this are copied out of the buffer they arrived in, so that they do not pin it, in bytes.
const COPY_BELOW: usize = 4096;

/// A run of output bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Combined offset of the first byte.
    pub offset: u64,
    /// Stdout or stderr.
    pub stream: OutputStream,
    /// At most [`MAX_DATA`] bytes.
    pub data: Bytes,
}

impl Chunk {
    /// Returns the offset behind the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// Returns the part of the chunk from `offset` on; `None` if nothing is left.
    pub fn from_offset(&self, offset: u64) -> Option<Self> {
        let skip = usize::try_from(offset.saturating_sub(self.offset)).ok()?;
        if skip >= self.data.len() {
            return None;
        }
        Some(Self { offset: self.offset + skip as u64, stream: self.stream, data: self.data.slice(skip..) })
    }
}

impl Chunk {
    /// Returns the chunk in pieces that fit a frame.
    pub fn pieces(self) -> impl Iterator<Item = Self> {
        let Self { mut offset, stream, mut data } = self;
        std::iter::from_fn(move || {
            let piece = data.split_to(data.len().min(MAX_DATA));
            let begins = offset;
            offset += piece.len() as u64;
            (!piece.is_empty()).then_some(Self { offset: begins, stream, data: piece })
        })
    }
}

/// What a reader finds at an offset.
#[derive(Debug, PartialEq, Eq)]
pub enum LogRead {
    /// The next bytes.
    Chunk(Chunk),
    /// The bytes are no longer in memory: read the recording up to this offset.
    OnDisk(u64),
    /// Nothing yet.
    AtEnd,
}

struct Window {
    chunks: VecDeque<Chunk>,
    /// Offset behind the newest byte.
    end: u64,
}

/// The log of one live session. Cheap to share; the lock is held for a few lines and never over an await.
pub struct SessionLog {
    window: Mutex<Window>,
    /// How far readers may read. Sender: the session's hub. Receivers: watchers.
    visible: watch::Sender<u64>,
}

impl SessionLog {
    /// Begins at `end`: zero for a new session, what the recording holds for one that is taken back.
    pub fn new(end: u64) -> Self {
        Self { window: Mutex::new(Window { chunks: VecDeque::new(), end }), visible: watch::Sender::new(end) }
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the offset behind the newest byte.
    pub fn end(&self) -> u64 {
        self.window().end
    }

    /// Appends output that the recorder has taken; `data` continues at the log's end.
    pub fn append(&self, stream: OutputStream, data: Bytes) {
        let data = if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data) } else { data };
        let mut window = self.window();
        let offset = window.end;
        window.end += data.len() as u64;
        match window.chunks.back_mut() {
            // Keystroke echoes come byte by byte: join small neighbours, so that the list stays short.
            Some(last) if last.stream == stream && last.data.len() + data.len() <= COPY_BELOW => {
                let joined = [last.data.as_ref(), data.as_ref()].concat();
                last.data = joined.into();
            }
            _ => window.chunks.push_back(Chunk { offset, stream, data }),
        }
    }

    /// Lets readers read up to `offset`.
    pub fn show(&self, offset: u64) {
        self.visible.send_if_modified(|visible| {
            let risen = offset > *visible;
            *visible = (*visible).max(offset);
            risen
        });
    }

    /// Returns how far readers may read.
    pub fn visible(&self) -> u64 {
        *self.visible.borrow()
    }

    /// Tells a reader when more becomes visible.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.visible.subscribe()
    }

    /// Returns what stands at `offset`, at most one frame's worth.
    pub fn read(&self, offset: u64) -> LogRead {
        let visible = self.visible();
        if offset >= visible {
            return LogRead::AtEnd;
        }
        let window = self.window();
        let Some(oldest) = window.chunks.front().map(|chunk| chunk.offset) else { return LogRead::OnDisk(visible) };
        if offset < oldest {
            return LogRead::OnDisk(oldest.min(visible));
        }
        let index = window.chunks.partition_point(|chunk| chunk.end() <= offset);
        let Some(chunk) = window.chunks.get(index).and_then(|chunk| chunk.from_offset(offset)) else {
            return LogRead::AtEnd;
        };
        let allowed = usize::try_from(visible - chunk.offset.min(visible)).unwrap_or(usize::MAX).min(MAX_DATA);
        if allowed == 0 {
            return LogRead::AtEnd;
        }
        let data = chunk.data.slice(..chunk.data.len().min(allowed));
        LogRead::Chunk(Chunk { data, ..chunk })
    }

    /// Forgets what everybody who counts has: `needed` is the oldest offset that must stay in memory. A little recent
    /// output stays for watchers.
    pub fn trim(&self, needed: u64) {
        let mut window = self.window();
        let keep_from = needed.min(window.end.saturating_sub(KEEP_RECENT));
        while window.chunks.front().is_some_and(|chunk| chunk.end() <= keep_from) {
            window.chunks.pop_front();
        }
        if window.chunks.capacity() > 64 && window.chunks.len() < 16 {
            window.chunks.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(read: LogRead) -> Chunk {
        match read {
            LogRead::Chunk(chunk) => chunk,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn readers_see_every_byte_once_whatever_their_pace() {
        let log = SessionLog::new(0);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        let mut offset = 0;
        let mut state = 1_u64;
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = (state >> 40) % 9000 + 1;
            let stream = if state & 1 == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
            let data: Vec<u8> = (0..length).map(|n| (n ^ state) as u8).collect();
            expected.extend(data.iter().map(|byte| (stream, *byte)));
            log.append(stream, data.into());
            log.show(log.end());
            if state & 2 == 0 {
                while let LogRead::Chunk(chunk) = log.read(offset) {
                    assert_eq!(chunk.offset, offset);
                    seen.extend(chunk.data.iter().map(|byte| (chunk.stream, *byte)));
                    offset = chunk.end();
                }
                log.trim(offset);
            }
        }
        while let LogRead::Chunk(chunk) = log.read(offset) {
            seen.extend(chunk.data.iter().map(|byte| (chunk.stream, *byte)));
            offset = chunk.end();
        }
        assert_eq!(seen, expected);
        assert_eq!(log.read(offset), LogRead::AtEnd);
        assert!(matches!(log.read(0), LogRead::OnDisk(_)));
    }

    #[test]
    fn nothing_beyond_the_visible_end_is_delivered() {
        let log = SessionLog::new(0);
        log.append(OutputStream::Stdout, Bytes::from_static(b"stored, not stored"));
        assert_eq!(log.read(0), LogRead::AtEnd);
        log.show(6);
        assert_eq!(chunk(log.read(0)).data.as_ref(), b"stored");
        assert_eq!(log.read(6), LogRead::AtEnd);
    }

    #[test]
    fn a_log_taken_back_after_a_restart_sends_readers_to_the_recording() {
        let log = SessionLog::new(100);
        assert_eq!(log.read(40), LogRead::OnDisk(100));
        log.append(OutputStream::Stdout, Bytes::from_static(b"new"));
        log.show(103);
        assert_eq!(log.read(40), LogRead::OnDisk(100));
        assert_eq!(chunk(log.read(100)).data.as_ref(), b"new");
    }

    #[test]
    fn memory_is_given_back_once_everybody_has_the_bytes() {
        let log = SessionLog::new(0);
        for _ in 0..1000 {
            log.append(OutputStream::Stdout, vec![0_u8; MAX_DATA].into());
        }
        log.show(log.end());
        log.trim(log.end());
        let held: usize = log.window().chunks.iter().map(|chunk| chunk.data.len()).sum();
        assert!(held <= MAX_DATA + KEEP_RECENT as usize, "{held}");
    }
}
