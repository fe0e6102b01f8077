//! What travels in a stream of the link: frames and messages of client, server and agent.
//!
//! One codec for all three ends. `docs/protocol.md` says in prose what stands here; the byte vectors in the tests
//! hold the two together.

pub mod aws;
pub mod bytes;
pub mod enrol;
pub mod flow;
pub mod frame;
pub mod hello;
pub mod message;

pub use frame::{Frame, FrameError, FrameKind, FrameSet, MAX_DATA, MAX_PAYLOAD};
