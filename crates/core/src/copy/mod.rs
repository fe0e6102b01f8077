//! The copy protocol: what the two ends of `munjigi cp` say to each other, and what the gateway reads in passing.
//!
//! One end sends files, the other receives them; which of them is the client and which the worker on the node is
//! decided by the direction that was granted. Bytes in, messages out: no file and no socket is known here.
//! `docs/copying.md` says in prose what stands here.

mod decoder;
mod follow;
mod message;
mod path;
mod pattern;

pub use decoder::{CopyError, Decoder, Piece};
pub use follow::{FileSeen, FromSender, Receiving, SenderStream};
pub use message::{
    Attributes, Done, FileHead, HEADER_BYTES, Hello, Kind, Kinds, MAX_BODY, MAX_DATA, Message, Moment, Ready, RootKind,
    VERSION, data_header,
};
pub use path::{EntryPath, MAX_COMPONENT, MAX_ENTRY_PATH, PathError};
pub use pattern::{Pattern, has_wildcards};

/// Most files that a sender may have under way whose outcome it has not heard. Whoever follows remembers as many.
pub const MAX_UNDER_WAY: usize = 1024;
/// Most bytes of the paths of files under way, for the same reason (T-95). One longest path always fits.
pub const MAX_UNDER_WAY_BYTES: usize = 512 * 1024;
