//! Asks the metadata service of an EC2 instance which keys AWS has pushed for one account, and judges them: a process of its
//! own for one question of sshd's.
//!
//! The privileged half starts it, in the host's network. It gives its privileges up before it reads anything from outside,
//! needs no other program, and ends with its answer.

mod metadata;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::instance_connect::{
    Answers, AwsKey, Distrust, Instance, Judged, MAX_CHAIN, MAX_KEYS_FILE, MAX_STAPLE, MAX_STAPLES, SignerRoots,
    is_this_machine, judge, staple_name, valid_instance_id,
};
use munjigi_core::ssh::PublicKey;
use munjigi_core::ssh::lookup::Question;
use munjigi_core::time::Timestamp;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use self::metadata::Metadata;
use crate::{clock, confine};

/// Holds the [`Wish`].
pub(crate) const WISH_VARIABLE: &str = "MUNJIGI_AWS_KEYS";
/// Longest id, zone or domain in bytes.
const MAX_WORD: usize = 256;
/// Longest list of OCSP answers' names in bytes.
const MAX_LIST: usize = 4096;
/// Largest trust file in bytes.
const MAX_TRUST_FILE: u64 = 1024 * 1024;

/// What is to be found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// Sshd's question, as [`Question`] writes it.
    pub(crate) question: String,
    /// The metadata service.
    pub(crate) metadata: SocketAddr,
    /// Roots in the place of the system's.
    pub(crate) trust_file: Option<PathBuf>,
    /// Where the kernel shows what the machine is.
    pub(crate) hardware: PathBuf,
    /// User and group that the process becomes before it asks; `None` without privileges to give up.
    pub(crate) become_user: Option<(u32, u32)>,
}

/// What was found out.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Keys that are good.
    pub(crate) good: Vec<FoundKey>,
    /// Code of the reason why there is none, if keys were pushed or it is not known whether any were.
    pub(crate) refused: Option<String>,
}

/// A key that AWS pushed and that is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundKey {
    /// Type and base64.
    pub(crate) line: String,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    /// ARN of who pushed it.
    pub(crate) caller: String,
    /// Id of the request.
    pub(crate) request_id: String,
}

impl FoundKey {
    /// Reads it back.
    pub(crate) fn read(self) -> Option<AwsKey> {
        let Self { line, expires, caller, request_id } = self;
        let key = PublicKey::parse(&line).ok()?;
        Some(AwsKey { key, expires: Timestamp::from_secs(expires), caller, request_id })
    }
}

impl From<&AwsKey> for FoundKey {
    fn from(key: &AwsKey) -> Self {
        Self {
            line: format!("{} {}", key.key.kind(), STANDARD.encode(key.key.blob())),
            expires: key.expires.as_secs(),
            caller: key.caller.clone(),
            request_id: key.request_id.clone(),
        }
    }
}

/// Answers one wish on standard output; the process does nothing else.
pub(crate) fn run() -> anyhow::Result<()> {
    let wish =
        std::env::var(WISH_VARIABLE).context("the worker for AWS's keys is started by `munjigi agent run` only")?;
    let wish: Wish = serde_json::from_str(&wish).context("the wish is none")?;
    let question = wish.question.strip_suffix('\n').and_then(|line| Question::decode(line.as_bytes()));
    let question = question.context("the wish has no question")?;
    nix::sys::prctl::set_dumpable(false).context("failed to protect this process's memory")?;
    // What others of that user may not read is read before.
    let machine = Machine::look(&wish.hardware);
    let pinned = wish.trust_file.as_deref().map(read_trust_file);
    if let Some((user, group)) = wish.become_user {
        become_user(Uid::from_raw(user), Gid::from_raw(group)).context("failed to give up privileges")?;
    }
    // Before anything from outside is read, and while there is one thread.
    confine::confine(&[])?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the worker's runtime")?;
    let found = match runtime.block_on(find(wish.metadata, &machine, &question, pinned.as_deref())) {
        Ok(judged) => Found {
            good: judged.good.iter().map(FoundKey::from).collect(),
            refused: judged.refused.map(|refused| refused.why.code().to_owned()),
        },
        Err(why) => Found { good: Vec::new(), refused: Some(why.code().to_owned()) },
    };
    let found = serde_json::to_vec(&found).context("failed to encode what was found")?;
    std::io::stdout().lock().write_all(&found).context("nobody takes what was found")
}

