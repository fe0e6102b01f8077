//! Keys that AWS itself has pushed to the EC2 instance that this node is: asked for at each login for which no other key is
//! good, by a worker in the host's network (R9).
//!
//! Only helpers of a real sshd get a worker started, so that others on the machine cannot have the metadata service asked as
//! often as they like. What is found is in the system's log and told to the server before sshd hears of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use munjigi_core::instance_connect::{AwsKey, Distrust};
use munjigi_core::ssh::Fingerprint;
use munjigi_core::ssh::key_options::KeyLine;
use munjigi_core::ssh::lookup::{self, Question, WAIT};
use munjigi_core::wire::message::AwsKeyReport;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use prost::Message as _;

use super::child::{self, Child, SessionKind};
use super::keys::SshConnection;
use super::program::Surroundings;
use super::{SpawnHalf, account, link_process};
use crate::aws_key_worker::{Found, FoundKey, WISH_VARIABLE, Wish};
use crate::clock;
use crate::config::Config;
use crate::halves::{ToLink, cut};
use crate::syslog;

/// From a question to its answer; sshd's helper ends after five seconds.
const LOOKUP: Duration = Duration::from_secs(4);
/// Most questions that are being answered; beyond that AWS is not asked.
const MAX_LOOKUPS: usize = 32;
/// Largest answer of a worker in bytes.
const MAX_FOUND: usize = 512 * 1024;
/// For how long the same connection gets the same answer: sshd asks again once the client has signed.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most keys remembered.
const MAX_REMEMBERED: usize = 256;
/// Longest ARN (as long as AWS has them) and request id that are reported; longer ones are cut.
const MAX_CALLER: usize = 2048;
const MAX_REQUEST: usize = 128;

/// A question that nothing on this node answers, of an sshd's helper that waits.
pub(crate) struct Unanswered {
    /// Where the answer goes.
    pub(crate) stream: UnixStream,
    /// The question.
    pub(crate) question: Question,
    /// The sshd that asks.
    pub(crate) connection: SshConnection,
}

/// What is being asked, and what was given out.
#[derive(Default)]
pub(super) struct AwsKeys {
    lookups: Vec<Lookup>,
    given: Vec<Given>,
    /// Workers that were not reaped yet.
    workers: BTreeSet<Pid>,
}

struct Lookup {
    asked: Unanswered,
    worker: Pid,
    output: File,
    found: Vec<u8>,
    until: Instant,
}

/// A key that a connection was given.
struct Given {
    os_user: String,
    connection: SshConnection,
    key: AwsKey,
    until: Instant,
}

impl AwsKeys {
    /// Returns every descriptor to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.lookups.iter().map(|lookup| lookup.output.as_fd())
    }

    /// Returns when the next question is given up.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.lookups.iter().map(|lookup| lookup.until).min()
    }

    /// Takes note that a process ended; tells whether it was a worker.
    pub(super) fn reaped(&mut self, pid: Pid) -> bool {
        self.workers.remove(&pid)
    }

    fn remembered(&mut self, asked: &Unanswered, now: Instant) -> Option<AwsKey> {
        self.given.retain(|given| given.until > now);
        let (kind, blob) = asked.question.offered.as_ref()?;
        let fits = |given: &&Given| {
            let key = &given.key;
            given.connection == asked.connection
                && given.os_user == asked.question.os_user
                && key.expires > clock::now()
                && key.key.kind().as_str() == kind
                && key.key.blob() == blob
        };
        self.given.iter().find(fits).map(|given| given.key.clone())
    }

    fn begin(&mut self, mut asked: Unanswered, config: &Config, surroundings: &Surroundings, now: Instant) {
        // Whether root may is AWS's policy to say; what the node's owner says holds here as for other keys.
        let allowed = account::look_up(&asked.question.os_user, true, config.allowed_users.as_deref()).is_ok();
        if let Some(key) = allowed.then(|| self.remembered(&asked, now)).flatten() {
            return answer(asked, &[key]);
        }
        if !allowed || self.lookups.len() >= MAX_LOOKUPS {
            return answer(asked, &[]);
        }
        match start(&asked.question, config, surroundings) {
            Ok((worker, output)) => {
                // It is worth waiting for longer than for an answer out of memory. A helper that left gets none.
                let _ = asked.stream.write_all(format!("{WAIT}\n").as_bytes());
                self.workers.insert(worker);
                self.lookups.push(Lookup { asked, worker, output, found: Vec::new(), until: now + LOOKUP });
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "AWS cannot be asked for keys");
                answer(asked, &[]);
            }
        }
    }

    /// Reads what workers have found; returns the questions that can be answered now.
    fn finished(&mut self, now: Instant) -> Vec<(Unanswered, Result<Found, Distrust>)> {
        let (mut finished, mut going_on) = (Vec::new(), Vec::new());
        for mut lookup in self.lookups.drain(..) {
            let found = match lookup.read() {
                Some(found) => found,
                None if lookup.until <= now => Err(Distrust::TooSlow),
                None => {
                    going_on.push(lookup);
                    continue;
                }
            };
            // It has ended, or has to; it is reaped like every child, and none is ended that was.
            if self.workers.contains(&lookup.worker) {
                let _ = kill(lookup.worker, Signal::SIGKILL);
            }
            finished.push((lookup.asked, found));
        }
        self.lookups = going_on;
        finished
    }

    fn remember(&mut self, asked: &Unanswered, keys: &[AwsKey], now: Instant) {
        for key in keys {
            if self.given.len() >= MAX_REMEMBERED {
                self.given.remove(0);
            }
            let os_user = asked.question.os_user.clone();
            self.given.push(Given { os_user, connection: asked.connection, key: key.clone(), until: now + REMEMBERED });
        }
    }
}

