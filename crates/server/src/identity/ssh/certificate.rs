//! Callers by certificate.

use super::{Caller, Identities, ProvedCertificate, SshRefusal, SshWish, refused};
use crate::Server;

/// Judges a certificate and returns whom it names. There is no authority whose certificates are taken, so every one is
/// refused. A refusal is in the trail when this returns.
pub async fn authenticate_certificate(
    server: &Server,
    proved: ProvedCertificate,
    wish: &SshWish,
) -> Result<Caller, SshRefusal> {
    let fingerprint = proved.certificate().public_key().fingerprint(Default::default()).to_string();
    let message = "no authority is known whose certificates are taken".to_owned();
    let refusal = SshRefusal::Certificate { code: "UnknownAuthority", message };
    refused(server, wish, Some(&fingerprint), &refusal).await;
    Err(refusal)
}

/// Tells whether the certificate with this serial number still names its principal.
pub(super) fn holds(_identities: &Identities, _serial: u64) -> bool {
    false
}
