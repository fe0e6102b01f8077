//! Words of a command line without a shell: quotes and backslashes as POSIX has them, and nothing else of a shell.

/// Splits a text into words; `None` if a quote is not closed or a backslash ends the text.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_posix_quotes_them_and_nothing_is_expanded() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            ("echo 'a b' \"c d\"", &["echo", "a b", "c d"]),
            (r#"a\ b "c\"d\e" '\'"#, &["a b", "c\"d\\e", "\\"]),
            ("a''b \"\"", &["ab", ""]),
            ("echo $HOME; id `id` $(id) > x", &["echo", "$HOME;", "id", "`id`", "$(id)", ">", "x"]),
            ("ls # not a comment", &["ls", "#", "not", "a", "comment"]),
            ("한 글", &["한", "글"]),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        for bad in ["'a", "\"a", "a\\", "\"\\"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
