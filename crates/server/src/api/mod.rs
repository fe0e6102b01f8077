//! The API: one file per operation, one table of all, and the two wire forms around them.
//!
//! An operation knows its input, output, needed permissions and what it does; it knows neither signatures nor
//! framing, audit or status codes.

pub mod error;
mod json;
#[cfg(test)]
mod mutate;
pub mod operation;
mod query;
pub mod sts;
pub mod table;
pub mod time;
mod xml;
