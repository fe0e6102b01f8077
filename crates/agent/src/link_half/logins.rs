//! Reads what sshd writes about logins and reports it to the server: nothing is forgotten before the server has it in
//! its trail, as far as there is room.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use munjigi_core::ssh::login::{AcceptedLogin, MAX_LINE};
use munjigi_core::ssh::login_reason::{Left, SaidReason};
use munjigi_core::wire::message::{AwsKeyReport, Logins as Report, MAX_LOGINS, Open, SshLogin, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Opener;
use prost::Message as _;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::aws_keys::{AwsKeys, take};
use super::lines::Lines;
use super::session::Attached;
use crate::clock;
use crate::halves::LogKind;

/// Most logins that wait for the server.
const MAX_WAITING: usize = 1024;
/// Refused ones are kept only while fewer wait.
const MAX_WAITING_REFUSED: usize = 256;
/// Longest line of the journal; a line of sshd has about 1 KiB of fields.
const MAX_JOURNAL_LINE: usize = 64 * 1024;
/// How often a file is looked at for more.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Most processes of sshd whose reasons are remembered until they say whom they refused.
const MAX_REASONS: usize = 256;
/// Most bytes of a report, beside which its frame has room for the rest.
const MAX_REPORT: usize = 48 * 1024;
/// For the server's answer to a report.
const ANSWER: Duration = Duration::from_secs(30);
/// After a report that the server did not take.
const REPORT_AGAIN: Duration = Duration::from_secs(5);
const SSHD: [&str; 2] = ["sshd", "sshd-session"];

/// Logins on their way to the server.
pub(super) struct Logins {
    waiting: Mutex<Waiting>,
    more: Notify,
    link: watch::Sender<Option<Opener>>,
    /// Ends the reading of the log before the present one, once that is read to its end.
    reading: Mutex<CancellationToken>,
}

#[derive(Default)]
struct Waiting {
    logins: VecDeque<SshLogin>,
    missed: u64,
    /// What became of keys that AWS pushed.
    aws: AwsKeys,
}

impl Logins {
    /// Makes the queue and its reporter; call inside the runtime.
    pub(super) fn start() -> Arc<Self> {
        let logins = Arc::new(Self {
            waiting: Mutex::default(),
            more: Notify::new(),
            link: watch::Sender::new(None),
            reading: Mutex::default(),
        });
        let reporting = Arc::clone(&logins);
        // Lives as long as this process.
        tokio::spawn(async move { reporting.report().await });
        logins
    }

    /// Takes note of a standing link.
    pub(super) fn connected(&self, opener: Opener) {
        self.link.send_replace(Some(opener));
    }

    /// Takes note that there is no link.
    pub(super) fn disconnected(&self) {
        self.link.send_replace(None);
    }

    /// Reads a log; the one before is read to its end.
    pub(super) fn read(self: &Arc<Self>, kind: LogKind, descriptor: OwnedFd) {
        let token = CancellationToken::new();
        let old = {
            let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *reading, token.clone())
        };
        old.cancel();
        let logins = Arc::clone(self);
        tokio::spawn(async move {
            let result = match kind {
                LogKind::File => logins.read_file(descriptor, token).await,
                LogKind::Journal => logins.read_journal(descriptor).await,
            };
            if let Err(error) = result {
                tracing::warn!(%error, "sshd's log can be read no further");
            }
        });
    }

    async fn read_file(&self, descriptor: OwnedFd, replaced: CancellationToken) -> std::io::Result<()> {
        use tokio::io::AsyncSeekExt as _;
        let mut file = tokio::fs::File::from_std(descriptor.into());
        let (mut lines, mut reasons) = (Lines::new(MAX_LINE), Reasons::default());
        loop {
            let last = replaced.is_cancelled();
            while lines.fill(&mut file).await? > 0 {
                while let Some(line) = lines.next() {
                    self.keep(from_log(&line, &mut reasons));
                }
            }
            if last {
                return Ok(());
            }
            // Emptied in place, as `copytruncate` of logrotate does.
            if file.metadata().await?.len() < file.stream_position().await? {
                file.seek(std::io::SeekFrom::Start(0)).await?;
                continue;
            }
            tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                () = replaced.cancelled() => {}
            }
        }
    }

    async fn read_journal(&self, descriptor: OwnedFd) -> std::io::Result<()> {
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(descriptor)?;
        let (mut lines, mut reasons) = (Lines::new(MAX_JOURNAL_LINE), Reasons::default());
        while lines.fill(&mut pipe).await? > 0 {
            while let Some(line) = lines.next() {
                self.keep(from_journal(&line, &mut reasons));
            }
        }
        Ok(())
    }

    fn keep(&self, login: Option<SshLogin>) {
        let Some(login) = login else { return };
        {
            let mut waiting = self.lock();
            if login.refused && waiting.logins.len() >= MAX_WAITING_REFUSED {
                // Anybody can be refused as often as they like; that must not push out who was let in.
                return;
            }
            if waiting.logins.len() >= MAX_WAITING {
                waiting.logins.pop_front();
                waiting.missed = waiting.missed.saturating_add(1);
            }
            waiting.logins.push_back(login);
        }
        self.more.notify_one();
    }

    /// Takes the privileged half's word on a key that AWS pushed.
    pub(super) fn told_by_aws(&self, report: &[u8]) {
        let Ok(report) = AwsKeyReport::decode(report) else { return };
        self.lock().aws.keep(report);
        self.more.notify_one();
    }

    /// Reports for ever.
    async fn report(&self) {
        let mut link = self.link.subscribe();
        loop {
            let next = self.batch();
            if next.logins.is_empty() && next.aws_keys.is_empty() && next.missed == 0 {
                self.more.notified().await;
                continue;
            }
            let Ok(opener) = link.wait_for(Option::is_some).await.map(|link| link.clone()) else { return };
            let Some(opener) = opener else { continue };
            match timeout(ANSWER, send(&opener, &next)).await {
                Ok(Some(Taken::Yes)) => self.done(&next),
                Ok(Some(Taken::Never)) => {
                    tracing::error!(logins = next.logins.len(), "the server refuses what sshd wrote; it is left out");
                    self.done(&next);
                    self.lock().missed += next.logins.len() as u64;
                    sleep(REPORT_AGAIN).await;
                }
                Ok(None) | Err(_) => sleep(REPORT_AGAIN).await,
            }
        }
    }

    fn batch(&self) -> Report {
        let waiting = self.lock();
        let mut bytes = MAX_REPORT;
        let aws_keys = waiting.aws.batch(&mut bytes);
        let explained = waiting.logins.iter().take(MAX_LOGINS).cloned().map(|mut login| {
            waiting.aws.explain(&mut login);
            login
        });
        let logins = explained.take_while(|login| take(&mut bytes, login.encoded_len())).collect();
        Report { logins, missed: waiting.missed, aws_keys }
    }

    /// Forgets what the server has. While it was on its way, the oldest may have been pushed out: those count among
    /// the missed, so one may be reported and missed, but none is lost unseen.
    fn done(&self, sent: &Report) {
        let mut waiting = self.lock();
        waiting.aws.done(sent.aws_keys.len());
        let pushed_out = usize::try_from(waiting.missed.saturating_sub(sent.missed)).unwrap_or(usize::MAX);
        let left = sent.logins.len().saturating_sub(pushed_out).min(waiting.logins.len());
        waiting.logins.drain(..left);
        waiting.missed = waiting.missed.saturating_sub(sent.missed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server said to a report.
enum Taken {
    Yes,
    /// It will never take these.
    Never,
}

async fn send(opener: &Opener, report: &Report) -> Option<Taken> {
    let mut stream = Attached::new(opener.open().await.ok()?);
    let open = Open { wish: Some(open::Wish::Logins(report.clone())) };
    // What a batch holds fits a frame.
    stream.writer.feed(&Frame::Open(Box::new(open))).ok()?;
    stream.writer.flush().await.ok()?;
    match stream.reader.read(FrameSet::ANSWER).await.ok()?? {
        Frame::Accepted(_) => Some(Taken::Yes),
        Frame::Refused(refused) if refused.code == "ValidationException" => Some(Taken::Never),
        _ => None,
    }
}

/// Reads a line of an auth log. Anybody on the machine can have a line written there, so the process that it names is
/// looked at: sshd's process for a connection lives as long as the connection.
fn from_log(line: &[u8], reasons: &mut Reasons) -> Option<SshLogin> {
    let line = std::str::from_utf8(line).ok()?;
    let (pid, message) = AcceptedLogin::message_of(line)?;
    let mut login = reasons.read(message, pid.unwrap_or(0))?;
    login.attested = pid.is_some_and(is_sshd);
    Some(login)
}

/// What sshd's processes have said of certificates and not yet of whom. The oldest go when there are too many.
#[derive(Default)]
struct Reasons {
    said: VecDeque<(u32, SaidReason)>,
}

impl Reasons {
    /// Reads a message of a process: a login, a refused certificate with its reason, or a reason for later.
    fn read(&mut self, message: &str, pid: u32) -> Option<SshLogin> {
        if let Some(reason) = SaidReason::parse(message) {
            self.take(pid);
            if self.said.len() >= MAX_REASONS {
                self.said.pop_front();
            }
            self.said.push_back((pid, reason));
            return None;
        }
        if let Some(login) = AcceptedLogin::parse(message) {
            self.take(pid);
            return Some(shown(&login, pid));
        }
        if let Some(login) = AcceptedLogin::parse_refused_certificate(message) {
            let reason = self.take(pid).map_or("", SaidReason::code).to_owned();
            return Some(SshLogin { refused: true, reason, ..shown(&login, pid) });
        }
        // Of a certificate that it cannot read sshd says nothing more; whose it was meant to be stands at the end.
        let left = Left::parse(message)?;
        let reason = self.take(pid).filter(|reason| *reason == SaidReason::Altered)?;
        let Left { os_user, address, port } = left;
        let login = AcceptedLogin { method: "publickey".to_owned(), os_user, address, port, key: None };
        Some(SshLogin { refused: true, reason: reason.code().to_owned(), ..shown(&login, pid) })
    }

    fn take(&mut self, pid: u32) -> Option<SaidReason> {
        let at = self.said.iter().position(|(of, _)| *of == pid)?;
        self.said.remove(at).map(|(_, reason)| reason)
    }
}

fn is_sshd(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    field("Name").is_some_and(|name| SSHD.contains(&name))
        && field("Uid").is_some_and(|uids| uids.split('\t').next() == Some("0"))
}

/// The fields of the journal that are read. Those that begin with `_` are journald's own and cannot be chosen by
/// whoever writes a message.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE")]
    message: String,
    #[serde(rename = "_UID")]
    uid: String,
    #[serde(rename = "_COMM")]
    name: String,
    #[serde(rename = "_PID")]
    pid: String,
}

/// Reads an entry of the journal; a message that is not text is none of sshd's about a login.
fn from_journal(line: &[u8], reasons: &mut Reasons) -> Option<SshLogin> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    if entry.uid != "0" || !SSHD.contains(&entry.name.as_str()) {
        return None;
    }
    let login = reasons.read(&entry.message, entry.pid.parse().unwrap_or(0))?;
    Some(SshLogin { attested: true, ..login })
}

