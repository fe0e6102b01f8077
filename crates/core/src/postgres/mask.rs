//! Passwords out of the texts of statements: `PASSWORD '…'` of roles, options of user mappings and subscriptions,
//! connection strings, also inside strings and code in dollars. Replaced is the literal behind the word; what is computed
//! or called otherwise cannot be known and stays.

/// What stands in a password's place.
const MASK: &str = "***";
/// How deep strings in strings are looked into.
const MAX_DEPTH: u8 = 4;

/// Returns the text without the passwords that could be found, if there is one. A literal that is cut off is taken to
/// go on to the end.
pub fn mask(text: &str) -> Option<String> {
    if !names_password(text) {
        return None;
    }
    let mut masked = String::with_capacity(text.len());
    sql(text, 0, &mut masked);
    (masked != text).then_some(masked)
}

/// Tells whether a text has one of the words in it, in any case.
fn names_password(text: &str) -> bool {
    find_word(text, 0).is_some()
}

/// Finds the end of the next word behind which a secret may stand.
fn find_word(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let starts = bytes.get(from..)?.iter().enumerate().filter(|(_, byte)| byte.eq_ignore_ascii_case(&b'p'));
    starts.map(|(at, _)| from + at).find_map(|at| {
        ["password", "passwd"].iter().find_map(|word| {
            let end = at + word.len();
            bytes.get(at..end).filter(|found| found.eq_ignore_ascii_case(word.as_bytes())).map(|_| end)
        })
    })
}

/// What may come behind the word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Nothing,
    /// The literal is the secret.
    Secret,
    /// A word stands in the secret's place: only if it is called.
    Call,
    /// Behind a literal that names it: only if a comma or colon follows.
    Separator,
}

/// Copies SQL, masking as it goes.
fn sql(text: &str, depth: u8, out: &mut String) {
    let mut rest = text;
    let mut expect = Expect::Nothing;
    while !rest.is_empty() {
        let token = Token::first(rest);
        let (piece, behind) = rest.split_at(token.length);
        rest = behind;
        expect = match token.kind {
            Kind::Space => {
                out.push_str(piece);
                expect
            }
            Kind::Word => {
                out.push_str(piece);
                let lower = piece.trim_matches('"').to_ascii_lowercase();
                match expect {
                    _ if names_password(&lower) => Expect::Secret,
                    Expect::Secret if lower == "to" => Expect::Secret,
                    // `password = crypt('x', …)`; NULL and other columns are no secret.
                    Expect::Secret => Expect::Call,
                    _ => Expect::Nothing,
                }
            }
            Kind::Literal { open, close } => {
                let inner = piece.get(open..piece.len() - close).unwrap_or_default();
                out.push_str(piece.get(..open).unwrap_or_default());
                let names = !inner.contains(char::is_whitespace) && names_password(inner);
                if expect == Expect::Secret {
                    out.push_str(MASK);
                } else if open > 1 && piece.starts_with('$') && depth < MAX_DEPTH {
                    sql(inner, depth + 1, out);
                } else {
                    within(inner, out);
                }
                out.push_str(piece.get(piece.len() - close..).unwrap_or_default());
                if expect != Expect::Secret && names { Expect::Separator } else { Expect::Nothing }
            }
            Kind::Mark => {
                out.push_str(piece);
                match (expect, piece) {
                    (Expect::Secret, "=" | ":" | ">" | "(") | (Expect::Call, "(") => Expect::Secret,
                    (Expect::Separator, "," | ":" | "=") => Expect::Secret,
                    // A cast of the literal that names it.
                    _ => Expect::Nothing,
                }
            }
        };
    }
}

