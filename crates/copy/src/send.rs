//! The sending end: files one behind the other without waiting, what the receiver answers on a thread of its own.
//!
//! The answers are always taken, so both ends can push as hard as they like and neither waits for ever.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use munjigi_core::copy::{EntryPath, FileHead, FileSeen, Message, Receiving};
use nix::errno::Errno;
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek, read};

use crate::chunk::{CHUNK_BYTES, In, Out};
use crate::error::{CopyFailure, words};
use crate::progress::Progress;
use crate::sources::Source;
use crate::walk::{SourceFile, Step, Walk};

/// Files that the receiver is asked about ahead; each holds a descriptor.
const ASKED_AHEAD: usize = 64;
/// Entries counted before a copy; larger trees have no total.
const MAX_COUNTED: usize = 200_000;
/// Smallest hole that is told apart from data, in bytes.
const LEAST_HOLE: u64 = 64 * 1024;

/// What is sent, and how.
#[derive(Debug)]
pub struct Send {
    /// What.
    pub sources: Vec<Source>,
    /// Directories too.
    pub recursive: bool,
    /// Ask first what the receiver has.
    pub resume: bool,
    /// Count first, and say how much there is.
    pub totals: bool,
}

/// Sends everything and waits for the outcome of each file. Blocks.
pub fn send(what: Send, out: Out, answers: In, progress: &Arc<Progress>) -> Result<(), CopyFailure> {
    let shared = Arc::new(Shared::default());
    let listener = {
        let (shared, progress) = (Arc::clone(&shared), Arc::clone(progress));
        std::thread::Builder::new()
            .name("copy-answers".to_owned())
            .spawn(move || shared.listen(answers, &progress))
            .map_err(|error| CopyFailure::here("InternalError", format!("no thread can be started: {error}")))?
    };
    let mut sender = Sender { out, shared: Arc::clone(&shared), progress: Arc::clone(progress) };
    let sent = sender.run(what);
    // Whoever reads along takes the end of this direction for the end of all: it comes when all is answered, or when
    // the other end can learn in no other way that it will hear no more.
    let kept = sent.is_ok().then_some(sender);
    let answered = listener.join().unwrap_or(Err(CopyFailure::Gone));
    drop(kept);
    match (sent, answered) {
        // The receiver's own words tell more than that its stream is closed.
        (Err(CopyFailure::Gone), Err(failure)) | (Ok(()), Err(failure)) => Err(failure),
        (sent, _) => sent,
    }
}

