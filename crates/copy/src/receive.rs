//! The receiving end: writes what comes and says of each file what became of it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use munjigi_core::copy::{
    CopyError, Done, EntryPath, FileHead, FromSender, MAX_UNDER_WAY, Message, Pattern, SenderStream,
};
use nix::errno::Errno;
use nix::unistd::write;

use crate::chunk::{In, Out};
use crate::error::{CopyFailure, is_lasting, words};
use crate::place::Place;
use crate::progress::Progress;
use crate::store::{Held, Store, Writing};

/// Where a copy goes, and how.
#[derive(Debug)]
pub struct Receive {
    /// Where.
    pub place: Place,
    /// Modes and times are kept.
    pub preserve: bool,
    /// What is there already is used, and what could not be finished stays.
    pub resume: bool,
    /// What the first name of every path must fit, when the other end was asked for a pattern.
    pub expected: Option<Pattern>,
}

/// Writes everything that comes, to its end. Blocks.
pub fn receive(what: Receive, out: Out, mut input: In, progress: &Arc<Progress>) -> Result<(), CopyFailure> {
    let store = Store::open(&what.place, what.preserve, what.resume, what.expected)?;
    let target = match (store, what.place) {
        (Some(store), _) => Target::Tree(store),
        (None, Place::Stream(fd)) => Target::Stream(Some(fd)),
        (None, _) => return Err(CopyFailure::here("InternalError", "there is no place for what comes")),
    };
    let mut receiver =
        Receiver { target, out, progress: Arc::clone(progress), asked: VecDeque::new(), file: None, files: 0 };
    let result = receiver.run(&mut input);
    // What could not be completed is gone before the sender can see that this end has ended.
    receiver.file = None;
    if let Err(failure) = &result
        && let Some(message) = farewell(failure)
    {
        // If the sender is gone there is nobody to tell.
        let _ = receiver.out.message(&message).and_then(|()| receiver.out.flush());
    }
    result
}

/// What the other end hears of a failure on this one.
pub(crate) fn farewell(failure: &CopyFailure) -> Option<Message> {
    match failure {
        CopyFailure::Here { code, why } => Some(Message::Failed { code: (*code).to_owned(), why: why.clone() }),
        CopyFailure::Protocol(error) => {
            Some(Message::Failed { code: "ProtocolError".to_owned(), why: error.to_string() })
        }
        CopyFailure::Gone | CopyFailure::Refused { .. } => None,
    }
}

enum Target {
    Tree(Store),
    /// Taken by the first file.
    Stream(Option<OwnedFd>),
}

/// The file that is being received.
enum Open {
    Writing(Box<Writing>),
    Stream {
        fd: OwnedFd,
        hash: Context,
        path: EntryPath,
    },
    /// It cannot be written, which was said; the rest of it is dropped.
    Dropped,
}

struct Receiver {
    target: Target,
    out: Out,
    progress: Arc<Progress>,
    /// What was found of the files that were asked about, in order.
    asked: VecDeque<Held>,
    file: Option<Open>,
    /// Files begun so far.
    files: u64,
}

impl Receiver {
    fn run(&mut self, input: &mut In) -> Result<(), CopyFailure> {
        let mut stream = SenderStream::default();
        loop {
            let Some(mut bytes) = input.rest() else { return Err(CopyFailure::Gone) };
            while let Some(piece) = stream.next(&mut bytes)? {
                match piece {
                    FromSender::Data(data) => self.data(data)?,
                    FromSender::Message(message) => self.message(message)?,
                }
            }
            input.use_all_but(0);
            if stream.is_finished() {
                self.out.message(&Message::Finished)?;
                return self.out.flush();
            }
            self.out.flush()?;
        }
    }

    fn message(&mut self, message: Message) -> Result<(), CopyFailure> {
        match message {
            Message::Total { files, bytes } => self.progress.total(files, bytes),
            Message::Enter { path, attributes } => self.with_tree(&path, |tree| tree.enter(&path, &attributes))?,
            Message::Leave { path, attributes } => self.with_tree(&path, |tree| tree.leave(&attributes))?,
            Message::Symlink { path, target } => self.with_tree(&path, |tree| tree.symlink(&path, &target))?,
            Message::Skipped { path, why } => self.progress.problem(&path, &why),
            Message::Ask { path, size } => self.asked(&path, size)?,
            Message::File(head) => self.begin(head)?,
            Message::Zeros(count) => self.zeros(count)?,
            Message::EndFile { hash } => self.end(&hash)?,
            Message::AbortFile { why } => self.give_up(&why)?,
            Message::Failed { code, why } => return Err(CopyFailure::Refused { code, why }),
            _ => {}
        }
        Ok(())
    }

