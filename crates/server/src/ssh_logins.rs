//! Logins that the sshd of a node has let in, as its agent reports them: each into the trail, tied to the push that
//! allowed it. One that nothing allowed is an alarm.
//!
//! A node speaks for itself alone (T-32) and may lie; what it reports is checked in form and bounded, and decides
//! nothing.

mod aws_keys;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use munjigi_core::id::NodeId;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::ssh::login_reason::SaidReason;
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{Logins, MAX_AWS_KEYS, MAX_LOGINS, SshLogin};
use serde_json::{Value, json};

use crate::door::failures;
use crate::service_event::service_event;
use crate::store::{IssuedCertificate, PushedKey, StoreError};
use crate::{Server, accounts, clock};

/// How far the clocks of node and server may be apart for a login to be tied to a push.
const CLOCK_SLACK: Duration = Duration::from_secs(120);
/// Longest text of a field.
const MAX_TEXT: usize = 64;

/// Why a report is not in the trail.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreported {
    /// sshd cannot have written that; it will never be taken.
    #[error("{0}")]
    Malformed(String),
    /// A fault of ours; the node reports again.
    #[error("the server could not write the logins into its trail; report them again later")]
    Later,
}

/// Writes reported logins into the trail.
pub(crate) async fn reported(server: &Server, node: &NodeId, report: Logins) -> Result<(), Unreported> {
    if report.logins.len() > MAX_LOGINS || report.aws_keys.len() > MAX_AWS_KEYS {
        let most = format!("a report has at most {MAX_LOGINS} logins and {MAX_AWS_KEYS} keys of AWS's");
        return Err(Unreported::Malformed(most));
    }
    if !report.aws_keys.iter().all(aws_keys::well_formed) {
        return Err(Unreported::Malformed("the report on a key of AWS's is not one that an agent makes".to_owned()));
    }
    if let Some(bad) = report.logins.iter().find(|login| !well_formed(login)) {
        let user: String = bad.os_user.chars().take(MAX_TEXT).flat_map(char::escape_default).collect();
        return Err(Unreported::Malformed(format!("the login of `{user}` is not one that sshd writes")));
    }
    if report.missed > 0 {
        let message = "the agent could not keep all logins that sshd let in while the server was away".to_owned();
        let details = json!({ "target": node, "missed": report.missed });
        store(server, "SshLoginsMissed", details, Some(("LoginsMissed", message))).await?;
    }
    for key in &report.aws_keys {
        aws_keys::reported(server, node, key).await?;
    }
    for login in report.logins {
        one(server, node, &login).await?;
    }
    Ok(())
}

