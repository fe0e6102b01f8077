//! Nodes and sessions, as AWS Systems Manager has them.

pub mod describe_sessions;
pub mod get_connection_status;
pub mod start_session;
pub mod target;
pub mod terminate_session;

pub use describe_sessions::DescribeSessions;
pub use get_connection_status::GetConnectionStatus;
pub use start_session::StartSession;
pub use terminate_session::TerminateSession;
