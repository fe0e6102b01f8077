//! The trail's directory: its id, its segments in order, and which of their lines are durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use munjigi_core::audit::{Chain, Checkpoint, Fault, Finding, Link, LogId, Trust, Verdict};
use tokio::sync::watch;

use super::segment::{self, Block, Index, Walked, walk};
use super::verify::{self, CHECKPOINTS};
use super::writer::{Queue, State};
use super::{AuditError, Settings};
use crate::directory::{Access, Directory};
use crate::disk::Disk;
use crate::lock;

const LOG_ID: &str = "log-id";
/// Bytes set aside so that ends of sessions are recorded on a full disk.
const RESERVE_BYTES: u64 = 1024 * 1024;

/// What readers and the writer share.
pub(super) struct Trail {
    pub directory: Directory,
    pub disk: Disk,
    pub trust: Trust,
    pub queue: Queue,
    /// Number of the newest durable event.
    pub durable: watch::Sender<u64>,
    catalogue: Mutex<Catalogue>,
}

/// What is durable, segment by segment.
struct Catalogue {
    /// In order; the last one is written to.
    segments: Vec<Segment>,
    /// The newest checkpoint, wherever it was kept.
    newest: Option<Checkpoint>,
}

struct Segment {
    number: u32,
    first: u64,
    /// Built at the first use for segments that are no longer written to.
    index: Option<Arc<Index>>,
}

/// A block with the file it is in.
pub(super) struct Located {
    pub segment: u32,
    pub block: Block,
    pub end: u64,
}

impl Trail {
    /// Opens a directory; checks the last segment line by line, and its join to the one before.
    pub(super) fn open(path: &Path, settings: &Settings) -> Result<(Self, State), AuditError> {
        let directory = Directory::create_path(path).map_err(AuditError::io("open the trail's directory"))?;
        let room = Directory::open_path(path).map_err(AuditError::io("open the trail's directory"))?;
        let log = log_id(&directory)?;
        let trust = Trust { log, keys: settings.trusted.clone() };
        let numbers = segments(&directory)?;
        let mut last = Chain::new(log).last();
        let mut catalogue = Vec::new();
        if let Some((_, earlier)) = numbers.split_last() {
            for number in earlier {
                let first = first_line(&directory, *number)?.sequence;
                catalogue.push(Segment { number: *number, first, index: None });
            }
            if let Some(before) = earlier.last() {
                last = last_line(&directory, *before)?;
            }
        }
        let number = numbers.last().copied().unwrap_or(1);
        let file = match numbers.last() {
            Some(number) => directory.open_file(&segment::name(*number), Access::Write),
            None => directory.create_file(&segment::name(1)).and_then(|file| directory.sync().map(|()| file)),
        }
        .map_err(AuditError::io("open the trail's last file"))?;
        let first = last.sequence + 1;
        let index = recover(&file, &mut last)?;
        let end = index.end;
        catalogue.push(Segment { number, first, index: Some(Arc::new(index)) });
        if numbers.is_empty() && settings.mirrored.is_none() {
            tracing::info!(%log, "a new audit trail begins");
        }

        let newest = newest_checkpoint(&directory, settings, &trust, last)?;
        let trail = Self {
            directory,
            disk: Disk::new(room, RESERVE_BYTES),
            trust,
            queue: Queue::default(),
            durable: watch::Sender::new(last.sequence),
            catalogue: Mutex::new(Catalogue { segments: catalogue, newest }),
        };
        Ok((trail, State { chain: Chain::resume(log, last), file, number, end }))
    }

    /// Finds the block that holds a durable event.
    pub(super) fn locate(&self, sequence: u64) -> Result<Option<Located>, AuditError> {
        if sequence == 0 || sequence > *self.durable.borrow() {
            return Ok(None);
        }
        let (number, index) = {
            let catalogue = lock(&self.catalogue);
            let at = catalogue.segments.partition_point(|segment| segment.first <= sequence);
            let Some(segment) = at.checked_sub(1).and_then(|at| catalogue.segments.get(at)) else { return Ok(None) };
            (segment.number, segment.index.clone())
        };
        let index = match index {
            Some(index) => index,
            None => self.build(number)?,
        };
        Ok(index.block_of(sequence).map(|(block, end)| Located { segment: number, block, end }))
    }

    /// Opens a segment for reading.
    pub(super) fn file(&self, number: u32) -> Result<File, AuditError> {
        self.directory
            .open_file(&segment::name(number), Access::Read)
            .map_err(AuditError::io("open a file of the trail"))
    }

