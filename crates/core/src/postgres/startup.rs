//! The first packet of a client: what it wants, and as whom.

use super::Violation;

/// Longest first packet, its length included; PostgreSQL's own limit.
pub const MAX_FIRST_PACKET: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// What a client wants first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// TLS.
    Ssl,
    /// Encryption by Kerberos.
    Gss,
    /// To cancel what another connection runs.
    Cancel {
        /// The connection, as its client was told.
        process_id: u32,
        /// The key that it was told with it.
        secret: u32,
    },
    /// To log in.
    Login(Login),
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The version's number behind the point; newer clients ask for more and are told that there is 0.
    pub minor: u16,
    /// Names and values, in order.
    pub parameters: Vec<(String, String)>,
}

impl First {
    /// Reads the packet behind its length.
    pub fn parse(packet: &[u8]) -> Result<Self, Violation> {
        let malformed = Violation::Malformed { from: "client", what: "first packet" };
        let (code, rest) = packet.split_first_chunk::<4>().ok_or(malformed.clone())?;
        match (u32::from_be_bytes(*code), rest) {
            (SSL, []) => Ok(Self::Ssl),
            (GSS, []) => Ok(Self::Gss),
            (CANCEL, [a, b, c, d, e, f, g, h]) => Ok(Self::Cancel {
                process_id: u32::from_be_bytes([*a, *b, *c, *d]),
                secret: u32::from_be_bytes([*e, *f, *g, *h]),
            }),
            (version, rest) if version >> 16 == 3 => {
                let parameters = parameters(rest).ok_or(malformed)?;
                Ok(Self::Login(Login { minor: version as u16, parameters }))
            }
            (SSL | GSS | CANCEL, _) => Err(malformed),
            (version, _) => Err(Violation::Version { major: (version >> 16) as u16, minor: version as u16 }),
        }
    }
}

impl Login {
    /// Returns a parameter that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the names of extensions of the protocol that were asked for; none is known here.
    pub fn extensions(&self) -> Vec<&str> {
        let names = self.parameters.iter().map(|(name, _)| name.as_str());
        names.filter(|name| name.starts_with("_pq_.")).collect()
    }
}

/// Pairs of strings, each ended by a zero byte, and a last zero byte.
fn parameters(mut rest: &[u8]) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    loop {
        let name = text(&mut rest)?;
        if name.is_empty() {
            return rest.is_empty().then_some(all);
        }
        all.push((name, text(&mut rest)?));
    }
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (text, behind) = rest.split_at(end);
    *rest = behind.get(1..)?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}