    fn with_tree(
        &mut self,
        path: &EntryPath,
        act: impl FnOnce(&mut Store) -> Result<(), String>,
    ) -> Result<(), CopyFailure> {
        let done = match &mut self.target {
            Target::Tree(store) => act(store),
            Target::Stream(_) => Err("only a file can go to standard output".to_owned()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(why) => self.problem(None, path, &why),
        }
    }

    fn problem(&mut self, file: Option<u64>, path: &EntryPath, why: &str) -> Result<(), CopyFailure> {
        self.progress.problem(path, why);
        self.out.message(&Message::Problem { file, path: path.clone(), why: why.to_owned() })
    }

    fn asked(&mut self, path: &EntryPath, size: u64) -> Result<(), CopyFailure> {
        if self.asked.len() >= MAX_UNDER_WAY {
            return Err(CopyError::TooMany.into());
        }
        let (mut offset, mut value) = (0, [0; 32]);
        if let Target::Tree(store) = &self.target {
            let held = store.held(path, size);
            offset = held.offset;
            value.copy_from_slice(held.hash.clone().finish().as_ref());
            self.asked.push_back(held);
        }
        self.out.message(&Message::Have { offset, hash: value })
    }

    fn begin(&mut self, head: FileHead) -> Result<(), CopyFailure> {
        self.files += 1;
        let path = head.path.clone();
        // Answers are in the order of the questions, and so are the files.
        let held = if self.asked.front().is_some_and(|held| held.path == path) { self.asked.pop_front() } else { None };
        self.progress.skipped(head.offset);
        let begun = match &mut self.target {
            Target::Tree(store) => store.begin(head, held).map(|writing| Open::Writing(Box::new(writing))),
            Target::Stream(_) if head.offset > 0 => Err("it cannot be continued".to_owned()),
            Target::Stream(fd) => match fd.take() {
                Some(fd) => Ok(Open::Stream { fd, hash: Context::new(&SHA256), path: path.clone() }),
                None => Err("only one file can go to standard output".to_owned()),
            },
        };
        match begun {
            Ok(open) => self.file = Some(open),
            Err(why) => {
                self.file = Some(Open::Dropped);
                self.problem(Some(self.files - 1), &path, &why)?;
                self.out.flush()?;
            }
        }
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<(), CopyFailure> {
        self.progress.bytes(data.len() as u64);
        let written = match &mut self.file {
            Some(Open::Writing(writing)) => writing.write(data),
            Some(Open::Stream { fd, hash, .. }) => {
                hash.update(data);
                write_all(fd, data)
            }
            Some(Open::Dropped) | None => Ok(()),
        };
        written.or_else(|errno| self.broke(errno))
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), CopyFailure> {
        self.progress.bytes(count);
        if let Some(Open::Writing(writing)) = &mut self.file {
            writing.skip(count);
            return Ok(());
        }
        if let Some(Open::Stream { fd, hash, .. }) = &mut self.file {
            let zeros = [0; 64 * 1024];
            while count > 0 {
                let part = zeros.get(..usize::try_from(count).unwrap_or(usize::MAX).min(zeros.len()));
                let part = part.unwrap_or(&zeros);
                hash.update(part);
                count -= part.len() as u64;
                if let Err(errno) = write_all(fd, part) {
                    return self.broke(errno);
                }
            }
        }
        Ok(())
    }

    /// The open file cannot be written further.
    fn broke(&mut self, errno: Errno) -> Result<(), CopyFailure> {
        let path = match self.file.replace(Open::Dropped) {
            Some(Open::Writing(writing)) => writing.head().path.clone(),
            Some(Open::Stream { path, .. }) => path,
            Some(Open::Dropped) | None => return Ok(()),
        };
        if errno == Errno::EPIPE {
            return Err(CopyFailure::here("OutputClosed", "nobody reads the output any more"));
        }
        self.problem(Some(self.files - 1), &path, &words(errno))?;
        self.out.flush()?;
        // The next file would meet it too, and its bytes would travel for nothing.
        if is_lasting(errno) {
            Err(CopyFailure::here("DiskError", format!("{path}: {}", words(errno))))
        } else {
            Ok(())
        }
    }

    fn end(&mut self, sent: &[u8; 32]) -> Result<(), CopyFailure> {
        let (path, found, result) = match self.file.take() {
            Some(Open::Writing(writing)) => {
                let path = writing.head().path.clone();
                let found = value(&writing.hash);
                if found == *sent {
                    (path, found, writing.complete())
                } else {
                    writing.discard();
                    (path, found, Err("it arrived with another SHA-256 than it was sent with".to_owned()))
                }
            }
            Some(Open::Stream { hash, path, .. }) => {
                let found = value(&hash);
                let same = if found == *sent { Ok(()) } else { Err("it arrived damaged".to_owned()) };
                (path, found, same)
            }
            Some(Open::Dropped) | None => return Ok(()),
        };
        match result {
            Ok(()) => {
                self.progress.file();
                self.out.message(&Message::Done(Done { file: self.files - 1, hash: found }))
            }
            Err(why) => self.problem(Some(self.files - 1), &path, &why),
        }
    }

    fn give_up(&mut self, why: &str) -> Result<(), CopyFailure> {
        let path = match self.file.take() {
            Some(Open::Writing(writing)) => writing.head().path.clone(),
            Some(Open::Stream { path, .. }) => path,
            Some(Open::Dropped) | None => return Ok(()),
        };
        self.problem(Some(self.files - 1), &path, why)
    }
}

fn value(hash: &Context) -> [u8; 32] {
    let mut value = [0; 32];
    value.copy_from_slice(hash.clone().finish().as_ref());
    value
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