    /// Takes the newly durable lines of the last segment; `next` names the segment that follows it, if one was begun.
    pub(super) fn publish(&self, index: Arc<Index>, last: u64, next: Option<u32>) {
        {
            let mut catalogue = lock(&self.catalogue);
            if let Some(segment) = catalogue.segments.last_mut() {
                segment.index = Some(index);
            }
            if let Some(number) = next {
                let index = Some(Arc::default());
                catalogue.segments.push(Segment { number, first: last + 1, index });
            }
        }
        self.durable.send_if_modified(|durable| std::mem::replace(durable, last) != last);
    }

    /// Returns the index of the last segment as it is published.
    pub(super) fn last_index(&self) -> Arc<Index> {
        lock(&self.catalogue).segments.last().and_then(|segment| segment.index.clone()).unwrap_or_default()
    }

    /// Keeps the newest checkpoint for verification.
    pub(super) fn remember(&self, checkpoint: Checkpoint) {
        lock(&self.catalogue).newest = Some(checkpoint);
    }

    /// Verifies everything that is durable. Blocks.
    pub(super) fn verify(&self) -> Result<Verdict, AuditError> {
        // Checkpoints first: the lines that they cover are durable, so they are in what is read afterwards.
        let newest = lock(&self.catalogue).newest.clone();
        let checkpoints = verify::checkpoints(&self.directory)?;
        let numbers: Vec<u32> = lock(&self.catalogue).segments.iter().map(|segment| segment.number).collect();
        let end = self.last_index().end;
        let limits = numbers.iter().enumerate().map(|(at, number)| (*number, at + 1 == numbers.len()));
        let files: Vec<(u32, u64)> = limits.map(|(number, last)| (number, if last { end } else { u64::MAX })).collect();
        verify::verify(&self.directory, &self.trust, checkpoints.into_iter().chain(newest), &files, &mut |_| {})
    }

    fn build(&self, number: u32) -> Result<Arc<Index>, AuditError> {
        let mut index = Index::default();
        let walked = walk(&self.file(number)?, 0, u64::MAX, |line, length| {
            index.note(line.link.sequence, segment::time_of(line.record), length);
            true
        });
        if let Walked::Broken(error) = walked.map_err(AuditError::io("read the trail"))? {
            return Err(AuditError::Damaged(format!("{}: {error}", segment::name(number)).into()));
        }
        let index = Arc::new(index);
        let mut catalogue = lock(&self.catalogue);
        if let Some(segment) = catalogue.segments.iter_mut().find(|segment| segment.number == number) {
            // A segment that is written to has its index already.
            return Ok(segment.index.get_or_insert(index).clone());
        }
        Ok(index)
    }
}

/// Checks the last segment's lines against the chain, notes them, and cuts off what a crash left behind them.
fn recover(file: &File, last: &mut Link) -> Result<Index, AuditError> {
    let mut index = Index::default();
    let mut finding = None;
    let mut line_number = 0;
    let walked = walk(file, 0, u64::MAX, |line, length| {
        line_number += 1;
        let fault = match line.link.sequence {
            found if found > last.sequence + 1 => Some(Fault::Removed { found }),
            found if found < last.sequence + 1 => Some(Fault::Inserted { found }),
            _ if line.previous != last.hash => Some(Fault::Forked),
            _ => None,
        };
        finding = fault.map(|fault| Finding { sequence: last.sequence + 1, line: line_number, fault });
        if finding.is_none() {
            *last = line.link;
            index.note(line.link.sequence, segment::time_of(line.record), length);
        }
        finding.is_none()
    })
    .map_err(AuditError::io("read the trail's last file"))?;
    if let Some(finding) = finding {
        return Err(AuditError::Broken(finding));
    }
    match walked {
        Walked::Broken(error) => Err(AuditError::Broken(Finding {
            sequence: last.sequence + 1,
            line: line_number + 1,
            fault: Fault::Changed(error),
        })),
        Walked::End { torn_bytes: 0 } => Ok(index),
        Walked::End { torn_bytes } => {
            tracing::warn!(torn_bytes, "cutting an unfinished line off the audit trail; it was never acknowledged");
            file.set_len(index.end)
                .and_then(|()| file.sync_all())
                .map_err(AuditError::io("cut an unfinished line off the trail"))?;
            Ok(index)
        }
    }
}

