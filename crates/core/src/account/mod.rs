//! People's accounts on nodes: how they are named, which there shall be, the signed document that tells a node, and what
//! a node has to do to become what the document says.
//!
//! Nothing here reads a store or touches a system: the server plans with it, the node judges with it.

pub mod book;
pub mod bundle;
pub mod names;
pub mod pairs;
pub mod plan;
pub mod reconcile;
pub mod rule;
pub mod sudoers;
