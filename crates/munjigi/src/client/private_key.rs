//! A private key in a file of ssh-keygen's, with its passphrase taken off. What may be done with it others decide.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use munjigi_core::secret::Secret;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;

use super::terminal;

/// Longest file that is read, in bytes; an RSA key of 16384 bits has 12 KiB.
const MAX_FILE: u64 = 64 * 1024;
/// How often a passphrase is asked for.
const TRIES: usize = 3;

/// Reads the file, asks for the passphrase if the key has one, and returns the key without it in OpenSSH's form.
pub(crate) fn read(path: &Path) -> anyhow::Result<Secret<String>> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).with_context(|| format!("cannot read {shown}"))?;
    let text = Secret::new(text);
    if text.expose().len() as u64 > MAX_FILE {
        bail!("{shown} is larger than a private key");
    }
    let key = PrivateKey::from_openssh(text.expose().as_slice());
    let Ok(mut key) = key else {
        bail!(
            "{shown} holds no private key in OpenSSH's own form; give the private half, and have \
             `ssh-keygen -p -f FILE` write one of another form anew"
        );
    };
    if key.is_encrypted() {
        key = opened(&key, path)?;
    }
    let written = key.to_openssh(LineEnding::LF).with_context(|| format!("the key in {shown} cannot be written"))?;
    Ok(Secret::new((*written).clone()))
}

fn opened(key: &PrivateKey, path: &Path) -> anyhow::Result<PrivateKey> {
    let shown = path.display();
    if !terminal::stdin_is_terminal() {
        bail!(
            "the key in {shown} has a passphrase and there is no terminal to ask for it; run this on one, or take it \
             off a copy with `ssh-keygen -p -f COPY`"
        );
    }
    for _ in 0..TRIES {
        let asked = terminal::ask_hidden(&format!("Passphrase for {shown}: ")).context("cannot ask for it")?;
        let asked = Secret::new(asked);
        if let Ok(key) = key.decrypt(asked.expose().as_bytes()) {
            return Ok(key);
        }
    }
    bail!("none of these is the passphrase of the key in {shown}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_no_open_private_key_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, options: &[&str]| {
            let path = directory.path().join(name);
            let ran = Command::new("ssh-keygen").arg("-q").args(options).arg("-f").arg(&path).output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
            path
        };
        let good = make("good", &["-t", "ed25519", "-N", ""]);
        let read_again = PrivateKey::from_openssh(read(&good).unwrap().expose()).unwrap();
        let own = PrivateKey::from_openssh(std::fs::read(&good).unwrap()).unwrap();
        assert_eq!(read_again.public_key().key_data(), own.public_key().key_data());
        let pem = make("pem", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"]);
        for (path, wanted) in [
            (good.with_extension("pub"), "OpenSSH's own form"),
            (pem, "OpenSSH's own form"),
            (directory.path().join("absent"), "cannot read"),
        ] {
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        std::fs::write(directory.path().join("large"), vec![b'x'; 70_000]).unwrap();
        assert!(read(&directory.path().join("large")).unwrap_err().to_string().contains("larger"));
    }
}
