//! Foreign text in records (T-68): one JSON line whatever it holds, and bounded fields.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// Longest text in a field that comes from outside, such as a user agent; longer ones are cut and marked.
pub const MAX_FIELD_BYTES: usize = 4 * 1024;
/// Longest text inside request parameters and answers: a policy document must stay readable as a whole.
pub(super) const MAX_PARAMETER_BYTES: usize = 32 * 1024;

const CUT_MARK: &str = "...(truncated)";

/// Tells whether a character could forge a line, hide text or turn its direction: C0, DEL, C1, line and paragraph
/// separators, bidirectional controls, and invisible format characters at home in none of the languages served.
pub(super) const fn is_hostile(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
    )
}

/// Returns text that is safe in a log line or on a terminal: every hostile character and the backslash as `\u{hex}`,
/// at most `limit` bytes of the original with a mark where it was cut. Different texts within the limit stay different.
pub fn escape(text: &str, limit: usize) -> String {
    let kept = head(text, limit);
    let mut out = String::with_capacity(kept.len());
    for c in kept.chars() {
        if is_hostile(c) || c == '\\' {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    if kept.len() < text.len() {
        out.push_str(CUT_MARK);
    }
    out
}

/// Cuts a text to at most `limit` bytes, the mark included; tells whether it was longer.
pub(super) fn cut(text: &mut String, limit: usize) -> bool {
    if text.len() <= limit {
        return false;
    }
    let length = head(text, limit.saturating_sub(CUT_MARK.len())).len();
    text.truncate(length);
    text.push_str(CUT_MARK);
    true
}

/// Cuts every text inside a JSON value, names included; tells whether one was longer.
pub(super) fn cut_value(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::String(text) => cut(text, limit),
        Value::Array(items) => items.iter_mut().fold(false, |any, item| cut_value(item, limit) | any),
        Value::Object(members) => {
            let mut any = false;
            if members.keys().any(|name| name.len() > MAX_FIELD_BYTES) {
                any = true;
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(mut name, value)| {
                        cut(&mut name, MAX_FIELD_BYTES);
                        (name, value)
                    })
                    .collect();
            }
            members.values_mut().fold(any, |any, item| cut_value(item, limit) | any)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn head(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Writes a value as one line of JSON with every hostile character escaped; it reads back as the same value.
pub(super) fn to_line<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(1024);
    value.serialize(&mut Serializer::with_formatter(&mut out, OneLine))?;
    String::from_utf8(out).map_err(|_| serde::ser::Error::custom("the writer made no UTF-8"))
}

/// Compact JSON with hostile characters as `\uXXXX`.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_hostile(*c)) {
            writer.write_all(fragment.get(plain_from..at).unwrap_or_default().as_bytes())?;
            // All hostile characters are in the basic plane, so one escape is enough.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            plain_from = at + c.len_utf8();
        }
        writer.write_all(fragment.get(plain_from..).unwrap_or_default().as_bytes())
    }
}
