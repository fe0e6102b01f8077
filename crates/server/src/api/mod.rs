//! The API: one file per operation, one table of all, and the two wire forms around them.
//!
//! An operation knows its input, output, needed permissions and what it does; it knows neither signatures nor
//! framing, audit or status codes.

pub mod error;
pub mod operation;
pub mod sts;
pub mod table;
pub mod time;
