//! The rules, bytes and state of Munjigi, without input or output.
//!
//! Nothing in this crate reads a clock, a random source, a file or a socket, and nothing awaits: time and
//! randomness are arguments. That is what lets a rule be tested a hundred thousand times a second.
#![forbid(unsafe_code)]

pub mod account;
pub mod arn;
pub mod audit;
pub mod command_line;
pub mod copy;
pub mod destination;
pub mod document;
pub mod endpoint;
pub mod file_command;
pub mod grant;
pub mod id;
pub mod instance_connect;
pub mod jwt;
#[cfg(test)]
mod mutate;
pub mod mysql;
pub mod policy;
pub mod postgres;
pub mod proxy;
pub mod recording;
pub mod secret;
pub mod session;
pub mod sftp;
pub mod sigv4;
pub mod ssh;
pub mod target;
pub mod terminal_modes;
pub mod time;
pub mod totp;
pub mod trust;
pub mod wire;
