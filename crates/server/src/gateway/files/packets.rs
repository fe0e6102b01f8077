//! Bytes of one direction, in which packets are looked at where they lie. What they say is not known here.

use munjigi_core::sftp::{LENGTH_BYTES, MAX_PACKET, SftpError, packet_length};

/// Bytes of a direction (T-95): while one of the longest packets grows whole, another has room.
const BYTES: usize = 512 * 1024;
const _: () = assert!(BYTES > LENGTH_BYTES + MAX_PACKET);

/// Bytes in order: filled at one end, consumed at the other.
pub(super) struct Packets {
    memory: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Packets {
    pub(super) fn new() -> Self {
        Self { memory: vec![0; BYTES].into_boxed_slice(), begin: 0, end: 0 }
    }

    /// Returns the bytes.
    pub(super) fn filled(&self) -> &[u8] {
        self.memory.get(self.begin..self.end).unwrap_or_default()
    }

    /// Tells whether they begin with a whole packet.
    pub(super) fn is_whole(&self) -> Result<bool, SftpError> {
        let filled = self.filled();
        Ok(packet_length(filled)?.is_some_and(|length| length <= filled.len()))
    }

    /// Returns the packet at this place among the bytes, if it is whole.
    pub(super) fn whole(&mut self, at: usize) -> Result<Option<&mut [u8]>, SftpError> {
        let bytes = self.memory.get_mut(self.begin + at..self.end).unwrap_or_default();
        let length = packet_length(bytes)?;
        Ok(length.and_then(|length| bytes.get_mut(..length)))
    }

    /// Tells whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Returns room for more; there is some unless the bytes begin with a whole packet.
    pub(super) fn space(&mut self) -> &mut [u8] {
        // The rest of a packet is moved only when what is behind it may be too little.
        if self.begin > 0 && self.memory.len() - self.end < BYTES / 2 {
            self.memory.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        self.memory.get_mut(self.end..).unwrap_or_default()
    }

    /// Takes note that bytes were put into [`Self::space`].
    pub(super) fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.memory.len());
    }

    /// Takes bytes away at the beginning.
    pub(super) fn consume(&mut self, count: usize) {
        self.begin = (self.begin + count).min(self.end);
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize) -> Vec<u8> {
        let mut packet = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        packet.resize(LENGTH_BYTES + length, 7);
        packet
    }

    #[test]
    fn packets_come_out_whole_however_the_bytes_come() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        let sent: Vec<_> = (0..200).map(|n| packet(if n % 7 == 0 { MAX_PACKET } else { 1 + random(70_000) })).collect();
        let (mut bytes, mut packets, mut got) = (&sent.concat()[..], Packets::new(), Vec::new());
        while got.len() < sent.len() {
            let space = packets.space();
            let count = bytes.len().min(1 + random(space.len()));
            assert!(count > 0, "{} of {} packets", got.len(), sent.len());
            space[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            packets.fill(count);
            let mut at = 0;
            while let Some(whole) = packets.whole(at).unwrap() {
                got.push(whole.to_vec());
                at += got.last().unwrap().len();
            }
            packets.consume(at);
            assert_eq!(packets.is_whole(), Ok(false));
        }
        assert!(got == sent && packets.is_empty());
    }
}
