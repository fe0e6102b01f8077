//! What AWS has no operation for.

pub mod attach_session;

pub use attach_session::AttachSession;
