//! People's accounts on nodes: how they are named, which there shall be, and the signed document that tells a node.
//!
//! Nothing here reads a store or touches a system: the server plans with it, the node judges with it.

pub mod bundle;
