//! Connections through a node: the session that carries them, what makes one, and what listens for them on this machine.
//!
//! [`Standing`] keeps the session over as many links as it takes; [`Connector`] makes connections of it; [`serve`] makes
//! one for every program that connects to a [`Listener`]. Who may connect where is judged by server and node alone.

mod connect;
mod listen;
mod near;
mod serve;
mod standing;
mod stdio;

pub(crate) use connect::Connector;
pub(crate) use listen::Listener;
pub(crate) use near::Near;
pub(crate) use serve::{Served, serve};
pub(crate) use standing::{Standing, ended};
pub(crate) use stdio::stdio;
