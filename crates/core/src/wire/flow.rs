//! What a session's client must remember so that no byte is lost or doubled when its link breaks: the input that the
//! node has not yet taken, and how far the output has been received. Our client and the server's doors for foreign
//! clients use it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Frame, MAX_DATA};

/// Most input held for a possible repetition, bytes. When it is full the client stops reading its standard input.
pub const MAX_UNACKNOWLEDGED: usize = 256 * 1024;

/// Why the other end's count cannot be right. Going on would lose or double bytes, so the session is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The server wants or confirms input that was never typed.
    #[error("the server counts {claimed} bytes of input, but only {typed} were sent")]
    InputAhead {
        /// What the server says.
        claimed: u64,
        /// What there is.
        typed: u64,
    },
    /// The server wants input again that it had confirmed.
    #[error("the server wants input from byte {wanted} again, which it had confirmed up to {confirmed}")]
    InputForgotten {
        /// From where it wants input.
        wanted: u64,
        /// Up to where it had confirmed.
        confirmed: u64,
    },
    /// Output is missing before this frame.
    #[error("output from byte {received} to {offered} is missing")]
    OutputGap {
        /// Bytes received so far.
        received: u64,
        /// Where the frame begins.
        offered: u64,
    },
}

/// The input of a session on its way to the node.
///
/// INVARIANT: `confirmed <= sent <= confirmed + held.len()`, and `held.len() <= MAX_UNACKNOWLEDGED`.
#[derive(Debug, Default)]
pub struct InputBuffer {
    /// Bytes typed and not yet confirmed; the first has the offset `confirmed`.
    held: VecDeque<u8>,
    confirmed: u64,
    sent: u64,
    ended: bool,
    end_sent: bool,
}

impl InputBuffer {
    /// Begins at an offset, for a session that others typed into before. Only before anything was sent.
    pub fn start_at(&mut self, offset: u64) {
        self.confirmed = offset;
        self.sent = offset;
    }

    /// Returns how many bytes more may be pushed; 0 once the input has ended.
    pub fn room(&self) -> usize {
        if self.ended { 0 } else { MAX_UNACKNOWLEDGED - self.held.len() }
    }

    /// Appends what was typed and returns how much of it was taken: at most [`Self::room`].
    pub fn push(&mut self, typed: &[u8]) -> usize {
        let taken = typed.len().min(self.room());
        self.held.extend(typed.iter().take(taken));
        taken
    }

    /// Takes note that the standard input has ended; nothing follows.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Returns the next frame to send, and counts it as sent.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let from = usize::try_from(self.sent - self.confirmed).unwrap_or(usize::MAX);
        let data: Bytes = self.held.iter().skip(from).take(MAX_DATA).copied().collect();
        if !data.is_empty() {
            let offset = self.sent;
            self.sent += data.len() as u64;
            return Some(Frame::Input { offset, data });
        }
        if self.ended && !self.end_sent {
            self.end_sent = true;
            return Some(Frame::InputEnd { offset: self.typed() });
        }
        None
    }

    /// Forgets everything before `offset`: the node has it. An older confirmation that arrives late changes nothing.
    pub fn confirm(&mut self, offset: u64) -> Result<(), FlowError> {
        if offset > self.typed() {
            return Err(FlowError::InputAhead { claimed: offset, typed: self.typed() });
        }
        let forget = usize::try_from(offset.saturating_sub(self.confirmed)).unwrap_or(usize::MAX);
        self.held.drain(..forget.min(self.held.len()));
        self.confirmed = self.confirmed.max(offset);
        self.sent = self.sent.max(self.confirmed);
        Ok(())
    }

    /// Sends again from `offset`, which the server wants: it lost what came behind, or the link is a new one.
    pub fn send_again_from(&mut self, offset: u64) -> Result<(), FlowError> {
        if offset < self.confirmed {
            return Err(FlowError::InputForgotten { wanted: offset, confirmed: self.confirmed });
        }
        self.confirm(offset)?;
        self.sent = offset;
        self.end_sent = false;
        Ok(())
    }

    /// Goes back to the first byte that is not confirmed: nothing that was sent on a broken link counts.
    pub fn rewind(&mut self) {
        self.sent = self.confirmed;
        self.end_sent = false;
    }

    /// Returns the count of all input bytes so far.
    fn typed(&self) -> u64 {
        self.confirmed + self.held.len() as u64
    }
}

/// How much output has arrived, counted over both streams together.
#[derive(Debug, Default, Clone, Copy)]
pub struct OutputCursor {
    received: u64,
}

impl OutputCursor {
    /// Begins at an offset: 0, or where an attach begins.
    pub const fn starting_at(offset: u64) -> Self {
        Self { received: offset }
    }

    /// Returns the count of bytes received, the place from which a new link shall deliver.
    pub const fn received(self) -> u64 {
        self.received
    }

