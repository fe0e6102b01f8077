//! Open files as the gateway follows them: what was read and written of each, and what can be said of it at its end.
//!
//! A hash is told only of what was transferred whole, from the first byte to the last, in order; anything else is told as
//! the parts that it was.

use aws_lc_rs::digest::{Context, SHA256};
use munjigi_core::recording::{FileAction, FileChange, FileCopied, FileDirection};
use munjigi_core::sftp::OpenFlags;

use crate::gateway::copying::outbox::Noted;

/// Parts of one file that are told apart; beyond that only their bytes are known.
const MAX_PARTS: usize = 64;

/// What was transferred of a file, one way.
struct Coverage {
    /// Of everything from the beginning up to `next`; `None` once something was out of order.
    hash: Option<Context>,
    next: u64,
    /// What has been transferred for certain: sorted, apart from each other.
    parts: Vec<(u64, u64)>,
    has_more_parts: bool,
    /// Bytes, those that were transferred twice counted twice.
    bytes: u64,
}

impl Coverage {
    fn new() -> Self {
        let hash = Some(Context::new(&SHA256));
        Self { hash, next: 0, parts: Vec::new(), has_more_parts: false, bytes: 0 }
    }

    /// Bytes pass.
    fn pass(&mut self, offset: u64, data: &[u8]) {
        if offset == self.next
            && let Some(hash) = &mut self.hash
        {
            hash.update(data);
            self.next += data.len() as u64;
        } else if !data.is_empty() {
            self.hash = None;
        }
    }

    /// They have arrived.
    fn done(&mut self, offset: u64, length: u64) {
        self.bytes += length;
        let Some(end) = offset.checked_add(length).filter(|_| length > 0) else { return };
        let at = self.parts.partition_point(|(_, known)| *known < offset);
        let touched = self.parts.iter().skip(at).take_while(|(begin, _)| *begin <= end).count();
        if let Some(part) = self.parts.get_mut(at).filter(|_| touched == 1) {
            *part = (part.0.min(offset), part.1.max(end));
            return;
        }
        if touched == 0 && self.parts.len() >= MAX_PARTS {
            self.has_more_parts = true;
            return;
        }
        let merged: Vec<_> = self.parts.drain(at..at + touched).collect();
        let begin = merged.first().map_or(offset, |(begin, _)| offset.min(*begin));
        let end = merged.last().map_or(end, |(_, last)| end.max(*last));
        self.parts.insert(at, (begin, end));
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty() && !self.has_more_parts
    }

    /// Returns the hash if everything up to `end` was transferred in order.
    fn whole(&self, end: u64) -> Option<[u8; 32]> {
        let all = match self.parts.as_slice() {
            [] => end == 0,
            [(0, last)] => *last == end,
            _ => false,
        };
        let hash = self.hash.as_ref().filter(|_| all && self.next == end && !self.has_more_parts)?;
        hash.clone().finish().as_ref().try_into().ok()
    }

    /// Returns how many different bytes were transferred, as far as that is known.
    fn distinct(&self) -> u64 {
        if self.has_more_parts { self.bytes } else { self.parts.iter().map(|(begin, end)| end - begin).sum() }
    }

    fn told(&self) -> String {
        let mut parts: Vec<_> = self.parts.iter().map(|(begin, end)| format!("{begin}-{end}")).collect();
        if self.has_more_parts {
            parts.push("…".to_owned());
        }
        parts.join(",")
    }
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) path: String,
    flags: OpenFlags,
    /// It was made, or emptied, by being opened.
    is_new: bool,
    read: Coverage,
    written: Coverage,
    /// Where the node said that there is no more.
    end_seen: Option<u64>,
    /// Bytes that were written wherever the end was.
    appended: u64,
    /// Why something could not be transferred.
    failed: Option<String>,
    /// Its size was set to something else than what had been written.
    is_altered: bool,
    size_at_close: Option<u64>,
    size_at_copy: u64,
}

impl OpenFile {
    /// Begins; `existed` says whether it was there before.
    pub(super) fn new(path: String, flags: OpenFlags, existed: bool) -> Self {
        Self {
            path,
            flags,
            is_new: flags.writes() && (!existed || flags.truncates()),
            read: Coverage::new(),
            written: Coverage::new(),
            end_seen: None,
            appended: 0,
            failed: None,
            is_altered: false,
            size_at_close: None,
            size_at_copy: 0,
        }
    }

