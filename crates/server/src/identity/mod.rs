//! Who calls: principals, their keys and policies, as one immutable snapshot that is replaced after every change.

mod authenticate;
mod load;
mod principal;
mod snapshot;

pub(crate) use authenticate::{Authenticated, Authenticator, Unauthenticated};
pub(crate) use load::Compiler;
pub use principal::{Caller, Principal, PrincipalKind};
pub use snapshot::{AccessKey, Identities, LoadedIdentities};
