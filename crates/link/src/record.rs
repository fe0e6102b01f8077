//! The records of TLS 1.3 (RFC 8446 section 5) for a connection whose handshake is done, without a socket.
//!
//! rustls makes the handshake and gives its keys out, as for the kernel's TLS; the records themselves are written and
//! read here, because many of them can then share a system call and no byte is copied that is not encrypted or
//! decrypted on the way. There is no rekeying: a lane is replaced before its keys are used up.

use aws_lc_rs::aead::UnboundKey;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce};
use rustls::ConnectionTrafficSecrets;

/// Most bytes of content in a record (RFC 8446 section 5.1).
pub(crate) const MAX_CONTENT: usize = 16 * 1024;
/// What a record of ours has beside its content: head, type, tag.
const OVERHEAD: usize = HEAD + 1 + TAG;
/// Largest record that is sent, bytes.
pub(crate) const MAX_RECORD: usize = MAX_CONTENT + OVERHEAD;
/// Largest body of a record that is received (RFC 8446 section 5.2).
const MAX_BODY: usize = MAX_CONTENT + 256;
const HEAD: usize = 5;
const TAG: usize = 16;

const APPLICATION_DATA: u8 = 23;
const ALERT: u8 = 21;
/// The content of the alert that ends a direction in good order: `warning`, `close_notify` (section 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Records that one AES-GCM key may protect: RFC 8446 section 5.5 allows 2^24.5 full ones.
const MOST_RECORDS_GCM: u64 = 1 << 24;
/// After this many records a lane is to be replaced: far enough from the end for what is in flight.
#[cfg(not(test))]
pub(crate) const WORN_RECORDS: u64 = 1 << 23;
/// As above, so that a test sees a lane replaced.
#[cfg(test)]
pub(crate) const WORN_RECORDS: u64 = 100;

/// Why records cannot go on. None of these happens between honest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Not a record of TLS 1.3 application data, or one that is too long or too short.
    #[error("it sent what is no TLS record")]
    Malformed,
    /// The record was changed on its way, or is out of order.
    #[error("a record was changed or is out of order")]
    NotAuthentic,
    /// The other side reported an error.
    #[error("it reported TLS error {0}")]
    Alert(u8),
    /// A handshake message or an unknown type.
    #[error("it sent a TLS message of type {0}, which has no place on a lane")]
    Unexpected(u8),
    /// The key has protected as much as it may.
    #[error("its key has protected as much as it may")]
    WornOut,
    /// The key cannot be used.
    #[error("the key cannot be used")]
    Key,
}

/// What protects one direction.
struct Protection {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    number: u64,
    most: u64,
}

impl Protection {
    fn new((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv, most): (&'static Algorithm, _, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, MOST_RECORDS_GCM),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, MOST_RECORDS_GCM),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv, u64::MAX),
            _ => return Err(RecordError::Key),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Key)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Key)?;
        Ok(Self { key: LessSafeKey::new(key), iv, number, most })
    }

    /// Makes the nonce of the next record (section 5.3). Each is used once.
    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        if self.number >= self.most {
            return Err(RecordError::WornOut);
        }
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().rev().zip(self.number.to_be_bytes().iter().rev()) {
            *byte ^= number;
        }
        self.number += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Writes records.
pub(crate) struct Sealer(Protection);

impl Sealer {
    /// Goes on where rustls stopped.
    pub(crate) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Protection::new(secrets).map(Self)
    }

    /// Returns how many records were written with this key.
    pub(crate) fn records(&self) -> u64 {
        self.0.number
    }

    /// Writes content, at most [`MAX_CONTENT`] bytes of it and as much as there is room for. Returns how much of it
    /// was taken, and how long the record is; 0 for both if there is no room.
    pub(crate) fn content(&mut self, content: &[u8], space: &mut [u8]) -> Result<(usize, usize), RecordError> {
        let take = content.len().min(MAX_CONTENT).min(space.len().saturating_sub(OVERHEAD));
        match content.get(..take) {
            Some(content) if take > 0 => Ok((take, self.seal(APPLICATION_DATA, content, space)?)),
            _ => Ok((0, 0)),
        }
    }

    /// Writes the end of the direction; `None` if there is no room for it.
    pub(crate) fn end(&mut self, space: &mut [u8]) -> Result<Option<usize>, RecordError> {
        if space.len() < OVERHEAD + CLOSE_NOTIFY.len() {
            return Ok(None);
        }
        self.seal(ALERT, &CLOSE_NOTIFY, space).map(Some)
    }

    fn seal(&mut self, kind: u8, content: &[u8], space: &mut [u8]) -> Result<usize, RecordError> {
        let body = content.len() + 1 + TAG;
        let [high, low] = u16::try_from(body).map_err(|_| RecordError::Malformed)?.to_be_bytes();
        let head = [APPLICATION_DATA, 3, 3, high, low];
        let (head_space, rest) = space.split_at_mut_checked(HEAD).ok_or(RecordError::Malformed)?;
        let (content_space, rest) = rest.split_at_mut_checked(content.len()).ok_or(RecordError::Malformed)?;
        let tail = rest.get_mut(..1 + TAG).ok_or(RecordError::Malformed)?;
        head_space.copy_from_slice(&head);
        let nonce = self.0.nonce()?;
        self.0
            .key
            .seal_out_of_place_scatter(nonce, Aad::from(head), content, content_space, &[kind], tail)
            .map_err(|_| RecordError::Key)?;
        Ok(HEAD + body)
    }
}

