//! The client's end: which server, signed calls, the link, sessions and the terminal.

pub(crate) mod api;
pub(crate) mod api_types;
pub(crate) mod children;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod credentials;
pub(crate) mod doctor;
pub(crate) mod embedded;
mod escape;
pub(crate) mod findings;
pub(crate) mod forward;
pub(crate) mod link;
pub(crate) mod playback;
pub(crate) mod private_key;
pub(crate) mod progress;
pub(crate) mod recording;
pub(crate) mod road;
pub(crate) mod sanitize;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod ssh;
pub(crate) mod ssh_agent;
pub(crate) mod ssh_certificates;
pub(crate) mod ssh_config;
pub(crate) mod stdio;
pub(crate) mod table;
pub(crate) mod targets;
pub(crate) mod terminal;
pub(crate) mod text;
pub(crate) mod wish;
pub(crate) mod xml;

pub(crate) use munjigi_core::wire::flow;
