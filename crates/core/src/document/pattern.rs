//! `allowedPattern`: regular expressions that must match a whole value, in time linear in its length.
//!
//! AWS reads them as Java does. What that dialect has and automata have not (look-around, back-references) is refused
//! when the document is created. `\d`, `\w` and `\s` mean ASCII, as there: a digit of another script must not
//! pass where the author saw ten digits.

use regex::{Regex, RegexBuilder};

/// Longest pattern in characters.
const MAX_CHARS: usize = 1024;
/// Largest compiled pattern in bytes; a value's bytes times its states are the most work one check can be.
const MAX_COMPILED: usize = 512 * 1024;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    source: String,
    whole: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// Compiles a pattern.
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        if source.chars().count() > MAX_CHARS {
            return Err(format!("has more than {MAX_CHARS} characters"));
        }
        let ascii = ascii_classes(source);
        // On its own first: `a)|(b` would be good between our parentheses.
        compile(&ascii)?;
        let whole = compile(&format!(r"\A(?:{ascii})\z"))?;
        Ok(Self { source: source.to_owned(), whole })
    }

    /// Tells whether it matches the whole value.
    pub(super) fn matches(&self, value: &str) -> bool {
        self.whole.is_match(value)
    }

    /// Returns the pattern as written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "is too large a pattern; repeat less".to_owned(),
        error => {
            // The last line says what is wrong, those before show where.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("is no regular expression of this server: {why}")
        }
    })
}

/// Spells the classes that Java reads as ASCII out.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('s') => out.push_str(r"[ \t\n\x0B\f\r]"),
            Some('S') => out.push_str(r"[^ \t\n\x0B\f\r]"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_value_or_nothing() {
        let cases = [
            ("[a-z]+", "abc", true),
            ("[a-z]+", "abc\n", false),
            ("[a-z]+", "abc; id", false),
            ("^a$", "a", true),
            ("^a$", "a\n", false),
            ("a|b", "ab", false),
            ("a|ab", "ab", true),
            (r"\d{1,5}", "443", true),
            (r"\d+", "\u{0664}", false),
            (r"[\w.-]+", "web_1.a-b", true),
            (r"[\w.-]+", "웹", false),
            (r"[가-힣]+", "서울", true),
            (r"\p{L}+", "서울", true),
            (r"[^,$^&()!;'\x22<>`{}\[\]|#=]{3,}", "db.internal", true),
            (r"[^,$^&()!;'\x22<>`{}\[\]|#=]{3,}", "$(id)", false),
            ("", "", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(value), expected, "{pattern} {value:?}");
        }
    }

    #[test]
    fn what_is_not_linear_or_not_whole_is_refused() {
        for bad in ["a)|(b", "(?!root)x", r"(a)\1", "[", "a{1000}{1000}", "*", &"a".repeat(MAX_CHARS + 1)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        let evil = Pattern::parse("(a*)*(a|b)*c").unwrap();
        assert!(!evil.matches(&"a".repeat(60_000)));
    }
}
