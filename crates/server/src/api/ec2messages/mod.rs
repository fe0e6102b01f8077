//! The message delivery service of AWS's agent: what it polls until its control channel stands. Sessions do not use it.

pub mod get_messages;

pub use get_messages::GetMessages;
