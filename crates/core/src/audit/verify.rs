//! The proof, offline, that a log is whole: its lines against their chain and against signed checkpoints.

use std::collections::VecDeque;

use serde::Deserialize;

use super::chain::claimed_sequence;
use super::{Checkpoint, CheckpointError, Line, LineError, Link, LogId, MAX_LINE_BYTES};
use crate::time::Timestamp;
use crate::trust::TrustedKey;

/// A checkpoint may be this much older than its newest event: times of events are cut to the second, and clocks step.
const CHECKPOINT_SLACK: std::time::Duration = std::time::Duration::from_secs(120);

/// What the verifier believes.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The log's id.
    pub log: LogId,
    /// Keys that may sign checkpoints, retired ones included.
    pub keys: Vec<TrustedKey>,
}

/// What is wrong at the first bad place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line is none of ours, or its content was changed.
    #[error("the event was changed: {0}")]
    Changed(LineError),
    /// Events are missing before the line that stands here.
    #[error("events were removed: number {found} stands here")]
    Removed {
        /// The number found.
        found: u64,
    },
    /// A line stands here that does not belong: a copy of an earlier one, or one more of the same number.
    #[error("an event was inserted: number {found} stands here")]
    Inserted {
        /// The number found.
        found: u64,
    },
    /// The event that belongs here stands further down.
    #[error("events were reordered: number {found} stands here")]
    Reordered {
        /// The number found.
        found: u64,
    },
    /// The line is whole but continues another history.
    #[error("the event does not follow the one before")]
    Forked,
    /// The log was rewritten: it is consistent in itself, but a signed checkpoint says otherwise. The first changed
    /// event is the one named or a later one up to the checkpoint's.
    #[error("the log was rewritten: it differs from the checkpoint of {count} events")]
    Rewritten {
        /// How many events the checkpoint covers.
        count: u64,
    },
    /// The log is shorter than a signed checkpoint says: cut off or rolled back.
    #[error("the log was truncated or rolled back: a checkpoint covers {count} events")]
    Truncated {
        /// How many events the newest checkpoint covers.
        count: u64,
    },
    /// A checkpoint is not to be believed.
    #[error("checkpoint of {count} events: {error}")]
    Checkpoint {
        /// How many events it covers.
        count: u64,
        /// What is wrong with it.
        error: CheckpointError,
    },
    /// A checkpoint is older than events it covers: signed afterwards with an old key, or with a wrong clock.
    #[error("the checkpoint of {count} events is older than its newest event")]
    Backdated {
        /// How many events it covers.
        count: u64,
    },
    /// Two checkpoints of the same number of events differ, both signed: the log was forked.
    #[error("two signed checkpoints of {count} events differ: the log was forked")]
    TwoHeads {
        /// How many events both cover.
        count: u64,
    },
}

/// The first bad place of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {sequence} (line {line}): {fault}")]
pub struct Finding {
    /// Number of the first event that is not as written (for missing ones: the first missing).
    pub sequence: u64,
    /// The line it was found at, from 1, counted over all files fed.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many events are as written, from the first on.
    pub events: u64,
    /// The place of the last of them.
    pub head: Link,
    /// How many of them a signed checkpoint covers.
    pub attested: u64,
    /// Bytes of an unfinished last line, as a crash leaves behind.
    pub torn_bytes: u64,
    /// The first bad place, if there is one.
    pub bad: Option<Finding>,
}

impl Verdict {
    /// Tells whether nothing was changed, removed, inserted, reordered, cut off, rolled back or forked.
    pub const fn is_whole(&self) -> bool {
        self.bad.is_none() && self.torn_bytes == 0
    }
}

/// Verifies a log from its bytes, fed in order over all its files and in any pieces. Holds at most one line.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Link,
    line_number: u64,
    /// Believed checkpoints, newest last; consumed from the front.
    checkpoints: VecDeque<Checkpoint>,
    newest: Option<Checkpoint>,
    attested: u64,
    partial: Vec<u8>,
    bad: Option<Finding>,
    /// Set while the event that belongs to a gap may still turn up further down.
    gap: Option<u64>,
}

#[derive(Deserialize)]
struct TimeOnly<'a> {
    #[serde(rename = "eventTime", borrow)]
    event_time: std::borrow::Cow<'a, str>,
}

