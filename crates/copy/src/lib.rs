//! Files in and out: the two ends of a copy, for the client and for the worker on a node.
//!
//! [`send()`] walks a tree and sends it, [`receive()`] writes what comes below one directory and nowhere else. Both block:
//! they run on threads of their own and meet the network only as chunks in bounded channels ([`chunk`]). Nothing here
//! decides who may copy what.

pub mod chunk;
pub mod client;
pub mod error;
mod names;
mod place;
mod progress;
mod pump;
mod receive;
mod send;
pub mod sftp;
mod sources;
mod store;
mod walk;
pub mod worker;

pub use error::CopyFailure;
pub use place::Place;
pub use progress::{Progress, Snapshot};
pub use receive::{Receive, receive};
pub use send::{Send, send};
pub use sources::Source;
