//! Messages in a stream of bytes that comes in any pieces. Only the beginning of a message's body is kept, as much as its
//! rule says; the rest is counted.

use super::Violation;

/// Kind and length.
const HEAD: usize = 5;
/// The length counts itself.
const LENGTH_FIELD: usize = 4;

/// A message, once all of it has passed.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its first byte.
    pub kind: u8,
    /// The beginning of its body, as much as its rule keeps.
    pub body: &'a [u8],
    /// How long the whole body was, bytes.
    pub length: usize,
}

impl Message<'_> {
    /// Tells whether all of the body is there.
    pub fn is_whole(&self) -> bool {
        self.body.len() == self.length
    }
}

/// What is to be done with messages of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Longest body, bytes.
    pub longest: usize,
    /// How much of it is kept, bytes.
    pub keep: usize,
}

/// Finds messages.
#[derive(Debug)]
pub struct Framer {
    from: &'static str,
    rule: fn(u8) -> Option<Rule>,
    head: [u8; HEAD],
    /// How much of the head is there.
    have: usize,
    /// The rule, once the head is whole.
    current: Option<Rule>,
    length: usize,
    /// How much of the body is still to come.
    left: usize,
    kept: Vec<u8>,
}

/// What a silent connection keeps of its buffer.
const KEPT_BUFFER_BYTES: usize = 512;

impl Framer {
    /// Begins between two messages. `rule` says what may come, `None` for what may not.
    pub const fn new(from: &'static str, rule: fn(u8) -> Option<Rule>) -> Self {
        Self { from, rule, head: [0; HEAD], have: 0, current: None, length: 0, left: 0, kept: Vec::new() }
    }

    /// Takes bytes off the front of `input` until a message is whole; `None` when the input ends first.
    pub fn next<'m, 'i: 'm>(&'m mut self, input: &mut &'i [u8]) -> Result<Option<Message<'m>>, Violation> {
        let Some(rule) = self.head(input)? else { return Ok(None) };
        let wanted = rule.keep.min(self.length);
        if self.left == self.length
            && let Some((body, rest)) = input.split_at_checked(self.length)
        {
            // The usual case: all of it is here, nothing needs to be copied.
            *input = rest;
            self.done();
            let body = body.get(..wanted).unwrap_or_default();
            return Ok(Some(Message { kind: self.kind(), body, length: self.length }));
        }
        if self.left == self.length {
            self.kept.clear();
            self.kept.shrink_to(KEPT_BUFFER_BYTES);
        }
        let (now, rest) = input.split_at(input.len().min(self.left));
        *input = rest;
        self.left -= now.len();
        let keep = now.len().min(wanted.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(now.get(..keep).unwrap_or_default());
        if self.left > 0 {
            return Ok(None);
        }
        self.done();
        Ok(Some(Message { kind: self.kind(), body: &self.kept, length: self.length }))
    }

    /// Tells whether the bytes so far end between two messages.
    pub const fn is_between(&self) -> bool {
        self.have == 0
    }

    fn kind(&self) -> u8 {
        let [kind, ..] = self.head;
        kind
    }

    fn done(&mut self) {
        (self.have, self.current) = (0, None);
    }

    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Rule>, Violation> {
        if let Some(rule) = self.current {
            return Ok(Some(rule));
        }
        let (now, rest) = input.split_at(input.len().min(HEAD - self.have));
        *input = rest;
        for (place, byte) in self.head.iter_mut().skip(self.have).zip(now) {
            *place = *byte;
        }
        self.have += now.len();
        // What may not come is refused before anything of it is waited for.
        let from = self.from;
        let rule = (self.have > 0).then(|| (self.rule)(self.kind()));
        let kind = char::from(self.kind());
        let rule = match rule {
            None => return Ok(None),
            Some(None) => return Err(Violation::Kind { from, kind }),
            Some(Some(rule)) => rule,
        };
        if self.have < HEAD {
            return Ok(None);
        }
        let [_, length @ ..] = self.head;
        let length = i64::from(i32::from_be_bytes(length));
        let body = usize::try_from(length).ok().and_then(|length| length.checked_sub(LENGTH_FIELD));
        let body = body.filter(|body| *body <= rule.longest).ok_or(Violation::Length { from, kind, length })?;
        (self.length, self.left, self.current) = (body, body, Some(rule));
        Ok(Some(rule))
    }
}
