//! One file of the trail, and the sparse index with which its lines are found by number and time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use munjigi_core::audit::{Line, LineError, MAX_LINE_BYTES};
use munjigi_core::time::Timestamp;
use serde::Deserialize;

/// A new place is noted after this many bytes: what one lookup reads at once.
const BLOCK_BYTES: u64 = 64 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// Returns the file name of a segment.
pub(super) fn name(number: u32) -> String {
    format!("{number:08}.log")
}

/// Returns the number of a segment's file name.
pub(super) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 8)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Some lines that stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Number of its first event.
    pub first: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// The oldest time of its events.
    pub oldest: Timestamp,
    /// The newest time of its events.
    pub newest: Timestamp,
}

/// The blocks of one segment: 32 bytes for 64 KiB.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub blocks: Vec<Block>,
    /// Where the next line begins.
    pub end: u64,
}

impl Index {
    /// Notes a line behind the last one.
    pub(super) fn note(&mut self, sequence: u64, time: Timestamp, length: u64) {
        match self.blocks.last_mut().filter(|block| self.end - block.offset < BLOCK_BYTES) {
            Some(block) => {
                block.oldest = block.oldest.min(time);
                block.newest = block.newest.max(time);
            }
            None => self.blocks.push(Block { first: sequence, offset: self.end, oldest: time, newest: time }),
        }
        self.end += length;
    }

    /// Returns the block that holds an event, and where it ends.
    pub(super) fn block_of(&self, sequence: u64) -> Option<(Block, u64)> {
        let at = self.blocks.partition_point(|block| block.first <= sequence).checked_sub(1)?;
        let end = self.blocks.get(at + 1).map_or(self.end, |next| next.offset);
        Some((*self.blocks.get(at)?, end))
    }
}

#[derive(Deserialize)]
struct TimeOnly<'a> {
    #[serde(rename = "eventTime", borrow)]
    event_time: std::borrow::Cow<'a, str>,
}

/// Returns the time of a record; one that cannot be read counts as the beginning of time.
pub(super) fn time_of(record: &str) -> Timestamp {
    serde_json::from_str::<TimeOnly<'_>>(record)
        .ok()
        .and_then(|only| Timestamp::parse_iso(&only.event_time))
        .unwrap_or_default()
}

/// What a walk over lines met.
#[derive(Debug)]
pub(super) enum Walked {
    /// The end; behind the last whole line stand so many bytes.
    End { torn_bytes: u64 },
    /// A line that is none.
    Broken(LineError),
}

/// Gives every whole line from `from` to `limit` to `take`, with its length in the file; stops when `take` says so.
pub(super) fn walk(
    file: &File,
    from: u64,
    limit: u64,
    mut take: impl FnMut(&Line<'_>, u64) -> bool,
) -> io::Result<Walked> {
    let mut buffer: Vec<u8> = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = from;
    loop {
        let want = usize::try_from(limit.saturating_sub(at)).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let length = match file.read_at(piece.get_mut(..want).unwrap_or_default(), at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if length == 0 {
            return Ok(Walked::End { torn_bytes: buffer.len() as u64 });
        }
        at += length as u64;
        buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
        let mut used = 0;
        while let Some(end) = buffer.get(used..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let line = match Line::parse(buffer.get(used..used + end).unwrap_or_default()) {
                Ok(line) => line,
                Err(error) => return Ok(Walked::Broken(error)),
            };
            used += end + 1;
            if !take(&line, end as u64 + 1) {
                return Ok(Walked::End { torn_bytes: 0 });
            }
        }
        buffer.drain(..used);
        // A line that never ends is not kept beyond what a line may have.
        if buffer.len() > MAX_LINE_BYTES {
            return Ok(Walked::Broken(LineError::Form));
        }
    }
}
