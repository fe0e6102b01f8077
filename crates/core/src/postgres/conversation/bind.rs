//! The values in a message that binds a portal, for recordings that keep them.

use super::super::names::Name;
use super::Violation;
use crate::recording::MAX_STATEMENT_PARAMETERS;

/// A message that binds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind<'a> {
    pub(super) portal: Name,
    pub(super) statement: Name,
    rest: &'a [u8],
}

/// Takes a string and the zero byte behind it off the front.
pub(super) fn string<'a>(body: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], Violation> {
    let end = body.iter().position(|byte| *byte == 0);
    let (text, rest) =
        end.and_then(|end| body.split_at_checked(end)).ok_or(Violation::Malformed { from: "client", what })?;
    *body = rest.get(1..).unwrap_or_default();
    Ok(text)
}

impl<'a> Bind<'a> {
    /// Reads the names; what is behind them may be cut off.
    pub(super) fn read(mut body: &'a [u8]) -> Result<Self, Violation> {
        let portal = Name::new(string(&mut body, "name of a portal")?);
        let statement = Name::new(string(&mut body, "name of a statement")?);
        Ok(Self { portal, statement, rest: body })
    }

    /// Returns the values that are there and within the limit of the recording. Those in binary form are shown in
    /// hexadecimal digits.
    pub(super) fn values(&self) -> Vec<Option<String>> {
        let mut rest = self.rest;
        let mut values = Vec::new();
        let Some(formats) = numbers(&mut rest) else { return values };
        let Some(count) = number(&mut rest) else { return values };
        let mut room = MAX_STATEMENT_PARAMETERS;
        for index in 0..usize::from(count) {
            let Some((length, behind)) = rest.split_first_chunk::<4>() else { break };
            rest = behind;
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                values.push(None);
                continue;
            };
            let Some((value, behind)) = rest.split_at_checked(length) else { break };
            rest = behind;
            let format = if formats.len() == 1 { formats.first() } else { formats.get(index) };
            let value = match format {
                Some(1) => format!("\\x{}", hex::encode(value)),
                _ => String::from_utf8_lossy(value).into_owned(),
            };
            let Some(left) = room.checked_sub(value.len()) else { break };
            room = left;
            values.push(Some(value));
        }
        values
    }
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (number, behind) = rest.split_first_chunk::<2>()?;
    *rest = behind;
    Some(u16::from_be_bytes(*number))
}

fn numbers(rest: &mut &[u8]) -> Option<Vec<u16>> {
    let count = usize::from(number(rest)?);
    // As many as there are bytes for: the count alone allocates nothing.
    (0..count).map(|_| number(rest)).collect()
}
