//! Copies: one connection of a session to a worker on the node, its bytes carried between link and the threads that read
//! and write files.

mod carry;
mod location;
mod progress;

pub(crate) use carry::{Carried, copy};
pub(crate) use location::{Local, Location};
pub(crate) use progress::Display;