/// Becomes an unprivileged user for good; the kernel keeps others of that user out of this process, which began as root's.
fn become_user(user: Uid, group: Gid) -> nix::Result<()> {
    setgroups(&[group])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// Reads the file of roots; one that cannot be read holds none, and nobody is believed.
fn read_trust_file(path: &Path) -> Vec<u8> {
    let mut pem = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(MAX_TRUST_FILE).read_to_end(&mut pem)) {
        Ok(_) => pem,
        Err(_) => Vec::new(),
    }
}

/// What the kernel says that the machine is.
struct Machine {
    hypervisor: Option<String>,
    board: Option<String>,
}

impl Machine {
    fn look(hardware: &Path) -> Self {
        // The kernel's files are short; one that cannot be read is as good as none.
        let read = |name: &str| {
            let mut text = String::new();
            fs::File::open(hardware.join(name)).ok()?.take(4096).read_to_string(&mut text).ok()?;
            Some(text)
        };
        Self { hypervisor: read("hypervisor/uuid"), board: read("devices/virtual/dmi/id/board_asset_tag") }
    }

    fn is(&self, id: &str) -> bool {
        is_this_machine(id, self.hypervisor.as_deref(), self.board.as_deref())
    }
}

/// Asks and judges, in the order of AWS's own program: nothing is fetched before it is known that there is a key.
async fn find(
    address: SocketAddr,
    machine: &Machine,
    question: &Question,
    pinned: Option<&[u8]>,
) -> Result<Judged, Distrust> {
    let metadata = Metadata::open(address).await?;
    let id = metadata.word("instance-id/", MAX_WORD).await?;
    if !valid_instance_id(&id) || !machine.is(&id) {
        return Err(Distrust::NotAnInstance);
    }
    // Its form lets no name lead elsewhere.
    let keys_path = format!("managed-ssh-keys/active-keys/{}/", question.os_user);
    if !metadata.has(&keys_path).await? {
        return Ok(Judged::default());
    }
    let zone = metadata.word("placement/availability-zone/", MAX_WORD).await?;
    let domain = metadata.word("services/domain/", MAX_WORD).await?;
    let instance = Instance::new(&id, &zone, &domain)?;
    let chain = metadata.get("managed-ssh-keys/signer-cert/", MAX_CHAIN).await?.unwrap_or_default();
    let staples = staples(&metadata).await?;
    let Some(keys) = metadata.get(&keys_path, MAX_KEYS_FILE).await? else { return Ok(Judged::default()) };
    let roots = roots(pinned);
    let offered = question.offered.as_ref().map(|(kind, blob)| (kind.as_str(), blob.as_slice()));
    judge(&instance, Answers { chain: &chain, staples: &staples, keys: &keys }, &roots, offered, clock::now())
}

/// Fetches the OCSP answers that have names of certificates; those that cannot be read are missed where they are needed.
async fn staples(metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>, Distrust> {
    let directory = "managed-ssh-keys/signer-ocsp/";
    let list = metadata.get(directory, MAX_LIST).await?.unwrap_or_default();
    let list = String::from_utf8(list).map_err(|_| Distrust::NoMetadata)?;
    let mut staples = Vec::new();
    for name in list.split_whitespace().filter(|name| staple_name(name).is_some()).take(MAX_STAPLES) {
        let Some(encoded) = metadata.get(&format!("{directory}{name}"), MAX_STAPLE * 2).await? else { continue };
        let encoded: Vec<u8> = encoded.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if let Ok(staple) = STANDARD.decode(encoded) {
            staples.push((name.to_owned(), staple));
        }
    }
    Ok(staples)
}

/// Returns the roots that count: those that were named, all of which have to be good, else the system's.
fn roots(pinned: Option<&[u8]>) -> SignerRoots<'static> {
    match pinned {
        // A bad file believes nobody.
        Some(pem) => SignerRoots::from_pem(pem).unwrap_or_else(|| SignerRoots::from_der::<&[u8]>([])),
        None => SignerRoots::from_der(rustls_native_certs::load_native_certs().certs),
    }
}
