//! Who calls: principals, their keys and policies, as one immutable snapshot that is replaced after every change.

mod authenticate;
mod load;
pub(crate) mod mfa;
mod node_key;
mod oidc_fetch;
mod principal;
mod role;
mod session;
pub mod session_token;
mod snapshot;
pub mod ssh;
#[cfg(test)]
mod tests;
pub(crate) mod trust;
pub(crate) mod web_identity;

pub(crate) use authenticate::{Authenticated, Authenticator, Unauthenticated};
pub(crate) use load::Compiler;
pub(crate) use node_key::authenticate_node;
pub(crate) use oidc_fetch::Providers;
pub use principal::{Caller, Principal, PrincipalKind, Session};
pub use role::Role;
pub use snapshot::{AccessKey, Identities, LoadedIdentities, SshKey};
