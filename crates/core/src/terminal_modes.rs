//! Terminal modes as SSH's clients send them (RFC 4254 section 8): what each key means, what is echoed, how lines end.
//!
//! Here is their encoding only. What a number means to a system's terminals is the node's business.

/// Ends a list of modes.
const END: u8 = 0;
/// From this number on modes have other arguments than one number; none is defined, and reading stops there.
const FIRST_UNKNOWN: u8 = 160;
/// Bytes of one mode.
const MODE_BYTES: usize = 5;
/// Most modes of a terminal; OpenSSH's clients send about sixty.
const MAX_MODES: usize = 128;

/// Largest encoding, bytes.
pub const MAX_BYTES: usize = MAX_MODES * MODE_BYTES + 1;

/// Modes, each with its argument, in the order in which they were sent: of equal ones the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminalModes(Vec<(u8, u32)>);

impl TerminalModes {
    /// Takes modes. What is none is left out, and so is everything beyond what [`MAX_BYTES`] hold.
    pub fn new(modes: impl IntoIterator<Item = (u8, u32)>) -> Self {
        let known = modes.into_iter().filter(|(mode, _)| *mode != END && *mode < FIRST_UNKNOWN);
        Self(known.take(MAX_MODES).collect())
    }

    /// Reads an encoding; `None` if it is none. Empty bytes are no modes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let mut modes = Vec::new();
        let mut rest = bytes;
        while let Some((&mode, arguments)) = rest.split_first() {
            if mode == END || mode >= FIRST_UNKNOWN {
                break;
            }
            let (argument, further) = arguments.split_first_chunk()?;
            modes.push((mode, u32::from_be_bytes(*argument)));
            rest = further;
        }
        Some(Self(modes))
    }

    /// Writes the encoding; nothing for no modes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * MODE_BYTES + 1);
        for (mode, argument) in &self.0 {
            bytes.push(*mode);
            bytes.extend_from_slice(&argument.to_be_bytes());
        }
        if !bytes.is_empty() {
            bytes.push(END);
        }
        bytes
    }

    /// Returns the modes.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u32)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate;

    #[test]
    fn modes_are_read_as_rfc_4254_has_them() {
        let bytes = [3, 0, 0, 0, b'#', 53, 0, 0, 0, 1, 129, 0, 0, 0x96, 0, 0];
        let modes = TerminalModes::decode(&bytes).unwrap();
        assert_eq!(modes.iter().collect::<Vec<_>>(), [(3, 35), (53, 1), (129, 38400)]);
        assert_eq!(modes.encode(), bytes);
        for (bytes, count) in [
            (&[][..], Some(0)),
            (&[0], Some(0)),
            // Without an end.
            (&[3, 0, 0, 0, 8], Some(1)),
            (&[3, 0, 0, 0], None),
            // What is behind the end or an unknown kind says nothing.
            (&[3, 0, 0, 0, 8, 0, 9], Some(1)),
            (&[3, 0, 0, 0, 8, 160, 1], Some(1)),
        ] {
            let read = TerminalModes::decode(bytes);
            assert_eq!(read.map(|modes| modes.0.len()), count, "{bytes:?}");
        }
        assert_eq!(TerminalModes::decode(&[1; MAX_BYTES + 1]), None);
        assert!(TerminalModes::default().encode().is_empty());
    }

    #[test]
    fn what_is_taken_can_be_read_again() {
        let all = TerminalModes::new((0..=255).map(|mode| (mode, u32::from(mode))).chain([(1, 9)]));
        assert_eq!((all.0.len(), all.encode().len()), (MAX_MODES, MAX_BYTES));
        assert_eq!(TerminalModes::decode(&all.encode()), Some(all.clone()));
        mutate::each(&all.encode(), 0x7e57, |bytes| {
            if let Some(modes) = TerminalModes::decode(bytes) {
                assert!(modes.0.len() <= MAX_MODES);
                assert_eq!(TerminalModes::decode(&modes.encode()), Some(modes));
            }
        });
    }
}
