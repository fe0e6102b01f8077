//! What logins are told, and what no key makes good.

use russh::keys::Algorithm;
use russh::server::{Auth, Response};
use russh::{Error, MethodKind, MethodSet};

use crate::identity::Caller;
use crate::identity::ssh::SshRefusal;
use crate::identity::ssh::approval::{self, Approval};

/// Says how a login without a key is approved, and how to give it up.
pub(super) fn invitation(approval: &Approval) -> String {
    let (url, code) = (&approval.url, approval.shown_code());
    let seconds = approval::LIFE.as_secs();
    format!(
        "To log in, open\n\n    {url}\n\nor run `munjigi approve {code}`, within {seconds} seconds. Ctrl-C gives up.\n"
    )
}

/// What somebody at a keyboard answers. Where nobody is, clients answer nothing, or give up by themselves: a login that
/// nobody watches must not wait for two minutes.
pub(super) const QUESTION: &str = "Press Enter once it is approved, or type y to wait for it: ";

/// Tells whether somebody answered anything but Enter.
pub(super) fn is_awaited(answers: Response<'_>) -> bool {
    // All of them are read, so that none is left in the packet.
    answers.map(|answer| !answer.trim_ascii().is_empty()).fold(false, |any, one| any | one)
}

/// Ends a connection from where too many were refused of late: it has no further try (T-90).
pub(super) fn enough(outcome: Result<Caller, SshRefusal>) -> Result<Result<Caller, SshRefusal>, Error> {
    match outcome {
        Err(SshRefusal::TooManyFailures) => Err(Error::Disconnect),
        outcome => Ok(outcome),
    }
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
