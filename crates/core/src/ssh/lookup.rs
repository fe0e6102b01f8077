//! The question that sshd's helper asks the agent over its Unix socket, and the answer: one line there, a few lines
//! back, ASCII only.
//!
//! Question: `munjigi-keys 1 USER TYPE BASE64` (type and key as sshd offers them, or `- -` when it did not say) and a
//! line feed. Answer: for each key that is good now a line `key [OPTIONS] TYPE BASE64`, then the line `end`; or the lines
//! `local` and `end` for an account that is none of the agent's business. An answer without `end` was cut off and is worth nothing.
//! The line `wait` before all others says that the agent has to ask somebody else, which takes a few seconds at most.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key_options::KeyLine;
use crate::grant::valid_os_user;

/// Longest question in bytes; a certificate offered by sshd can be long, other keys are far shorter.
pub const MAX_QUESTION: usize = 16 * 1024;
/// Most keys in an answer.
pub const MAX_KEYS: usize = 64;
/// Longest answer in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
const VERSION: &str = "munjigi-keys 1";
const LAST: &str = "end";
const LOCAL: &str = "local";
/// The answer for an account of which the node's owner says that nobody is asked about it.
pub const LOCAL_ANSWER: &str = "local\nend\n";
/// The line before an answer that takes longer.
pub const WAIT: &str = "wait";
const NOTHING: &str = "-";

/// What sshd wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The account that somebody wants to log in as.
    pub os_user: String,
    /// Type and bytes of the key that was offered; `None` if sshd did not say.
    pub offered: Option<(String, Vec<u8>)>,
}

impl Question {
    /// Writes the question.
    pub fn encode(&self) -> String {
        let (kind, key) = match &self.offered {
            Some((kind, blob)) => (kind.as_str(), STANDARD.encode(blob)),
            None => (NOTHING, NOTHING.to_owned()),
        };
        format!("{VERSION} {} {kind} {key}\n", self.os_user)
    }

    /// Reads a question without its line feed; `None` if it is none.
    pub fn decode(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok().filter(|line| line.len() < MAX_QUESTION && line.is_ascii())?;
        let mut words = line.strip_prefix(VERSION)?.strip_prefix(' ')?.split(' ');
        let (os_user, kind, key) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !valid_os_user(os_user) {
            return None;
        }
        let offered = match (kind, key) {
            (NOTHING, NOTHING) => None,
            (kind, key) if kind != NOTHING && valid_kind(kind) => Some((kind.to_owned(), STANDARD.decode(key).ok()?)),
            _ => return None,
        };
        Some(Self { os_user: os_user.to_owned(), offered })
    }
}

/// Tells whether a text may be the name of a key type (RFC 4251, section 6: printable, no comma, at most 64).
pub fn valid_kind(kind: &str) -> bool {
    (1..=64).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// Writes an answer; what has no room in it is left out.
pub fn encode_answer<'k>(keys: impl IntoIterator<Item = &'k KeyLine>) -> String {
    let mut answer = String::new();
    for key in keys.into_iter().take(MAX_KEYS) {
        let line = format!("key {}\n", key.line());
        if answer.len() + line.len() + LAST.len() < MAX_ANSWER {
            answer.push_str(&line);
        }
    }
    answer.push_str(LAST);
    answer.push('\n');
    answer
}

/// What an agent answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The keys that are good.
    Keys(Vec<KeyLine>),
    /// Nobody is to be asked about this account.
    Local,
}

/// Tells whether the beginning of an answer says that the rest takes longer.
pub fn takes_longer(beginning: &[u8]) -> bool {
    beginning.strip_prefix(WAIT.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'\n'))
}

