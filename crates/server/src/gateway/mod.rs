//! The gateway: connected nodes, live sessions, and the doors through which people reach them.

pub(crate) mod door_link;
