//! Whom the node's own sshd may believe: the authorities for people, what they revoked, and a certificate for the host
//! key, in files that sshd reads. Written by the privileged half alone, from a document that the server signed (T-20);
//! they stay as they are while the server is away.
//!
//! sshd is not told: it reads authorities and revocations at each login, and the host certificate when it starts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use munjigi_core::id::NodeId;
use munjigi_core::ssh::PublicKey;
use munjigi_core::ssh::node_trust::NodeSshTrust;
use munjigi_core::trust::TrustBundle;
use nix::unistd::Uid;

use crate::clock;
use crate::identity::DataDir;

/// Directory of the files in the data directory.
pub(crate) const DIRECTORY: &str = "ssh";
/// Public keys of the authorities for people: sshd's `TrustedUserCAKeys`.
pub(crate) const USER_AUTHORITIES: &str = "user_ca.pub";
/// What they revoked: sshd's `RevokedKeys`.
pub(crate) const REVOKED: &str = "revoked_keys";
/// Certificate for the host key: sshd's `HostCertificate`.
pub(crate) const HOST_CERTIFICATE: &str = "host-cert.pub";
/// The document as it came, by which the version is known after a restart.
const DOCUMENT: &str = "trust";
/// Largest public key file.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// The files.
pub(super) struct SshTrust {
    directory: PathBuf,
    version: u64,
}

impl SshTrust {
    /// Finds out which version is on the disk; whatever cannot be read is as none.
    pub(super) fn open(data: &DataDir, trust: &TrustBundle, node: &NodeId) -> Self {
        let directory = data.path(DIRECTORY);
        let held = read_small(&directory.join(DOCUMENT), munjigi_core::ssh::node_trust::MAX_BYTES as u64).ok();
        let document = held.and_then(|held| NodeSshTrust::verify(&held, trust, node, 0, clock::now()).ok());
        Self { directory, version: document.map_or(0, |document| document.version) }
    }

    /// Verifies a document and has the files say what it says.
    pub(super) fn take(&mut self, signed: &[u8], trust: &TrustBundle, node: &NodeId) -> anyhow::Result<()> {
        let document = NodeSshTrust::verify(signed, trust, node, self.version, clock::now())?;
        self.make_directory()?;
        let mut authorities = String::new();
        for line in &document.user_authorities {
            authorities.push_str(line);
            authorities.push('\n');
        }
        // What is revoked comes first: a new authority without its revocations would let too many in.
        self.write(REVOKED, &document.revoked)?;
        self.write(USER_AUTHORITIES, authorities.as_bytes())?;
        match &document.host_certificate {
            Some(line) => self.write(HOST_CERTIFICATE, format!("{line}\n").as_bytes())?,
            None => self.remove(HOST_CERTIFICATE)?,
        }
        self.write(DOCUMENT, signed)?;
        self.version = document.version;
        tracing::info!(version = document.version, "sshd's authorities and revocations were written");
        Ok(())
    }

    /// Makes the directory. Its files are public, but nobody else may change what is in it.
    fn make_directory(&self) -> anyhow::Result<()> {
        let shown = self.directory.display();
        match DirBuilder::new().mode(0o755).create(&self.directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("failed to make {shown}"));
            }
            _ => {}
        }
        let meta = fs::symlink_metadata(&self.directory).with_context(|| format!("failed to look at {shown}"))?;
        if !meta.is_dir() || meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o022 != 0 {
            bail!("{shown} must be a directory of the agent's own user that nobody else may write");
        }
        Ok(())
    }

    /// Replaces a file as a whole (T-73).
    fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (path, new) = (self.directory.join(name), self.directory.join(format!(".{name}.new")));
        let result = (|| -> std::io::Result<()> {
            // Left by a run that was interrupted.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o644).custom_flags(flags).open(&new)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        })();
        result.with_context(|| format!("failed to write {}", path.display()))
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", self.directory.join(name).display()))
            }
            _ => Ok(()),
        }
    }
}