fn shown(login: &AcceptedLogin, process_id: u32) -> SshLogin {
    let key = login.key.as_ref();
    SshLogin {
        read_micros: clock::now().0,
        os_user: login.os_user.clone(),
        address: login.address.to_string(),
        port: u32::from(login.port),
        method: login.method.clone(),
        key_kind: key.map(|key| key.kind.clone()).unwrap_or_default(),
        fingerprint: key.map(|key| key.fingerprint.to_string()).unwrap_or_default(),
        authority: key.and_then(|key| key.authority).map(|print| print.to_string()).unwrap_or_default(),
        process_id,
        serial: key.and_then(|key| key.serial).unwrap_or(0),
        ..SshLogin::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const PRINT: &str = "SHA256:mFRzXW2ipoLyfnBNqhP3/CKSPvnbWcBGnX7uPIcgCBo";

    fn message() -> String {
        format!("Accepted publickey for alice from 192.0.2.7 port 50022 ssh2: ED25519 {PRINT}")
    }

    #[test]
    fn only_roots_own_sshd_is_believed_in_the_journal() {
        let entry = |uid: &str, name: &str, message: &str| {
            serde_json::json!({ "MESSAGE": message, "_UID": uid, "_COMM": name, "_PID": "71", "X": [1] }).to_string()
        };
        let from_journal = |line: &[u8]| from_journal(line, &mut Reasons::default());
        let login = from_journal(entry("0", "sshd", &message()).as_bytes()).unwrap();
        assert_eq!((login.os_user.as_str(), login.process_id, login.attested), ("alice", 71, true));
        assert_eq!(login.fingerprint, PRINT);
        for line in [
            entry("1000", "sshd", &message()),
            entry("0", "logger", &message()),
            entry("0", "sshd", &format!("Invalid user {}", message())),
            entry("0", "sshd", &format!("{}\nAccepted password for root from ::1 port 1 ssh2", message())),
            "{}".to_owned(),
            "x".to_owned(),
        ] {
            assert!(from_journal(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_line_of_a_log_is_attested_only_by_a_process_of_sshd() {
        let own = std::process::id();
        let line = format!("Nov 22 10:00:00 web-1 sshd[{own}]: {}", message());
        let from_log = |line: &[u8]| from_log(line, &mut Reasons::default());
        let login = from_log(line.as_bytes()).unwrap();
        assert_eq!((login.process_id, login.attested), (own, false));
        assert!(from_log(b"\xff").is_none());
    }

    #[test]
    fn a_refusal_has_the_reason_that_its_own_process_said_before() {
        let mut reasons = Reasons::default();
        let failed = format!(
            "Failed publickey for kim from ::1 port 2 ssh2: RSA-CERT {PRINT} ID a (serial 1) CA ED25519 {PRINT}"
        );
        let left = "Connection closed by authenticating user kim ::1 port 2 [preauth]";
        let mut read = |pid: u32, message: &str| {
            let line = format!("Nov 22 10:00:00 web-1 sshd[{pid}]: {message}");
            from_log(line.as_bytes(), &mut reasons).map(|login| (login.refused, login.reason))
        };
        let refused = |reason: &str| Some((true, reason.to_owned()));
        assert_eq!(read(7, "error: Certificate invalid: expired"), None);
        assert_eq!(read(8, &failed), refused(""));
        assert_eq!(read(7, &failed), refused("CertificateExpired"));
        assert_eq!(read(7, &failed), refused(""), "once");
        assert_eq!(read(7, left), None);
        assert_eq!(read(9, "error: userauth_pubkey: parse key: incorrect signature [preauth]"), None);
        assert_eq!(read(9, left), refused("CertificateAltered"));
        assert_eq!(read(9, "error: Certificate invalid: expired"), None);
        assert_eq!(read(9, &message()), Some((false, String::new())));
        assert_eq!(read(9, &failed), refused(""));
        for pid in 0..2 * u32::try_from(MAX_REASONS).unwrap() {
            assert_eq!(read(pid, "Certificate invalid: expired"), None);
        }
        assert_eq!(reasons.said.len(), MAX_REASONS);
    }

    #[tokio::test]
    async fn a_file_is_followed_over_truncation_and_rotation_and_the_oldest_are_counted_when_there_is_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.log");
        std::fs::write(&path, "").unwrap();
        let append = |text: String| {
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        };
        let logins = Logins::start();
        let count = async |wanted: usize| {
            let reached = async {
                while logins.lock().logins.len() != wanted {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(Duration::from_secs(60), reached).await.expect("logins are read");
        };
        logins.read(LogKind::File, std::fs::File::open(&path).unwrap().into());
        append(format!("noise\n{}\n", message()));
        count(1).await;
        std::fs::write(&path, "").unwrap();
        // Only a file that is shorter than it was read is seen to be emptied.
        sleep(2 * LOOK_AGAIN).await;
        append(format!("{}\n", message()));
        count(2).await;
        append(format!("{}\n", message()));
        std::fs::rename(&path, directory.path().join("auth.log.1")).unwrap();
        append(format!("{}\n", message()).repeat(MAX_WAITING));
        logins.read(LogKind::File, std::fs::File::open(&path).unwrap().into());
        let reached = async {
            while logins.lock().missed != 3 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), reached).await.expect("the oldest are counted");
        let batch = logins.batch();
        assert_eq!((batch.logins.len(), batch.missed), (MAX_LOGINS, 3));
        logins.done(&batch);
        let waiting = logins.lock();
        assert_eq!((waiting.logins.len(), waiting.missed), (MAX_WAITING - MAX_LOGINS, 0));
    }
}
