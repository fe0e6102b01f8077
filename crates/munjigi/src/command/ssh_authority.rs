//! `munjigi ssh-authority`: the authorities that vouch in SSH, what they issued, and what they take back.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use munjigi_core::secret::Secret;

use super::{Finish, looking, note, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::ssh_certificates::{
    Authorities, AuthorityKey, Certificate, Describe, List, Listed, Revoke, RevokedCount, Rotate, Rotated,
};
use crate::client::text::escaped;
use crate::client::{private_key, table};

/// Manage the authorities behind SSH certificates
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi ssh-authority show --known-hosts '*.munjigi' >> ~/.ssh/known_hosts\n  \
    munjigi ssh-authority list\n  munjigi ssh-authority revoke --serial 7701204987248376 --reason 'laptop lost'\n  \
    munjigi ssh-authority rotate user")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: AuthorityCommand,
}

#[derive(Debug, Subcommand)]
enum AuthorityCommand {
    /// Show the authorities' public keys
    #[command(after_help = "Examples:\n  munjigi ssh-authority show\n  \
        munjigi ssh-authority show --known-hosts 'web-*' >> ~/.ssh/known_hosts\n  \
        munjigi ssh-authority show --user-keys > /etc/ssh/munjigi_user_ca.pub")]
    Show {
        /// Print lines for known_hosts: who vouches for hosts whose names match the pattern
        #[arg(long, value_name = "PATTERN", conflicts_with = "user_keys")]
        known_hosts: Option<String>,
        /// Print a file for sshd's TrustedUserCAKeys
        #[arg(long)]
        user_keys: bool,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Sign with the next key from now on; what the former one signed is honoured until it ends
    #[command(
        after_help = "Examples:\n  munjigi ssh-authority rotate user\n  munjigi ssh-authority rotate user --distrust\n  \
        munjigi ssh-authority rotate user --import ./users_ca\n\n\
        Nodes and known_hosts know the next key already, so nobody is locked out. With --distrust, former keys are \
        believed no more and everything that they signed is revoked: for a key that somebody else may have. With \
        --import, the key in the file signs: one that your sshds believe already. It is an OpenSSH private key \
        (ed25519, ECDSA, RSA of 3072 bits and more); its passphrase is asked for on the terminal."
    )]
    Rotate {
        /// Which authority
        authority: Which,
        /// Believe former keys no more, at once
        #[arg(long)]
        distrust: bool,
        /// Sign with the private key in this file from now on
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        #[command(flatten)]
        place: Where,
    },
    /// Revoke certificates, or a key in all of them, at once and everywhere
    #[command(after_help = "Examples:\n  munjigi ssh-authority revoke --serial 7701204987248376\n  \
        munjigi ssh-authority revoke --principal arn:aws:iam::123456789012:user/kim --reason 'left'\n  \
        munjigi ssh-authority revoke --fingerprint SHA256:mFRz…")]
    Revoke {
        #[command(flatten)]
        what: What,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        place: Where,
    },
    /// List certificates that were issued
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  munjigi ssh-authority list\n  \
        munjigi ssh-authority list --ended --output json"
    )]
    List {
        /// Of this principal only
        #[arg(long, value_name = "ARN")]
        principal: Option<String>,
        /// Also those that have ended
        #[arg(long)]
        ended: bool,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Vouches for people
    User,
    /// Vouches for hosts
    Host,
}

/// What is revoked.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// One certificate, by its serial number
    #[arg(long, value_name = "NUMBER")]
    serial: Option<u64>,
    /// Certificates with this key id
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// A key, in whatever certificate
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Option<String>,
    /// All certificates of a user or role session
    #[arg(long, value_name = "ARN")]
    principal: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    match arguments.command {
        AuthorityCommand::Show { known_hosts, user_keys, place, output } => {
            let found = looking(&place, describe).await?;
            show(&found, known_hosts.as_deref(), user_keys, output.output)
        }
        AuthorityCommand::Rotate { authority, distrust, import, place } => {
            let brought = import.as_deref().map(private_key::read).transpose()?;
            looking(&place, async |api| rotate(api, authority, distrust, brought.clone()).await).await
        }
        AuthorityCommand::Revoke { what, reason, place } => {
            let What { serial, key_id, fingerprint, principal } = what;
            let wish = Revoke { serial, key_id, fingerprint, principal, reason };
            looking(&place, async |api| revoke(api, &wish).await).await
        }
        AuthorityCommand::List { principal, ended, place, output } => {
            let certificates = looking(&place, async |api| list(api, principal.as_deref(), ended).await).await?;
            show_list(&certificates, output.output)
        }
    }
}

async fn describe(api: &mut Api) -> anyhow::Result<Authorities> {
    api.munjigi("DescribeSshAuthority", &Describe {}).await.doing(api.context(), "cannot look the authorities up")
}