/// Reads the public host key of the node's sshd as one plain line; empty if there is none that can be certified.
pub(super) fn host_key(path: &Path) -> String {
    let read = || -> anyhow::Result<String> {
        let text = String::from_utf8(read_small(path, MAX_KEY_FILE)?)?;
        Ok(PublicKey::parse(&text)?.line())
    };
    match read() {
        Ok(line) => line,
        Err(error) => {
            tracing::info!(path = %path.display(), error = format!("{error:#}"), "sshd's host key gets no certificate");
            String::new()
        }
    }
}

fn read_small(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    // Not blocking: a FIFO would be waited for otherwise.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > limit {
        bail!("it is no regular file of at most {limit} bytes");
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use munjigi_core::time::Timestamp;
    use munjigi_core::trust::{KeyId, KeyPurpose, TrustedKey};

    use super::*;

    fn key() -> (KeyId, Ed25519KeyPair, TrustBundle) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let id = KeyId::of(&public);
        let (not_before, not_after) = (Timestamp(0), Timestamp(i64::MAX));
        let trusted = TrustedKey { id, purpose: KeyPurpose::Grant, public, not_before, not_after };
        (id, pair, TrustBundle { version: 1, keys: vec![trusted] })
    }

    fn document(version: u64) -> NodeSshTrust {
        NodeSshTrust {
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            version,
            user_authorities: vec!["ssh-ed25519 AAAA".to_owned(), "ssh-ed25519 BBBB".to_owned()],
            revoked: b"list".to_vec(),
            host_certificate: Some("ssh-ed25519-cert-v01@openssh.com CCCC".to_owned()),
        }
    }

    #[test]
    fn files_say_what_was_signed_and_an_older_document_changes_nothing_even_after_a_restart() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::new(&temporary.path().join("agent"));
        data.create().unwrap();
        let (id, pair, trust) = key();
        let node = document(1).node;
        let read = |name: &str| fs::read_to_string(data.path(DIRECTORY).join(name)).ok();
        let mut files = SshTrust::open(&data, &trust, &node);
        files.take(&document(5).sign(id, &pair).unwrap(), &trust, &node).unwrap();
        assert_eq!(read(USER_AUTHORITIES).unwrap(), "ssh-ed25519 AAAA\nssh-ed25519 BBBB\n");
        assert_eq!(read(REVOKED).unwrap(), "list");
        assert_eq!(read(HOST_CERTIFICATE).unwrap(), "ssh-ed25519-cert-v01@openssh.com CCCC\n");
        let mode = fs::metadata(data.path(DIRECTORY).join(REVOKED)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o644);

        let older = NodeSshTrust { revoked: Vec::new(), ..document(4) };
        let mut restarted = SshTrust::open(&data, &trust, &node);
        assert!(restarted.take(&older.sign(id, &pair).unwrap(), &trust, &node).is_err());
        assert_eq!(read(REVOKED).unwrap(), "list");
        // A key that was certified and is gone has no certificate any more.
        let without = NodeSshTrust { host_certificate: None, ..document(6) };
        restarted.take(&without.sign(id, &pair).unwrap(), &trust, &node).unwrap();
        assert_eq!(read(HOST_CERTIFICATE), None);
    }

    #[test]
    fn nothing_is_written_through_a_link_or_into_somebody_elses_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::new(&temporary.path().join("agent"));
        data.create().unwrap();
        let (id, pair, trust) = key();
        let node = document(1).node;
        let elsewhere = temporary.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, data.path(DIRECTORY)).unwrap();
        let mut files = SshTrust::open(&data, &trust, &node);
        assert!(files.take(&document(1).sign(id, &pair).unwrap(), &trust, &node).is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(data.path(DIRECTORY)).unwrap();
        fs::create_dir(data.path(DIRECTORY)).unwrap();
        let outside = temporary.path().join("outside");
        fs::write(&outside, "untouched").unwrap();
        std::os::unix::fs::symlink(&outside, data.path(DIRECTORY).join(".revoked_keys.new")).unwrap();
        files.take(&document(1).sign(id, &pair).unwrap(), &trust, &node).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    }

    #[test]
    fn a_host_key_is_one_plain_line_or_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("key.pub");
        assert_eq!(host_key(&path), "");
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        fs::write(&path, format!("{line} root@host\n")).unwrap();
        assert_eq!(host_key(&path), line);
        fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert_eq!(host_key(&path), "");
    }
}
