//! Callers by certificate: one that the deployment's authority issued, that this server remembers, and whose owner, and
//! the credentials it was issued with, are still there.

use std::sync::Arc;

use munjigi_core::ssh::Fingerprint;
use munjigi_core::ssh::certificate::{CertificateFacts, Rules, judge};

use super::{Caller, Identities, Presence, ProvedCertificate, SshProof, SshProofKind, SshRefusal, SshWish, refused};
use crate::identity::session_token::Statement;
use crate::{Server, clock};

/// Judges a certificate and returns whom it names. A refusal is in the trail when this returns.
pub async fn authenticate_certificate(
    server: &Server,
    proved: ProvedCertificate,
    wish: &SshWish,
) -> Result<Caller, SshRefusal> {
    let identified = identify(server, &proved, wish).await;
    let identified = identified.map_err(|refusal| server.ssh_failures.judge(refusal, wish.source, clock::now()));
    if let Err(refusal) = &identified {
        let key = russh::keys::PublicKey::from(proved.certificate().public_key().clone());
        let fingerprint = Fingerprint::of(&key.to_bytes().unwrap_or_default()).to_string();
        refused(server, wish, Some(&fingerprint), refusal).await;
    }
    identified
}

async fn identify(server: &Server, proved: &ProvedCertificate, wish: &SshWish) -> Result<Caller, SshRefusal> {
    if proved.presence() == Presence::Missing {
        return Err(SshRefusal::NoPresence);
    }
    let (now, authority) = (clock::now(), &server.ssh_authority);
    let facts = {
        let revoked = authority.revocations(&server.identities.revoked_ssh(), now);
        let rules = Rules {
            authorities: &authority.believed(now),
            revoked: &revoked,
            now,
            source: wish.source,
            os_user: wish.os_user.as_deref(),
            max_life: crate::ssh_authority::longest_life(&server.config),
        };
        judge(proved.certificate(), &rules)
    };
    let facts = facts.map_err(|error| SshRefusal::Certificate { code: error.code(), message: error.to_string() })?;
    // Signed with our key and not known here: the database is older than the certificate, or the key is elsewhere too.
    let unknown = || SshRefusal::Certificate {
        code: "CertificateUnknown",
        message: format!("this server has no record of the certificate with the serial number {}", facts.serial),
    };
    let issued = server.store.certificate(facts.serial).await.map_err(|error| SshRefusal::Failed(error.to_string()))?;
    let issued = issued.filter(|issued| issued.authority == facts.authority && issued.fingerprint == facts.key);
    let issued = issued.ok_or_else(unknown)?;
    let statement: Statement = serde_json::from_str(&issued.statement).map_err(|_| unknown())?;
    let principal = server.identities.of_statement(&Arc::new(statement)).ok_or(SshRefusal::PrincipalGone)?;
    if principal.unique_id.as_ref() != Some(&facts.owner_id) {
        return Err(SshRefusal::PrincipalGone);
    }
    let access_key = principal.statement().and_then(|statement| statement.source_key.clone());
    Ok(Caller::of_ssh(principal, Arc::new(SshProof { access_key, ..proof(facts) })))
}

fn proof(facts: CertificateFacts) -> SshProof {
    let kind = SshProofKind::Certificate { serial: facts.serial, key_id: facts.key_id };
    SshProof {
        os_users: Some(facts.os_users),
        sources: facts.sources,
        force_command: facts.force_command,
        expires: Some(facts.expires),
        permits: Some(facts.permits),
        ..SshProof::new(kind, facts.key.to_string())
    }
}

/// Tells whether the certificate with this serial number was not revoked.
pub(super) fn holds(identities: &Identities, serial: u64) -> bool {
    !identities.revoked_ssh().serials.contains(&serial)
}

#[cfg(test)]
mod tests;
