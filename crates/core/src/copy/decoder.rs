//! Takes the stream apart: whole messages, and data as it lies in the input, without copying it.

use super::message::{HEADER_BYTES, Kind, Kinds, MAX_BODY, MAX_DATA, Message};
use crate::wire::bytes::FieldError;

/// What breaks a copy on the protocol's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// No kind of this protocol.
    #[error("a message has the unknown kind {0}")]
    UnknownKind(u8),
    /// A kind that may not come at this point.
    #[error("a message of kind {0:?} came where it may not")]
    NotNow(Kind),
    /// Longer than its kind may be.
    #[error("a message of kind {0:?} is longer than it may be")]
    TooLong(Kind),
    /// The body cannot be read.
    #[error("a message cannot be read: {0}")]
    Body(#[from] FieldError),
    /// More bytes than the file's head announced, or fewer.
    #[error("a file has another size than was said")]
    Size,
    /// Directories are not closed in the order in which they were opened, or something stands outside of them.
    #[error("an entry stands outside of the directory that is open")]
    Order,
    /// An outcome for a file that is not under way, or an answer that nobody asked for.
    #[error("an answer came that nobody asked for")]
    Unasked,
    /// More files under way than anybody has to remember.
    #[error("more files are under way than may be")]
    TooMany,
    /// The stream ended inside a message or before the last one.
    #[error("the stream ended too early")]
    Torn,
}

/// What was taken off the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A message.
    Message(Message),
    /// Bytes of a file, at least one.
    Data(&'a [u8]),
}

/// Reads one direction of a copy. Holds at most one message, never data.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a message.
    held: Vec<u8>,
    /// Bytes of the current data message still to come.
    data: usize,
}

impl Decoder {
    /// Takes the next piece off `input`; `None` when all of the input is used and more is needed. The kind is judged as
    /// soon as it is there, before anything of the body is kept.
    pub fn next<'a>(&mut self, input: &mut &'a [u8], allowed: Kinds) -> Result<Option<Piece<'a>>, CopyError> {
        loop {
            if self.data > 0 {
                let Some(data) = take(input, self.data) else { return Ok(None) };
                self.data -= data.len();
                return Ok(Some(Piece::Data(data)));
            }
            if !self.fill(input, HEADER_BYTES) {
                // Judged already from its first byte.
                if let Some(first) = self.held.first() {
                    judge(*first, allowed)?;
                }
                return Ok(None);
            }
            let [kind, a, b, c, d] = header(&self.held)?;
            let kind = judge(kind, allowed)?;
            let most = if kind == Kind::Data { MAX_DATA } else { MAX_BODY };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| CopyError::TooLong(kind))?;
            if length > most {
                return Err(CopyError::TooLong(kind));
            }
            if kind == Kind::Data {
                self.held.clear();
                self.data = length;
                continue;
            }
            if !self.fill(input, HEADER_BYTES + length) {
                return Ok(None);
            }
            let message = Message::decode(kind, self.held.get(HEADER_BYTES..).unwrap_or_default())?;
            self.held.clear();
            return Ok(Some(Piece::Message(message)));
        }
    }

    /// Returns how many bytes of a message that is not complete were taken.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Tells whether the stream stands between two messages.
    pub fn is_between(&self) -> bool {
        self.held.is_empty() && self.data == 0
    }

    /// Fills what is held up to `length` bytes; tells whether they are there.
    fn fill(&mut self, input: &mut &[u8], length: usize) -> bool {
        if let Some(part) = take(input, length.saturating_sub(self.held.len())) {
            self.held.extend_from_slice(part);
        }
        self.held.len() >= length
    }
}

fn judge(kind: u8, allowed: Kinds) -> Result<Kind, CopyError> {
    let kind = Kind::from_byte(kind).ok_or(CopyError::UnknownKind(kind))?;
    if allowed.contains(kind) { Ok(kind) } else { Err(CopyError::NotNow(kind)) }
}

fn header(held: &[u8]) -> Result<[u8; HEADER_BYTES], CopyError> {
    held.first_chunk().copied().ok_or(CopyError::Body(FieldError::Short))
}

/// Takes up to `most` bytes off the front; `None` if there are none to take.
fn take<'a>(input: &mut &'a [u8], most: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(most.min(input.len()))?;
    *input = rest;
    (!head.is_empty()).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::super::message::data_header;
    use super::super::message::tests::samples;
    use super::*;
    use crate::mutate;

    const ALL: Kinds = Kinds::of(&[
        Kind::Data,
        Kind::Hello,
        Kind::Ready,
        Kind::Total,
        Kind::Enter,
        Kind::Leave,
        Kind::Symlink,
        Kind::Ask,
        Kind::File,
        Kind::Zeros,
        Kind::EndFile,
        Kind::AbortFile,
        Kind::Skipped,
        Kind::Finish,
        Kind::Have,
        Kind::Done,
        Kind::Problem,
        Kind::Finished,
        Kind::Failed,
    ]);

    fn stream() -> (Vec<u8>, Vec<Message>) {
        let mut bytes = Vec::new();
        for message in samples() {
            message.encode(&mut bytes);
            bytes.extend_from_slice(&data_header(3));
            bytes.extend_from_slice(b"abc");
        }
        (bytes, samples())
    }

    fn read(decoder: &mut Decoder, mut input: &[u8]) -> (Vec<Message>, Vec<u8>) {
        let (mut messages, mut data) = (Vec::new(), Vec::new());
        while let Some(piece) = decoder.next(&mut input, ALL).unwrap() {
            match piece {
                Piece::Message(message) => messages.push(message),
                Piece::Data(bytes) => data.extend_from_slice(bytes),
            }
        }
        assert!(input.is_empty());
        (messages, data)
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let (bytes, messages) = stream();
        for step in [1, 2, 3, 7, 64, bytes.len()] {
            let mut decoder = Decoder::default();
            let (mut found, mut data) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                let (more, bytes) = read(&mut decoder, piece);
                found.extend(more);
                data.extend(bytes);
            }
            assert!(decoder.is_between());
            assert_eq!(found, messages);
            assert_eq!(data, b"abc".repeat(messages.len()));
        }
    }

    #[test]
    fn lengths_and_kinds_are_judged_before_a_body_is_kept() {
        let huge = [Kind::File as u8, 0, 0, 0x30, 1];
        assert_eq!(Decoder::default().next(&mut huge.as_slice(), ALL), Err(CopyError::TooLong(Kind::File)));
        let huge = [Kind::Data as u8, 0, 0x10, 0, 1];
        assert_eq!(Decoder::default().next(&mut huge.as_slice(), ALL), Err(CopyError::TooLong(Kind::Data)));
        assert_eq!(Decoder::default().next(&mut [99].as_slice(), ALL), Err(CopyError::UnknownKind(99)));
        let early = Decoder::default().next(&mut [Kind::Data as u8].as_slice(), Kinds::OPENING);
        assert_eq!(early, Err(CopyError::NotNow(Kind::Data)));
    }

    #[test]
    fn a_quarter_million_mutated_streams_neither_panic_nor_grow() {
        let (bytes, _) = stream();
        mutate::each(&bytes, 11, |bytes| {
            let mut decoder = Decoder::default();
            let mut input = bytes;
            while let Ok(Some(_)) = decoder.next(&mut input, ALL) {}
            assert!(decoder.held.capacity() <= 2 * (HEADER_BYTES + MAX_BODY));
        });
    }
}
