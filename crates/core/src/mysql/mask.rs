//! Passwords in statements: what stands in their place in a recording.
//!
//! The statement is cut into words, texts and signs as the server does it. Texts are masked behind `IDENTIFIED`, and
//! where they are the value of something called `PASSWORD` (or `…_PASSWORD`) or `CONNECTION`; so are texts that hold
//! such a statement themselves. Everything else stays as it is.

/// What stands in place of a masked text.
const MASK: &[u8] = b"'***'";
/// Without one of these words there is nothing to mask.
const WORDS: [&[u8]; 3] = [b"password", b"identified", b"connection"];

/// Returns the statement for people to read, passwords masked and what is no UTF-8 replaced, and whether anything was
/// masked. `plain_backslash` says
/// that the server takes a backslash in a text for itself (`NO_BACKSLASH_ESCAPES`).
pub(super) fn masked(text: &[u8], plain_backslash: bool) -> (String, bool) {
    if !WORDS.iter().any(|word| holds(text, word)) {
        return (String::from_utf8_lossy(text).into_owned(), false);
    }
    let mut is_masked = false;
    let mut masking = Masking { mode: Mode::Open, depth: 0, after_function: false, done: false };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((token, raw, behind)) = next(rest, plain_backslash) {
        if masking.hides(token, raw) {
            out.extend_from_slice(MASK);
            is_masked = true;
        } else {
            out.extend_from_slice(raw);
        }
        rest = behind;
    }
    (String::from_utf8_lossy(&out).into_owned(), is_masked)
}

fn holds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Space, comments and their marks.
    Gap,
    Word,
    /// A text in quotes.
    Text,
    /// A name in backticks.
    Name,
    Sign(u8),
}

/// Takes the next token: what it is, its bytes, and what follows.
fn next(text: &[u8], plain_backslash: bool) -> Option<(Token, &[u8], &[u8])> {
    let first = *text.first()?;
    let (token, length) = match first {
        b'\'' | b'"' => (Token::Text, quoted(text, first, plain_backslash)),
        b'`' => (Token::Name, quoted(text, first, true)),
        b'#' => (Token::Gap, line(text)),
        b'-' if text.starts_with(b"--") && text.get(2).is_none_or(|byte| *byte <= b' ') => (Token::Gap, line(text)),
        b'/' if text.starts_with(b"/*") => (Token::Gap, comment(text)),
        b'*' if text.starts_with(b"*/") => (Token::Gap, 2),
        _ if first <= b' ' => (Token::Gap, 1),
        _ if is_word(first) => (Token::Word, text.iter().position(|byte| !is_word(*byte)).unwrap_or(text.len())),
        _ => (Token::Sign(first), 1),
    };
    let (raw, behind) = text.split_at_checked(length)?;
    Some((token, raw, behind))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

fn line(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1)
}

/// The content of `/*! … */` is executed: only its mark is no code.
fn comment(text: &[u8]) -> usize {
    let mark = if text.starts_with(b"/*!") {
        3
    } else if text.starts_with(b"/*M!") {
        4
    } else {
        return text.windows(2).skip(2).position(|two| two == b"*/").map_or(text.len(), |end| end + 4);
    };
    let digits = text.iter().skip(mark).take_while(|byte| byte.is_ascii_digit()).count();
    mark + digits
}