/// What the answers' thread tells the sending one.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    receiving: Receiving,
    /// What the receiver has of the files it was asked about, in order.
    have: VecDeque<(u64, [u8; 32])>,
    /// Nothing more will be answered.
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something.
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T, CopyFailure> {
        let mut state = self.lock();
        loop {
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            if state.is_over {
                return Err(CopyFailure::Gone);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn listen(&self, mut answers: In, progress: &Progress) -> Result<(), CopyFailure> {
        let result = self.take_answers(&mut answers, progress);
        self.lock().is_over = true;
        self.changed.notify_all();
        result
    }

    fn take_answers(&self, answers: &mut In, progress: &Progress) -> Result<(), CopyFailure> {
        loop {
            let Some(mut input) = answers.rest() else { return Err(CopyFailure::Gone) };
            let mut state = self.lock();
            while let Some((message, file)) = state.receiving.next(&mut input)? {
                match message {
                    Message::Have { offset, hash } => state.have.push_back((offset, hash)),
                    Message::Problem { path, why, .. } => progress.problem(&path, &why),
                    Message::Finished => return Ok(()),
                    Message::Failed { code, why } => return Err(CopyFailure::Refused { code, why }),
                    _ => {}
                }
                if let Some(file) = file {
                    judge(&file, progress);
                }
            }
            drop(state);
            self.changed.notify_all();
            answers.use_all_but(0);
        }
    }
}

fn judge(file: &FileSeen, progress: &Progress) {
    match file.stored {
        Some(stored) if file.sent == Some(stored) => progress.file(),
        Some(_) => progress.problem(&file.path, "the receiver has another SHA-256 than was sent"),
        // The problem was told with its own words.
        None => {}
    }
}

struct Sender {
    out: Out,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

impl Sender {
    fn run(&mut self, what: Send) -> Result<(), CopyFailure> {
        if what.totals
            && let Some((files, bytes)) = Walk::count(&what.sources, what.recursive, MAX_COUNTED)
        {
            self.progress.total(files, bytes);
            self.say(&Message::Total { files, bytes }, None)?;
        }
        let mut walk = Walk::new(what.sources, what.recursive);
        if what.resume {
            self.send_asking(walk)?
        } else {
            walk.try_for_each(|step| self.send_step(step, None))?
        }
        self.say(&Message::Finish, None)?;
        self.out.flush()
    }

    /// Asks about files some way ahead of those that are sent.
    fn send_asking(&mut self, mut walk: Walk) -> Result<(), CopyFailure> {
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < ASKED_AHEAD {
                let Some(step) = walk.next() else { break };
                if let Step::File(SourceFile { path, size: Some(size), .. }) = &step {
                    self.say(&Message::Ask { path: path.clone(), size: *size }, None)?;
                }
                ahead.push_back(step);
            }
            let Some(step) = ahead.pop_front() else { return Ok(()) };
            let have = match &step {
                Step::File(SourceFile { size: Some(_), .. }) => {
                    self.out.flush()?;
                    Some(self.shared.wait(|state| state.have.pop_front())?)
                }
                _ => None,
            };
            self.send_step(step, have)?;
        }
    }

    fn say(&mut self, message: &Message, so_far: Option<u64>) -> Result<(), CopyFailure> {
        self.shared.lock().receiving.sent(message, so_far)?;
        self.out.message(message)
    }

    fn send_step(&mut self, step: Step, have: Option<(u64, [u8; 32])>) -> Result<(), CopyFailure> {
        match step {
            Step::Enter { path, attributes } => self.say(&Message::Enter { path, attributes }, None),
            Step::Leave { path, attributes } => self.say(&Message::Leave { path, attributes }, None),
            Step::Symlink { path, target } => self.say(&Message::Symlink { path, target }, None),
            Step::Skipped { path, why } => {
                self.progress.problem(&path, &why);
                self.say(&Message::Skipped { path, why }, None)
            }
            Step::File(file) => self.send_file(file, have),
        }
    }

    fn send_file(&mut self, file: SourceFile, have: Option<(u64, [u8; 32])>) -> Result<(), CopyFailure> {
        self.wait_for_room(&file.path)?;
        let mut hash = Context::new(&SHA256);
        let mut offset = 0;
        if let Some((has, its_hash)) = have.filter(|(has, _)| *has > 0 && file.size.is_some_and(|size| *has <= size)) {
            // What cannot be read here shows again below, where it is told.
            if let Ok(ours) = hash_head(&file.fd, has)
                && ours.clone().finish().as_ref() == its_hash.as_slice()
            {
                (hash, offset) = (ours, has);
            }
        }
        self.progress.skipped(offset);
        let head = FileHead { path: file.path.clone(), size: file.size, offset, attributes: file.attributes };
        self.say(&Message::File(head), None)?;
        let mut at = offset;
        let why = match self.send_content(&file, &mut at, &mut hash)? {
            Ok(()) => {
                let mut value = [0; 32];
                value.copy_from_slice(hash.finish().as_ref());
                return self.say(&Message::EndFile { hash: value }, Some(at));
            }
            Err(why) => why,
        };
        // The receiver's answer to it is what is reported.
        self.say(&Message::AbortFile { why }, Some(at))
    }

    fn wait_for_room(&mut self, path: &EntryPath) -> Result<(), CopyFailure> {
        if !self.shared.lock().receiving.has_room(path) {
            // What is waited for may still lie in the chunk.
            self.out.flush()?;
            self.shared.wait(|state| state.receiving.has_room(path).then_some(()))?;
        }
        Ok(())
    }

    /// Sends data from `at` on; the inner error says why the file cannot be completed.
    fn send_content(
        &mut self,
        file: &SourceFile,
        at: &mut u64,
        hash: &mut Context,
    ) -> Result<Result<(), String>, CopyFailure> {
        loop {
            let left = file.size.map_or(u64::MAX, |size| size - *at);
            if left == 0 {
                return Ok(Ok(()));
            }
            let (is_over, is_idle) = {
                let state = self.shared.lock();
                (state.is_over, state.receiving.is_idle())
            };
            if is_over {
                return Err(CopyFailure::Gone);
            }
            if is_idle {
                // Its outcome has come already: it could not be written.
                return Ok(Err("the receiver gave it up".to_owned()));
            }
            let mut most = left;
            if file.is_sparse {
                let (zeros, data) = hole(file, *at, left);
                if zeros > 0 {
                    hash_zeros(hash, zeros);
                    *at += zeros;
                    self.progress.bytes(zeros);
                    self.out.message(&Message::Zeros(zeros))?;
                    continue;
                }
                most = data;
            }
            let (from, sized) = (*at, file.size.is_some());
            let filled = self.out.data(most, |place| {
                let count = loop {
                    let count = if sized { pread(&file.fd, place, offset(from)?) } else { read(&file.fd, place) };
                    match count {
                        Err(Errno::EINTR) => {}
                        Err(Errno::EAGAIN) => wait_readable(file)?,
                        count => break count?,
                    }
                };
                hash.update(place.get(..count).unwrap_or_default());
                Ok::<_, Errno>(count)
            })?;
            match filled {
                Ok(0) if file.size.is_none() => return Ok(Ok(())),
                Ok(0) => return Ok(Err("it became shorter while it was read".to_owned())),
                Ok(count) => {
                    *at += count as u64;
                    self.progress.bytes(count as u64);
                }
                Err(errno) => return Ok(Err(words(errno))),
            }
        }
    }
}

/// Waits until a stream that was opened without waiting has something.
fn wait_readable(file: &SourceFile) -> Result<(), Errno> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    match poll(&mut [PollFd::new(file.fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn offset(at: u64) -> Result<i64, Errno> {
    i64::try_from(at).map_err(|_| Errno::EOVERFLOW)
}

/// Returns how many bytes from `at` on are a hole, or else how many come before the next one.
fn hole(file: &SourceFile, at: u64, left: u64) -> (u64, u64) {
    let end = at.saturating_add(left);
    let Ok(from) = offset(at) else { return (0, left) };
    let data = match lseek(&file.fd, from, Whence::SeekData) {
        Ok(data) => u64::try_from(data).unwrap_or(at).min(end),
        // Nothing but a hole up to the end.
        Err(Errno::ENXIO) => end,
        Err(_) => return (0, left),
    };
    if data.saturating_sub(at) >= LEAST_HOLE || data == end && data > at {
        return (data - at, 0);
    }
    // A small hole is sent as the zeros it reads as.
    let next = offset(data.max(at)).and_then(|from| lseek(&file.fd, from, Whence::SeekHole));
    match next {
        Ok(next) => (0, u64::try_from(next).unwrap_or(end).clamp(at + 1, end) - at),
        Err(_) => (0, left),
    }
}

/// Adds zeros to a hash.
pub(crate) fn hash_zeros(hash: &mut Context, mut count: u64) {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while count > 0 {
        let part = ZEROS.get(..usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len())).unwrap_or(&ZEROS);
        hash.update(part);
        count -= part.len() as u64;
    }
}

/// Hashes the first `length` bytes of a file.
pub(crate) fn hash_head(fd: impl std::os::fd::AsFd, length: u64) -> Result<Context, Errno> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < length {
        let most = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        let place = buffer.get_mut(..most).unwrap_or_default();
        match pread(&fd, place, offset(at)?) {
            Ok(0) => return Err(Errno::ENODATA),
            Ok(count) => {
                hash.update(place.get(..count).unwrap_or_default());
                at += count as u64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(hash)
}
