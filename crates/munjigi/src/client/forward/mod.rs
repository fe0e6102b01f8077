//! Connections through a node: the session that carries them, what makes one, and what listens for them on this machine.
//!
//! [`Standing`] keeps a session over as many links as it takes; its [`Connector`] makes connections of it; [`serve`] makes
//! one for every program that connects to a [`Listener`]. Who may connect where is judged by server and node alone.
//!
//! ```text
//! let standing = match Standing::open(context, ForwardStart { target, endpoints, purpose: "copy", .. }, note).await? {
//!     Opened::Stands(standing) => standing,
//!     Opened::Not(outcome) => return Ok(Finish::Session(outcome)),
//! };
//! let connected = standing.connector().connect(Some(&endpoint)).await?;   // connected.far: AsyncRead + AsyncWrite
//! serve(&listener, standing.connector(), &Lead::To(Some(endpoint)), tell).await;
//! standing.end().await;
//! ```

pub(crate) mod background;
mod connect;
mod listen;
mod near;
mod proxy;
mod reverse;
mod serve;
pub(crate) mod spec;
mod standing;
mod start;
mod stdio;

pub(crate) use connect::Connector;
pub(crate) use connect::Up;
pub(crate) use listen::Listener;
pub(crate) use near::Near;
pub(crate) use reverse::Reverse;
pub(crate) use serve::{Lead, Served, serve};
pub(crate) use standing::{Opened, Standing, ended};
pub(crate) use start::ForwardStart;
pub(crate) use stdio::{PeerEnd, carry, stdio};
