//! The recording format: one session's log as encrypted, chained records, and its exports.
//!
//! Bytes and state only; `docs/recording-format.md` describes the layout in prose. Where the bytes are kept, when they
//! are durable and who may read them is decided elsewhere.

pub mod asciicast;
mod connection;
mod event;
mod file;
mod file_change;
mod frame;
mod header;
mod reader;
mod start;
mod statement;
#[cfg(test)]
mod tests;
mod text;
mod verify;
mod writer;

pub use connection::{Connection, NO_HASH};
pub use event::{Event, EventKind, InputData};
pub use file::{FileCopied, FileDirection};
pub use file_change::{FileAction, FileChange};
pub use frame::{MAX_RECORD_BYTES, MAX_RECORD_PAYLOAD, RecordKind};
pub use header::{DataKey, Header, HeaderError, MAX_HEADER_BYTES, VERSION};
pub use reader::{Disorder, Position, Reader, Record, Seal, Tally, Tamper, Tampered};
pub use start::StartMeta;
pub use statement::{
    MAX_STATEMENT_PARAMETERS, MAX_STATEMENT_TEXT, Statement, StatementEnd, StatementKind, StatementOutcome,
};
pub use text::output_bytes;
pub use verify::{Place, Verdict, Verifier, verify};
pub use writer::{FileRandom, Sealed, WriteError, Writer};
