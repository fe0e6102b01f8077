//! Foreign text on our own lines: names, reasons and commands in tables and messages show as text and act on nothing
//! (T-68). Terminal output of a session is another matter: see `sanitize`.

use std::fmt::Write as _;

/// Longest field shown, bytes of the original; what is longer ends with a mark.
const MAX_FIELD: usize = 4096;

/// Returns the text with control characters, line separators and marks of writing direction escaped as `\u{…}`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if at >= MAX_FIELD {
            out.push_str("…[cut]");
            break;
        }
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if acts(character) => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out
}

/// C0, C1, DEL, line and paragraph separators, and the marks and overrides of bidirectional text.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character)
}

/// Quotes a word for a POSIX shell; plain words stay as they are.
pub(crate) fn shell_quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%_+=:,./-".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Shows a command as one could type it, escaped for the terminal.
pub(crate) fn command_line(words: &[String]) -> String {
    escaped(&words.iter().map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" "))
}

/// Shows a count of bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

/// Shows a length of time in its two largest units.
pub(crate) fn duration(length: std::time::Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn control_and_direction_marks_show_and_text_stays() {
        for (text, shown) in [
            ("웹-1 naïve", "웹-1 naïve"),
            ("a\x1b[31mb", "a\\u{1b}[31mb"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
            ("\u{9b}x\u{7f}", "\\u{9b}x\\u{7f}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
        assert!(escaped(&"x".repeat(10_000)).ends_with("…[cut]"));
    }

    #[test]
    fn quoted_words_are_one_word_for_a_shell() {
        for (word, quoted) in [("a", "a"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$x", "'$x'")] {
            assert_eq!(shell_quoted(word), quoted);
        }
        assert_eq!(command_line(&["sh".into(), "-c".into(), "exit 7".into()]), "sh -c 'exit 7'");
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(duration(Duration::from_millis(5)), "5 ms");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