/// Tells whether the fields are of the form that sshd's logins have; they go into the trail as they are.
fn well_formed(login: &SshLogin) -> bool {
    let word = |text: &str| (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let print = |text: &str| text.is_empty() || Fingerprint::parse(text).is_some();
    word(&login.os_user)
        && word(&login.method)
        && (login.key_kind.is_empty() || word(&login.key_kind))
        && login.address.parse::<IpAddr>().is_ok()
        && u16::try_from(login.port).is_ok()
        && print(&login.fingerprint)
        && print(&login.authority)
        && aws_keys::well_formed_push(&login.aws_caller, &login.aws_request_id)
        && (login.reason.is_empty() || login.refused && SaidReason::from_code(&login.reason).is_some())
}

async fn one(server: &Server, node: &NodeId, login: &SshLogin) -> Result<(), Unreported> {
    let now = clock::now();
    // A clock that runs ahead must not tie a login to a later push.
    let at = Timestamp(login.read_micros.min(now.0));
    if !login.authority.is_empty() || login.refused {
        return certificate(server, node, login, at).await;
    }
    let pushed = if login.fingerprint.is_empty() {
        None
    } else {
        let found = server.store.pushed_key(node, &login.os_user, &login.fingerprint, at, CLOCK_SLACK).await;
        found.map_err(|error| {
            tracing::error!(%node, %error, "the push behind a login could not be looked up");
            Unreported::Later
        })?
    };
    let allowed_by = match pushed {
        Some(push) => Some(pushed_by(&push)),
        None => registered(server, node, login).await?.or_else(|| aws_keys::allowed_by(login)),
    };
    let explained = allowed_by.is_some();
    let details = details(node, login, at, allowed_by.map(|allowed_by| ("allowedBy", allowed_by)));
    match explained {
        true => store(server, "SshLogin", details, None).await,
        false => {
            let (user, from) = (&login.os_user, &login.address);
            tracing::warn!(%node, user, from, method = login.method, "an SSH login that nothing here allowed");
            let how = &login.method;
            let message = format!(
                "sshd on {node} let `{user}` in from {from} by {how}, and no key of this server allowed it; look for \
                 keys in authorized_keys files, passwords and other authorities on the node"
            );
            store(server, "SshLogin", details, Some(("UnexplainedSshLogin", message))).await
        }
    }
}

/// Writes a login by certificate into the trail, let in or refused, with what this server knows of the certificate.
async fn certificate(server: &Server, node: &NodeId, login: &SshLogin, at: Timestamp) -> Result<(), Unreported> {
    let found = server.store.certificate(login.serial).await.map_err(|error| {
        tracing::error!(%node, %error, "the certificate behind a login could not be looked up");
        Unreported::Later
    })?;
    let issued = found.filter(|issued| {
        issued.authority.to_string() == login.authority && issued.fingerprint.to_string() == login.fingerprint
    });
    let (user, from, serial) = (&login.os_user, &login.address, login.serial);
    let why = not_good(server, issued.as_ref(), login, at);
    let known_as = if login.refused || why.is_some() { "certificate" } else { "allowedBy" };
    let details = details(node, login, at, issued.as_ref().map(|issued| (known_as, certified_by(issued))));
    if login.refused {
        let said = SaidReason::from_code(&login.reason).map(|reason| (reason.code(), reason.text().to_owned()));
        let (code, why) = match why {
            // What this server knows of what it issued says more than sshd does.
            Some(why) if issued.is_some() || why.0 == "CertificateAuthorityUnknown" => why,
            unknown => said
                .or(unknown)
                .unwrap_or_else(|| ("CertificateRefused", "the node's own settings refuse it".to_owned())),
        };
        let which = if serial > 0 { format!("certificate {serial}") } else { "a certificate".to_owned() };
        let message = format!("sshd on {node} refused `{user}` from {from} with {which}: {why}");
        let event = service_event(server, "SshLoginRefused", details, Some((code, message)));
        // Anybody can be refused as often as they like: of a flood the first of each kind, and the number of the rest.
        failures::record(server, login.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), event).await;
        return Ok(());
    }
    match why {
        None => store(server, "SshLogin", details, None).await,
        Some((_, why)) => {
            tracing::warn!(%node, user, from, serial, why, "an SSH login that nothing here allowed");
            let message = format!(
                "sshd on {node} let `{user}` in from {from} with certificate {serial}, but {why}; look for other \
                 authorities on the node, and whether it has the newest list of revoked ones"
            );
            store(server, "SshLogin", details, Some(("UnexplainedSshLogin", message))).await
        }
    }
}

