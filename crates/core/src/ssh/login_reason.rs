//! Why sshd refuses a certificate, as it writes that down before it says whom it refused: in a line of its own, of the
//! same process. Read as strictly as [`super::login`] reads logins, and for the same reason.

use std::net::IpAddr;

use super::Fingerprint;
use super::login::{MAX_LINE, valid_key_kind, valid_user};

/// What is wrong with a certificate, in sshd's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidReason {
    /// Its authority's signature does not fit. sshd names no certificate then: it cannot read it.
    Altered,
    /// It is a host's.
    OfHost,
    /// Its time has not come.
    NotYetValid,
    /// Its time is over.
    Expired,
    /// It names nobody.
    WithoutPrincipals,
    /// It is not good for the account.
    PrincipalMismatch,
    /// It, or its key or authority, is in sshd's list.
    Revoked,
    /// It may not be used from there.
    SourceAddressMismatch,
}

impl SaidReason {
    const ALL: [Self; 8] = [
        Self::Altered,
        Self::OfHost,
        Self::NotYetValid,
        Self::Expired,
        Self::WithoutPrincipals,
        Self::PrincipalMismatch,
        Self::Revoked,
        Self::SourceAddressMismatch,
    ];

    /// Reads sshd's message, without what the log puts before it. `None` for every other message.
    pub fn parse(message: &str) -> Option<Self> {
        if message.len() > MAX_LINE {
            return None;
        }
        let message = message.trim_end_matches(['\r', '\n']);
        // syslog has the level, sshd's own file has not.
        let message = message.strip_prefix("error: ").unwrap_or(message);
        // Said by the process without privileges.
        let message = message.strip_suffix(" [preauth]").unwrap_or(message);
        // The texts of OpenSSH 8 to 10 (auth2-pubkey.c, sshkey.c).
        Some(match message {
            "userauth_pubkey: parse key: incorrect signature"
            | "userauth_pubkey: could not parse key: incorrect signature" => Self::Altered,
            "Certificate invalid: not a user certificate" => Self::OfHost,
            "Certificate invalid: not yet valid" => Self::NotYetValid,
            "Certificate invalid: expired" => Self::Expired,
            "Certificate lacks principal list" => Self::WithoutPrincipals,
            "Certificate invalid: name is not a listed principal"
            | "Certificate does not contain an authorized principal" => Self::PrincipalMismatch,
            other => return Self::with_names(other),
        })
    }

    /// Reads those in which names stand.
    fn with_names(message: &str) -> Option<Self> {
        if let Some(rest) = message.strip_prefix("Authentication key ") {
            let (kind, rest) = rest.split_once(' ').filter(|(kind, _)| valid_key_kind(kind))?;
            let (print, _) = rest.split_once(" revoked by file /")?;
            return (kind.ends_with("-CERT") && Fingerprint::parse(print).is_some()).then_some(Self::Revoked);
        }
        // Where the options stand, which older ones do not say.
        let message = message.strip_prefix("cert: ").unwrap_or(message);
        let rest = message.strip_prefix("Authentication tried for ")?;
        let (user, rest) = rest.split_once(" with valid certificate but not from a permitted source address (")?;
        let address = rest.strip_suffix(").")?;
        (valid_user(user) && address.parse::<IpAddr>().is_ok()).then_some(Self::SourceAddressMismatch)
    }

    /// Returns the word for it in the trail, the same as the door's (`CertificateError::code`).
    pub const fn code(self) -> &'static str {
        match self {
            Self::Altered => "CertificateAltered",
            Self::OfHost => "CertificateOfHost",
            Self::NotYetValid => "CertificateNotYetValid",
            Self::Expired => "CertificateExpired",
            Self::WithoutPrincipals => "CertificateWithoutPrincipals",
            Self::PrincipalMismatch => "CertificatePrincipalMismatch",
            Self::Revoked => "CertificateRevoked",
            Self::SourceAddressMismatch => "CertificateSourceAddressMismatch",
        }
    }

    /// Finds what a word stands for.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Says it to people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Altered => "its authority's signature does not fit: it was altered",
            Self::OfHost => "it is a host's",
            Self::NotYetValid => "it is not valid yet",
            Self::Expired => "it has ended",
            Self::WithoutPrincipals => "it names no OS user",
            Self::PrincipalMismatch => "it is not good for this OS user",
            Self::Revoked => "it is in the node's list of revoked ones",
            Self::SourceAddressMismatch => "it may not be used from there",
        }
    }
}

