//! The filter between a recording and the terminal of the person who looks at it (T-69).
//!
//! What a program printed once can be a weapon against the next terminal that shows it: it can set the clipboard
//! (OSC 52), plant links (OSC 8), change the title and ask for it back, make the terminal type answers (DSR, DA, DECRQSS) or
//! move its window. The filter passes text, colours, cursor movement, erasing, scrolling, the alternate screen and
//! line drawing, and drops all else; a list of what passes, not of what does not.

/// Longest control string (OSC, DCS, …) that is skipped, bytes; behind it text is shown again, so that nothing can be hidden
/// by a string that never ends.
const MAX_STRING: usize = 4096;
/// Longest control sequence that is looked at, bytes.
const MAX_SEQUENCE: usize = 64;
/// Largest number in a control sequence; terminals work through repetitions one by one.
const MAX_NUMBER: u32 = 9999;
/// Private modes that may be switched: cursor keys, origin, wrap, cursor blink and visibility, alternate screens, synchronised output.
const PRIVATE_MODES: [u32; 9] = [1, 6, 7, 12, 25, 47, 1047, 1049, 2026];

/// Removes from a terminal's output what could act on the terminal instead of showing something. Works across chunks.
#[derive(Debug, Default)]
pub(crate) struct Sanitizer {
    state: State,
    /// The bytes of the sequence being read, without its introducer.
    sequence: Vec<u8>,
    /// The bytes of the UTF-8 character being read.
    character: Vec<u8>,
    /// Whether the alternate screen was entered and not left.
    alternate: bool,
    /// Whether anything but plain text was passed.
    styled: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC and an intermediate byte such as `(`.
    Designation,
    /// Behind ESC `[`.
    Sequence,
    /// In a control string; how many bytes were skipped.
    String(usize),
    /// In a control string, behind ESC, which may begin its terminator.
    StringEscape(usize),
}

impl Sanitizer {
    /// Filters a chunk and appends what may be shown to `out`.
    pub(crate) fn filter(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        for byte in chunk {
            self.step(*byte, out);
        }
    }

