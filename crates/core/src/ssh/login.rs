//! What sshd writes about a login that succeeded, read strictly: the whole line must be what sshd would write.
//!
//! Parts of sshd's lines come from whoever knocks (user names, versions), so a line is taken only if it begins with
//! sshd's own words and every field behind them has its own narrow form up to the end. A user name with blanks in it
//! cannot play other fields, because names with blanks are not read at all.

use std::net::IpAddr;

use super::Fingerprint;
use super::login_reason::{Left, SaidReason};

/// Longest line that is read, in bytes; sshd's own are below 1 KiB.
pub const MAX_LINE: usize = 4096;

/// A login that sshd let in, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedLogin {
    /// `publickey`, `password`, `keyboard-interactive/pam`, `gssapi-with-mic`, `hostbased` …
    pub method: String,
    /// The account.
    pub os_user: String,
    /// Where from.
    pub address: IpAddr,
    /// Its port there.
    pub port: u16,
    /// The key that was proved, for `publickey`.
    pub key: Option<Proved>,
}

/// The key or certificate that a login was proved with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// sshd's word for the type: `ED25519`, `RSA`, `ECDSA-SK`, `ED25519-CERT` …
    pub kind: String,
    /// Fingerprint of the key, or of the key in the certificate.
    pub fingerprint: Fingerprint,
    /// Fingerprint of the authority that signed the certificate, if it was one.
    pub authority: Option<Fingerprint>,
    /// The certificate's serial number, if it was one that has one.
    pub serial: Option<u64>,
}

impl AcceptedLogin {
    /// Reads sshd's message, without what the log puts before it. `None` for every other message.
    pub fn parse(message: &str) -> Option<Self> {
        if message.len() > MAX_LINE {
            return None;
        }
        Self::read(message.trim_end_matches(['\r', '\n']).strip_prefix("Accepted ")?)
    }

    /// Reads what sshd writes, at `LogLevel VERBOSE`, about a certificate that it refused for an account that exists.
    /// `None` for every other message.
    pub fn parse_refused_certificate(message: &str) -> Option<Self> {
        if message.len() > MAX_LINE {
            return None;
        }
        let login = Self::read(message.trim_end_matches(['\r', '\n']).strip_prefix("Failed ")?)?;
        login.key.as_ref()?.authority?;
        Some(login)
    }

    fn read(rest: &str) -> Option<Self> {
        let (method, rest) = rest.split_once(" for ").filter(|(method, _)| valid_method(method))?;
        let (os_user, rest) = rest.split_once(" from ").filter(|(user, _)| valid_user(user))?;
        let (address, rest) = rest.split_once(" port ")?;
        let (port, rest) = rest.split_once(" ssh2")?;
        let port = port.parse().ok().filter(|number: &u16| number.to_string() == port)?;
        let key = match rest {
            "" => None,
            rest => Some(Proved::parse(rest.strip_prefix(": ")?)?),
        };
        Some(Self { method: method.to_owned(), os_user: os_user.to_owned(), address: address.parse().ok()?, port, key })
    }

    /// Takes sshd's message out of a line of the auth log: `… HOST sshd[PID]: MESSAGE`, or the bare message as
    /// `sshd -E` writes it. Returns the process id too, where the line has one.
    pub fn message_of(line: &str) -> Option<(Option<u32>, &str)> {
        let bare = ["Accepted ", "Failed "].iter().any(|word| line.starts_with(word));
        if bare || SaidReason::parse(line).is_some() || Left::parse(line).is_some() {
            return Some((None, line));
        }
        // The first `]: ` ends the tag; what comes behind it may hold the same characters again.
        let (head, message) = line.split_once("]: ")?;
        let (head, pid) = head.rsplit_once('[')?;
        let program = head.rsplit([' ', '\t']).next()?;
        if !["sshd", "sshd-session"].contains(&program) || pid.len() > 10 {
            return None;
        }
        Some((Some(pid.parse().ok()?), message))
    }
}

impl Proved {
    /// Reads `ED25519 SHA256:…` or `ED25519-CERT SHA256:… ID … (serial N) CA ED25519 SHA256:…`.
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ').filter(|(kind, _)| valid_key_kind(kind))?;
        let (print, rest) = rest.split_once(' ').map_or((rest, None), |(print, rest)| (print, Some(rest)));
        let fingerprint = Fingerprint::parse(print)?;
        let (authority, serial) = match rest {
            None if !kind.ends_with("-CERT") => (None, None),
            // The id is the authority's own text; what counts stands behind it, so it is read from the end.
            Some(rest) if kind.ends_with("-CERT") && rest.starts_with("ID ") => {
                let (before, print) = rest.rsplit_once(' ')?;
                let (before, authority_kind) = before.rsplit_once(' ')?;
                let serial = before.strip_suffix(" CA")?.strip_suffix(')')?.rsplit_once(" (serial ")?.1;
                if !valid_key_kind(authority_kind) || !serial.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                (Some(Fingerprint::parse(print)?), serial.parse().ok().filter(|serial| *serial != 0))
            }
            _ => return None,
        };
        Some(Self { kind: kind.to_owned(), fingerprint, authority, serial })
    }
}