/// Returns why a certificate is not good for a login, if so, by what this server issued and revoked.
fn not_good(
    server: &Server,
    issued: Option<&IssuedCertificate>,
    login: &SshLogin,
    at: Timestamp,
) -> Option<(&'static str, String)> {
    let Some(issued) = issued else {
        if login.authority.is_empty() {
            // sshd could not read it.
            return None;
        }
        let believed = server.ssh_authority.believed(clock::now());
        return Some(match believed.iter().any(|authority| authority.to_string() == login.authority) {
            true => ("CertificateUnknown", "this server has no record of it".to_owned()),
            false => ("CertificateAuthorityUnknown", format!("{} is no authority of ours", login.authority)),
        });
    };
    let revoked = issued.revoked.as_ref().filter(|revoked| revoked.at.plus(CLOCK_SLACK) < at || login.refused);
    let address = login.address.parse::<IpAddr>().ok();
    if let Some(revoked) = revoked {
        Some(("CertificateRevoked", format!("it was revoked at {}: {}", revoked.at, revoked.reason)))
    } else if issued.expires.plus(if login.refused { Duration::ZERO } else { CLOCK_SLACK }) <= at {
        Some(("CertificateExpired", format!("it ended at {}", issued.expires)))
    } else if at.plus(CLOCK_SLACK) < issued.issued {
        Some(("CertificateNotYetValid", format!("it was issued at {}", issued.issued)))
    } else if !issued.os_users.contains(&login.os_user) {
        let good = issued.os_users.join(", ");
        Some(("CertificatePrincipalMismatch", format!("it is good for {good} only")))
    } else if !issued.sources.is_empty()
        && !address.is_some_and(|address| issued.sources.iter().any(|net| net.contains(&address.to_canonical())))
    {
        Some(("CertificateSourceAddressMismatch", "it may not be used from there".to_owned()))
    } else {
        None
    }
}

fn certified_by(issued: &IssuedCertificate) -> Value {
    json!({
        "serial": issued.serial,
        "keyID": issued.key_id,
        "principalArn": issued.principal_arn,
        "issued": issued.issued.to_iso_seconds(),
    })
}

/// Finds the registered key that allows a login: the principal's ARN and the key's id.
async fn registered(server: &Server, node: &NodeId, login: &SshLogin) -> Result<Option<Value>, Unreported> {
    let Some(print) = Fingerprint::parse(&login.fingerprint) else { return Ok(None) };
    let found = match server.store.node(node).await {
        Ok(node) => accounts::keys::explains(server, &node, &login.os_user, &print),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => {
            tracing::error!(%node, %error, "the key behind a login could not be looked up");
            return Err(Unreported::Later);
        }
    };
    Ok(found.map(|(principal, key)| json!({ "keyId": key, "principalArn": principal })))
}

fn pushed_by(push: &PushedKey) -> Value {
    json!({
        "requestID": push.request_id,
        "principalArn": push.principal_arn,
        "pushed": push.pushed.to_iso_seconds(),
    })
}

fn details(node: &NodeId, login: &SshLogin, at: Timestamp, known: Option<(&str, Value)>) -> Value {
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut details = json!({
        "target": node,
        "osUser": login.os_user,
        "sourceIPAddress": login.address,
        "sourcePort": login.port,
        "method": login.method,
        "loginTime": at.to_iso_seconds(),
        "attested": login.attested,
    });
    let optional = [
        ("keyType", present(&login.key_kind).map(Value::from)),
        ("keyFingerprint", present(&login.fingerprint).map(Value::from)),
        ("certificateAuthority", present(&login.authority).map(Value::from)),
        ("certificateSerial", (login.serial > 0).then(|| login.serial.into())),
        ("processId", (login.process_id > 0).then(|| login.process_id.into())),
    ];
    if let Value::Object(members) = &mut details {
        let known = known.map(|(name, value)| (name.to_owned(), value));
        members.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).chain(known));
    }
    details
}

