//! Talks in pieces of every size, for the tests in the files beside.

mod conversation;
mod hostile;
mod login;

use crate::recording::{Statement, StatementEnd, StatementKind, StatementOutcome};

use super::Violation;
use super::conversation::{Conversation, FromClient};
use super::packet::write_packet;

/// Both ends' bytes, read along in pieces.
struct Talk {
    conversation: Conversation,
    /// Most bytes given at once beyond what was kept.
    piece: usize,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    statements: Vec<Statement>,
    ended: Vec<StatementEnd>,
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Talk {
    fn new(agreed: u64, piece: usize) -> Self {
        Self {
            conversation: Conversation::new(agreed, 5, 1),
            piece,
            to_server: Vec::new(),
            to_client: Vec::new(),
            statements: Vec::new(),
            ended: Vec::new(),
            client: Vec::new(),
            server: Vec::new(),
        }
    }

    fn client(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        for piece in bytes.chunks(self.piece) {
            self.client.extend_from_slice(piece);
            self.settle()?;
        }
        Ok(())
    }

    fn server(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        for piece in bytes.chunks(self.piece) {
            self.server.extend_from_slice(piece);
            self.settle()?;
        }
        Ok(())
    }

    /// Moves what may go.
    fn settle(&mut self) -> Result<(), Violation> {
        loop {
            let before = (self.client.len(), self.server.len(), self.to_client.len());
            match self.conversation.from_client(&self.client)? {
                FromClient::More | FromClient::Full => {}
                FromClient::Pass { bytes, statement } => {
                    self.statements.extend(statement.map(|statement| *statement));
                    self.to_server.extend(self.client.drain(..bytes));
                }
                FromClient::Drop { bytes, statement } => {
                    self.statements.extend(statement.map(|statement| *statement));
                    self.client.drain(..bytes);
                }
            }
            let passed = self.conversation.from_server(&self.server)?;
            self.to_client.extend(self.server.drain(..passed));
            self.to_client.extend(self.conversation.answer().unwrap_or_default());
            self.ended.extend(std::iter::from_fn(|| self.conversation.ended()));
            if (self.client.len(), self.server.len(), self.to_client.len()) == before {
                return Ok(());
            }
        }
    }

    /// What is shown of statements: kind, number, number of the preparation, text.
    fn shown(&self) -> Vec<(StatementKind, u64, u64, &str)> {
        self.statements.iter().map(|said| (said.kind, said.number, said.prepared, said.text.as_str())).collect()
    }

    fn ends(&self) -> Vec<(u64, StatementOutcome, Option<u64>, &str)> {
        self.ended.iter().map(|end| (end.number, end.outcome, end.rows, end.code.as_str())).collect()
    }
}

/// Packets of one side, numbered from `sequence`.
fn packets(sequence: u8, payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (payload, sequence) in payloads.iter().zip(sequence..) {
        write_packet(&mut out, sequence, payload);
    }
    out
}

fn command(byte: u8, rest: &[u8]) -> Vec<u8> {
    packets(0, &[&[&[byte], rest].concat()])
}

const OK: &[u8] = &[0, 3, 0, 2, 0, 0, 0];
const OK_AND_MORE: &[u8] = &[0, 2, 0, 0x0a, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const EOF_AND_MORE: &[u8] = &[0xfe, 0, 0, 0x0a, 0];
const END: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];
const COLUMN: &[u8] = b"\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x03\x81\x00\x00\x00\x00";
const NO_TABLE: &[u8] = b"\xff\x7a\x04#42S02Table 'd.t' doesn't exist";

/// Has the talk come out the same, however its bytes are cut, and returns it.
fn said(agreed: u64, lines: &[(bool, Vec<u8>)]) -> Talk {
    let mut whole: Option<Talk> = None;
    for piece in [usize::MAX, 1, 3, 7] {
        let mut talk = Talk::new(agreed, piece);
        for (from_client, bytes) in lines {
            if *from_client { talk.client(bytes) } else { talk.server(bytes) }.unwrap();
        }
        assert_eq!((talk.client.len(), talk.server.len()), (0, 0), "nothing is held back in the end");
        if let Some(whole) = &whole {
            assert_eq!((&talk.to_server, &talk.to_client), (&whole.to_server, &whole.to_client));
            assert_eq!((&talk.statements, &talk.ended), (&whole.statements, &whole.ended));
        }
        whole.get_or_insert(talk);
    }
    whole.unwrap()
}
