//! What AWS has no operation for.

pub mod attach_session;
pub mod list_sessions;

pub use attach_session::AttachSession;
pub use list_sessions::ListSessions;
