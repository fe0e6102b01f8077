//! Changes to the account files as text: every line that is not meant stays as it is, byte for byte.

/// Returns the text with a line at its end.
pub(super) fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

/// Returns the text without the lines of a name.
pub(super) fn without(text: &str, name: &str) -> String {
    text.split_inclusive('\n').filter(|line| first(line) != name).collect()
}

/// Returns the text with a field of a name's line changed; `None`: there is no such line or field.
pub(super) fn with_field(text: &str, name: &str, field: usize, change: impl Fn(&str) -> String) -> Option<String> {
    let mut changed = false;
    let lines = text.split_inclusive('\n').map(|line| {
        if first(line) != name {
            return line.to_owned();
        }
        let (body, end) = match line.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (line, ""),
        };
        let mut fields: Vec<String> = body.split(':').map(str::to_owned).collect();
        if let Some(value) = fields.get_mut(field) {
            *value = change(value);
            changed = true;
        }
        fields.join(":") + end
    });
    let text: String = lines.collect();
    changed.then_some(text)
}

/// Returns a list of members with one more, or the same if it is in it.
pub(super) fn with_member(list: &str, name: &str) -> String {
    let mut members: Vec<&str> = list.split(',').filter(|member| !member.is_empty()).collect();
    if !members.contains(&name) {
        members.push(name);
    }
    members.join(",")
}

/// Returns a list of members without one.
pub(super) fn without_member(list: &str, name: &str) -> String {
    list.split(',').filter(|member| !member.is_empty() && *member != name).collect::<Vec<_>>().join(",")
}

/// Tells whether there is a line of a name.
pub(super) fn has(text: &str, name: &str) -> bool {
    text.lines().any(|line| first(line) == name)
}

fn first(line: &str) -> &str {
    line.split([':', '\n']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# odd\n+::::::\nkim:x:60000:60000:김:/home/kim:/bin/sh";

    #[test]
    fn only_the_line_that_is_meant_changes() {
        let shell = |_: &str| "/bin/bash".to_owned();
        let changed = with_field(PASSWD, "kim", 6, shell).unwrap();
        assert_eq!(changed, PASSWD.replace("/bin/sh", "/bin/bash"));
        assert_eq!(with_field(PASSWD, "lee", 6, shell), None);
        assert_eq!(with_field(PASSWD, "kim", 7, shell), None);
        assert_eq!(with_field(PASSWD, "ki", 6, shell), None);
        let more = with_line(PASSWD, "lee:x:60001:60001::/home/lee:/bin/sh");
        assert!(more.starts_with(PASSWD) && more.ends_with("/home/lee:/bin/sh\n"));
        assert_eq!(without(&more, "lee"), format!("{PASSWD}\n"));
        assert_eq!(without(PASSWD, "oot"), PASSWD);
        assert!(has(PASSWD, "kim") && !has(PASSWD, "x") && !has("", "kim"));
        assert_eq!(with_line("", "a:b"), "a:b\n");
    }

    #[test]
    fn members_come_and_go_once() {
        assert_eq!(with_member("", "kim"), "kim");
        assert_eq!(with_member("lee,kim", "kim"), "lee,kim");
        assert_eq!(with_member("lee", "kim"), "lee,kim");
        assert_eq!(without_member("lee,kim,park", "kim"), "lee,park");
        assert_eq!(without_member("kim", "kim"), "");
        assert_eq!(without_member("kimberly", "kim"), "kimberly");
    }
}
