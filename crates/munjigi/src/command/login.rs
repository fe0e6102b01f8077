//! `munjigi login` and `munjigi logout`: a fresh key with a certificate for a few hours, in the running ssh-agent or in
//! files; the key never leaves this machine.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use munjigi_core::secret::Secret;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Certificate, PrivateKey};

use super::{Finish, looking, note, print};
use crate::cli::Where;
use crate::client::api::{Api, CallContext as _};
use crate::client::clock;
use crate::client::credentials::read_bounded;
use crate::client::ssh_agent::SshAgent;
use crate::client::ssh_certificates::{Issue, Issued, Revoke, RevokedCount};
use crate::client::text::escaped;

/// What the comment of our keys in an agent begins with.
const COMMENT: &str = "munjigi login, ";
/// Key ids of our certificates begin with it.
const KEY_ID: &str = "munjigi:";

/// Get an SSH certificate for a few hours, into the running ssh-agent or a file
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi login --os-user deploy\n  munjigi login --hours 1 --os-user deploy --file ~/.ssh/munjigi\n  \
    munjigi login --os-user backup --force-command 'rsync --server -logDtpre.iLsfxC . /srv' --source-address 192.0.2.7\n\n\
    A fresh key is made each time; one from before is replaced. The certificate is good at the server's SSH door and at \
    every sshd that `munjigi sshd install` has set up. Policies say for which OS users, how long and from where \
    (munjigi:IssueSshCertificate)."
)]
pub(crate) struct Arguments {
    /// How long it is good for, in hours, such as 8 or 0.5; the server's setting if not given
    #[arg(long = "hours", value_name = "N", value_parser = life)]
    life_seconds: Option<u32>,
    /// An OS user to log in as; may be repeated. If none: those that your sessions run as, by your tag, by account rules or by the server
    #[arg(long = "os-user", value_name = "NAME")]
    os_users: Vec<String>,
    /// Write key and certificate to PATH, PATH.pub and PATH-cert.pub
    #[arg(long, value_name = "PATH", conflicts_with = "agent")]
    file: Option<PathBuf>,
    /// Put key and certificate into the ssh-agent at SSH_AUTH_SOCK; the default if there is one
    #[arg(long)]
    agent: bool,
    /// Run only this command, whatever is asked for
    #[arg(long, value_name = "COMMAND")]
    force_command: Option<String>,
    /// Address or range that it may be used from; may be repeated
    #[arg(long = "source-address", value_name = "CIDR")]
    source_addresses: Vec<String>,
    /// What it permits, instead of the usual: permit-pty, permit-port-forwarding, permit-agent-forwarding, permit-user-rc
    #[arg(long = "permit", value_name = "EXTENSION")]
    permits: Vec<String>,
    #[command(flatten)]
    place: Where,
}

/// Revoke your certificate and forget its key
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi logout\n  munjigi logout --file ~/.ssh/munjigi\n\n\
    The key leaves the ssh-agent, or its files are deleted, and the certificate is revoked everywhere.")]