impl Verifier {
    /// Begins at a log's first line. `checkpoints` are all that are known, from wherever they were kept; one that is
    /// not to be believed is a finding.
    pub fn new(trust: &Trust, checkpoints: impl IntoIterator<Item = Checkpoint>) -> Self {
        let mut verifier = Self {
            head: Link { sequence: 0, hash: trust.log.genesis() },
            line_number: 0,
            checkpoints: VecDeque::new(),
            newest: None,
            attested: 0,
            partial: Vec::new(),
            bad: None,
            gap: None,
        };
        let mut believed = Vec::new();
        let mut worst: Option<(u64, Fault)> = None;
        let mut blame = |count: u64, fault: Fault| {
            if worst.as_ref().is_none_or(|(earlier, _)| count < *earlier) {
                worst = Some((count, fault));
            }
        };
        for checkpoint in checkpoints {
            let count = checkpoint.head.sequence;
            match checkpoint.verify(trust.log, &trust.keys) {
                Ok(()) if count > 0 => believed.push(checkpoint),
                Ok(()) if checkpoint.head == verifier.head => {}
                Ok(()) => blame(0, Fault::Rewritten { count }),
                Err(error) => blame(count, Fault::Checkpoint { count, error }),
            }
        }
        believed.sort_by_key(|checkpoint| (checkpoint.head.sequence, checkpoint.time));
        let mut forked = Vec::new();
        for pair in believed.windows(2) {
            if let [a, b] = pair
                && a.head.sequence == b.head.sequence
                && a.head.hash != b.head.hash
            {
                forked.push(a.head.sequence);
                blame(a.head.sequence, Fault::TwoHeads { count: a.head.sequence });
            }
        }
        // Of two histories neither is the right one.
        believed.retain(|checkpoint| !forked.contains(&checkpoint.head.sequence));
        verifier.newest = believed.last().cloned();
        verifier.checkpoints = believed.into();
        verifier.bad = worst.map(|(count, fault)| Finding { sequence: count, line: 0, fault });
        verifier
    }

    /// Takes the next bytes of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, behind) = rest.split_at(end);
            rest = behind.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole);
            }
        }
        // A line that never ends is not kept beyond its limit: one byte more is enough to refuse it.
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
        self.partial.extend_from_slice(rest.get(..rest.len().min(room)).unwrap_or_default());
    }

    /// Returns what was found.
    pub fn finish(mut self) -> Verdict {
        let torn_bytes = self.partial.len() as u64;
        if self.bad.is_none()
            && let Some(newest) = self.newest.as_ref().filter(|newest| newest.head.sequence > self.head.sequence)
        {
            let count = newest.head.sequence;
            self.blame(self.head.sequence + 1, Fault::Truncated { count });
        }
        Verdict { events: self.head.sequence, head: self.head, attested: self.attested, torn_bytes, bad: self.bad }
    }

    fn blame(&mut self, sequence: u64, fault: Fault) {
        // A bad checkpoint (line 0) yields to damage in the log before the events it covers.
        let earlier = self.bad.as_ref().is_none_or(|bad| bad.line == 0 && sequence <= bad.sequence);
        if earlier {
            self.bad = Some(Finding { sequence, line: self.line_number, fault });
        }
    }

    fn in_log(&self) -> bool {
        self.bad.as_ref().is_some_and(|bad| bad.line != 0)
    }

    fn line(&mut self, bytes: &[u8]) {
        self.line_number += 1;
        let expected = self.head.sequence + 1;
        if self.in_log() {
            // Only whether the missing event still turns up is left to find out.
            if let Some(missing) = self.gap
                && claimed_sequence(bytes) == Some(missing)
                && Line::parse(bytes).is_ok_and(|line| line.previous == self.head.hash)
                && let Some(Finding { fault, .. }) = &mut self.bad
                && let Fault::Removed { found } = *fault
            {
                *fault = Fault::Reordered { found };
                self.gap = None;
            }
            return;
        }
        let line = match Line::parse(bytes) {
            Ok(line) if bytes.len() < MAX_LINE_BYTES => line,
            Ok(_) => return self.blame(expected, Fault::Changed(LineError::Form)),
            Err(error) => return self.blame(expected, Fault::Changed(error)),
        };
        let found = line.link.sequence;
        if found > expected {
            self.blame(expected, Fault::Removed { found });
            self.gap = Some(expected);
        } else if found < expected {
            self.blame(expected, Fault::Inserted { found });
        } else if line.previous != self.head.hash {
            self.blame(expected, Fault::Forked);
        } else {
            self.advance(&line);
        }
    }

    fn advance(&mut self, line: &Line<'_>) {
        while let Some(checkpoint) = self.checkpoints.front().filter(|next| next.head.sequence == line.link.sequence) {
            let count = checkpoint.head.sequence;
            if checkpoint.head.hash != line.link.hash {
                return self.blame(self.attested + 1, Fault::Rewritten { count });
            }
            let time = serde_json::from_str::<TimeOnly<'_>>(line.record)
                .ok()
                .and_then(|only| Timestamp::parse_iso(&only.event_time));
            let Some(time) = time else { return self.blame(count, Fault::Changed(LineError::Form)) };
            if checkpoint.time.plus(CHECKPOINT_SLACK) < time {
                return self.blame(count, Fault::Backdated { count });
            }
            self.checkpoints.pop_front();
            self.attested = count;
        }
        self.head = line.link;
    }
}
