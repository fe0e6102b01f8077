//! What AWS has no operation for.

pub mod attach_session;
pub mod delete_target;
pub mod describe_ssh_authority;
pub mod describe_targets;
pub mod explain;
pub mod leave_node;
pub mod list_nodes;
pub mod list_sessions;
pub mod open_data_channel;
pub mod open_forward;
pub mod put_target;
pub mod read_audit;
pub mod read_recording;
pub mod register_node;
pub mod target;
#[cfg(test)]
mod target_tests;
pub mod verify_recording;
pub mod verify_trail;

pub use attach_session::AttachSession;
pub use delete_target::DeleteTarget;
pub use describe_ssh_authority::DescribeSshAuthority;
pub use describe_targets::DescribeTargets;
pub use explain::Explain;
pub use leave_node::LeaveNode;
pub use list_nodes::ListNodes;
pub use list_sessions::ListSessions;
pub use open_data_channel::OpenDataChannel;
pub use open_forward::OpenForward;
pub use put_target::PutTarget;
pub use read_audit::ReadAudit;
pub use read_recording::ReadRecording;
pub use register_node::RegisterNode;
pub use verify_recording::VerifyRecording;
pub use verify_trail::VerifyTrail;