pub(crate) struct LogoutArguments {
    /// Revoke and delete what `munjigi login --file PATH` wrote
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

/// Reads a number of hours; returns seconds.
fn life(text: &str) -> Result<u32, String> {
    let hours = text.parse::<f64>().ok().filter(|hours| (0.016..=168.0).contains(hours));
    hours.map(|hours| (hours * 3600.0) as u32).ok_or_else(|| "give a number of hours from 0.02 to 168".to_owned())
}

/// Where key and certificate go.
enum Goal {
    Agent(PathBuf),
    File(PathBuf),
}

impl Goal {
    fn choose(file: Option<PathBuf>) -> anyhow::Result<Self> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        match (file, socket) {
            (Some(file), _) => Ok(Self::File(file)),
            (None, Some(socket)) => Ok(Self::Agent(socket.into())),
            (None, None) => bail!("no ssh-agent runs (SSH_AUTH_SOCK is not set); start one, or give --file PATH"),
        }
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let goal = Goal::choose(arguments.file)?;
    if let Goal::File(path) = &goal {
        // Before anything is asked for: somebody's key must stay.
        check_ours(path)?;
    }
    let seed = Secret::new(rand::random::<[u8; 32]>());
    let pair = Ed25519Keypair::from_seed(seed.expose());
    let public = pair.public.0;
    let key = PrivateKey::from(pair);
    let wish = Issue {
        public_key: key.public_key().to_openssh().context("the new key cannot be written")?,
        os_users: arguments.os_users,
        life_seconds: arguments.life_seconds,
        force_command: arguments.force_command,
        source_addresses: arguments.source_addresses,
        extensions: (!arguments.permits.is_empty()).then_some(arguments.permits),
    };
    let issued: Issued = looking(&arguments.place, async |api| {
        api.munjigi("IssueSshCertificate", &wish).await.doing(api.context(), "cannot get a certificate")
    })
    .await?;
    let place = match goal {
        Goal::Agent(socket) => {
            into_agent(&socket, &issued, &public, seed.expose()).await?;
            "in the ssh-agent".to_owned()
        }
        Goal::File(path) => {
            write_files(&path, &key, &issued)?;
            format!("in {}", path.display())
        }
    };
    let users: Vec<String> = issued.os_users.iter().map(|user| escaped(user)).collect();
    let (users, end) = (users.join(", "), issued.expires_at.timestamp().to_iso_seconds());
    print(&format!("certificate {} for {users} until {end}, {place}\n", issued.serial))?;
    Ok(Finish::Done)
}

async fn into_agent(socket: &Path, issued: &Issued, public: &[u8; 32], seed: &[u8; 32]) -> anyhow::Result<()> {
    let mut agent = SshAgent::connect(socket).await?;
    let old = agent.list().await?;
    let certificate = Certificate::from_openssh(&issued.certificate).context("the server's certificate is none")?;
    let blob = certificate.to_bytes().context("the server's certificate is none")?;
    let left = issued.expires_at.timestamp().since(clock::now()).as_secs();
    let life = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    agent.add(&blob, public, seed, &format!("{COMMENT}{}", issued.key_id), life).await?;
    // The new one is there: those from before only use up the few that a server looks at.
    for held in old.iter().filter(|held| held.comment.starts_with(COMMENT)) {
        agent.remove(&held.blob).await?;
    }
    Ok(())
}

/// Returns the names of private key, public key and certificate.
fn files(path: &Path) -> [PathBuf; 3] {
    let behind = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    [path.to_owned(), behind(".pub"), behind("-cert.pub")]
}

/// Reads the certificate beside a key file, if both are of an earlier login; an error if the key is somebody else's.
fn check_ours(path: &Path) -> anyhow::Result<Option<Certificate>> {
    let [key, public, certificate] = files(path);
    let there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if !there(&key) && !there(&public) && !there(&certificate) {
        return Ok(None);
    }
    let read = read_bounded(&certificate).ok().and_then(|text| Certificate::from_openssh(text.trim_end()).ok());
    match read.filter(|certificate| certificate.key_id().starts_with(KEY_ID)) {
        Some(certificate) => Ok(Some(certificate)),
        None => bail!("{} is not from `munjigi login`; name another file, nothing was changed", key.display()),
    }
}

fn write_files(path: &Path, key: &PrivateKey, issued: &Issued) -> anyhow::Result<()> {
    let [private, public, certificate] = files(path);
    let secret = key.to_openssh(LineEnding::LF).context("the new key cannot be written")?;
    let line = key.public_key().to_openssh().context("the new key cannot be written")?;
    // The certificate last: without it, ssh takes the key for a plain one that nobody knows.
    write(&private, secret.as_bytes())?;
    write(&public, format!("{line} {}\n", issued.key_id).as_bytes())?;
    write(&certificate, format!("{}\n", issued.certificate).as_bytes())
}

/// Replaces a file as a whole, closed to others from its first moment.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let result = (|| -> std::io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    result.with_context(|| format!("cannot write {}", path.display()))
}

pub(super) async fn run_logout(arguments: LogoutArguments) -> anyhow::Result<Finish> {
    let serials = match Goal::choose(arguments.file)? {
        Goal::Agent(socket) => out_of_agent(&socket).await?,
        Goal::File(path) => match check_ours(&path)? {
            Some(certificate) => {
                for file in files(&path) {
                    match fs::remove_file(&file) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(error).with_context(|| format!("cannot delete {}", file.display()));
                        }
                        _ => {}
                    }
                }
                vec![certificate.serial()]
            }
            None => Vec::new(),
        },
    };
    if serials.is_empty() {
        note("there is no certificate of `munjigi login` here");
        return Ok(Finish::Done);
    }
    // The key is gone from here whatever the server says.
    looking(&arguments.place, async |api| revoke(api, &serials).await).await?;
    print(&format!("{} revoked; the key is gone\n", if serials.len() == 1 { "certificate" } else { "certificates" }))?;
    Ok(Finish::Done)
}

/// Takes our certificates out of an agent; returns their serial numbers.
async fn out_of_agent(socket: &Path) -> anyhow::Result<Vec<u64>> {
    let mut agent = SshAgent::connect(socket).await?;
    let mut serials = Vec::new();
    for held in agent.list().await?.iter().filter(|held| held.comment.starts_with(COMMENT)) {
        agent.remove(&held.blob).await?;
        if let Ok(certificate) = Certificate::from_bytes(&held.blob) {
            serials.push(certificate.serial());
        }
    }
    Ok(serials)
}

async fn revoke(api: &mut Api, serials: &[u64]) -> anyhow::Result<()> {
    for serial in serials {
        let wish = Revoke { serial: Some(*serial), reason: Some("logout".to_owned()), ..Revoke::default() };
        let _: RevokedCount = api.munjigi("RevokeSshCertificate", &wish).await.doing(
            api.context(),
            "the key is gone from this machine, but the certificate was not revoked (munjigi:RevokeSshCertificate)",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_with_fractions_and_bounds() {
        assert_eq!((life("8"), life("0.5"), life("168")), (Ok(28_800), Ok(1800), Ok(604_800)));
        for text in ["0", "0.01", "-1", "169", "NaN", "inf", "x", ""] {
            assert!(life(text).is_err(), "{text}");
        }
    }

    #[test]
    fn somebodys_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        assert!(check_ours(&path).unwrap().is_none());
        fs::write(&path, "somebody's key").unwrap();
        assert!(check_ours(&path).is_err());
        fs::write(directory.path().join("id-cert.pub"), "no certificate").unwrap();
        assert!(check_ours(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's key");
    }
}