/// Somebody whom sshd let go, or sent away, before they had proved to be who they said: an account that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The account.
    pub os_user: String,
    /// Where from.
    pub address: IpAddr,
    /// Its port there.
    pub port: u16,
}

impl Left {
    /// Reads sshd's message about the end of a connection whose login was under way. `None` for every other message.
    pub fn parse(message: &str) -> Option<Self> {
        if message.len() > MAX_LINE {
            return None;
        }
        let message = message.trim_end_matches(['\r', '\n']).strip_suffix(" [preauth]")?;
        let ends = ["Connection closed by ", "Connection reset by ", "Disconnected from ", "Disconnecting "];
        let rest = ends.iter().find_map(|end| message.strip_prefix(end))?.strip_prefix("authenticating user ")?;
        let (user, rest) = rest.split_once(' ').filter(|(user, _)| valid_user(user))?;
        let (address, rest) = rest.split_once(" port ")?;
        let port = rest.split_once(':').map_or(rest, |(port, _)| port);
        let port = port.parse().ok().filter(|number: &u16| number.to_string() == port)?;
        Some(Self { os_user: user.to_owned(), address: address.parse().ok()?, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "SHA256:mFRzXW2ipoLyfnBNqhP3/CKSPvnbWcBGnX7uPIcgCBo";

    #[test]
    fn each_reason_is_read_as_sshd_writes_it() {
        let revoked = format!("Authentication key ED25519-CERT {PRINT} revoked by file /etc/ssh/revoked keys");
        let table = [
            ("error: userauth_pubkey: parse key: incorrect signature [preauth]", SaidReason::Altered),
            ("Certificate invalid: not a user certificate", SaidReason::OfHost),
            ("error: Certificate invalid: not yet valid", SaidReason::NotYetValid),
            ("Certificate invalid: expired\r\n", SaidReason::Expired),
            ("Certificate lacks principal list", SaidReason::WithoutPrincipals),
            ("Certificate invalid: name is not a listed principal", SaidReason::PrincipalMismatch),
            (&revoked, SaidReason::Revoked),
            (
                "Authentication tried for kim with valid certificate but not from a permitted source address (::1).",
                SaidReason::SourceAddressMismatch,
            ),
            (
                "cert: Authentication tried for a with valid certificate but not from a permitted source address (::1).",
                SaidReason::SourceAddressMismatch,
            ),
        ];
        for (message, wanted) in table {
            assert_eq!(SaidReason::parse(message), Some(wanted), "{message}");
            assert_eq!(SaidReason::from_code(wanted.code()), Some(wanted));
        }
        for other in [
            "",
            "Invalid user Certificate invalid: expired",
            "Certificate invalid: expired from here",
            &revoked.replace("-CERT", ""),
            &revoked.replace(" /etc", " etc"),
            "Authentication tried for a b with valid certificate but not from a permitted source address (::1).",
        ] {
            assert_eq!(SaidReason::parse(other), None, "{other}");
        }
    }

    #[test]
    fn who_left_is_read_and_nobody_who_has_no_account() {
        let wanted = Left { os_user: "kim".into(), address: "192.0.2.7".parse().unwrap(), port: 7 };
        for good in [
            "Connection closed by authenticating user kim 192.0.2.7 port 7 [preauth]",
            "Connection reset by authenticating user kim 192.0.2.7 port 7 [preauth]",
            "Disconnected from authenticating user kim 192.0.2.7 port 7 [preauth]",
            "Disconnecting authenticating user kim 192.0.2.7 port 7: Too many authentication failures [preauth]",
        ] {
            assert_eq!(Left::parse(good).as_ref(), Some(&wanted), "{good}");
            assert_eq!(Left::parse(&good.replace("authenticating", "invalid")), None);
            assert_eq!(Left::parse(&good.replace("kim", "kim kim")), None);
            assert_eq!(Left::parse(&good.replace(" [preauth]", "")), None);
        }
    }

    #[test]
    fn no_line_makes_it_panic() {
        let seed = format!("error: Authentication key ED25519-CERT {PRINT} revoked by file /x [preauth]");
        crate::mutate::each(seed.as_bytes(), 0x7265_6173, |bytes| {
            let line = String::from_utf8_lossy(bytes);
            let _ = (SaidReason::parse(&line), Left::parse(&line));
        });
    }
}
