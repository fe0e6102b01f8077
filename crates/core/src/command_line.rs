//! Commands as one line of text: for people, for policies, and for shells, which read exactly the same words.

/// Writes words as a POSIX shell reads them back: joined by one blank, quoted where needed.
pub fn joined<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
    words.join(" ")
}

/// Writes one word so that a POSIX shell reads exactly it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_would_read_something_else() {
        for (words, line) in [
            (&["systemctl", "restart", "web@1.service"][..], "systemctl restart web@1.service"),
            (&["sh", "-c", "echo 'a' $HOME"], r"sh -c 'echo '\''a'\'' $HOME'"),
            (&["", "웹", "a;b", "~"], "'' '웹' 'a;b' '~'"),
            (&[], ""),
        ] {
            assert_eq!(joined(words), line);
        }
    }
}
