//! Follows both directions of a copy: which file is open, which are under way, what became of each.
//!
//! The receiving end acts on what the sender may say; the gateway, which only reads along, pairs both directions. Sizes,
//! order and answers are held to the rules here, once for all.

use std::collections::VecDeque;

use super::decoder::{CopyError, Decoder, Piece};
use super::message::{Done, FileHead, Kinds, Message};
use super::path::EntryPath;
use super::{MAX_UNDER_WAY, MAX_UNDER_WAY_BYTES};

/// What a sender says, in good order.
#[derive(Debug, PartialEq, Eq)]
pub enum FromSender<'a> {
    /// Something other than data.
    Message(Message),
    /// Bytes of the open file.
    Data(&'a [u8]),
}

/// Reads what a sender sends and holds it to the rules.
#[derive(Debug, Default)]
pub struct SenderStream {
    decoder: Decoder,
    file: Option<OpenFile>,
    /// The innermost directory that is open; those around it follow from its path.
    open: Option<EntryPath>,
    /// Whether the outermost one is the root itself, rather than a name below it.
    root_is_open: bool,
    finished: bool,
}

#[derive(Debug)]
struct OpenFile {
    size: Option<u64>,
    /// Bytes so far, what the receiver had included.
    so_far: u64,
}

impl SenderStream {
    /// Takes the next piece off `input`; `None` when all of it is used.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<FromSender<'a>>, CopyError> {
        if self.finished {
            return if input.is_empty() { Ok(None) } else { Err(CopyError::Order) };
        }
        let allowed = if self.file.is_some() { Kinds::IN_FILE } else { Kinds::BETWEEN_FILES };
        let Some(piece) = self.decoder.next(input, allowed)? else { return Ok(None) };
        Ok(Some(match piece {
            Piece::Data(bytes) => {
                self.advance(bytes.len() as u64)?;
                FromSender::Data(bytes)
            }
            Piece::Message(message) => {
                self.judge(&message)?;
                FromSender::Message(message)
            }
        }))
    }

    /// Tells whether the sender has said that it is over.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns the bytes of the open file so far; `None` between files.
    pub fn so_far(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.so_far)
    }

    /// Returns how many bytes of a message that is not complete were taken.
    pub fn held(&self) -> usize {
        self.decoder.held()
    }

    fn advance(&mut self, count: u64) -> Result<(), CopyError> {
        let file = self.file.as_mut().ok_or(CopyError::Order)?;
        file.so_far = file.so_far.checked_add(count).ok_or(CopyError::Size)?;
        if file.size.is_some_and(|size| file.so_far > size) { Err(CopyError::Size) } else { Ok(()) }
    }

    fn judge(&mut self, message: &Message) -> Result<(), CopyError> {
        match message {
            Message::Enter { path, .. } => {
                self.inside(path)?;
                self.root_is_open |= path.is_root();
                self.open = Some(path.clone());
            }
            Message::Leave { path, .. } => {
                if self.open.as_ref() != Some(path) {
                    return Err(CopyError::Order);
                }
                let parent = path.split().map(|(parent, _)| parent);
                self.root_is_open &= parent.is_some();
                self.open = parent.filter(|parent| self.root_is_open || !parent.is_root());
            }
            Message::Symlink { path, .. } | Message::Skipped { path, .. } => self.inside(path)?,
            Message::File(FileHead { path, size, offset, .. }) => {
                self.inside(path)?;
                if size.is_some_and(|size| *offset > size) {
                    return Err(CopyError::Size);
                }
                self.file = Some(OpenFile { size: *size, so_far: *offset });
            }
            Message::Zeros(count) => self.advance(*count)?,
            Message::EndFile { .. } => {
                let file = self.file.take().ok_or(CopyError::Order)?;
                if file.size.is_some_and(|size| file.so_far != size) {
                    return Err(CopyError::Size);
                }
            }
            Message::AbortFile { .. } => self.file = None,
            Message::Finish if self.open.is_some() => return Err(CopyError::Order),
            Message::Finish | Message::Failed { .. } => self.finished = true,
            _ => {}
        }
        Ok(())
    }

    /// An entry stands directly in the directory that is open. Without one it is the root, or a name below it.
    fn inside(&self, path: &EntryPath) -> Result<(), CopyError> {
        let good = match (&self.open, path.split()) {
            (Some(open), Some((parent, _))) => parent == *open,
            (Some(_), None) => false,
            (None, _) => path.names().count() <= 1,
        };
        if good { Ok(()) } else { Err(CopyError::Order) }
    }
}

