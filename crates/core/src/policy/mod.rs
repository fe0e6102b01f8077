//! The policy engine: IAM documents and a request in, a decision with its reasons out.
//!
//! [`Policy::parse`] reads a document strictly and compiles it; a [`PolicyList`] indexes the policies of one layer
//! by action; [`evaluate`] judges a [`Request`] against the lists of a [`PolicySet`]. Everything here is a pure
//! function of its arguments, does a bounded amount of work (T-56), and answers no whenever something cannot be
//! evaluated (T-11). Storage, HTTP and the filling of the request context live elsewhere.

mod action;
mod arn_match;
pub mod cases;
mod condition;
mod context;
mod decision;
mod document;
pub(crate) mod error;
mod evaluate;
pub(crate) mod json;
mod list;
mod pattern;
mod principal;
mod remarks;
mod request;
pub mod size;
mod statement;

pub use context::{Context, ContextValue, Tree};
pub use decision::{Decision, Effect, Layer, MatchedStatement, Outcome};
pub use document::{Policy, PolicyKind};
pub use error::{PolicyError, Position, Warning};
pub use evaluate::{PolicySet, allow_demands_true, evaluate};
pub use list::{NamedPolicy, PolicyList, StoredPolicy};
pub use principal::{Principal, PrincipalKind};
pub use request::Request;

#[cfg(test)]
mod tests;