fn valid_method(method: &str) -> bool {
    (1..=64).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_alphanumeric() || b"-/".contains(&b))
}

pub(super) fn valid_user(user: &str) -> bool {
    (1..=64).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_graphic())
}

pub(super) fn valid_key_kind(kind: &str) -> bool {
    (1..=32).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "SHA256:mFRzXW2ipoLyfnBNqhP3/CKSPvnbWcBGnX7uPIcgCBo";
    const OTHER: &str = "SHA256:AAAAXW2ipoLyfnBNqhP3/CKSPvnbWcBGnX7uPIcgCBo";

    #[test]
    fn logins_are_read_as_sshd_writes_them() {
        let line = format!("Accepted publickey for alice from 192.0.2.7 port 50022 ssh2: ED25519 {PRINT}");
        let login = AcceptedLogin::parse(&line).unwrap();
        assert_eq!((login.os_user.as_str(), login.port), ("alice", 50022));
        assert_eq!(login.key.unwrap().fingerprint.to_string(), PRINT);
        let password = AcceptedLogin::parse("Accepted password for root from ::1 port 1 ssh2\r\n").unwrap();
        assert_eq!((password.method.as_str(), password.key), ("password", None));
        let certificate = format!(
            "Accepted publickey for bob from fe80::1 port 2 ssh2: RSA-CERT {PRINT} ID a b (serial 1) CA RSA x (serial \
             7) CA ED25519 {OTHER}"
        );
        let proved = AcceptedLogin::parse(&certificate).unwrap().key.unwrap();
        assert_eq!((proved.authority.unwrap().to_string().as_str(), proved.serial), (OTHER, Some(7)));
        // Only certificates are told of when they are refused: keys are refused all the time, as clients offer them all.
        let refused = certificate.replacen("Accepted", "Failed", 1);
        assert_eq!(AcceptedLogin::parse_refused_certificate(&refused).unwrap().os_user, "bob");
        assert_eq!(AcceptedLogin::parse(&refused), None);
        for other in [certificate, line.replacen("Accepted", "Failed", 1), refused.replace("bob", "invalid user bob")] {
            assert_eq!(AcceptedLogin::parse_refused_certificate(&other), None, "{other}");
        }
    }

    #[test]
    fn what_a_stranger_can_put_into_a_line_is_never_a_login() {
        let good = format!("Accepted publickey for root from 1.2.3.4 port 5 ssh2: RSA {PRINT}");
        for line in [
            format!("Invalid user x from 1.2.3.4 port 5 {good}"),
            format!("Failed password for invalid user {good} from 1.2.3.4 port 5 ssh2"),
            format!("Accepted publickey for a b from 1.2.3.4 port 5 ssh2: RSA {PRINT}"),
            format!("Accepted publickey for root from 1.2.3.4 port 5 ssh2: RSA {PRINT} "),
            format!("Accepted publickey for root from 1.2.3.4 port 05 ssh2: RSA {PRINT}"),
            format!("Accepted publickey for root from host port 5 ssh2: RSA {PRINT}"),
            format!("Accepted publickey for root from 1.2.3.4 port 5 ssh2: RSA-CERT {PRINT}"),
            format!("Accepted publickey for root from 1.2.3.4 port 5 ssh2: RSA {PRINT} ID a (serial 1) CA RSA {OTHER}"),
            format!("{good}x"),
            "Accepted publickey for root from 1.2.3.4 port 5 ssh1".to_owned(),
            String::new(),
        ] {
            assert_eq!(AcceptedLogin::parse(&line), None, "{line}");
        }
    }

    #[test]
    fn the_message_is_found_behind_what_the_log_puts_before_it() {
        let find = AcceptedLogin::message_of;
        assert_eq!(find("Nov 22 10:00:00 web-1 sshd[71]: Accepted x"), Some((Some(71), "Accepted x")));
        assert_eq!(
            find("2026-11-22T10:00:00+00:00 web sshd-session[4]: Invalid user a]: Accepted b"),
            Some((Some(4), "Invalid user a]: Accepted b"))
        );
        assert_eq!(find("Accepted password for"), Some((None, "Accepted password for")));
        for line in ["", "Nov 22 web su[7]: x", "Nov 22 web sshd: x", "sshd[x]: y", "Nov 22 web notsshd[7]: x", "]: "] {
            assert_eq!(find(line), None, "{line:?}");
        }
    }

    #[test]
    fn no_line_makes_it_panic() {
        let seed = format!(
            "Nov 22 10:00:00 w sshd[7]: Accepted publickey for bob from fe80::1 port 2 ssh2: RSA-CERT {PRINT} ID a \
             (serial 1) CA ED25519 {OTHER}"
        );
        crate::mutate::each(seed.as_bytes(), 0x6c6f_6769, |bytes| {
            let line = String::from_utf8_lossy(bytes);
            if let Some((_, message)) = AcceptedLogin::message_of(&line) {
                let _ = AcceptedLogin::parse(message);
            }
        });
    }
}