/// Length of a text in quotes: a doubled quote is part of it.
fn quoted(text: &[u8], quote: u8, plain_backslash: bool) -> usize {
    let mut bytes = text.iter().enumerate().skip(1).peekable();
    while let Some((at, byte)) = bytes.next() {
        if *byte == b'\\' && !plain_backslash {
            bytes.next();
        } else if *byte == quote && bytes.next_if(|(_, next)| **next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing is hidden.
    Open,
    /// Behind `IDENTIFIED`: all texts up to a comma at this depth.
    Clause(usize),
    /// Behind a word for a password: its value may follow.
    Named,
    /// Behind `PASSWORD FOR`: an account, then the value.
    Account,
    /// The value comes.
    Value,
    /// Inside brackets that belong to the value, until this depth is left.
    Brackets(usize),
}

struct Masking {
    mode: Mode,
    depth: usize,
    /// In a value: the word before may be a function's name, or that of a text's character set.
    after_function: bool,
    /// In a value: a text was hidden; another one behind it belongs to it.
    done: bool,
}

impl Masking {
    /// Takes the next token and says whether it is masked.
    fn hides(&mut self, token: Token, raw: &[u8]) -> bool {
        if token == Token::Gap {
            return false;
        }
        let is_over = self.done && token != Token::Text
            || self.after_function && token != Token::Sign(b'(') && token != Token::Text;
        if is_over && self.mode == Mode::Value {
            self.set(Mode::Open);
        }
        match token {
            Token::Text => self.text(raw),
            Token::Word => self.word(raw),
            Token::Sign(sign) => {
                self.sign(sign);
                false
            }
            Token::Name | Token::Gap => {
                self.name();
                false
            }
        }
    }

    fn set(&mut self, mode: Mode) {
        self.mode = mode;
        self.done = false;
        self.after_function = false;
    }

    fn text(&mut self, raw: &[u8]) -> bool {
        let holds_statement = ["password", "identified"].iter().any(|word| holds(raw, word.as_bytes()))
            && raw.get(1..raw.len().saturating_sub(1)).is_some_and(|inner| inner.iter().any(|b| b"'\"\\".contains(b)));
        match self.mode {
            Mode::Open | Mode::Account => holds_statement,
            Mode::Clause(_) | Mode::Brackets(_) => true,
            Mode::Named | Mode::Value => {
                self.mode = Mode::Value;
                self.done = true;
                self.after_function = false;
                true
            }
        }
    }

    fn word(&mut self, raw: &[u8]) -> bool {
        let is = |word: &str| raw.eq_ignore_ascii_case(word.as_bytes());
        let is_number = raw.starts_with(b"0x");
        let is_password = raw.len() >= 8
            && raw.get(raw.len() - 8..).is_some_and(|end| end.eq_ignore_ascii_case(b"password"))
            && (raw.len() == 8 || raw.get(raw.len() - 9) == Some(&b'_'));
        match self.mode {
            Mode::Clause(_) | Mode::Brackets(_) => return is_number,
            Mode::Value if is_number => {
                self.set(Mode::Open);
                return true;
            }
            _ if is("identified") => self.set(Mode::Clause(self.depth)),
            Mode::Value => self.after_function = true,
            _ if is_password || is("connection") => self.set(Mode::Named),
            Mode::Named if is("for") => self.set(Mode::Account),
            Mode::Named if raw.starts_with(b"_") || is("n") || is("x") || is("b") => {}
            Mode::Named if ["like", "in", "regexp", "rlike", "binary", "to", "as", "by"].iter().any(|w| is(w)) => {
                self.set(Mode::Value);
            }
            Mode::Named => self.set(Mode::Open),
            Mode::Open | Mode::Account => {}
        }
        false
    }

    fn name(&mut self) {
        // `` `password` = 'x' `` is a value as well, but a name behind the word itself is none.
        if matches!(self.mode, Mode::Named | Mode::Value) {
            self.set(Mode::Open);
        }
    }

    fn sign(&mut self, sign: u8) {
        match (sign, self.mode) {
            (b';', _) => {
                self.depth = 0;
                self.set(Mode::Open);
            }
            (b'(', mode) => {
                self.depth += 1;
                if matches!(mode, Mode::Named | Mode::Value) {
                    self.set(Mode::Brackets(self.depth));
                }
            }
            (b')', mode) => {
                self.depth = self.depth.saturating_sub(1);
                match mode {
                    Mode::Brackets(inside) if self.depth >= inside => {}
                    Mode::Clause(at) if self.depth >= at => {}
                    Mode::Account | Mode::Open => {}
                    _ => self.set(Mode::Open),
                }
            }
            (b',', Mode::Clause(at)) if self.depth <= at => self.set(Mode::Open),
            (b'=' | b'<' | b'>' | b'!' | b':', Mode::Named | Mode::Account) => self.set(Mode::Value),
            (b'=' | b'>', Mode::Value) | (_, Mode::Clause(_) | Mode::Brackets(_) | Mode::Account | Mode::Open) => {}
            (_, Mode::Named | Mode::Value) => self.set(Mode::Open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statement: &str, shown: &str) {
        assert_eq!(masked(statement.as_bytes(), false), (shown.to_owned(), shown != statement));
    }

    #[test]
    fn passwords_are_masked_wherever_a_statement_takes_one() {
        for (statement, shown) in [
            ("CREATE USER 'bob'@'%' IDENTIFIED BY 'pw'", "CREATE USER 'bob'@'%' IDENTIFIED BY '***'"),
            (
                "create user a identified by \"p'w\", b identified by 'x'",
                "create user a identified by '***', b identified by '***'",
            ),
            ("CREATE USER a IDENTIFIED BY PASSWORD '*0F'", "CREATE USER a IDENTIFIED BY PASSWORD '***'"),
            ("CREATE USER a IDENTIFIED WITH p AS 0x2A30", "CREATE USER a IDENTIFIED WITH p AS '***'"),
            (
                "ALTER USER a IDENTIFIED WITH p BY 'n' REPLACE 'o'",
                "ALTER USER a IDENTIFIED WITH p BY '***' REPLACE '***'",
            ),
            (
                "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('pw')",
                "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('***')",
            ),
            (
                "GRANT ALL ON d.* TO 'a'@'h' IDENTIFIED/* */BY 'pw' REQUIRE SSL",
                "GRANT ALL ON d.* TO 'a'@'h' IDENTIFIED/* */BY '***' REQUIRE SSL",
            ),
            ("/*!50000 CREATE USER a IDENTIFIED BY 'pw' */", "/*!50000 CREATE USER a IDENTIFIED BY '***' */"),
            ("SET PASSWORD = 'pw'", "SET PASSWORD = '***'"),
            ("SET PASSWORD = PASSWORD('pw')", "SET PASSWORD = PASSWORD('***')"),
            ("SET PASSWORD FOR 'a'@'h' = PASSWORD('pw')", "SET PASSWORD FOR 'a'@'h' = PASSWORD('***')"),
            ("SET PASSWORD FOR a='pw' 'more'; SELECT 'x'", "SET PASSWORD FOR a='***' '***'; SELECT 'x'"),
            ("SELECT PASSWORD(CONCAT('p','w')), 'x'", "SELECT PASSWORD(CONCAT('***','***')), 'x'"),
            (
                "CHANGE MASTER TO MASTER_USER='u', MASTER_PASSWORD='pw', MASTER_HOST='h'",
                "CHANGE MASTER TO MASTER_USER='u', MASTER_PASSWORD='***', MASTER_HOST='h'",
            ),
            (
                "CREATE SERVER s OPTIONS (USER 'u', PASSWORD 'pw', HOST 'h')",
                "CREATE SERVER s OPTIONS (USER 'u', PASSWORD '***', HOST 'h')",
            ),
            (
                "CREATE TABLE t (a INT) CONNECTION='mysql://u:pw@h/d' COMMENT='c'",
                "CREATE TABLE t (a INT) CONNECTION='***' COMMENT='c'",
            ),
            ("UPDATE u SET password='pw', name='bob'", "UPDATE u SET password='***', name='bob'"),
            (
                "SELECT 1 FROM u WHERE password = _utf8'pw' AND name = 'bob'",
                "SELECT 1 FROM u WHERE password = _utf8'***' AND name = 'bob'",
            ),
            (
                "SELECT 1 FROM u WHERE password IN ('a', 'b') AND name = 'bob'",
                "SELECT 1 FROM u WHERE password IN ('***', '***') AND name = 'bob'",
            ),
            ("PREPARE s FROM 'ALTER USER a IDENTIFIED BY ''pw'''", "PREPARE s FROM '***'"),
            ("SET PASSWORD = 'cut off", "SET PASSWORD = '***'"),
        ] {
            check(statement, shown);
        }
    }

    #[test]
    fn everything_else_stays() {
        for statement in [
            "SELECT 'it''s', \"a \\\" b\", `c` -- password = 'x'\n FROM t # identified by 'x'",
            "SELECT password, 'x' FROM users WHERE name = 'bob'",
            "SELECT password_hint FROM users WHERE name = 'bob'",
            "SELECT 'enter your password' AS hint, 'x'",
            "ALTER USER a PASSWORD EXPIRE COMMENT 'why'",
            "SELECT connection_id(), 'x'",
            "SELECT * FROM u WHERE password = other AND name = 'bob'",
        ] {
            check(statement, statement);
        }
    }

    #[test]
    fn a_backslash_means_what_the_server_takes_it_for() {
        let statement = br"SELECT '\'; SET PASSWORD='pw'";
        assert_eq!(masked(statement, true).0, r"SELECT '\'; SET PASSWORD='***'");
        // For a server that takes the backslash for an escape the first text ends later, and holds the word.
        assert_eq!(masked(statement, false).0, r"SELECT '***'pw'");
    }

    #[test]
    fn a_quarter_million_mutated_statements_come_to_an_end() {
        let seed =
            "SET PASSWORD FOR 'a'@`h` = PASSWORD(\"p\\\"w\"); /*!5 GRANT x TO y IDENTIFIED BY 'pw', z */ -- e\n#f";
        crate::mutate::each(seed.as_bytes(), 0x6d61_736b, |bytes| {
            let (shown, _) = masked(bytes, bytes.len() % 2 == 0);
            assert!(shown.len() <= 5 * bytes.len());
        });
    }
}