/// Returns the newest checkpoint that is believed, after comparing it with the end of the trail.
fn newest_checkpoint(
    directory: &Directory,
    settings: &Settings,
    trust: &Trust,
    last: Link,
) -> Result<Option<Checkpoint>, AuditError> {
    let kept = verify::checkpoints(directory)?;
    let believed = kept
        .into_iter()
        .chain(settings.mirrored.clone())
        .filter(|checkpoint| checkpoint.verify(trust.log, &trust.keys).is_ok_and(|()| true));
    let newest = believed.max_by_key(|checkpoint| (checkpoint.head.sequence, checkpoint.time));
    if settings.mirrored.as_ref().is_some_and(|mirrored| mirrored.log != trust.log) {
        return Err(AuditError::Damaged("the database belongs to another trail than the one in the directory".into()));
    }
    match &newest {
        Some(newest) if newest.head.sequence > last.sequence => {
            Err(AuditError::Truncated { events: last.sequence, covered: newest.head.sequence })
        }
        Some(newest) if newest.head.sequence == last.sequence && newest.head.hash != last.hash => {
            let fault = Fault::Rewritten { count: newest.head.sequence };
            Err(AuditError::Broken(Finding { sequence: last.sequence, line: 0, fault }))
        }
        _ => Ok(newest),
    }
}

/// Reads the trail's id, or makes one for a new trail.
fn log_id(directory: &Directory) -> Result<LogId, AuditError> {
    if let Some(id) = read_log_id(directory)? {
        return Ok(id);
    }
    if !segments(directory)?.is_empty() {
        return Err(AuditError::Damaged("the file log-id is missing".into()));
    }
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| AuditError::Damaged("the system has no randomness".into()))?;
    let id = LogId(random);
    let make = || {
        let file = directory.create_file(LOG_ID)?;
        file.write_all_at(id.to_string().as_bytes(), 0)?;
        file.sync_all()?;
        directory.sync()
    };
    make().map_err(AuditError::io("begin a new trail"))?;
    Ok(id)
}

/// Reads the trail's id; `None` if there is none.
pub(super) fn read_log_id(directory: &Directory) -> Result<Option<LogId>, AuditError> {
    let file = match directory.open_file(LOG_ID, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AuditError::io("open the file log-id")(error)),
    };
    let mut text = [0; 33];
    let length = file.read_at(&mut text, 0).map_err(AuditError::io("read the file log-id"))?;
    let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
    match LogId::parse(text) {
        Some(id) => Ok(Some(id)),
        // A crash while the very first start wrote it; nothing was recorded under it.
        None if length < 32 && segments(directory)?.is_empty() => {
            directory.remove_file(LOG_ID).map_err(AuditError::io("remove an unfinished file log-id"))?;
            Ok(None)
        }
        None => Err(AuditError::Damaged("the file log-id does not hold 32 hexadecimal digits".into())),
    }
}

/// Returns the numbers of the segments, which must follow each other from 1 on.
pub(super) fn segments(directory: &Directory) -> Result<Vec<u32>, AuditError> {
    let names = directory.names().map_err(AuditError::io("list the trail's directory"))?;
    let numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    match numbers.iter().zip(1..).find(|(number, expected)| *number != expected) {
        None => Ok(numbers),
        Some((_, missing)) => {
            Err(AuditError::Damaged(format!("the file {} is missing", segment::name(missing)).into()))
        }
    }
}

fn first_line(directory: &Directory, number: u32) -> Result<Link, AuditError> {
    line(directory, number, true)
}

fn last_line(directory: &Directory, number: u32) -> Result<Link, AuditError> {
    line(directory, number, false)
}

fn line(directory: &Directory, number: u32, first: bool) -> Result<Link, AuditError> {
    let name = segment::name(number);
    let file = directory.open_file(&name, Access::Read).map_err(AuditError::io("open a file of the trail"))?;
    let mut link = None;
    let walked = walk(&file, 0, u64::MAX, |line, _| {
        link = Some(line.link);
        !first
    })
    .map_err(AuditError::io("read the trail"))?;
    match (walked, link) {
        (Walked::Broken(error), _) => Err(AuditError::Damaged(format!("{name}: {error}").into())),
        (_, None) => Err(AuditError::Damaged(format!("{name} is empty").into())),
        (_, Some(link)) => Ok(link),
    }
}

/// The file that holds the checkpoints.
pub(super) fn open_checkpoints(directory: &Directory) -> io::Result<File> {
    match directory.open_file(CHECKPOINTS, Access::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = directory.create_file(CHECKPOINTS)?;
            directory.sync()?;
            Ok(file)
        }
        other => other,
    }
}
