//! The texts of SSM, parsed once where they enter (botocore's SSM model).

use crate::api::text::checked_text;

checked_text! {
    /// What an activation is for.
    Description: |text| text.chars().count() <= 256 && printable(text),
        "a description has at most 256 characters and no control characters";
    /// The name of a node; empty where the model allows it.
    InstanceName: |text| text.is_empty() || node_name(text),
        "a node's name has at most 128 letters, digits, blanks or _.:/=+-@, begins and ends with a letter or digit and \
         does not look like a node id";
    /// The name of a role.
    IamRole: |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/:".contains(&b)),
        "a role has 1 to 64 letters, digits or _+=,.@-/:";
    /// What a node says of itself.
    Fact: |text| text.len() <= 255 && printable(text), "a fact about a node has at most 255 bytes and no control characters";
}

/// Tells whether a node may have this name. Names are typed by people and stand beside ids and tags, so none may read
/// as one of those.
pub(crate) fn node_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.chars().count() <= 128
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c))
        && !text.starts_with("mi-")
        && !text.starts_with("tag:")
}

fn printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_what_people_can_type_and_nothing_else_can_be() {
        for good in ["web-1", "웹 서버", "a", "db.example.com", "A/b:c=d+e@f_g9"] {
            assert!(node_name(good), "{good:?}");
        }
        let long = "x".repeat(129);
        for bad in ["", "-a", "a ", "mi-0123456789abcdef0", "tag:a=b", "a\nb", "a\u{202e}b", "a*b", "a\u{0}", &long] {
            assert!(!node_name(bad), "{bad:?}");
        }
    }
}
