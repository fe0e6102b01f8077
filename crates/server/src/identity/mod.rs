//! Who calls: principals, their keys and policies, as one immutable snapshot that is replaced after every change.

mod principal;
mod snapshot;

pub use principal::{Caller, Principal, PrincipalKind};
pub use snapshot::{AccessKey, Identities, LoadedIdentities};