    /// Returns the part of an output frame that is new; empty for a repetition.
    pub fn take(&mut self, offset: u64, data: Bytes) -> Result<Bytes, FlowError> {
        if offset > self.received {
            return Err(FlowError::OutputGap { received: self.received, offered: offset });
        }
        let known = usize::try_from(self.received - offset).unwrap_or(usize::MAX);
        let new = data.slice(known.min(data.len())..);
        self.received += new.len() as u64;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic source of numbers (xorshift).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// The node's end as the protocol describes it: takes what continues, ignores repetitions, drops gaps.
    #[derive(Default)]
    struct Node {
        taken: Vec<u8>,
        end: Option<u64>,
    }

    impl Node {
        fn hear(&mut self, frame: Frame) {
            match frame {
                Frame::Input { offset, data } if offset <= self.taken.len() as u64 => {
                    let known = self.taken.len() - offset as usize;
                    self.taken.extend(data.iter().skip(known));
                }
                Frame::InputEnd { offset } if offset == self.taken.len() as u64 => self.end = Some(offset),
                _ => {}
            }
        }
    }

    #[test]
    fn every_byte_arrives_once_whatever_the_link_loses() {
        for seed in 1..=200_u64 {
            let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let total = 1 + numbers.below(600_000) as usize;
            let original: Vec<u8> = (0..total).map(|at| (at * 31 % 251) as u8).collect();
            let (mut input, mut node) = (InputBuffer::default(), Node::default());
            let mut typed = 0;
            let mut in_flight: VecDeque<Frame> = VecDeque::new();
            let mut confirmations: VecDeque<u64> = VecDeque::new();
            let mut rounds = 0;
            while node.end.is_none() {
                rounds += 1;
                assert!(rounds < 200_000, "seed {seed} makes no progress");
                assert!(input.held.len() <= MAX_UNACKNOWLEDGED);
                match numbers.below(12) {
                    0..=3 => {
                        let upto = (typed + numbers.below(20_000) as usize).min(total);
                        typed += input.push(&original[typed..upto]);
                        if typed == total {
                            input.end();
                        }
                    }
                    4..=6 => in_flight.extend(input.next_frame()),
                    7..=8 => {
                        if let Some(frame) = in_flight.pop_front() {
                            node.hear(frame);
                            confirmations.push_back(node.taken.len() as u64);
                        }
                    }
                    9 => {
                        if let Some(offset) = confirmations.pop_front() {
                            input.confirm(offset).unwrap();
                        }
                    }
                    // The server restarted and asks the client to repeat from where the node stands.
                    10 if numbers.below(20) == 0 => {
                        in_flight.clear();
                        confirmations.clear();
                        input.send_again_from(node.taken.len() as u64).unwrap();
                    }
                    // The link breaks: everything on it is lost, then the new link says where the node stands.
                    11 if numbers.below(20) == 0 => {
                        in_flight.clear();
                        confirmations.clear();
                        input.rewind();
                        input.send_again_from(node.taken.len() as u64).unwrap();
                    }
                    _ => {}
                }
            }
            assert_eq!(node.taken, original, "seed {seed}");
        }
    }

    #[test]
    fn a_full_buffer_takes_no_more_until_the_node_confirms() {
        let mut input = InputBuffer::default();
        assert_eq!(input.push(&vec![b'x'; MAX_UNACKNOWLEDGED + 5]), MAX_UNACKNOWLEDGED);
        assert_eq!(input.push(b"y"), 0);
        input.confirm(3).unwrap();
        assert_eq!(input.room(), 3);
    }

    #[test]
    fn impossible_counts_are_refused() {
        let mut input = InputBuffer::default();
        input.push(b"hello");
        assert_eq!(input.confirm(6), Err(FlowError::InputAhead { claimed: 6, typed: 5 }));
        input.confirm(4).unwrap();
        input.confirm(2).unwrap();
        assert_eq!(input.send_again_from(3), Err(FlowError::InputForgotten { wanted: 3, confirmed: 4 }));
        assert!(input.send_again_from(u64::MAX).is_err());
        input.send_again_from(4).unwrap();
        assert_eq!(input.next_frame(), Some(Frame::Input { offset: 4, data: Bytes::from_static(b"o") }));
    }

    #[test]
    fn the_end_of_input_follows_the_last_byte_and_is_repeated_on_a_new_link() {
        let mut input = InputBuffer::default();
        input.push(b"ab");
        input.end();
        assert_eq!(input.push(b"c"), 0);
        assert!(matches!(input.next_frame(), Some(Frame::Input { offset: 0, .. })));
        assert_eq!(input.next_frame(), Some(Frame::InputEnd { offset: 2 }));
        assert_eq!(input.next_frame(), None);
        input.rewind();
        input.send_again_from(2).unwrap();
        assert_eq!(input.next_frame(), Some(Frame::InputEnd { offset: 2 }));
        assert_eq!(input.next_frame(), None);
    }

    #[test]
    fn output_is_delivered_once_and_a_gap_is_noticed() {
        let mut cursor = OutputCursor::starting_at(10);
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(cursor.take(10, text("abc")).unwrap(), text("abc"));
        assert_eq!(cursor.take(10, text("abc")).unwrap(), text(""));
        assert_eq!(cursor.take(12, text("cde")).unwrap(), text("de"));
        assert_eq!(cursor.take(3, text("x")).unwrap(), text(""));
        assert_eq!(cursor.take(16, text("x")), Err(FlowError::OutputGap { received: 15, offered: 16 }));
        assert_eq!(cursor.received(), 15);
    }
}
