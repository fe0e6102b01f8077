//! Packets: three bytes of length, a sequence number, a payload.
//!
//! A message longer than a packet is cut into packets of [`MAX_PAYLOAD`] bytes and ends with a shorter one, which may be
//! empty.

/// Bytes before a payload.
pub const HEADER_BYTES: usize = 4;
/// Longest payload of one packet, in bytes; the message goes on in the next packet then.
pub const MAX_PAYLOAD: usize = 0xff_ffff;
/// Longest payload taken while logging in, in bytes: a login with 64 KiB of connection attributes, MySQL's own limit.
pub const MAX_LOGIN_PACKET: usize = 72 * 1024;

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload in this packet.
    pub length: usize,
    /// Counts packets of both directions since the command began; wraps.
    pub sequence: u8,
}

impl Head {
    /// Reads a header from the front of `bytes`; `None` until it is there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [low, middle, high, sequence, ..] => {
                let length = usize::from(*low) | usize::from(*middle) << 8 | usize::from(*high) << 16;
                Some(Self { length, sequence: *sequence })
            }
            _ => None,
        }
    }

    /// Tells whether the message goes on in the next packet.
    pub fn goes_on(self) -> bool {
        self.length == MAX_PAYLOAD
    }
}

/// Appends a packet. A payload that one packet does not hold is cut off: everything written here is far shorter.
pub fn write_packet(out: &mut Vec<u8>, sequence: u8, payload: &[u8]) {
    let payload = payload.get(..MAX_PAYLOAD - 1).unwrap_or(payload);
    let [low, middle, high, ..] = payload.len().to_le_bytes();
    out.extend_from_slice(&[low, middle, high, sequence]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_begins_with_its_length_and_number() {
        let mut out = Vec::new();
        write_packet(&mut out, 7, &[1; 0x1_0203]);
        assert_eq!(out.get(..5), Some(&[0x03, 0x02, 0x01, 7, 1][..]));
        assert_eq!(Head::read(&out), Some(Head { length: 0x1_0203, sequence: 7 }));
        assert_eq!(Head::read(&[1, 0, 0]), None);
        assert!(Head::read(&[0xff, 0xff, 0xff, 0]).is_some_and(Head::goes_on));
        assert!(!Head::read(&[0xfe, 0xff, 0xff, 0]).is_some_and(Head::goes_on));
    }
}
