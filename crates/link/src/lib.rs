//! The link: one outbound connection with many flow-controlled streams in it.
#![forbid(unsafe_code)]

pub mod framed;