/// Reads an answer; `None` if it is not whole or holds anything but keys.
pub fn decode_answer(answer: &[u8]) -> Option<Answer> {
    let answer = std::str::from_utf8(answer).ok().filter(|answer| answer.len() <= MAX_ANSWER)?;
    let mut lines = answer.strip_suffix('\n')?.split('\n').peekable();
    lines.next_if_eq(&WAIT);
    let (mut keys, mut local) = (Vec::new(), false);
    loop {
        match lines.next()? {
            LAST => break,
            LOCAL if keys.is_empty() && !local => local = true,
            _ if keys.len() >= MAX_KEYS || local => return None,
            line => keys.push(KeyLine::parse(line.strip_prefix("key ")?).ok()?),
        }
    }
    let answer = if local { Answer::Local } else { Answer::Keys(keys) };
    lines.next().is_none().then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::super::PublicKey;
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn key() -> PublicKey {
        PublicKey::parse(KEY).unwrap()
    }

    fn bound() -> KeyLine {
        KeyLine::parse(&format!(r#"restrict,command="echo \"x y\"" {KEY}"#)).unwrap()
    }

    #[test]
    fn questions_and_answers_come_back_as_they_went() {
        let offered = Some(("ssh-ed25519".to_owned(), key().blob().to_vec()));
        for offered in [offered, None] {
            let question = Question { os_user: "alice".into(), offered };
            let text = question.encode();
            assert_eq!(Question::decode(text.strip_suffix('\n').unwrap().as_bytes()), Some(question));
        }
        for keys in [vec![], vec![key().into()], vec![bound(), key().into()]] {
            assert_eq!(decode_answer(encode_answer(&keys).as_bytes()), Some(Answer::Keys(keys)));
        }
        assert_eq!(encode_answer(&[key().into()]), format!("key {KEY}\nend\n"));
        let late = format!("wait\n{}", encode_answer(&[key().into()]));
        assert_eq!(decode_answer(late.as_bytes()), Some(Answer::Keys(vec![key().into()])));
        assert!(takes_longer(late.as_bytes()) && takes_longer(b"wait\n"));
        assert!(!takes_longer(b"wait") && !takes_longer(b"end\n") && !takes_longer(b""));
    }

    #[test]
    fn what_is_not_exactly_a_question_or_an_answer_is_none() {
        for bad in [
            "",
            "munjigi-keys 1",
            "munjigi-keys 2 alice - -",
            "munjigi-keys 1 alice -",
            "munjigi-keys 1 alice - - x",
            "munjigi-keys 1 ../x - -",
            "munjigi-keys 1 alice - AAAA",
            "munjigi-keys 1 alice ssh-rsa -",
            "munjigi-keys 1 alice a,b AAAA",
            "munjigi-keys 1  alice - -",
            "munjigi-keys 1 앨리스 - -",
        ] {
            assert_eq!(Question::decode(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Question::decode(&[b'a'; MAX_QUESTION]), None);
        let with_options = format!("key environment=\"A=b\" {KEY}\nend\n");
        for bad in [
            "",
            "end",
            "wait\n",
            "wait\nwait\nend\n",
            "key x\nend\n",
            "end\nend\n",
            "\nend\n",
            &format!("key {KEY}\n"),
            &with_options,
        ] {
            assert_eq!(decode_answer(bad.as_bytes()), None, "{bad:?}");
        }
        let many = format!("key {KEY}\n").repeat(MAX_KEYS + 1) + "end\n";
        assert_eq!(decode_answer(many.as_bytes()), None);
    }

    #[test]
    fn no_bytes_make_them_panic() {
        let question = format!("munjigi-keys 1 alice {KEY}");
        crate::mutate::each(question.as_bytes(), 0x6c6f_6f6b, |bytes| drop(Question::decode(bytes)));
        let answer = format!("key {KEY}\nend\n");
        crate::mutate::each(answer.as_bytes(), 0x616e_7377, |bytes| {
            let bounded = |answer| !matches!(answer, Answer::Keys(keys) if keys.len() > MAX_KEYS);
            assert!(decode_answer(bytes).is_none_or(bounded));
        });
    }
}
