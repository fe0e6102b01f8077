//! Filters of ec2: a name and what the value may be, with `*` and `?` as in file names; all must hold.

use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;

/// Most filters of a call, and most values of a filter.
const MAX_FILTERS: usize = 50;
const MAX_VALUES: usize = 200;

/// A filter as it comes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Filter {
    /// What is looked at.
    pub name: String,
    /// What it may be.
    #[serde(rename = "Value", default)]
    pub values: Vec<String>,
}

impl Filter {
    /// Tells whether one of the values fits.
    pub(super) fn fits(&self, actual: &str) -> bool {
        self.values.iter().any(|value| fits(value.as_bytes(), actual.as_bytes()))
    }
}

/// Checks that all filters are known and within bounds.
pub(super) fn check(filters: &[Filter], known: impl Fn(&str) -> bool) -> Result<(), ApiError> {
    if filters.len() > MAX_FILTERS || filters.iter().any(|filter| filter.values.len() > MAX_VALUES) {
        let message = format!("The maximum number of filters is {MAX_FILTERS}, and of values {MAX_VALUES}.");
        return Err(ApiError::bad("FilterLimitExceeded", message));
    }
    match filters.iter().find(|filter| !known(&filter.name)) {
        None => Ok(()),
        Some(filter) => {
            let shown: String = filter.name.chars().take(64).flat_map(char::escape_default).collect();
            Err(ApiError::bad("InvalidParameterValue", format!("The filter '{shown}' is invalid")))
        }
    }
}

/// Matches `*` (any run) and `?` (any one byte); goes back only to the last star, so it takes at most the product of
/// both lengths.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || text.get(t) == Some(byte) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_match_as_file_names_do() {
        for (pattern, text, expected) in [
            ("web-1", "web-1", true),
            ("web-?", "web-1", true),
            ("web-*", "web-", true),
            ("*b*1", "web-b-11", true),
            ("*", "", true),
            ("?", "", false),
            ("web", "web-1", false),
            ("", "", true),
            ("a*b", "a*c", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