/// Copies the inside of a string: behind the word, the value up to its end.
fn within(text: &str, out: &mut String) {
    let mut at = 0;
    while let Some(end) = find_word(text, at) {
        out.push_str(text.get(at..end).unwrap_or_default());
        let rest = text.get(end..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || "'\"=:>\\".contains(c)).len();
        let (between, value) = rest.split_at(gap);
        out.push_str(between);
        // Nothing between: the word goes on, as in `password_encryption`.
        let length = match between.chars().next_back() {
            None => 0,
            Some(quote @ ('\'' | '"')) => value.find(quote).unwrap_or(value.len()),
            Some(_) => value.find(|c: char| c.is_whitespace() || "'\",;&})".contains(c)).unwrap_or(value.len()),
        };
        if length > 0 {
            out.push_str(MASK);
        }
        at = end + gap + length;
    }
    out.push_str(text.get(at..).unwrap_or_default());
}

enum Kind {
    /// Blanks and comments.
    Space,
    /// A word or a quoted identifier.
    Word,
    /// A string: how long its marks before and behind are.
    Literal { open: usize, close: usize },
    /// Anything else, one character.
    Mark,
}

struct Token {
    kind: Kind,
    length: usize,
}

impl Token {
    /// Finds the first token of a text that is not empty.
    fn first(text: &str) -> Self {
        let bytes = text.as_bytes();
        let (Some(first), second) = (bytes.first().copied(), bytes.get(1).copied()) else {
            return Self { kind: Kind::Mark, length: text.len() };
        };
        match (first, second) {
            (b'-', Some(b'-')) => Self { kind: Kind::Space, length: text.find('\n').unwrap_or(text.len()) },
            (b'/', Some(b'*')) => Self { kind: Kind::Space, length: comment(bytes) },
            (b'\'', _) => Self::quoted(bytes, 1, false),
            (b'e' | b'E', Some(b'\'')) => Self::quoted(bytes, 2, true),
            (b'n' | b'N' | b'b' | b'B' | b'x' | b'X', Some(b'\'')) => Self::quoted(bytes, 2, false),
            (b'u' | b'U', Some(b'&')) if bytes.get(2) == Some(&b'\'') => Self::quoted(bytes, 3, false),
            (b'"', _) => Self { kind: Kind::Word, length: quote_end(bytes, 1, b'"', false).0 },
            (b'$', _) => Self::dollars(text),
            _ if first.is_ascii_whitespace() => {
                let length = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                Self { kind: Kind::Space, length }
            }
            _ if is_word(first) => {
                // A dollar may stand inside a word, where it begins no string.
                let length = bytes.iter().take_while(|byte| is_word(**byte) || **byte == b'$').count();
                Self { kind: Kind::Word, length }
            }
            _ => Self { kind: Kind::Mark, length: 1 },
        }
    }

    fn quoted(bytes: &[u8], open: usize, escapes: bool) -> Self {
        let (length, close) = quote_end(bytes, open, b'\'', escapes);
        Self { kind: Kind::Literal { open, close }, length }
    }

    /// A string in dollars, or a parameter's mark.
    fn dollars(text: &str) -> Self {
        let tag = text.get(1..).and_then(|rest| rest.find('$')).map(|end| end + 2);
        let is_tag = |tag: &str| {
            let name = tag.trim_matches('$').as_bytes();
            name.first().is_none_or(|first| !first.is_ascii_digit()) && name.iter().all(|byte| is_word(*byte))
        };
        let Some(open) = tag.filter(|open| text.get(..*open).is_some_and(is_tag)) else {
            return Self { kind: Kind::Mark, length: 1 };
        };
        let (mark, body) = text.split_at(open);
        match body.find(mark) {
            Some(end) => Self { kind: Kind::Literal { open, close: open }, length: open + end + open },
            None => Self { kind: Kind::Literal { open, close: 0 }, length: text.len() },
        }
    }
}

/// Letters of other scripts are parts of words too.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Returns where a quoted piece ends and how long its closing mark is: 0 if it is cut off.
fn quote_end(bytes: &[u8], open: usize, quote: u8, escapes: bool) -> (usize, usize) {
    let mut at = open;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            _ if *byte == quote && bytes.get(at + 1) == Some(&quote) => 2,
            _ if *byte == quote => return (at + 1, 1),
            _ => 1,
        };
    }
    (bytes.len(), 0)
}

