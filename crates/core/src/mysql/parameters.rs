//! Values bound to a prepared statement, read from the command that executes it. Only where a target's settings ask for
//! them.

use super::field::Fields;

/// Most parameters of a statement that are read; recordings keep no more.
const MAX_PARAMETERS: u16 = 1024;
/// Stands for a value that went ahead of the command, in pieces.
const SENT_AHEAD: &str = "(sent ahead)";

/// Type of a parameter as the protocol numbers them, and whether it is unsigned.
pub(super) type Type = (u8, bool);

/// What is known of a statement's parameters.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters {
    /// How many the server found.
    pub(super) count: u16,
    /// Their types as the client said last; it may leave them away afterwards.
    types: Vec<Type>,
    /// Which of them were sent ahead.
    ahead: Vec<u16>,
}

impl Parameters {
    pub(super) fn of(count: u16) -> Self {
        Self { count, ..Self::default() }
    }

    pub(super) fn memory(&self) -> usize {
        self.types.len() * size_of::<Type>() + self.ahead.len() * size_of::<u16>()
    }

    /// Notes that a value was sent ahead; `payload` is behind the statement's number.
    pub(super) fn sent_ahead(&mut self, payload: &[u8]) {
        let number = Fields::new(payload).u16();
        if let Some(number) = number.filter(|number| *number < self.count.min(MAX_PARAMETERS))
            && !self.ahead.contains(&number)
        {
            self.ahead.push(number);
        }
    }

    /// Forgets what was sent ahead.
    pub(super) fn reset(&mut self) {
        self.ahead.clear();
    }

    /// Reads the values of an execution; `payload` is behind the statement's number and may be cut off, then the last
    /// values are missing. `None` where nothing can be read.
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<Vec<Option<String>>> {
        let ahead = std::mem::take(&mut self.ahead);
        if self.count == 0 || self.count > MAX_PARAMETERS {
            return None;
        }
        let mut fields = Fields::new(payload);
        // Flags of the cursor, and how often.
        fields.bytes(5)?;
        let nulls = fields.bytes(usize::from(self.count).div_ceil(8))?;
        if fields.u8()? == 1 {
            let types = fields.bytes(2 * usize::from(self.count))?;
            let pair = |pair: &[u8]| Some((*pair.first()?, *pair.get(1)? & 0x80 != 0));
            self.types = types.chunks(2).filter_map(pair).collect();
        }
        let mut values = Vec::new();
        for (number, kind) in (0..self.count).zip(&self.types) {
            let is_null = nulls.get(usize::from(number / 8)).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
            values.push(match is_null {
                true => None,
                false if ahead.contains(&number) => Some(SENT_AHEAD.to_owned()),
                false => match value(&mut fields, *kind) {
                    Some(value) => value,
                    None => break,
                },
            });
        }
        Some(values)
    }
}

/// Reads a value as text; the inner `None` is NULL.
fn value(fields: &mut Fields<'_>, (kind, is_unsigned): Type) -> Option<Option<String>> {
    let integer = |value: i64, unsigned: u64| if is_unsigned { unsigned.to_string() } else { value.to_string() };
    Some(Some(match kind {
        6 => return Some(None),
        1 => fields.u8().map(|raw| integer(i64::from(raw.cast_signed()), u64::from(raw)))?,
        2 | 13 => fields.u16().map(|raw| integer(i64::from(raw.cast_signed()), u64::from(raw)))?,
        3 | 9 => fields.u32().map(|raw| integer(i64::from(raw.cast_signed()), u64::from(raw)))?,
        8 => {
            let raw = u64::from_le_bytes(fields.bytes(8)?.try_into().ok()?);
            integer(raw.cast_signed(), raw)
        }
        4 => f32::from_le_bytes(fields.bytes(4)?.try_into().ok()?).to_string(),
        5 => f64::from_le_bytes(fields.bytes(8)?.try_into().ok()?).to_string(),
        7 | 10 | 12 => moment(fields)?,
        11 => span(fields)?,
        _ => {
            let bytes = fields.length_encoded_bytes()?;
            std::str::from_utf8(bytes).map_or_else(|_| format!("x'{}'", hex::encode(bytes)), str::to_owned)
        }
    }))
}

/// A date, with or without a time.
fn moment(fields: &mut Fields<'_>) -> Option<String> {
    let length = fields.u8()?;
    let mut parts = Fields::new(fields.bytes(usize::from(length))?);
    if length == 0 {
        return Some("0000-00-00".to_owned());
    }
    let date = format!("{:04}-{:02}-{:02}", parts.u16()?, parts.u8()?, parts.u8()?);
    Some(if length < 7 { date } else { format!("{date} {}", clock(&mut parts)?) })
}

/// A time, which may be long and negative.
fn span(fields: &mut Fields<'_>) -> Option<String> {
    let length = fields.u8()?;
    let mut parts = Fields::new(fields.bytes(usize::from(length))?);
    if length == 0 {
        return Some("00:00:00".to_owned());
    }
    let sign = if parts.u8()? == 1 { "-" } else { "" };
    let days = parts.u32()?;
    let days = if days == 0 { String::new() } else { format!("{days} ") };
    Some(format!("{sign}{days}{}", clock(&mut parts)?))
}

