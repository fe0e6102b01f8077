//! How large policies may be, and how IAM counts.
//!
//! [`characters`] leaves out white space outside strings; the limits that count otherwise say so.

/// Limit of one managed policy, in [`characters`].
pub const MANAGED_POLICY: usize = 6_144;
/// Limit of all inline policies of a user together, in [`characters`].
pub const USER_INLINE_TOTAL: usize = 2_048;
/// Limit of all inline policies of a group together, in [`characters`].
pub const GROUP_INLINE_TOTAL: usize = 5_120;
/// Limit of all inline policies of a role together, in [`characters`].
pub const ROLE_INLINE_TOTAL: usize = 10_240;
/// Limit of a role's trust policy, in [`characters`].
pub const TRUST_POLICY: usize = 2_048;
/// Limit of a trust policy under the raised quota, in [`characters`].
pub const TRUST_POLICY_RAISED: usize = 4_096;
/// Limit of the session policy passed with a request and its list of policy ARNs together, in characters
/// **including** white space.
pub const SESSION_POLICY_TEXT: usize = 2_048;
/// How many managed policies may be passed as session policies.
pub const SESSION_POLICY_ARNS: usize = 10;
/// Limit of one organization policy, in **bytes**.
pub const ORGANIZATION_POLICY_BYTES: usize = 5_120;
/// Limit of a document for simulation, in characters including white space. No document is parsed beyond it.
pub const SIMULATED_DOCUMENT: usize = 131_072;

/// Counts characters as IAM's quotas do: white space outside strings is free.
///
/// The text need not be valid JSON; the count then simply follows the quotes.
pub fn characters(text: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for c in text.chars() {
        if in_string || !matches!(c, ' ' | '\t' | '\n' | '\r') {
            count += 1;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_counts_only_inside_strings() {
        for (text, expected) in [
            ("", 0),
            (" \t\r\n", 0),
            ("{ \"a b\" : 1 }", 9),
            ("\"a \\\" b\"  \"c\"", 11),
            ("\"한 글\"", 5),
            ("\"open ", 6),
        ] {
            assert_eq!(characters(text), expected, "{text:?}");
        }
    }
}