impl Lookup {
    /// Reads as far as it goes without waiting; `None` until the worker has said all.
    fn read(&mut self) -> Option<Result<Found, Distrust>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.output.read(&mut buffer) {
                Ok(0) => return Some(serde_json::from_slice(&self.found).map_err(|_| Distrust::NoMetadata)),
                Ok(count) if self.found.len() + count <= MAX_FOUND => {
                    self.found.extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return Some(Err(Distrust::NoMetadata)),
            }
        }
    }
}

impl SpawnHalf {
    /// Asks AWS what nothing on this node could answer.
    pub(super) fn ask_aws(&mut self, unanswered: Vec<Unanswered>, now: Instant) {
        for asked in unanswered {
            self.aws_keys.begin(asked, &self.config, &self.surroundings, now);
        }
    }

    /// Answers what workers have found out, as far as it goes without waiting.
    pub(super) fn answer_from_aws(&mut self, now: Instant) {
        for (asked, found) in self.aws_keys.finished(now) {
            let found = found.unwrap_or_else(|why| Found { good: Vec::new(), refused: Some(why.code().to_owned()) });
            let offered = asked.question.offered.as_ref();
            let keys: Vec<AwsKey> = found
                .good
                .into_iter()
                .filter_map(FoundKey::read)
                .filter(|key| {
                    offered.is_none_or(|(kind, blob)| key.key.kind().as_str() == kind && key.key.blob() == blob)
                })
                .take(lookup::MAX_KEYS)
                .collect();
            self.tell_aws_keys(&asked, &keys, found.refused.as_deref());
            self.aws_keys.remember(&asked, &keys, now);
            answer(asked, &keys);
        }
    }

    /// Writes into the system's log and tells the server what sshd is going to be told, or why nothing.
    fn tell_aws_keys(&mut self, asked: &Unanswered, keys: &[AwsKey], refused: Option<&str>) {
        let os_user = &asked.question.os_user;
        let report = AwsKeyReport { read_micros: clock::now().0, os_user: os_user.clone(), ..AwsKeyReport::default() };
        let mut reports = Vec::new();
        for key in keys {
            let print = key.key.fingerprint();
            tracing::info!(user = os_user, %print, request = key.request_id, by = key.caller, "a key that AWS pushed");
            // Without a system's log, the agent's own and the trail have it.
            let _ = syslog::authentication("munjigi-agent", &key.log_line());
            reports.push(AwsKeyReport {
                fingerprint: print.to_string(),
                caller: cut(&key.caller, MAX_CALLER).to_owned(),
                request_id: cut(&key.request_id, MAX_REQUEST).to_owned(),
                expires_micros: key.expires.0,
                ..report.clone()
            });
        }
        let reason = refused.and_then(Distrust::from_code).filter(|_| keys.is_empty());
        if let Some(reason) = reason {
            tracing::warn!(
                user = os_user,
                code = reason.code(),
                "a key that AWS may have pushed is not good: {reason}"
            );
            let _ =
                syslog::authentication("munjigi-agent", &format!("EC2 Instance Connect: {reason}; no key is trusted"));
            let offered = asked.question.offered.as_ref().map(|(_, blob)| Fingerprint::of(blob).to_string());
            let (fingerprint, reason) = (offered.unwrap_or_default(), reason.code().to_owned());
            reports.push(AwsKeyReport { fingerprint, reason, ..report });
        }
        for report in reports {
            let message = ToLink::AwsKey { report: report.encode_to_vec() };
            self.with_link(|link| link.send(&message, &[]));
        }
    }
}

fn answer(mut asked: Unanswered, keys: &[AwsKey]) {
    let lines: Vec<KeyLine> = keys.iter().map(|key| KeyLine::from(key.key.clone())).collect();
    // An answer is far smaller than the socket's buffer; a helper that left gets none.
    let _ = asked.stream.write_all(lookup::encode_answer(&lines).as_bytes());
}

/// Starts a worker in the host's network; it gives up privileges itself, so that nobody can get into it before.
fn start(question: &Question, config: &Config, surroundings: &Surroundings) -> anyhow::Result<(Pid, File)> {
    let section = &config.instance_connect;
    let identity = link_process::identity(config.link_user.as_deref())?;
    let wish = Wish {
        question: question.encode(),
        metadata: section.metadata_url.0,
        trust_file: section.trust_file.clone(),
        hardware: section.hardware.clone(),
        become_user: identity.map(|identity| (identity.uid, identity.gid)),
    };
    let wish = serde_json::to_string(&wish).context("failed to encode the wish")?;
    let (output, far) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("failed to make a pipe")?;
    // What is found is written by one that may wait.
    nix::fcntl::fcntl(&far, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).context("failed to make a pipe")?;
    let null = File::open("/dev/null").context("failed to open /dev/null")?;
    let errors = std::io::stderr().as_fd().try_clone_to_owned().context("failed to share a descriptor")?;
    let worker = child::start(Child {
        // The file that this process runs, even if another has taken its place by now.
        program: OsString::from("/proc/self/exe"),
        name: OsString::from("munjigi"),
        arguments: vec!["agent".into(), "aws-key-worker".into()],
        environment: vec![(WISH_VARIABLE.to_owned(), wish.into())],
        stdio: [null.into(), far, errors],
        session: SessionKind::Detached,
        cgroup: None,
        network: surroundings.network.as_ref().map(|network| network.as_raw_fd()),
        identity: None,
        no_new_privileges: true,
        directories: vec![c"/".to_owned()],
        limits: Vec::new(),
        umask: 0o077,
        death_signal: libc::SIGKILL,
    })
    .context("failed to start the worker")?;
    Ok((worker, File::from(output)))
}