fn clock(parts: &mut Fields<'_>) -> Option<String> {
    let clock = format!("{:02}:{:02}:{:02}", parts.u8()?, parts.u8()?, parts.u8()?);
    Some(parts.u32().map_or(clock.clone(), |micros| format!("{clock}.{micros:06}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An execution of values with their types, behind the statement's number.
    fn execution(nulls: &[u8], types: Option<&[(u8, u8)]>, values: &[u8]) -> Vec<u8> {
        let types = types.map(|types| types.iter().flat_map(|(kind, flags)| [*kind, *flags]).collect::<Vec<_>>());
        let said = types.map_or(vec![0], |types| [vec![1], types].concat());
        [&[0, 1, 0, 0, 0], nulls, &said, values].concat()
    }

    fn read(parameters: &mut Parameters, execution: &[u8]) -> Vec<String> {
        let values = parameters.read(execution).unwrap();
        values.into_iter().map(|value| value.unwrap_or_else(|| "NULL".to_owned())).collect()
    }

    #[test]
    fn values_of_every_type_are_read() {
        let cases: [((u8, u8), &[u8], &str); 17] = [
            ((1, 0), &[0xff], "-1"),
            ((1, 0x80), &[0xff], "255"),
            ((2, 0), &[0xfe, 0xff], "-2"),
            ((3, 0), &[3, 0, 0, 0x80], "-2147483645"),
            ((8, 0x80), &[0xff; 8], "18446744073709551615"),
            ((4, 0), &[0, 0, 0xc0, 0x3f], "1.5"),
            ((5, 0), &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], "1.5"),
            ((6, 0), &[], "NULL"),
            ((253, 0), b"\x06\xeb\xac\xb8\xec\xa7\x80", "문지"),
            ((252, 0), &[2, 0xff, 0], "x'ff00'"),
            ((10, 0), &[4, 0xea, 7, 11, 22], "2026-11-22"),
            ((12, 0), &[7, 0xea, 7, 11, 22, 6, 7, 8], "2026-11-22 06:07:08"),
            ((7, 0), &[11, 0xea, 7, 11, 22, 6, 7, 8, 9, 0, 0, 0], "2026-11-22 06:07:08.000009"),
            ((12, 0), &[0], "0000-00-00"),
            ((11, 0), &[8, 1, 2, 0, 0, 0, 3, 4, 5], "-2 03:04:05"),
            ((11, 0), &[12, 0, 0, 0, 0, 0, 3, 4, 5, 9, 0, 0, 0], "03:04:05.000009"),
            ((246, 0), b"\x0512.50", "12.50"),
        ];
        for (kind, bytes, shown) in cases {
            let mut one = Parameters::of(1);
            assert_eq!(read(&mut one, &execution(&[0], Some(&[kind]), bytes)), [shown]);
        }
        let types: Vec<_> = cases.iter().map(|(kind, ..)| *kind).collect();
        let values: Vec<u8> = cases.iter().flat_map(|(_, bytes, _)| bytes.to_vec()).collect();
        let mut all = Parameters::of(17);
        let whole = execution(&[0; 3], Some(&types), &values);
        let shown: Vec<_> = cases.iter().map(|(.., shown)| *shown).collect();
        assert_eq!(read(&mut all, &whole), shown);
        // Types are said once; what is cut off at the end is missing.
        assert_eq!(read(&mut all, &execution(&[0; 3], None, &values)), shown);
        assert_eq!(read(&mut all, &whole[..whole.len() - 1]), shown[..16]);
    }

    #[test]
    fn what_is_null_or_sent_ahead_has_no_bytes() {
        let mut three = Parameters::of(3);
        three.sent_ahead(&[2, 0, b'x']);
        three.sent_ahead(&[9, 0, b'x']);
        let types = [(1, 0), (1, 0), (252, 0)];
        let bytes = execution(&[0b010], Some(&types), &[7]);
        assert_eq!(read(&mut three, &bytes), ["7", "NULL", SENT_AHEAD]);
        assert_eq!(Parameters::default().read(&bytes), None);
        assert_eq!(Parameters::of(2000).read(&bytes), None);
    }

    #[test]
    fn a_quarter_million_mutated_executions_stay_bounded() {
        let types = [(3, 0), (253, 0), (12, 0), (11, 0x80)];
        let values = [1, 0, 0, 0, 2, b'a', b'b', 4, 0xea, 7, 11, 22, 8, 1, 2, 0, 0, 0, 3, 4, 5];
        let seed = execution(&[0], Some(&types), &values);
        crate::mutate::each(&seed, 0x7061_7261, |bytes| {
            let mut four = Parameters::of(4);
            assert!(four.read(bytes).is_none_or(|values| values.len() <= 4));
            assert!(four.memory() <= 16);
        });
    }
}
