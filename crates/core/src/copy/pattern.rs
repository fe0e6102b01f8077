//! Wildcards in the last part of a path on the node: `*`, `?` and `[a-z]` as in glob(7), without `/` and leading dots.

/// A pattern for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// One character: several bytes in UTF-8.
    Any,
    Many,
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

/// Tells whether a path holds wildcards at all. A backslash takes a wildcard's meaning away.
pub fn has_wildcards(path: &[u8]) -> bool {
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

impl Pattern {
    /// Reads a pattern for one name. What is no complete class stands for itself.
    pub fn new(text: &[u8]) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'*' if tokens.last() == Some(&Token::Many) => {}
                b'*' => tokens.push(Token::Many),
                b'?' => tokens.push(Token::Any),
                b'\\' if !rest.is_empty() => {
                    if let Some((escaped, after)) = rest.split_first() {
                        tokens.push(Token::Byte(*escaped));
                        rest = after;
                    }
                }
                b'[' => match class(rest) {
                    Some((token, after)) => {
                        tokens.push(token);
                        rest = after;
                    }
                    None => tokens.push(Token::Byte(b'[')),
                },
                other => tokens.push(Token::Byte(*other)),
            }
        }
        Self(tokens)
    }

    /// Tells whether a name fits. Names with a leading dot fit only a pattern that has it too.
    pub fn matches(&self, name: &[u8]) -> bool {
        if name.first() == Some(&b'.') && self.0.first() != Some(&Token::Byte(b'.')) {
            return false;
        }
        // Two cursors and one place to come back to: time is at most the product of both lengths.
        let (mut at, mut left) = (0, name);
        let mut back: Option<(usize, &[u8])> = None;
        loop {
            match self.0.get(at) {
                Some(Token::Many) => {
                    back = Some((at, left));
                    at += 1;
                    continue;
                }
                Some(token) => {
                    if let Some(after) = token.take(left) {
                        at += 1;
                        left = after;
                        continue;
                    }
                }
                None if left.is_empty() => return true,
                None => {}
            }
            let Some((many, from)) = back else { return false };
            let Some((_, after)) = character(from) else { return false };
            back = Some((many, after));
            at = many + 1;
            left = after;
        }
    }
}

impl Token {
    /// Takes what it stands for off the front.
    fn take<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Byte(byte) => name.split_first().filter(|(first, _)| *first == byte).map(|(_, rest)| rest),
            Self::Any => character(name).map(|(_, rest)| rest),
            Self::Class { negated, ranges } => {
                let (found, rest) = character(name)?;
                let inside = ranges.iter().any(|(from, to)| (*from..=*to).contains(&found));
                (inside != *negated).then_some(rest)
            }
            Self::Many => None,
        }
    }
}

/// Takes one character off the front: of UTF-8, else a byte, whose number is put beyond all characters.
fn character(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let first = bytes.first()?;
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if let Some((head, rest)) = bytes.split_at_checked(length)
        && let Some(found) = std::str::from_utf8(head).ok().and_then(|text| text.chars().next())
    {
        return Some((u32::from(found), rest));
    }
    Some((0x11_0000 + u32::from(*first), bytes.get(1..)?))
}

/// Reads a class behind its `[`.
fn class(text: &[u8]) -> Option<(Token, &[u8])> {
    let (negated, mut rest) = match text.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        let (from, after) = character(rest)?;
        if from == u32::from(b']') && !ranges.is_empty() {
            return Some((Token::Class { negated, ranges }, after));
        }
        rest = after;
        match rest.split_first() {
            Some((b'-', after)) if after.first().is_some_and(|next| *next != b']') => {
                let (to, after) = character(after)?;
                ranges.push((from, to));
                rest = after;
            }
            _ => ranges.push((from, from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate;

    #[test]
    fn names_fit_as_in_a_shell() {
        for (pattern, fits, not) in [
            ("*.log", vec!["a.log", "한글.log", "a.b.log"], vec![".log", "a.logs", "alog"]),
            (".*", vec![".a", "."], vec!["a", ""]),
            ("a?c", vec!["abc", "a가c"], vec!["ac", "abbc"]),
            ("[a-c]x", vec!["ax", "cx"], vec!["dx", "x"]),
            ("[!a-c]x", vec!["dx", "가x"], vec!["ax"]),
            ("[가-힣]", vec!["각"], vec!["a"]),
            ("[]]", vec!["]"], vec!["[", "]]"]),
            ("[a", vec!["[a"], vec!["a"]),
            (r"\*", vec!["*"], vec!["a"]),
            ("**a*", vec!["a", "ba", "bab"], vec!["b", ""]),
            ("", vec![""], vec!["a"]),
        ] {
            for name in fits {
                assert!(Pattern::new(pattern.as_bytes()).matches(name.as_bytes()), "{pattern} {name}");
            }
            for name in not {
                assert!(!Pattern::new(pattern.as_bytes()).matches(name.as_bytes()), "{pattern} {name}");
            }
        }
        assert!(has_wildcards(b"/var/log/*.log") && has_wildcards(b"[") && !has_wildcards(br"/a\*b"));
    }

    #[test]
    fn a_quarter_million_patterns_end() {
        mutate::each(b"a*[!b-d]?*\\*\xff*c", 7, |bytes| {
            let _ = Pattern::new(bytes).matches(b"aaaaaaaabbbbbbbb\xff\xfe*cccc");
        });
    }
}
