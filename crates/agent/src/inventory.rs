//! What the node says of itself: host name, operating system, processor. Read from files, without starting anything.

use munjigi_core::wire::hello::Platform;

use crate::halves::cut;

/// Longest text of one fact, as the hello bounds it.
const MAX_FACT: usize = 64;

/// Returns the host's own name; empty when it has none that can be shown.
pub(crate) fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    plain(&name, 255)
}

/// Returns operating system and processor.
pub(crate) fn platform() -> Platform {
    let release = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let name = field(&release, "NAME").unwrap_or_else(|| "Linux".to_owned());
    let version = field(&release, "VERSION_ID").or_else(kernel).unwrap_or_default();
    Platform {
        os_name: plain(&name, MAX_FACT),
        os_version: plain(&version, MAX_FACT),
        arch: std::env::consts::ARCH.to_owned(),
    }
}

/// Returns the kernel's release.
fn kernel() -> Option<String> {
    nix::sys::utsname::uname().ok().map(|name| name.release().to_string_lossy().into_owned())
}

/// Reads a field of an os-release file: `KEY=value`, optionally quoted (os-release(5)).
fn field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim();
    let quoted = |mark: char| value.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value).to_owned())
}

fn plain(text: &str, limit: usize) -> String {
    let plain: String = text.chars().filter(|character| !character.is_control()).collect();
    cut(&plain, limit).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_fields_are_read_quoted_or_not() {
        let text = "PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=12\nID='debian'\n";
        assert_eq!(field(text, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(field(text, "MISSING"), None);
    }

    #[test]
    fn facts_fit_the_hello() {
        assert_eq!(plain("a\u{1b}[2Jb", 64), "a[2Jb");
        assert!(plain(&"가".repeat(100), 64).len() <= 64);
        assert!(!platform().arch.is_empty());
    }
}
