//! The node's identity on disk: `agent.json` and `node.key` in the agent's data directory (T-31, T-73).

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::NodeId;
use munjigi_core::trust::TrustBundle;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Largest file that is read from the data directory, in bytes (T-87).
const MAX_FILE: u64 = 1024 * 1024;

/// What joining gave the node; the content of `agent.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Identity {
    /// The node's id, from its public key.
    pub(crate) node_id: NodeId,
    /// The name it joined under.
    pub(crate) name: String,
    /// `https://host:port`; fixed at join (T-30).
    pub(crate) server: String,
    /// Ed25519 public key of the deployment's root, base64.
    pub(crate) root_public_key: String,
    /// Trust bundle signed by that root, base64.
    pub(crate) trust_bundle: String,
    /// PEM of the roots that the server's certificate must lead to (T-29).
    pub(crate) ca: String,
    /// Region of the deployment.
    #[serde(default)]
    pub(crate) region: String,
    /// Account of the deployment.
    #[serde(default)]
    pub(crate) account: String,
    /// When it joined, RFC 3339.
    #[serde(default)]
    pub(crate) joined: String,
}

/// The agent's data directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Names the directory; nothing is touched.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes the directory with mode 0700 if it is not there, and checks that it is nobody else's.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let shown = self.0.display();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("failed to create the agent's data directory {shown}"))?;
        let meta = fs::metadata(&self.0).with_context(|| format!("failed to look at {shown}"))?;
        if meta.uid() != Uid::effective().as_raw() {
            bail!("{shown} belongs to another user; the agent's data directory must be its own");
        }
        if meta.mode() & 0o022 != 0 {
            bail!("{shown} is writable for others; run `chmod go-rwx {shown}`");
        }
        Ok(())
    }

    /// Returns the path of an entry.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads a private file whole: a regular file of ours, no symbolic link, not open to others (T-73, T-87).
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let path = self.path(name);
        let shown = path.display();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .with_context(|| format!("failed to open {shown}"))?;
        let meta = file.metadata().with_context(|| format!("failed to look at {shown}"))?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            bail!("{shown} is no regular file of at most 1 MiB");
        }
        if meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o077 != 0 {
            bail!("{shown} must belong to the agent's user and be closed to others; run `chmod 0600 {shown}`");
        }
        let mut content = Zeroizing::new(Vec::new());
        file.take(MAX_FILE).read_to_end(&mut content).with_context(|| format!("failed to read {shown}"))?;
        Ok(content)
    }

    /// Writes a private file so that it is there whole or as before: new file of mode 0600, synced, renamed.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (path, new) = (self.path(name), self.path(&format!(".{name}.new")));
        let result = (|| -> std::io::Result<()> {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(&new)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.0)?.sync_all()
        })();
        result.with_context(|| format!("failed to write {}", path.display()))
    }

    /// Removes a file; that it is not there is no error.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", self.path(name).display()))
            }
            _ => Ok(()),
        }
    }

    /// Reads the identity; says how to get one if there is none.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        if !self.path("agent.json").exists() {
            bail!(
                "this node has not joined a server: {} has no agent.json; run `munjigi agent join`",
                self.0.display()
            );
        }
        let content = self.read("agent.json")?;
        serde_json::from_slice(&content).with_context(|| format!("{} is damaged", self.path("agent.json").display()))
    }

    /// Stores the identity.
    pub(crate) fn store(&self, identity: &Identity) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(identity).context("failed to encode the identity")?;
        text.push(b'\n');
        self.write("agent.json", &text)
    }

    /// Reads the node's private key.
    pub(crate) fn node_key(&self) -> anyhow::Result<Ed25519KeyPair> {
        let content = self.read("node.key")?;
        Ed25519KeyPair::from_pkcs8(&content)
            .map_err(|_| anyhow::anyhow!("{} is no Ed25519 key in PKCS#8", self.path("node.key").display()))
    }
}

impl Identity {
    /// Returns the pinned root.
    pub(crate) fn root(&self) -> anyhow::Result<[u8; 32]> {
        let bytes = STANDARD.decode(&self.root_public_key).context("the root's public key is not base64")?;
        bytes.try_into().map_err(|_| anyhow::anyhow!("the root's public key has not 32 bytes"))
    }

    /// Verifies and returns the trust bundle.
    pub(crate) fn trust(&self) -> anyhow::Result<TrustBundle> {
        let bytes = STANDARD.decode(&self.trust_bundle).context("the trust bundle is not base64")?;
        TrustBundle::verify(&bytes, &self.root()?, 0).context("the stored trust bundle is not good")
    }

    /// Checks that the key is this node's.
    pub(crate) fn check_key(&self, key: &Ed25519KeyPair) -> anyhow::Result<()> {
        if NodeId::from_public_key(key.public_key().as_ref()) == self.node_id {
            Ok(())
        } else {
            bail!("node.key is not the key of {}; join again with `munjigi agent join --replace`", self.node_id)
        }
    }
}

/// Makes a new node key; returns it and its PKCS#8 form.
pub(crate) fn new_node_key() -> anyhow::Result<(Ed25519KeyPair, Zeroizing<Vec<u8>>)> {
    let seed = aws_lc_rs::signature::Ed25519KeyPair::generate().context("failed to make a key")?;
    let pkcs8 = Zeroizing::new(seed.to_pkcs8().context("failed to encode the key")?.as_ref().to_vec());
    Ok((seed, pkcs8))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> (tempfile::TempDir, DataDir) {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::new(&temporary.path().join("agent"));
        data.create().unwrap();
        (temporary, data)
    }

    #[test]
    fn a_key_survives_the_disk_and_is_private() {
        let (_temporary, data) = directory();
        let (key, pkcs8) = new_node_key().unwrap();
        data.write("node.key", &pkcs8).unwrap();
        assert_eq!(data.node_key().unwrap().public_key().as_ref(), key.public_key().as_ref());
        assert_eq!(fs::metadata(data.path("node.key")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_a_link_is_refused() {
        let (_temporary, data) = directory();
        data.write("node.key", &new_node_key().unwrap().1).unwrap();
        fs::set_permissions(data.path("node.key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(data.node_key().unwrap_err().to_string().contains("chmod 0600"));
        fs::set_permissions(data.path("node.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(data.path("node.key"), data.path("other")).unwrap();
        std::os::unix::fs::symlink(data.path("other"), data.path("node.key")).unwrap();
        assert!(data.node_key().is_err());
        data.write("agent.json", b"{\"nodeId\":1}").unwrap();
        assert!(data.identity().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let (temporary, data) = directory();
        fs::set_permissions(temporary.path().join("agent"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(data.create().unwrap_err().to_string().contains("writable"));
    }
}
