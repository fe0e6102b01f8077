//! Security token service.

mod get_caller_identity;

pub use get_caller_identity::GetCallerIdentity;
