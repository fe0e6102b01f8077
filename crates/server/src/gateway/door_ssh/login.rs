//! What logins are told, and what no key makes good.

use russh::keys::Algorithm;
use russh::server::Auth;
use russh::{MethodKind, MethodSet};

use crate::identity::ssh::approval::{self, Approval};

/// Says how a login without a key is approved.
pub(super) fn invitation(approval: &Approval) -> String {
    let (url, code) = (&approval.url, approval.shown_code());
    let seconds = approval::LIFE.as_secs();
    format!("To log in, open\n\n    {url}\n\nor run `munjigi approve {code}`. Waiting for {seconds} seconds.\n")
}

/// Has a client that was not let in by an approval not ask for another: OpenSSH's would, three times.
pub(super) fn once(outcome: Auth) -> Auth {
    match outcome {
        Auth::Reject { partial_success, .. } => {
            let methods = MethodSet::from(&[MethodKind::PublicKey][..]);
            Auth::Reject { proceed_with_methods: Some(methods), partial_success }
        }
        outcome => outcome,
    }
}

/// Tells whether a signature is one that is refused whatever the key (T-35): RSA with SHA-1.
pub(super) fn is_weak(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}
