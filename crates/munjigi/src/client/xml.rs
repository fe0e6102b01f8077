//! The answers of the query services (IAM, STS): just enough XML to read them, with bounds, without entities of its own.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting read; answers have at most eight levels.
const MAX_DEPTH: usize = 32;

/// An element: its name, its text and the elements in it. Attributes and namespaces are dropped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// Why bytes are no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XmlError {
    /// No XML, or cut off.
    #[error("the answer is not well-formed XML")]
    Malformed,
    /// Nested deeper than any answer.
    #[error("the answer is nested deeper than {MAX_DEPTH} elements")]
    TooDeep,
}

impl Element {
    /// Reads the one element that a document is.
    pub(crate) fn parse(text: &str) -> Result<Self, XmlError> {
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        loop {
            let event = reader.read_event().map_err(|_| XmlError::Malformed)?;
            match event {
                Event::Start(tag) => {
                    if open.len() > MAX_DEPTH {
                        return Err(XmlError::TooDeep);
                    }
                    let name = String::from_utf8_lossy(tag.local_name().as_ref()).into_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::Empty(tag) => {
                    let name = String::from_utf8_lossy(tag.local_name().as_ref()).into_owned();
                    let parent = open.last_mut().ok_or(XmlError::Malformed)?;
                    parent.children.push(Self { name, ..Self::default() });
                }
                Event::End(_) => {
                    let done = open.pop().ok_or(XmlError::Malformed)?;
                    open.last_mut().ok_or(XmlError::Malformed)?.children.push(done);
                }
                Event::Text(part) => {
                    let part = part.decode().map_err(|_| XmlError::Malformed)?;
                    open.last_mut().ok_or(XmlError::Malformed)?.text.push_str(&part);
                }
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref().map_err(|_| XmlError::Malformed)? {
                        Some(character) => character,
                        None => named(&reference.decode().map_err(|_| XmlError::Malformed)?)?,
                    };
                    open.last_mut().ok_or(XmlError::Malformed)?.text.push(character);
                }
                Event::CData(_) | Event::DocType(_) => return Err(XmlError::Malformed),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        let (Some(mut root), true) = (open.pop(), open.is_empty()) else { return Err(XmlError::Malformed) };
        root.children.pop().ok_or(XmlError::Malformed)
    }

    /// Returns the first element on the path of names below this one.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |element, name| element.children.iter().find(|child| child.name == *name))
    }

    /// Returns the text at the end of the path.
    pub(crate) fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str())
    }

    /// Returns the `member` elements of the list at the end of the path.
    pub(crate) fn members(&self, path: &[&str]) -> impl Iterator<Item = &Self> {
        self.at(path).into_iter().flat_map(|list| list.children.iter().filter(|child| child.name == "member"))
    }

    /// Returns the element's own text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn named(name: &str) -> Result<char, XmlError> {
    match name {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(XmlError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "<?xml version=\"1.0\"?>\n<ListUsersResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
        <ListUsersResult><Users><member><UserName>a&amp;b</UserName></member><member><UserName>&#xC6F9;</UserName></member>\
        </Users><IsTruncated>false</IsTruncated></ListUsersResult><Empty/></ListUsersResponse>";

    #[test]
    fn answers_are_read_by_path() {
        let root = Element::parse(ANSWER).unwrap();
        let names: Vec<_> =
            root.members(&["ListUsersResult", "Users"]).map(|user| user.text_at(&["UserName"]).unwrap()).collect();
        assert_eq!(names, ["a&b", "웹"]);
        assert_eq!(root.text_at(&["ListUsersResult", "IsTruncated"]), Some("false"));
        assert_eq!(root.text_at(&["Empty"]), Some(""));
        assert_eq!(root.text_at(&["Nothing"]), None);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in ["", "text", "<a>", "</a>", "<a>&unknown;</a>", "<!DOCTYPE a><a/>"] {
            assert!(Element::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(Element::parse(&"<a>".repeat(100)), Err(XmlError::TooDeep)));
    }

    #[test]
    fn a_quarter_million_mutated_answers_do_not_panic() {
        let mut state = 5_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..1 << 18 {
            let mut bytes = ANSWER.as_bytes()[..(next() % 160) as usize].to_vec();
            for _ in 0..next() % 4 {
                if !bytes.is_empty() {
                    let at = (next() % bytes.len() as u64) as usize;
                    bytes[at] = b"<>/&;#!-[]\"= a"[(next() % 14) as usize];
                }
            }
            let _ = Element::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