/// Returns the length of a comment; they nest.
fn comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_sql_has_them() {
        for (text, shown) in [
            ("ALTER ROLE app PASSWORD 'geheim'", "ALTER ROLE app PASSWORD '***'"),
            (
                "create user a with encrypted\n password\t'a''b' login",
                "create user a with encrypted\n password\t'***' login",
            ),
            (r"ALTER USER a PASSWORD E'x\'y' VALID UNTIL 'x'", r"ALTER USER a PASSWORD E'***' VALID UNTIL 'x'"),
            ("ALTER USER a PASSWORD U&'d\\0061t'", "ALTER USER a PASSWORD U&'***'"),
            ("ALTER USER a PASSWORD $$geheim$$", "ALTER USER a PASSWORD $$***$$"),
            ("ALTER USER a PASSWORD $q$ge$$heim$q$ ", "ALTER USER a PASSWORD $q$***$q$ "),
            ("ALTER USER a PASSWORD /* x /* y */ 'z' */ 'geheim'", "ALTER USER a PASSWORD /* x /* y */ 'z' */ '***'"),
            ("ALTER USER a PASSWORD -- 'x'\n 'geheim'", "ALTER USER a PASSWORD -- 'x'\n '***'"),
            ("ALTER USER a PASSWORD 'cut off", "ALTER USER a PASSWORD '***"),
            (
                "CREATE USER MAPPING FOR x SERVER s OPTIONS (user 'u', password 'p')",
                "CREATE USER MAPPING FOR x SERVER s OPTIONS (user 'u', password '***')",
            ),
            ("OPTIONS (SET \"password\" 'p')", "OPTIONS (SET \"password\" '***')"),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=h password=geheim dbname=d' PUBLICATION p",
                "CREATE SUBSCRIPTION s CONNECTION 'host=h password=*** dbname=d' PUBLICATION p",
            ),
            (
                "select dblink('host=h password=''ge heim'' x', 'select 1')",
                "select dblink('host=h password=''***'' x', 'select 1')",
            ),
            (
                "DO $$ begin execute 'alter role a password ''x'''; end $$",
                "DO $$ begin execute 'alter role a password ''***'''; end $$",
            ),
            ("DO $$ begin alter role a password 'x'; end $$", "DO $$ begin alter role a password '***'; end $$"),
            ("select set_config('app.password', 'x', false)", "select set_config('app.password', '***', false)"),
            ("SET app.password = 'x'", "SET app.password = '***'"),
            ("SET app.password TO 'x'", "SET app.password TO '***'"),
            (r#"select '{"password": "x y", "a": 1}'::json"#, r#"select '{"password": "***", "a": 1}'::json"#),
            ("select f(password => 'x', b => 'y')", "select f(password => '***', b => 'y')"),
            ("select * from u where password = crypt('x', y)", "select * from u where password = crypt('***', y)"),
            ("select * from u where password = other and x = 'y'", ""),
            ("select password, 'x' from u", ""),
            ("ALTER ROLE a PASSWORD NULL", ""),
            ("SET password_encryption = 'md5'", "SET password_encryption = '***'"),
            ("select 'passwords are long'", "select 'passwords are long'"),
            ("select 1", ""),
            ("select $1, '비밀'", ""),
        ] {
            let masked = mask(text);
            let shown = if shown.is_empty() { text } else { shown };
            assert_eq!(masked.as_deref().unwrap_or(text), shown, "{text}");
        }
    }

    #[test]
    fn a_quarter_million_mutated_texts_neither_panic_nor_grow() {
        let seed = "DO $a$ PASSWORD E'\\'' /*/* */*/ 'x=password=''y''' U&'문' \"password\" $$b$$ $a$ password = 'z'";
        crate::mutate::each(seed.as_bytes(), 0x70_67, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let masked = mask(&text).unwrap_or_default();
            // Each place of a secret grows by no more than the mask.
            assert!(masked.len() <= text.len() + 3 * (1 + text.len() / 8), "{text}");
        });
    }
}