    /// Ends the output: an unfinished sequence is dropped, and a terminal that was changed is set right again.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.character.is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
        if self.alternate {
            out.extend_from_slice(b"\x1b[?1049l");
        }
        if self.styled {
            // Colours off, margins and wrap as usual, cursor visible, ASCII in both character sets.
            out.extend_from_slice(b"\x1b[0m\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h\x1b[?1l\x1b(B\x0f");
        }
        *self = Self::default();
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.state, byte) {
            // CAN and SUB abort any sequence.
            (
                State::Escape | State::Designation | State::Sequence | State::String(_) | State::StringEscape(_),
                0x18 | 0x1a,
            ) => {
                self.state = State::Text;
            }
            (State::Text, _) => self.text(byte, out),
            (State::Escape, _) => self.escape(byte, out),
            (State::Designation, _) => self.designation(byte, out),
            (State::Sequence, _) => self.sequence(byte, out),
            (State::String(_) | State::StringEscape(_), 0x07) => self.state = State::Text,
            (State::String(_), 0x1b) => self.state = State::StringEscape(0),
            (State::StringEscape(_), b'\\') => self.state = State::Text,
            (State::StringEscape(_), _) => {
                // Another sequence begins inside the string: terminals end the string there.
                self.state = State::Escape;
                self.escape(byte, out);
            }
            (State::String(skipped), _) if skipped >= MAX_STRING => {
                self.state = State::Text;
                self.text(byte, out);
            }
            (State::String(skipped), _) => self.state = State::String(skipped + 1),
        }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        if !self.character.is_empty() {
            if (0x80..=0xbf).contains(&byte) {
                self.character.push(byte);
                self.complete_character(out);
                return;
            }
            out.extend_from_slice("\u{fffd}".as_bytes());
            self.character.clear();
        }
        match byte {
            0x1b => self.state = State::Escape,
            // BEL, BS, HT, LF, VT, FF, CR, and SO/SI for line drawing.
            0x07..=0x0f | b' '..=b'~' => out.push(byte),
            0xc2..=0xf4 => self.character.push(byte),
            0x80..=0xc1 | 0xf5..=0xff => out.extend_from_slice("\u{fffd}".as_bytes()),
            _ => {}
        }
    }

    fn complete_character(&mut self, out: &mut Vec<u8>) {
        match std::str::from_utf8(&self.character) {
            Ok(text) => {
                // U+0080 to U+009F are control characters that some terminals obey in UTF-8 too.
                if !text.chars().any(char::is_control) {
                    out.extend_from_slice(&self.character);
                }
                self.character.clear();
            }
            // More bytes are needed.
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                out.extend_from_slice("\u{fffd}".as_bytes());
                self.character.clear();
            }
        }
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.sequence.clear();
        self.state = match byte {
            b'[' => State::Sequence,
            b']' | b'P' | b'X' | b'^' | b'_' | b'k' => State::String(0),
            b'(' | b')' | b'*' | b'+' | b'#' | b'%' | b' ' => {
                self.sequence.push(byte);
                State::Designation
            }
            0x1b => State::Escape,
            // Save and restore the cursor, line feeds, tab stop, full reset.
            b'7' | b'8' | b'D' | b'E' | b'M' | b'H' | b'c' => {
                self.pass(&[0x1b, byte], out);
                State::Text
            }
            _ => State::Text,
        };
    }

    fn designation(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = State::Text;
        let intermediate = self.sequence.first().copied().unwrap_or_default();
        let drawing_or_ascii = matches!(intermediate, b'(' | b')' | b'*' | b'+') && matches!(byte, b'0' | b'A' | b'B');
        if drawing_or_ascii {
            self.pass(&[0x1b, intermediate, byte], out);
        } else if byte == 0x1b {
            self.state = State::Escape;
        }
    }

    fn sequence(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x1b => self.state = State::Escape,
            b'@'..=b'~' => {
                self.state = State::Text;
                if self.sequence.len() <= MAX_SEQUENCE {
                    self.sequence_ended(byte, out);
                }
            }
            // Parameters and intermediates; what is beyond the limit is skipped and the whole dropped at its end.
            b' '..=b'?' if self.sequence.len() <= MAX_SEQUENCE => self.sequence.push(byte),
            b' '..=b'?' => {}
            // Terminals obey simple control characters inside of a sequence.
            b'\r' | b'\n' | 0x08 | b'\t' => out.push(byte),
            // Anything else is no sequence any more.
            0x80..=0xff => {
                self.state = State::Text;
                self.text(byte, out);
            }
            _ => {}
        }
    }

    fn sequence_ended(&mut self, last: u8, out: &mut Vec<u8>) {
        let body = std::mem::take(&mut self.sequence);
        let split = body.iter().position(|byte| (b' '..=b'/').contains(byte)).unwrap_or(body.len());
        let (parameters, intermediates) = body.split_at(split);
        let (private, parameters) = match parameters {
            [mark @ (b'<'..=b'?'), rest @ ..] => (Some(*mark), rest),
            rest => (None, rest),
        };
        if !parameters.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')) {
            return;
        }
        let Some(numbers) = numbers(parameters) else { return };
        let passes = match (private, intermediates, last) {
            (None, [], b'A'..=b'H' | b'J' | b'K' | b'f' | b'd' | b'e' | b'a' | b'`' | b'm' | b'r' | b's' | b'u') => {
                true
            }
            (None, [], b'@' | b'P' | b'L' | b'M' | b'X' | b'I' | b'Z' | b'S' | b'b' | b'g') => true,
            // With more numbers `T` starts mouse tracking.
            (None, [], b'T') => numbers.len() <= 1,
            // Insert mode.
            (None, [], b'h' | b'l') => numbers == [4],
            (Some(b'?'), [], b'J' | b'K') => true,
            (Some(b'?'), [], b'h' | b'l') => numbers.iter().all(|mode| PRIVATE_MODES.contains(mode)),
            // Soft reset and the shape of the cursor.
            (None, [b'!'], b'p') | (None, [b' '], b'q') => true,
            _ => false,
        };
        if !passes {
            return;
        }
        if private.is_some() && numbers.iter().any(|mode| matches!(mode, 47 | 1047 | 1049)) {
            self.alternate = last == b'h';
        }
        let mut whole = vec![0x1b, b'['];
        whole.extend_from_slice(&body);
        whole.push(last);
        self.pass(&whole, out);
    }

    fn pass(&mut self, sequence: &[u8], out: &mut Vec<u8>) {
        self.styled = true;
        out.extend_from_slice(sequence);
    }
}