async fn store(
    server: &Server,
    name: &str,
    details: Value,
    failure: Option<(&'static str, String)>,
) -> Result<(), Unreported> {
    let event = service_event(server, name, details, failure);
    server.audit.append(event).await.map(drop).map_err(|error| {
        tracing::error!(%error, name, "a login could not be audited");
        Unreported::Later
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Revocation, Revoked};
    use crate::testing::TestServer;

    const PRINT: &str = "SHA256:mFRzXW2ipoLyfnBNqhP3/CKSPvnbWcBGnX7uPIcgCBo";

    fn login() -> SshLogin {
        SshLogin {
            read_micros: clock::now().0,
            os_user: "alice".into(),
            address: "192.0.2.7".into(),
            port: 50022,
            method: "publickey".into(),
            key_kind: "ED25519".into(),
            fingerprint: PRINT.into(),
            authority: String::new(),
            process_id: 71,
            attested: true,
            serial: 0,
            refused: false,
            reason: String::new(),
            aws_caller: String::new(),
            aws_request_id: String::new(),
        }
    }

    fn report(logins: Vec<SshLogin>, missed: u64) -> Logins {
        Logins { logins, missed, aws_keys: Vec::new() }
    }

    fn push(node: &NodeId) -> PushedKey {
        let pushed = clock::now();
        PushedKey {
            node: node.clone(),
            os_user: "alice".into(),
            fingerprint: PRINT.into(),
            request_id: "11111111-2222-3333-4444-555555555555".into(),
            principal_arn: "arn:aws:iam::123456789012:user/kim".into(),
            pushed,
            expires: pushed.plus(Duration::from_secs(60)),
        }
    }

    #[tokio::test]
    async fn a_login_is_tied_to_its_push_and_one_without_is_an_alarm() {
        let test = TestServer::start().await;
        let server = test.server();
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        server.store.remember_pushed_key(&push(&node)).await.unwrap();
        let certificate = SshLogin { authority: PRINT.into(), os_user: "with-certificate".into(), ..login() };
        let password = SshLogin {
            fingerprint: String::new(),
            key_kind: String::new(),
            method: "password".into(),
            os_user: "with-password".into(),
            ..login()
        };
        let other = SshLogin { os_user: "bob".into(), ..login() };
        let logins = vec![login(), certificate, password, other];
        reported(server, &node, report(logins, 3)).await.unwrap();
        let lines = test.trail("SshLogin");
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(lines[0].contains("\"missed\":3"), "{}", lines[0]);
        let explained = "\"allowedBy\":{\"principalArn\":\"arn:aws:iam::123456789012:user/kim\"";
        assert!(lines[1].contains(explained) && !lines[1].contains("errorCode"), "{}", lines[1]);
        for (line, user) in lines[2..].iter().zip(["with-certificate", "with-password", "bob"]) {
            assert!(line.contains("\"errorCode\":\"UnexplainedSshLogin\"") && line.contains(user), "{line}");
        }
        // Another node's push explains nothing.
        let elsewhere = NodeId::parse("mi-0123456789abcdef1").unwrap();
        reported(server, &elsewhere, report(vec![login()], 0)).await.unwrap();
        assert!(test.trail("mi-0123456789abcdef1")[0].contains("UnexplainedSshLogin"));
        test.stop().await;
    }

    #[tokio::test]
    async fn a_certificate_is_explained_by_what_was_issued_and_a_refused_one_has_its_reason() {
        let test = TestServer::start().await;
        let server = test.server();
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        let now = clock::now();
        let issued = IssuedCertificate {
            serial: 77,
            authority: server.ssh_authority.user().current().unwrap().fingerprint(),
            key_id: "munjigi:kim:1".into(),
            fingerprint: Fingerprint::parse(PRINT).unwrap(),
            principal_arn: "arn:aws:iam::123456789012:user/kim".parse().unwrap(),
            statement: "{}".into(),
            os_users: vec!["alice".into()],
            sources: vec!["192.0.2.0/24".parse().unwrap()],
            force_command: None,
            source_ip: "192.0.2.1".into(),
            issued: now,
            expires: now.plus(Duration::from_secs(3600)),
            revoked: None,
        };
        server.store.remember_certificate(&issued).await.unwrap();
        let good = SshLogin { authority: issued.authority.to_string(), serial: 77, ..login() };
        let refused = SshLogin { refused: true, ..good.clone() };
        let table = [
            (good.clone(), "SshLogin", None),
            (SshLogin { os_user: "bob".into(), ..good.clone() }, "SshLogin", Some("UnexplainedSshLogin")),
            (SshLogin { serial: 78, ..good.clone() }, "SshLogin", Some("UnexplainedSshLogin")),
            (SshLogin { authority: PRINT.into(), ..good }, "SshLogin", Some("UnexplainedSshLogin")),
            (refused.clone(), "SshLoginRefused", Some("CertificateRefused")),
            (
                SshLogin { os_user: "bob".into(), ..refused.clone() },
                "SshLoginRefused",
                Some("CertificatePrincipalMismatch"),
            ),
            (
                SshLogin { address: "::1".into(), ..refused.clone() },
                "SshLoginRefused",
                Some("CertificateSourceAddressMismatch"),
            ),
            (SshLogin { serial: 78, ..refused.clone() }, "SshLoginRefused", Some("CertificateUnknown")),
            (
                SshLogin { authority: PRINT.into(), reason: "CertificateExpired".into(), ..refused.clone() },
                "SshLoginRefused",
                Some("CertificateAuthorityUnknown"),
            ),
            (
                SshLogin { serial: 78, reason: "CertificateNotYetValid".into(), ..refused.clone() },
                "SshLoginRefused",
                Some("CertificateNotYetValid"),
            ),
            (
                SshLogin {
                    authority: String::new(),
                    serial: 0,
                    fingerprint: String::new(),
                    key_kind: String::new(),
                    reason: "CertificateAltered".into(),
                    ..refused.clone()
                },
                "SshLoginRefused",
                Some("CertificateAltered"),
            ),
        ];
        for (number, (login, event, code)) in table.into_iter().enumerate() {
            // Nothing else tells two records apart.
            let login = SshLogin { port: 1000 + u32::try_from(number).unwrap(), ..login };
            let port = format!("\"sourcePort\":{}", login.port);
            reported(server, &node, report(vec![login], 0)).await.unwrap();
            let lines = test.trail(&port);
            assert!(
                lines.len() == 1 && lines[0].contains(&format!("\"eventName\":\"{event}\"")),
                "{number}: {lines:?}"
            );
            match code {
                Some(code) => assert!(lines[0].contains(&format!("\"errorCode\":\"{code}\"")), "{number}: {lines:?}"),
                None => assert!(lines[0].contains("allowedBy") && lines[0].contains("munjigi:kim:1"), "{lines:?}"),
            }
        }
        let revoked = Revoked { reason: "lost".into(), by: "me".into(), at: now };
        server.store.revoke_ssh(&[Revocation::Serial(77)], &revoked).await.unwrap();
        let login = SshLogin { port: 2000, ..refused };
        reported(server, &node, report(vec![login], 0)).await.unwrap();
        assert!(test.trail("\"sourcePort\":2000")[0].contains("CertificateRevoked"));
        test.stop().await;
    }

    #[tokio::test]
    async fn a_report_that_sshd_cannot_have_written_is_refused_whole() {
        let test = TestServer::start().await;
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        type Change = fn(&mut SshLogin);
        let changes: [Change; 8] = [
            |login| login.os_user.clear(),
            |login| login.os_user = "a b".into(),
            |login| login.os_user = "\u{1b}[2J".into(),
            |login| login.os_user = "a".repeat(65),
            |login| login.address = "host".into(),
            |login| login.port = 65_536,
            |login| login.fingerprint = "SHA256:x".into(),
            |login| login.method.clear(),
        ];
        for change in changes {
            let mut bad = login();
            change(&mut bad);
            let refused = reported(test.server(), &node, report(vec![login(), bad], 0)).await;
            assert!(refused.is_err());
        }
        let many = report(vec![login(); MAX_LOGINS + 1], 0);
        assert!(reported(test.server(), &node, many).await.is_err());
        assert!(test.trail("SshLogin").is_empty());
        test.stop().await;
    }
}