/// Reads records.
pub(crate) struct Opener(Protection);

/// A record that is there completely.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'a> {
    head: [u8; HEAD],
    body: &'a [u8],
    tag: &'a [u8],
}

/// What a record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    /// So many bytes of content.
    Content(usize),
    /// The end of the direction.
    End,
}

/// Finds the first record in `bytes`; `None` if more bytes are needed. A wrong head is found before its body has come.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Whole<'_>>, RecordError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [kind, major, minor, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if (kind, major, minor) != (APPLICATION_DATA, 3, 3) || length <= TAG || length > MAX_BODY {
        return Err(RecordError::Malformed);
    }
    let Some((body, tag)) = rest.get(..length).and_then(|body| body.split_at_checked(length - TAG)) else {
        return Ok(None);
    };
    Ok(Some(Whole { head: *head, body, tag }))
}

impl Whole<'_> {
    /// Returns how much space opening it takes: a little more than its content.
    pub(crate) fn space(&self) -> usize {
        self.body.len()
    }

    /// Returns how long it is.
    pub(crate) fn len(&self) -> usize {
        HEAD + self.body.len() + TAG
    }
}

impl Opener {
    /// Goes on where rustls stopped.
    pub(crate) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Protection::new(secrets).map(Self)
    }

    /// Returns how many records were read with this key.
    pub(crate) fn records(&self) -> u64 {
        self.0.number
    }

    /// Reads a record; its content is at the front of `space` then, which has at least [`Whole::space`] bytes.
    pub(crate) fn open(&mut self, record: Whole<'_>, space: &mut [u8]) -> Result<Opened, RecordError> {
        let Whole { head, body, tag } = record;
        let space = space.get_mut(..body.len()).ok_or(RecordError::Malformed)?;
        let nonce = self.0.nonce()?;
        self.0
            .key
            .open_separate_gather(nonce, Aad::from(head), body, tag, space)
            .map_err(|_| RecordError::NotAuthentic)?;
        // Behind the content stands its type, then zeros as many as the sender liked (section 5.4).
        let end = space.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Malformed)?;
        let kind = space.get(end).copied().unwrap_or_default();
        match (kind, space.get(..end).unwrap_or_default()) {
            (APPLICATION_DATA, content) if content.len() <= MAX_CONTENT => Ok(Opened::Content(content.len())),
            (ALERT, [_, 0]) => Ok(Opened::End),
            (ALERT, [_, description]) => Err(RecordError::Alert(*description)),
            (APPLICATION_DATA | ALERT, _) => Err(RecordError::Malformed),
            (other, _) => Err(RecordError::Unexpected(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    fn secrets() -> (u64, ConnectionTrafficSecrets) {
        (7, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([9; 32]), iv: Iv::from([4; 12]) })
    }

    fn ends() -> (Sealer, Opener) {
        (Sealer::new(secrets()).unwrap(), Opener::new(secrets()).unwrap())
    }

    #[test]
    fn content_of_every_length_and_ends_come_back_in_order() {
        let (mut sealer, mut opener) = ends();
        let mut space = vec![0; MAX_RECORD];
        let mut plain = vec![0; MAX_RECORD];
        for length in [1, 2, 15, 16, 17, 1000, MAX_CONTENT - 1, MAX_CONTENT, MAX_CONTENT + 5] {
            let content: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let (taken, size) = sealer.content(&content, &mut space).unwrap();
            assert_eq!(taken, length.min(MAX_CONTENT));
            assert!(first(&space[..size - 1]).unwrap().is_none(), "not whole yet");
            let record = first(&space[..size]).unwrap().unwrap();
            assert_eq!(record.len(), size);
            assert_eq!(opener.open(record, &mut plain).unwrap(), Opened::Content(taken));
            assert_eq!(plain[..taken], content[..taken]);
        }
        assert_eq!(sealer.content(&[], &mut space).unwrap(), (0, 0));
        assert_eq!(sealer.content(b"x", &mut [0; OVERHEAD]).unwrap(), (0, 0));
        assert_eq!(sealer.end(&mut [0; OVERHEAD]).unwrap(), None);
        let size = sealer.end(&mut space).unwrap().unwrap();
        assert_eq!(opener.open(first(&space[..size]).unwrap().unwrap(), &mut plain).unwrap(), Opened::End);
        assert_eq!((sealer.records(), opener.records()), (17, 17));
    }

    #[test]
    fn a_record_that_was_changed_repeated_or_left_out_is_not_opened() {
        let mut plain = vec![0; MAX_RECORD];
        for change in 0..40 {
            let (mut sealer, mut opener) = ends();
            let mut space = vec![0; 100];
            let (_, size) = sealer.content(b"some bytes of content", &mut space).unwrap();
            if change < HEAD {
                space[change] ^= 1;
                match first(&space[..size]) {
                    Ok(Some(record)) => assert!(opener.open(record, &mut plain).is_err()),
                    other => assert!(other.is_err() || other.is_ok_and(|record| record.is_none())),
                }
                continue;
            }
            space[change.min(size - 1)] ^= 0x80;
            let record = first(&space[..size]).unwrap().unwrap();
            assert_eq!(opener.open(record, &mut plain), Err(RecordError::NotAuthentic));
        }
        let (mut sealer, mut opener) = ends();
        let (mut one, mut two) = (vec![0; 100], vec![0; 100]);
        let (_, one_size) = sealer.content(b"one", &mut one).unwrap();
        let (_, two_size) = sealer.content(b"two", &mut two).unwrap();
        let record = first(&two[..two_size]).unwrap().unwrap();
        assert_eq!(opener.open(record, &mut plain), Err(RecordError::NotAuthentic));
        let mut opener = Opener::new(secrets()).unwrap();
        let record = first(&one[..one_size]).unwrap().unwrap();
        opener.open(record, &mut plain).unwrap();
        assert_eq!(opener.open(record, &mut plain), Err(RecordError::NotAuthentic));
    }

    #[test]
    fn messages_that_do_not_belong_are_named() {
        let mut plain = vec![0; MAX_RECORD];
        let mut opened = |kind: u8, content: &[u8]| {
            let (mut sealer, mut opener) = ends();
            let mut space = vec![0; MAX_RECORD];
            let size = sealer.seal(kind, content, &mut space).unwrap();
            opener.open(first(&space[..size]).unwrap().unwrap(), &mut plain)
        };
        assert_eq!(opened(22, &[24, 0, 0, 1, 0]), Err(RecordError::Unexpected(22)));
        assert_eq!(opened(ALERT, &[2, 20]), Err(RecordError::Alert(20)));
        assert_eq!(opened(ALERT, &[2]), Err(RecordError::Malformed));
        assert_eq!(opened(0, &[]), Err(RecordError::Malformed));
        // Padding: zeros behind the type.
        assert_eq!(opened(0, &[b'x', APPLICATION_DATA, 0, 0]), Ok(Opened::Content(1)));
    }

    #[test]
    fn a_key_protects_no_more_than_it_may() {
        let (_, key) = secrets();
        let mut sealer = Sealer::new((MOST_RECORDS_GCM - 1, key)).unwrap();
        let mut space = vec![0; 100];
        sealer.content(b"x", &mut space).unwrap();
        assert_eq!(sealer.content(b"x", &mut space), Err(RecordError::WornOut));
    }

    #[test]
    fn a_quarter_million_hostile_records_are_refused_and_nothing_panics() {
        let mut state = 0x006c_616e_6573_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let (mut sealer, mut opener) = ends();
        let mut plain = vec![0; 2 * MAX_RECORD];
        let mut bytes = vec![0; 64];
        for _ in 0..1 << 18 {
            let length = (random() % 64) as usize;
            bytes.resize(length, 0);
            for byte in &mut bytes {
                *byte = random() as u8;
            }
            if random() % 2 == 0 {
                // A likely head.
                for (byte, likely) in bytes.iter_mut().zip([23, 3, 3, 0, (random() % 50) as u8]) {
                    *byte = likely;
                }
            }
            if let Ok(Some(record)) = first(&bytes) {
                assert!(record.len() <= bytes.len());
                assert!(opener.open(record, &mut plain).is_err());
            }
            sealer.0.number = 7;
            opener.0.number = 7;
        }
    }
}