/// A file that passed, with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSeen {
    /// Where it went or came from, below the root.
    pub path: EntryPath,
    /// Bytes of the file as far as it came.
    pub size: u64,
    /// What of them the receiver had already.
    pub offset: u64,
    /// SHA-256 as the sender told it.
    pub sent: Option<[u8; 32]>,
    /// SHA-256 as the receiver found it; `None` if it is not in its place.
    pub stored: Option<[u8; 32]>,
    /// Why it is not in its place; empty if it is.
    pub why: String,
}

/// The files under way, as whoever waits for their outcome knows them.
#[derive(Debug, Default)]
pub struct Receiving {
    decoder: Decoder,
    files: VecDeque<FileSeen>,
    /// Number of the first of them.
    first: u64,
    path_bytes: usize,
    asked: usize,
    finished: bool,
}

impl Receiving {
    /// Tells whether a further file with this path may be sent now.
    pub fn has_room(&self, path: &EntryPath) -> bool {
        self.files.len() < MAX_UNDER_WAY && self.path_bytes + path.as_bytes().len() <= MAX_UNDER_WAY_BYTES
    }

    /// Tells whether a further question may be put now.
    pub fn may_ask(&self) -> bool {
        self.asked < MAX_UNDER_WAY
    }

    /// Returns how many bytes of a message that is not complete were taken.
    pub fn held(&self) -> usize {
        self.decoder.held()
    }

    /// Tells whether no file is under way.
    pub fn is_idle(&self) -> bool {
        self.files.is_empty()
    }

    /// Takes note of what the sender says; `so_far` is what [`SenderStream::so_far`] said before it.
    pub fn sent(&mut self, message: &Message, so_far: Option<u64>) -> Result<(), CopyError> {
        match message {
            Message::File(head) => {
                if !self.has_room(&head.path) {
                    return Err(CopyError::TooMany);
                }
                self.path_bytes += head.path.as_bytes().len();
                self.files.push_back(FileSeen {
                    path: head.path.clone(),
                    size: head.offset,
                    offset: head.offset,
                    sent: None,
                    stored: None,
                    why: String::new(),
                });
            }
            Message::Ask { .. } => {
                if !self.may_ask() {
                    return Err(CopyError::TooMany);
                }
                self.asked += 1;
            }
            Message::EndFile { hash } => {
                // Its outcome may have come already, when it could not be written.
                if let Some(file) = self.files.back_mut() {
                    file.sent = Some(*hash);
                    file.size = so_far.unwrap_or(file.size);
                }
            }
            Message::AbortFile { why } => {
                if let Some(file) = self.files.back_mut() {
                    file.why.clone_from(why);
                    file.size = so_far.unwrap_or(file.size);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the receiver's next message off `input`, with the file whose outcome it tells; `None` when all of the
    /// input is used.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<(Message, Option<FileSeen>)>, CopyError> {
        if self.finished {
            return if input.is_empty() { Ok(None) } else { Err(CopyError::Order) };
        }
        let message = match self.decoder.next(input, Kinds::RECEIVER)? {
            None => return Ok(None),
            Some(Piece::Message(message)) => message,
            // The set has no data in it.
            Some(Piece::Data(_)) => return Err(CopyError::Order),
        };
        let file = match &message {
            Message::Have { .. } => {
                self.asked = self.asked.checked_sub(1).ok_or(CopyError::Unasked)?;
                None
            }
            Message::Done(Done { file, hash }) => {
                let seen = self.take(*file)?;
                Some(FileSeen { stored: Some(*hash), ..seen })
            }
            Message::Problem { file: Some(file), why, .. } => {
                let seen = self.take(*file)?;
                Some(FileSeen { why: why.clone(), ..seen })
            }
            Message::Finished if !self.files.is_empty() => return Err(CopyError::Unasked),
            Message::Finished | Message::Failed { .. } => {
                self.finished = true;
                None
            }
            _ => None,
        };
        Ok(Some((message, file)))
    }

    /// Tells whether the receiver has said that it is over.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns what is under way and will not be heard of any more.
    pub fn rest(&mut self) -> impl Iterator<Item = FileSeen> {
        std::mem::take(&mut self.files).into_iter()
    }

    /// Outcomes come in the order of the files.
    fn take(&mut self, number: u64) -> Result<FileSeen, CopyError> {
        if number != self.first {
            return Err(CopyError::Unasked);
        }
        let seen = self.files.pop_front().ok_or(CopyError::Unasked)?;
        self.first += 1;
        self.path_bytes -= seen.path.as_bytes().len().min(self.path_bytes);
        Ok(seen)
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
