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
    /// The name of a session document.
    DocumentName: document_name, "a document's name has 3 to 128 letters, digits or _-.";
    /// A session document by name or ARN.
    DocumentText: document_text, "a document is named by 3 to 128 letters, digits or _-. or by its ARN";
    /// The name of a document's version.
    VersionName: |text| (1..=128).contains(&text.len()) && text.bytes().all(plain),
        "a version's name has 1 to 128 letters, digits or _-.";
    /// A document's name for people.
    DisplayName: |text| text.len() <= 1024 && text.bytes().all(|b| plain(b) || b":/ ".contains(&b)),
        "a display name has at most 1024 letters, digits, blanks or _-.:/";
    /// The kind of resource that a document is for.
    TargetType: |text| text.len() <= 200 && text.starts_with('/') && text.bytes().all(|b| plain(b) || b":/".contains(&b)),
        "a target type begins with / and has at most 200 letters, digits or _-.:/";
    /// An account that a document is shared with.
    ShareAccount: |text| text.eq_ignore_ascii_case("all") || (text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())),
        "an account is twelve digits, or All";
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

fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_-.".contains(&b)
}

fn document_name(text: &str) -> bool {
    (3..=128).contains(&text.len()) && text.bytes().all(plain)
}

/// As in the model of AWS, whose length holds for names; an ARN is longer.
pub(crate) fn document_text(text: &str) -> bool {
    match text.strip_prefix("arn:") {
        None => document_name(text),
        Some(rest) => rest.len() <= 256 && rest.bytes().all(|b| plain(b) || b":/".contains(&b)),
    }
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
