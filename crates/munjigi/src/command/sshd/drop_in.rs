//! The one file that `munjigi sshd install` writes: `sshd_config.d/00-munjigi.conf`. Its first line says whose it is;
//! a file without that line is never touched.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Read first by sshd, which takes the first value of a keyword that it meets.
const FILE: &str = "sshd_config.d/00-munjigi.conf";
const PATTERN: &str = "sshd_config.d/*.conf";
const MARK: &str = "# Written by `munjigi sshd install`; `munjigi sshd remove` takes it away again.\n";
/// Largest file of ours.
const MAX_BYTES: u64 = 64 * 1024;

/// The drop-in file of one configuration directory.
pub(super) struct DropIn {
    path: PathBuf,
    pattern: PathBuf,
}

/// What the file says.
pub(super) struct Line<'a> {
    pub(super) program: &'a Path,
    pub(super) socket: &'a Path,
    pub(super) user: &'a str,
    /// sshd's command from before, as it stood in its settings.
    pub(super) other: Option<&'a str>,
    /// What else sshd is told, whole lines: whose certificates it believes, and how much it writes down.
    pub(super) further: &'a [String],
}

/// Returns the lines that have sshd believe the deployment's certificates. `log_level` is what sshd has now.
pub(super) fn certificate_lines(
    files: &munjigi_agent::SshFiles,
    host_certificate: bool,
    log_level: &str,
) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![
        format!("TrustedUserCAKeys {}", plain(&files.user_authorities)?),
        format!("RevokedKeys {}", plain(&files.revoked)?),
    ];
    if host_certificate {
        lines.push(format!("HostCertificate {}", plain(&files.host_certificate)?));
    }
    // Only then does sshd write down which certificate it refuses.
    if ["QUIET", "FATAL", "ERROR", "INFO"].contains(&log_level.to_ascii_uppercase().as_str()) {
        lines.push("LogLevel VERBOSE".to_owned());
    }
    Ok(lines)
}

impl Line<'_> {
    /// Returns the command as sshd is told it.
    pub(super) fn command(&self) -> anyhow::Result<String> {
        let (program, socket) = (plain(self.program)?, plain(self.socket)?);
        let own = format!("{program} authorized-keys --socket {socket} %u %t %k");
        Ok(match self.other {
            // sshd fills in its `%` words there too.
            Some(other) => format!("{own} -- {other}"),
            None => own,
        })
    }

    fn text(&self) -> anyhow::Result<String> {
        let mut text =
            format!("{MARK}AuthorizedKeysCommand {}\nAuthorizedKeysCommandUser {}\n", self.command()?, self.user);
        for line in self.further {
            text.push_str(line);
            text.push('\n');
        }
        Ok(text)
    }
}

/// sshd splits the line at blanks and reads `%`, quotes and `#`; a path that needs any of them is refused.
fn plain(path: &Path) -> anyhow::Result<&str> {
    let good = |text: &&str| {
        text.starts_with('/') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+-:@".contains(&b))
    };
    let text = path.to_str().filter(good);
    text.with_context(|| format!("{} cannot stand in sshd's settings: letters, digits and /._+- only", path.display()))
}

impl DropIn {
    pub(super) fn new(config: &Path) -> Self {
        Self { path: config.join(FILE), pattern: config.join(PATTERN) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what sshd's own settings have to include.
    pub(super) fn pattern(&self) -> &Path {
        &self.pattern
    }

    /// Removes our file and returns what was in it; `None` if there is none. Somebody else's is an error.
    pub(super) fn take_away(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let shown = self.path.display();
        let meta = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot look at {shown}"))?,
        };
        if !meta.is_file() || meta.len() > MAX_BYTES {
            bail!("{shown} is not our file; nothing was changed");
        }
        let content = fs::read(&self.path).with_context(|| format!("cannot read {shown}"))?;
        if !content.starts_with(MARK.as_bytes()) {
            bail!("{shown} is not our file, it does not begin with our line; nothing was changed");
        }
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {shown}"))?;
        Ok(Some(content))
    }

    /// Writes the file, which must not be there.
    pub(super) fn write(&self, line: &Line<'_>) -> anyhow::Result<()> {
        self.create(line.text()?.as_bytes())
    }

    /// Makes everything as it was: the file with this content, or none.
    pub(super) fn put_back(&self, content: Option<&[u8]>) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", self.path.display()));
            }
            _ => {}
        }
        content.map_or(Ok(()), |content| self.create(content))
    }

    fn create(&self, content: &[u8]) -> anyhow::Result<()> {
        let shown = self.path.display();
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            let directory = directory.display();
            bail!(
                "there is no directory {directory}: make it, and have sshd_config begin with `Include {directory}/*.conf`"
            );
        }
        let new = self.path.with_extension("conf.new");
        // Left by one that was interrupted; sshd does not read it.
        let _ = fs::remove_file(&new);
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&new)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().with_context(|| format!("cannot write {shown}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_and_goes_and_anothers_stays() {
        let directory = tempfile::tempdir().unwrap();
        let drop_in = DropIn::new(directory.path());
        let (program, socket) = (Path::new("/opt/munjigi"), Path::new("/run/munjigi/mi-1.sock"));
        let line = Line {
            program,
            socket,
            user: "nobody",
            other: Some("/usr/bin/sss_ssh_authorizedkeys %u"),
            further: &["LogLevel VERBOSE".to_owned()],
        };
        assert!(drop_in.write(&line).unwrap_err().to_string().contains("Include"));
        fs::create_dir(directory.path().join("sshd_config.d")).unwrap();
        assert!(drop_in.take_away().unwrap().is_none());
        drop_in.write(&line).unwrap();
        let content = drop_in.take_away().unwrap().unwrap();
        let text = String::from_utf8(content.clone()).unwrap();
        assert!(text.ends_with(
            "\nAuthorizedKeysCommand /opt/munjigi authorized-keys --socket /run/munjigi/mi-1.sock %u %t %k -- \
             /usr/bin/sss_ssh_authorizedkeys %u\nAuthorizedKeysCommandUser nobody\nLogLevel VERBOSE\n"
        ));
        drop_in.put_back(Some(&content)).unwrap();
        assert_eq!(fs::read(drop_in.path()).unwrap(), content);
        drop_in.put_back(None).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("sshd_config.d")).unwrap().count(), 0);
        fs::write(drop_in.path(), "PermitRootLogin no\n").unwrap();
        assert!(drop_in.take_away().unwrap_err().to_string().contains("not our file"));
        assert_eq!(fs::read(drop_in.path()).unwrap(), b"PermitRootLogin no\n");
    }

    #[test]
    fn a_path_that_sshd_would_read_otherwise_is_refused() {
        for bad in ["munjigi", "/a b", "/a%u", "/a\"b", "/a#b", "/a\nPermitRootLogin yes", "/가"] {
            assert!(plain(Path::new(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(plain(Path::new("/opt/m-1.0/munjigi")).unwrap(), "/opt/m-1.0/munjigi");
    }
}
