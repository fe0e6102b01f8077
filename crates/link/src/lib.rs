//! The link: one outbound TLS 1.3 connection with many flow-controlled streams in it (`docs/protocol.md`).
//!
//! Agents and clients dial, the server accepts; nothing listens on a node. This crate knows sockets, proxies, TLS,
//! the WebSocket upgrade, multiplexing and silence; it knows neither who may connect (the caller signs, the server
//! verifies) nor what a stream carries.
#![forbid(unsafe_code)]

pub mod accept;
mod answer;
pub mod backoff;
mod bulk;
mod carrier;
pub mod connection;
pub mod dial;
mod driver;
pub mod error;
pub mod framed;
pub mod lane;
pub mod lane_upgrade;
pub mod moving;
mod own_wake;
mod pool;
mod proxy;
mod record;
pub mod relay;
mod stream;
pub mod tls;
pub mod websocket;

pub use bulk::BulkThreads;
pub use connection::{Connection, Limits, Opener};
pub use error::{DialError, EndReason, LinkError, Refusal};
pub use lane::{LANE_PATH, Lane, LaneToken};
pub use moving::{Berth, LaneDialer, MovingStream};
pub use stream::Stream;

/// The path of the upgrade request.
pub const LINK_PATH: &str = "/link/v1";
/// Header of both hellos: base64url of a `Hello` in the request, of a `ServerHello` in the answer.
pub const HELLO_HEADER: &str = "x-munjigi-hello";
/// Request header with the base64url of the TLS exporter value that the signature binds to.
pub const BINDING_HEADER: &str = "x-munjigi-binding";
/// Largest header block of request or answer in bytes, and most headers in it (T-93).
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most headers in a head (T-93).
pub const MAX_HEADERS: usize = 64;
