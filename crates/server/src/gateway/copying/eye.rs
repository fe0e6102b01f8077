//! Reads both directions of a copy, without input or output: what passes, which files it makes, what is denied.

use munjigi_core::copy::{
    CopyError, Decoder, EntryPath, FileSeen, FromSender, Kinds, Message, Piece, Receiving, SenderStream,
};
use munjigi_core::recording::{FileCopied, FileDirection};

use super::PathJudge;

/// Which end bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Node,
}

/// What was seen in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// So many of them were looked at: all, or those before a message that is denied or its last part.
    pub(super) taken: usize,
    /// So many at the end of those, and of what came before, belong to a message that is not complete, or denied.
    pub(super) held: usize,
    /// Why the copy ends here.
    pub(super) denied: Option<String>,
}

/// Follows one copy.
pub(super) struct Eye {
    direction: FileDirection,
    connection: u64,
    judge: PathJudge,
    /// The first message of each end, until it was there.
    hello: Option<Decoder>,
    ready: Option<Decoder>,
    /// The root's real path on the node, as its worker says.
    root: Vec<u8>,
    sender: SenderStream,
    receiving: Receiving,
    files: Vec<FileCopied>,
}

impl Eye {
    pub(super) fn new(direction: FileDirection, connection: u64, judge: PathJudge) -> Self {
        Self {
            direction,
            connection,
            judge,
            hello: Some(Decoder::default()),
            ready: Some(Decoder::default()),
            root: Vec::new(),
            sender: SenderStream::default(),
            receiving: Receiving::default(),
            files: Vec::new(),
        }
    }

    /// Takes the files whose outcome is known.
    pub(super) fn take(&mut self) -> Vec<FileCopied> {
        std::mem::take(&mut self.files)
    }

    /// Nothing more comes: what is under way has no outcome.
    pub(super) fn end(&mut self, why: &str) {
        let open = self.sender.so_far();
        let rest: Vec<_> = self.receiving.rest().collect();
        let last = rest.len();
        for (index, mut seen) in rest.into_iter().enumerate() {
            if index + 1 == last {
                seen.size = open.unwrap_or(seen.size);
            }
            seen.stored = None;
            if seen.why.is_empty() {
                why.clone_into(&mut seen.why);
            }
            self.note(seen);
        }
    }

    /// Returns how many of the bytes that an end sent belong to a message that is not complete.
    fn held(&self, from: From) -> usize {
        match (from, &self.hello, &self.ready) {
            (From::Client, Some(decoder), _) | (From::Node, _, Some(decoder)) => decoder.held(),
            _ if self.is_sender(from) => self.sender.held(),
            _ => self.receiving.held(),
        }
    }

    /// Looks at the next bytes of an end.
    pub(super) fn look(&mut self, from: From, bytes: &[u8]) -> Result<Looked, CopyError> {
        let mut input = bytes;
        loop {
            let held = self.held(from);
            let begin = bytes.len() - input.len();
            match self.next(from, &mut input)? {
                Next::Nothing => return Ok(Looked { taken: bytes.len(), held: self.held(from), denied: None }),
                Next::Passed => {}
                Next::Denied(why) => return Ok(Looked { taken: begin, held, denied: Some(why) }),
            }
        }
    }

    fn is_sender(&self, from: From) -> bool {
        (self.direction == FileDirection::Upload) == (from == From::Client)
    }

    fn next(&mut self, from: From, input: &mut &[u8]) -> Result<Next, CopyError> {
        let first = match from {
            From::Client => self.hello.as_mut().map(|decoder| (decoder, Kinds::OPENING)),
            From::Node => self.ready.as_mut().map(|decoder| (decoder, Kinds::ANSWER)),
        };
        if let Some((decoder, allowed)) = first {
            let Some(piece) = decoder.next(input, allowed)? else { return Ok(Next::Nothing) };
            match from {
                From::Client => self.hello = None,
                From::Node => self.ready = None,
            }
            if let Piece::Message(Message::Ready(ready)) = piece {
                self.root = ready.real_path;
            }
            return Ok(Next::Passed);
        }
        if !self.is_sender(from) {
            return self.next_of_receiver(input);
        }
        // A client that sends files before it knows their root would have them judged without it.
        if self.ready.is_some() {
            return if input.is_empty() { Ok(Next::Nothing) } else { Err(CopyError::Order) };
        }
        self.next_of_sender(input)
    }

    fn next_of_sender(&mut self, input: &mut &[u8]) -> Result<Next, CopyError> {
        let so_far = self.sender.so_far();
        let message = match self.sender.next(input)? {
            None => return Ok(Next::Nothing),
            Some(FromSender::Data(_)) => return Ok(Next::Passed),
            Some(FromSender::Message(message)) => message,
        };
        if let Message::File(munjigi_core::copy::FileHead { path, .. }) | Message::Symlink { path, .. } = &message
            && let Err(why) = (self.judge)(&self.real_path(path))
        {
            let seen = FileSeen { path: path.clone(), size: 0, offset: 0, sent: None, stored: None, why: why.clone() };
            self.note(seen);
            self.end("the copy was ended because another file of it was denied");
            return Ok(Next::Denied(why));
        }
        self.receiving.sent(&message, so_far)?;
        Ok(Next::Passed)
    }

    fn next_of_receiver(&mut self, input: &mut &[u8]) -> Result<Next, CopyError> {
        match self.receiving.next(input)? {
            None => Ok(Next::Nothing),
            Some((_, seen)) => {
                if let Some(seen) = seen {
                    self.note(seen);
                }
                Ok(Next::Passed)
            }
        }
    }

    /// Writes a file down. The hash is the node's: who sends or receives there has it from the file itself.
    fn note(&mut self, seen: FileSeen) {
        let of_node = if self.direction == FileDirection::Upload { seen.stored } else { seen.sent };
        let why = match seen.stored {
            Some(stored) if seen.sent == Some(stored) => String::new(),
            Some(_) => "both ends have another SHA-256".to_owned(),
            None if seen.why.is_empty() => "it is not known what became of it".to_owned(),
            None => seen.why,
        };
        let hash = of_node.filter(|_| why.is_empty()).unwrap_or_default();
        self.files.push(FileCopied {
            connection: self.connection,
            direction: self.direction,
            path: self.real_path(&seen.path),
            bytes: seen.size,
            kept: seen.offset,
            hash,
            why,
        });
    }

    fn real_path(&self, path: &EntryPath) -> String {
        let mut bytes = self.root.clone();
        if !path.is_root() {
            if bytes.last() != Some(&b'/') {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(path.as_bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

enum Next {
    /// All of the input was used.
    Nothing,
    Passed,
    Denied(String),
}