/// Reads the numbers of a control sequence; `None` if one is too large.
fn numbers(parameters: &[u8]) -> Option<Vec<u32>> {
    if parameters.is_empty() {
        return Some(Vec::new());
    }
    parameters
        .split(|byte| matches!(byte, b';' | b':'))
        .map(|digits| {
            let number = digits.iter().try_fold(0_u32, |number, digit| {
                number.checked_mul(10)?.checked_add(u32::from(digit.wrapping_sub(b'0')))
            })?;
            (number <= MAX_NUMBER).then_some(number)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Sanitizer::default().filter(input, &mut out);
        out
    }

    fn check(input: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&filtered(input.as_bytes())), expected, "{input:?}");
    }

    #[test]
    fn what_only_shows_something_passes() {
        for harmless in [
            "plain text\r\n\ttab",
            "한글과 日本 🙂",
            "\x1b[1;31mred\x1b[0m",
            "\x1b[38:2::255:0:0mtrue colour",
            "\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[3A",
            "\x1b[?25l\x1b[?1049hfull screen\x1b[?1049l",
            "\x1b(0lqqk\x1b(B",
            "\x1b7\x1b[1;10r\x1b8\x1bM",
            "\x1b[4 q",
        ] {
            check(harmless, harmless);
        }
    }

    #[test]
    fn what_acts_on_the_terminal_is_dropped() {
        for (attack, shown) in [
            ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
            ("a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"),
            ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b[21tx", "x"),
            ("\x1b[8;1;1tx", "x"),
            ("\x1b[6nx\x1b[cx\x1b[>cx\x1b[?15n", "xxx"),
            ("\x1bP$qm\x1b\\x", "x"),
            ("\x1bP+q544e\x1b\\x", "x"),
            ("\x1b_Gi=1;AAAA\x1b\\x", "x"),
            ("\x1b[?2004hx\x1b[?1000hx", "xx"),
            ("\x1b[>4;2mx", "x"),
            ("\x1b[?25;1000hx", "x"),
            ("\x1b[99999999999bx", "x"),
            ("\u{9b}31mx\u{9d}0;t\u{9c}", "31mx0;t"),
            ("\x1bZx\x1b=x\x1b>x", "xxx"),
            ("\x1b[1;2;3;4;5Tx", "x"),
            ("\x1b[$pq\x1b[?1$px", "qx"),
            ("\x05\x00x", "x"),
            ("\x1bktitle\x1b\\x", "x"),
        ] {
            check(attack, shown);
        }
        assert_eq!(filtered(b"\x9b6n\x9d0;x\x07"), "\u{fffd}6n\u{fffd}0;x\x07".as_bytes());
    }

    #[test]
    fn a_string_that_never_ends_hides_nothing_for_long() {
        let mut attack = b"\x1b]0;".to_vec();
        attack.extend(vec![b'a'; MAX_STRING]);
        attack.extend(b"seen");
        assert!(filtered(&attack).ends_with(b"seen"));
    }

    #[test]
    fn the_split_into_chunks_does_not_matter() {
        let text = "a\x1b[1;31m한\x1b]0;t\x07글\x1b[?1049h\x1b(0q\x1b[6n".as_bytes();
        let whole = filtered(text);
        let (mut sanitizer, mut pieces) = (Sanitizer::default(), Vec::new());
        for byte in text {
            sanitizer.filter(&[*byte], &mut pieces);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn the_terminal_is_set_right_at_the_end() {
        let (mut sanitizer, mut out) = (Sanitizer::default(), Vec::new());
        sanitizer.filter(b"\x1b[?1049h\x1b[31m\xed\x95", &mut out);
        sanitizer.finish(&mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\x1b[?1049l") && out.contains("\x1b[0m") && out.contains('\u{fffd}'), "{out:?}");
        let mut plain = Vec::new();
        sanitizer.filter(b"plain", &mut plain);
        sanitizer.finish(&mut plain);
        assert_eq!(plain, b"plain");
    }

    /// Reads filtered output as a terminal would and fails on any sequence that is not of the harmless kinds.
    fn assert_harmless(out: &[u8]) {
        let text = std::str::from_utf8(out).unwrap();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character != '\x1b' {
                assert!(!character.is_control() || ('\x07'..='\x0f').contains(&character), "{character:?}");
                continue;
            }
            match characters.next().unwrap() {
                '[' => {
                    let body: String = std::iter::from_fn(|| characters.next_if(|c| (' '..='?').contains(c))).collect();
                    let last = characters.next().unwrap();
                    assert!(!"ntcxyR|{}vwo".contains(last), "{body}{last}");
                    assert!(!body.contains(['>', '<', '=', '$', '"', '\'']), "{body}{last}");
                    if "hl".contains(last) && body.starts_with('?') {
                        assert!(!body.contains("2004") && !body.contains("100"), "{body}{last}");
                    }
                }
                '(' | ')' | '*' | '+' => assert!("0AB".contains(characters.next().unwrap())),
                other => assert!("78DEMHc".contains(other), "{other:?}"),
            }
        }
    }

    #[test]
    fn a_quarter_million_random_strings_come_out_harmless() {
        const ALPHABET: &[u8] =
            b"\x1b\x1b\x1b[[]]P_^X;?>=!$ 0123456789hlmntcqpTrkJH\\\x07\x18\x1a\x9b\x9d\xc2\x9b\xed\x95\x9c\r\nab";
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..1_u32 << 18 {
            let input: Vec<u8> = (0..24)
                .map(
                    |_| if round % 2 == 0 { next() as u8 } else { ALPHABET[(next() % ALPHABET.len() as u64) as usize] },
                )
                .collect();
            let mut sanitizer = Sanitizer::default();
            let mut out = Vec::new();
            sanitizer.filter(&input, &mut out);
            sanitizer.finish(&mut out);
            assert!(out.len() <= 3 * input.len() + 64);
            assert_harmless(&out);
        }
    }
}