fn show(found: &Authorities, known_hosts: Option<&str>, user_keys: bool, format: Format) -> anyhow::Result<Finish> {
    if let Some(pattern) = known_hosts {
        // A blank or a line's end would make another entry of it.
        let good = !pattern.is_empty() && pattern.chars().all(|c| c.is_ascii_graphic());
        anyhow::ensure!(good, "the pattern is a list such as '*.munjigi,web-*' without blanks");
        for key in &found.host_keys {
            print(&format!("@cert-authority {pattern} {} munjigi ({})\n", one_line(key)?, escaped(&key.stage)))?;
        }
        return Ok(Finish::Done);
    }
    if user_keys {
        for key in &found.user_keys {
            print(&format!("{}\n", one_line(key)?))?;
        }
        return Ok(Finish::Done);
    }
    match format {
        Format::Json => print_json(found)?,
        Format::Table => {
            let row = |of: &str, key: &AuthorityKey| {
                let until = key.believed_until.map(|until| until.timestamp().to_iso_seconds());
                let made = key.created_at.timestamp().to_iso_seconds();
                vec![of.to_owned(), key.stage.clone(), key.fingerprint.clone(), made, until.unwrap_or_default()]
            };
            let users = found.user_keys.iter().map(|key| row("people", key));
            let rows: Vec<_> = users.chain(found.host_keys.iter().map(|key| row("hosts", key))).collect();
            print(&table::render(&["VOUCHES FOR", "STAGE", "FINGERPRINT", "MADE", "BELIEVED UNTIL"], &rows))?;
        }
    }
    Ok(Finish::Done)
}

/// Returns a key as it stands in files of ssh; what the server sends must be one key, or it could say anything there.
fn one_line(key: &AuthorityKey) -> anyhow::Result<String> {
    let read = munjigi_core::ssh::PublicKey::parse(&key.public_key).context("the server's answer holds no key")?;
    Ok(read.line())
}

async fn rotate(
    api: &mut Api,
    authority: Which,
    distrust: bool,
    private_key: Option<Secret<String>>,
) -> anyhow::Result<Finish> {
    let name = match authority {
        Which::User => "user",
        Which::Host => "host",
    };
    let imported = private_key.is_some();
    let wish = Rotate { authority: name.to_owned(), distrust, private_key };
    let rotated: Rotated =
        api.munjigi("RotateSshAuthority", &wish).await.doing(api.context(), "the authority was not rotated")?;
    print(&format!("the {name} authority signs with {}\n", escaped(&rotated.fingerprint)))?;
    if distrust && authority == Which::User {
        print(&format!("{} certificates were revoked; their owners log in again\n", rotated.revoked))?;
    }
    if imported {
        note("whoever else has this private key can still sign for anybody; destroy the other copies");
    }
    if authority == Which::Host {
        note(
            "`munjigi ssh-authority show --known-hosts` prints the next key too; give it to clients before the next rotation",
        );
    }
    Ok(Finish::Done)
}

async fn revoke(api: &mut Api, wish: &Revoke) -> anyhow::Result<Finish> {
    let done: RevokedCount =
        api.munjigi("RevokeSshCertificate", wish).await.doing(api.context(), "nothing was revoked")?;
    match done.revoked {
        0 => note("there was nothing to revoke"),
        count => print(&format!("revoked: {count}\n"))?,
    }
    Ok(Finish::Done)
}

async fn list(api: &mut Api, principal: Option<&str>, ended: bool) -> anyhow::Result<Vec<Certificate>> {
    let mut wish = List { principal: principal.map(str::to_owned), ended, next_token: None };
    let mut all = Vec::new();
    loop {
        let page: Listed =
            api.munjigi("ListSshCertificates", &wish).await.doing(api.context(), "cannot list the certificates")?;
        all.extend(page.certificates);
        match page.next_token {
            Some(next) => wish.next_token = Some(next),
            None => return Ok(all),
        }
    }
}

fn show_list(certificates: &[Certificate], format: Format) -> anyhow::Result<Finish> {
    match format {
        Format::Json => print_json(&certificates)?,
        Format::Table => {
            let row = |one: &Certificate| {
                let whose = one.principal.rsplit(":").next().unwrap_or_default().to_owned();
                let why = one.reason.clone().unwrap_or_default();
                let end = one.expires_at.timestamp().to_iso_seconds();
                vec![one.serial.to_string(), whose, one.os_users.join(","), end, one.state.clone(), why]
            };
            let rows: Vec<_> = certificates.iter().map(row).collect();
            print(&table::render(&["SERIAL", "WHOSE", "OS USERS", "UNTIL", "STATE", "WHY"], &rows))?;
        }
    }
    Ok(Finish::Done)
}