    /// Data came from the node.
    pub(super) fn was_read(&mut self, offset: u64, data: &[u8]) {
        self.read.pass(offset, data);
        self.read.done(offset, data.len() as u64);
    }

    /// The node said that there is nothing at this offset.
    pub(super) fn saw_end(&mut self, offset: u64) {
        self.end_seen = Some(self.end_seen.map_or(offset, |end| end.min(offset)));
    }

    /// Reading or writing failed.
    pub(super) fn failed(&mut self, why: &str) {
        self.failed.get_or_insert_with(|| why.to_owned());
    }

    /// Data goes to the node.
    pub(super) fn is_written(&mut self, offset: u64, data: &[u8]) {
        if self.flags.appends() {
            self.written.hash = None;
        } else {
            self.written.pass(offset, data);
        }
    }

    /// The node has written it.
    pub(super) fn was_written(&mut self, offset: u64, length: u64) {
        if self.flags.appends() {
            self.appended += length;
        } else {
            self.written.done(offset, length);
        }
    }

    /// Bytes were copied inside of the node.
    pub(super) fn was_copied(&mut self, offset: u64, length: u64, is_source: bool) {
        let coverage = if is_source { &mut self.read } else { &mut self.written };
        coverage.hash = None;
        coverage.done(offset, length);
    }

    /// The node said how large it is before bytes are copied from it.
    pub(super) fn copies_from(&mut self, size: u64) {
        self.size_at_copy = size;
    }

    /// Returns how large it was then.
    pub(super) fn size_at_copy(&self) -> u64 {
        self.size_at_copy
    }

    /// Its size was set.
    pub(super) fn was_resized(&mut self, size: u64) {
        self.is_altered |= size != self.written.next;
    }

    /// The node said how large it is before it is closed.
    pub(super) fn closes_with(&mut self, size: u64) {
        self.size_at_close = Some(size);
    }

    /// Returns what it was opened for.
    pub(super) fn flags(&self) -> OpenFlags {
        self.flags
    }

    /// Whether it was opened so that it may be changed.
    pub(super) fn takes_data(&self) -> bool {
        self.flags.takes_data()
    }

    /// It was closed, or never will be and why: tells what became of it.
    pub(super) fn end(mut self, connection: u64, why: Option<&str>) -> Vec<Noted> {
        if let Some(why) = why {
            self.failed(why);
        }
        let mut noted = Vec::new();
        if self.flags.reads() {
            noted.extend(self.reading(connection));
        }
        if self.flags.writes() {
            noted.extend(self.writing(connection));
        }
        noted
    }

    fn reading(&self, connection: u64) -> Option<Noted> {
        let next = self.read.next;
        let at_end =
            self.end_seen.is_some_and(|end| end <= next) || self.size_at_close.is_some_and(|size| size <= next);
        let hash = self.read.whole(next).filter(|_| at_end);
        if self.read.is_empty() && self.end_seen.is_none() && self.failed.is_none() {
            // Opened and closed: nothing was learned of its content.
            return None;
        }
        Some(self.told(connection, &self.read, hash, FileDirection::Download, FileAction::ReadParts))
    }

    fn writing(&self, connection: u64) -> Option<Noted> {
        let next = self.written.next;
        // Without an answer about its size a file that was made by this is what was written to it.
        let is_all = self.size_at_close.map_or(self.is_new, |size| size == next);
        let hash = self.written.whole(next).filter(|_| is_all && !self.is_altered);
        if self.written.is_empty() && self.appended == 0 && !self.is_new && self.failed.is_none() {
            return None;
        }
        Some(self.told(connection, &self.written, hash, FileDirection::Upload, FileAction::WriteParts))
    }

