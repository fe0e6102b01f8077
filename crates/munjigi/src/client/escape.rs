//! The escape character of an interactive session: `~` at the beginning of a line, as OpenSSH has it.
//!
//! Only used with a terminal; a pipe's bytes are the program's alone.

/// What the typed bytes ask for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Bytes for the program.
    Send(Vec<u8>),
    /// `~.`: end the session, or leave it when the server cannot be reached.
    Leave,
    /// `~d`: leave the session running.
    Detach,
    /// `~?`: show the list of these keys.
    Help,
}

/// The text shown for `~?`; lines end with CR LF because the terminal is in raw mode.
pub(crate) const HELP: &str = "\r\nescape keys, at the beginning of a line:\r\n  \
    ~.  end the session (or leave it, when the server cannot be reached)\r\n  \
    ~d  leave the session running; `munjigi attach` comes back to it\r\n  \
    ~?  this list\r\n  \
    ~~  send a tilde\r\n";

/// Recognises the escape keys in typed bytes, across reads.
#[derive(Debug)]
pub(crate) struct EscapeDetector {
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    InLine,
    AfterTilde,
}

impl Default for EscapeDetector {
    fn default() -> Self {
        Self { place: Place::LineStart }
    }
}

impl EscapeDetector {
    /// Splits typed bytes into what goes to the program and what is meant for this client.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut out = Vec::new();
        let mut plain = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            match (self.place, *byte) {
                (Place::LineStart, b'~') => {
                    self.place = Place::AfterTilde;
                    continue;
                }
                (Place::AfterTilde, command @ (b'.' | b'd' | b'?')) => {
                    if !plain.is_empty() {
                        out.push(Typed::Send(std::mem::take(&mut plain)));
                    }
                    out.push(match command {
                        b'.' => Typed::Leave,
                        b'd' => Typed::Detach,
                        _ => Typed::Help,
                    });
                    self.place = Place::LineStart;
                    continue;
                }
                (Place::AfterTilde, b'~') => plain.push(b'~'),
                (Place::AfterTilde, other) => plain.extend([b'~', other]),
                (_, other) => plain.push(other),
            }
            self.place = if matches!(byte, b'\r' | b'\n') { Place::LineStart } else { Place::InLine };
        }
        if !plain.is_empty() {
            out.push(Typed::Send(plain));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &[&str], expected: &[Typed]) {
        let mut detector = EscapeDetector::default();
        let all: Vec<Typed> = typed.iter().flat_map(|part| detector.read(part.as_bytes())).collect();
        assert_eq!(all, expected, "{typed:?}");
    }

    fn send(text: &str) -> Typed {
        Typed::Send(text.as_bytes().to_vec())
    }

    #[test]
    fn escapes_are_seen_only_at_the_beginning_of_a_line() {
        check(&["~."], &[Typed::Leave]);
        check(&["ls\r~."], &[send("ls\r"), Typed::Leave]);
        check(&["ls\n", "~", "d"], &[send("ls\n"), Typed::Detach]);
        check(&["a~."], &[send("a~.")]);
        check(&["cd ~\r"], &[send("cd ~\r")]);
        check(&["~?ls\r"], &[Typed::Help, send("ls\r")]);
    }

    #[test]
    fn a_doubled_tilde_is_one_and_an_unknown_key_keeps_its_tilde() {
        check(&["~~x\r~."], &[send("~x\r"), Typed::Leave]);
        check(&["~", "x"], &[send("~x")]);
        check(&["~\r~."], &[send("~\r"), Typed::Leave]);
        check(&["~~."], &[send("~.")]);
    }

    #[test]
    fn without_a_tilde_every_byte_passes_as_it_is() {
        let mut state = 7_u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .filter(|byte| *byte != b'~')
                .collect();
            let mut detector = EscapeDetector::default();
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            let mut passed = Vec::new();
            for part in [head, tail] {
                for typed in detector.read(part) {
                    let Typed::Send(sent) = typed else { panic!("{typed:?}") };
                    passed.extend(sent);
                }
            }
            assert_eq!(passed, bytes);
        }
    }
}
