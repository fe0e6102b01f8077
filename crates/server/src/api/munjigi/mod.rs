//! What AWS has no operation for.

pub mod attach_session;
pub mod explain;
pub mod leave_node;
pub mod list_nodes;
pub mod list_sessions;
pub mod register_node;

pub use attach_session::AttachSession;
pub use explain::Explain;
pub use leave_node::LeaveNode;
pub use list_nodes::ListNodes;
pub use list_sessions::ListSessions;
pub use register_node::RegisterNode;
