//! Where a piece of terminal output may end: not inside a character of UTF-8.

/// Returns how many bytes at the end are the beginning of a character of UTF-8.
pub(super) fn incomplete_character(bytes: &[u8]) -> usize {
    let tail = bytes.get(bytes.len().saturating_sub(3)..).unwrap_or_default();
    for (back, byte) in tail.iter().rev().zip(1..).map(|(byte, back)| (back, *byte)) {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return 0,
        };
        return if back < length { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_character_waits() {
        let text = "가é😀a".as_bytes();
        for (end, waits) in [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 0), (6, 1), (7, 2), (8, 3), (9, 0), (10, 0)] {
            assert_eq!(incomplete_character(&text[..end]), waits, "{end}");
        }
        for never in [&b"\x80\x80\x80"[..], b"\xff", b"a\xc0", b"\xb0\xa1", b"\xf5\x80"] {
            assert_eq!(incomplete_character(never), 0, "{never:?}");
        }
    }
}