    fn told(
        &self,
        connection: u64,
        coverage: &Coverage,
        hash: Option<[u8; 32]>,
        direction: FileDirection,
        in_parts: FileAction,
    ) -> Noted {
        let path = self.path.clone();
        let bytes = coverage.distinct() + if direction == FileDirection::Upload { self.appended } else { 0 };
        if let Some(why) = self.failed.clone() {
            return Noted::Copied(FileCopied { connection, direction, path, bytes, kept: 0, hash: [0; 32], why });
        }
        if let Some(hash) = hash {
            let why = String::new();
            return Noted::Copied(FileCopied { connection, direction, path, bytes, kept: 0, hash, why });
        }
        let mut detail = coverage.told();
        if self.appended > 0 && direction == FileDirection::Upload {
            let comma = if detail.is_empty() { "" } else { "," };
            detail.push_str(&format!("{comma}{} at the end", self.appended));
        }
        let (action, why) = (in_parts, String::new());
        Noted::Changed(FileChange { connection, action, path, detail, bytes, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(data: &[u8]) -> [u8; 32] {
        aws_lc_rs::digest::digest(&SHA256, data).as_ref().try_into().unwrap()
    }

    fn upload() -> OpenFile {
        OpenFile::new("/a".to_owned(), OpenFlags::TO_REPLACE, true)
    }

    fn write(file: &mut OpenFile, offset: u64, data: &[u8]) {
        file.is_written(offset, data);
        file.was_written(offset, data.len() as u64);
    }

    fn copied(noted: &[Noted]) -> &FileCopied {
        let [Noted::Copied(file)] = noted else { panic!("{noted:?}") };
        file
    }

    fn changed(noted: &[Noted]) -> &FileChange {
        let [Noted::Changed(change)] = noted else { panic!("{noted:?}") };
        change
    }

    #[test]
    fn what_was_written_whole_and_in_order_has_a_hash() {
        let mut file = upload();
        write(&mut file, 0, b"ab");
        write(&mut file, 2, b"c");
        file.closes_with(3);
        let noted = file.end(1, None);
        assert_eq!((copied(&noted).hash, copied(&noted).bytes), (sha256(b"abc"), 3));
        let mut empty = upload();
        empty.closes_with(0);
        assert_eq!(copied(&empty.end(1, None)).hash, sha256(b""));
    }

    #[test]
    fn anything_else_is_told_in_parts() {
        let mut file = upload();
        write(&mut file, 2, b"c");
        write(&mut file, 0, b"ab");
        file.closes_with(3);
        assert_eq!(changed(&file.end(1, None)).detail, "0-3");
        let mut longer = upload();
        write(&mut longer, 0, b"ab");
        longer.closes_with(9);
        assert_eq!(changed(&longer.end(1, None)).detail, "0-2");
        let mut twice = upload();
        write(&mut twice, 0, b"ab");
        write(&mut twice, 1, b"x");
        twice.closes_with(2);
        assert_eq!((changed(&twice.end(1, None)).detail.as_str(),), ("0-2",));
        let mut shrunk = upload();
        write(&mut shrunk, 0, b"ab");
        shrunk.was_resized(1);
        shrunk.was_resized(2);
        shrunk.closes_with(2);
        assert_eq!(changed(&shrunk.end(1, None)).bytes, 2);
    }

    #[test]
    fn a_file_is_downloaded_once_its_end_was_seen() {
        let read = |end: Option<u64>, size| {
            let mut file = OpenFile::new("/a".to_owned(), OpenFlags::TO_READ, true);
            file.was_read(0, b"abc");
            if let Some(end) = end {
                file.saw_end(end);
            }
            file.closes_with(size);
            file.end(1, None)
        };
        for (end, size) in [(Some(3), 3), (None, 3), (Some(3), 9)] {
            assert_eq!(copied(&read(end, size)).hash, sha256(b"abc"));
        }
        assert_eq!(changed(&read(None, 9)).detail, "0-3");
        let untouched = OpenFile::new("/a".to_owned(), OpenFlags::TO_READ, true);
        assert_eq!(untouched.end(1, None), []);
    }

    #[test]
    fn what_broke_off_is_told_as_far_as_it_came() {
        let mut file = upload();
        write(&mut file, 0, b"abc");
        file.is_written(3, b"lost");
        let noted = file.end(1, Some("it broke"));
        assert_eq!((copied(&noted).bytes, copied(&noted).why.as_str()), (3, "it broke"));
        assert_eq!(copied(&noted).hash, [0; 32]);
    }

    #[test]
    fn parts_are_joined_and_bounded_whatever_their_order() {
        let mut coverage = Coverage::new();
        for (offset, length) in [(10, 5), (0, 5), (5, 5), (20, 1), (3, 30)] {
            coverage.done(offset, length);
        }
        assert_eq!(coverage.parts, [(0, 33)]);
        for at in 0..2 * MAX_PARTS as u64 {
            coverage.done(100 + at * 10, 5);
        }
        assert_eq!(coverage.parts.len(), MAX_PARTS);
        assert!(coverage.told().ends_with('…'));
        coverage.done(u64::MAX, 7);
    }
}
