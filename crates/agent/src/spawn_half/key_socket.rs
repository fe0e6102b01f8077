//! The Unix socket where sshd's helper asks which keys are good. Any local process may ask: it learns public keys and
//! nothing else. Questions and answers are those of [`munjigi_core::ssh::lookup`].
//!
//! Everything is bounded: connections in all and of one user, the length of a question, the time for it.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use munjigi_core::account::bundle::BundleKey;
use munjigi_core::ssh::key_options::KeyLine;
use munjigi_core::ssh::lookup::{self, LOCAL_ANSWER, MAX_QUESTION, Question};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;

use super::aws_keys::Unanswered;
use super::keys::{Keys, SshConnection};
use super::registered_keys::Registered;

/// Most connections at once, and of one user.
const MAX_CONNECTIONS: usize = 64;
const MAX_PER_USER: usize = 16;
/// From the connection to its question.
const QUESTION: Duration = Duration::from_secs(2);
/// How far above the asking process sshd is looked for: a helper may be started through a script.
const MAX_ANCESTORS: usize = 8;
/// What sshd's processes are called: `sshd`, and `sshd-session` since OpenSSH 9.8.
const SSHD: [&str; 2] = ["sshd", "sshd-session"];

/// The listening socket and who is asking.
#[derive(Debug)]
pub(crate) struct KeySocket {
    path: PathBuf,
    listener: UnixListener,
    asking: Vec<Asking>,
}

/// A connection whose question is not yet whole.
#[derive(Debug)]
struct Asking {
    stream: UnixStream,
    uid: u32,
    pid: i32,
    question: Vec<u8>,
    until: Instant,
}

/// Whom questions are answered from.
pub(crate) struct Known<'a> {
    /// Keys that were pushed.
    pub(crate) keys: &'a mut Keys,
    /// Those of the account bundle.
    pub(crate) registered: Option<Registered<'a>>,
    /// Accounts for which nothing is looked up.
    pub(crate) local: &'a [String],
    /// Takes the questions of real sshds that nothing here answers, if somebody else can be asked.
    pub(crate) unanswered: Option<&'a mut Vec<Unanswered>>,
}

impl KeySocket {
    /// Listens at a path, whose directory is made if it is not there. An old socket of an agent that was killed is
    /// replaced; anything else is not touched.
    pub(crate) fn listen(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let directory = path.parent().context("the socket's path has no directory")?;
        if !directory.exists() {
            DirBuilder::new()
                .mode(0o755)
                .create(directory)
                .with_context(|| format!("failed to create {}", directory.display()))?;
        }
        let meta = fs::metadata(directory).with_context(|| format!("failed to look at {}", directory.display()))?;
        // Whoever can put a socket there could answer sshd in our place.
        let owner_good = meta.uid() == 0 || meta.uid() == Uid::effective().as_raw();
        if !owner_good || meta.mode() & 0o022 != 0 {
            bail!("{} must belong to root or the agent's user and be writable for nobody else", directory.display());
        }
        match fs::symlink_metadata(path) {
            Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
                fs::remove_file(path).with_context(|| format!("failed to remove the old socket {shown}"))?;
            }
            Ok(_) => bail!("{shown} is there and is no socket"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("failed to look at {shown}")),
        }
        let listener = UnixListener::bind(path).with_context(|| format!("failed to listen at {shown}"))?;
        listener.set_nonblocking(true).with_context(|| format!("failed to listen at {shown}"))?;
        fs::set_permissions(path, Permissions::from_mode(0o666)).with_context(|| format!("failed to open {shown}"))?;
        Ok(Self { path: path.to_owned(), listener, asking: Vec::new() })
    }

    /// Returns every descriptor to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.asking.iter().map(|asking| asking.stream.as_fd()))
    }

    /// Returns when the next question is given up.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.asking.iter().map(|asking| asking.until).min()
    }

    /// Accepts, reads and answers as far as it goes without waiting.
    pub(crate) fn serve(&mut self, known: &mut Known<'_>, now: Instant) {
        self.accept(now);
        self.asking = std::mem::take(&mut self.asking)
            .into_iter()
            .filter(|asking| asking.until > now)
            .filter_map(|asking| asking.go_on(known, now))
            .collect();
    }

    fn accept(&mut self, now: Instant) {
        // A bound per round, so that a crowd does not keep the rest of the agent waiting.
        for _ in 0..MAX_CONNECTIONS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let Ok(peer) = getsockopt(&stream, sockopt::PeerCredentials) else { continue };
            let of_user = self.asking.iter().filter(|asking| asking.uid == peer.uid()).count();
            // Root is not counted out: sshd itself asks as somebody else.
            if self.asking.len() >= MAX_CONNECTIONS || of_user >= MAX_PER_USER || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            let until = now + QUESTION;
            self.asking.push(Asking { stream, uid: peer.uid(), pid: peer.pid(), question: Vec::new(), until });
        }
    }
}

impl Drop for KeySocket {
    fn drop(&mut self) {
        // Best effort: the next agent replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Asking {
    /// Reads what there is and answers a whole question. Comes back if more is to come.
    fn go_on(mut self, known: &mut Known<'_>, now: Instant) -> Option<Self> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.question.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(self),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return None,
            }
            if let Some(end) = self.question.iter().position(|byte| *byte == b'\n') {
                let question = Question::decode(self.question.get(..end).unwrap_or_default());
                if let Some(question) = question {
                    self.answer(question, known, now);
                }
                return None;
            }
            if self.question.len() > MAX_QUESTION {
                return None;
            }
        }
    }

    fn answer(mut self, question: Question, known: &mut Known<'_>, now: Instant) {
        let answer = if known.local.contains(&question.os_user) {
            LOCAL_ANSWER.to_owned()
        } else {
            let connection = ssh_connection(self.pid);
            let given = known.lines(&question, connection, now);
            if let (true, Some(unanswered), Some(connection)) = (given.is_empty(), &mut known.unanswered, connection) {
                unanswered.push(Unanswered { stream: self.stream, question, connection });
                return;
            }
            lookup::encode_answer(&given)
        };
        // An answer is far smaller than the socket's buffer; a peer that left gets none.
        let _ = self.stream.write_all(answer.as_bytes());
    }
}

impl Known<'_> {
    fn lines(&mut self, question: &Question, connection: Option<SshConnection>, now: Instant) -> Vec<KeyLine> {
        // Pushed keys come first; among those that fit one offered key there is no other difference.
        let pushed = self.keys.answer(question, connection, now);
        let mut given: Vec<KeyLine> = pushed.into_iter().map(KeyLine::from).collect();
        for BundleKey { key, options, .. } in self.registered.iter().flat_map(|registered| registered.answer(question))
        {
            // Of one key in two places the first counts, as in sshd's own files.
            if !given.iter().any(|line| line.key == *key) {
                given.push(KeyLine { options: options.clone(), key: key.clone() });
            }
        }
        given
    }
}

/// Finds the sshd process that a process works for: the nearest one above it that is called so and really is root's
/// (or ours, where sshd runs without privileges). Its name alone would prove nothing: anybody can take a name.
fn ssh_connection(asking: i32) -> Option<SshConnection> {
    let own = Uid::current().as_raw();
    let mut pid = asking;
    for _ in 0..MAX_ANCESTORS {
        pid = Process::read(pid)?.parent;
        let above = Process::read(pid)?;
        if SSHD.contains(&above.name.as_str()) && (above.real_uid == 0 || above.real_uid == own) {
            return Some(SshConnection { pid, started: started(pid)? });
        }
    }
    None
}

/// What the kernel says of a process.
struct Process {
    name: String,
    parent: i32,
    /// The real one: sshd changes its effective one for a moment when it starts a helper. The owner of the directory
    /// in /proc would not do, it is root's for every process that hides its memory.
    real_uid: u32,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        if pid <= 1 {
            return None;
        }
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// Reads /proc/PID/status; the kernel escapes line feeds in names, so every line is its own.
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        Some(Self {
            name: field("Name")?.to_owned(),
            parent: field("PPid")?.parse().ok()?,
            real_uid: field("Uid")?.split('\t').next()?.parse().ok()?,
        })
    }
}

fn started(pid: i32) -> Option<u64> {
    started_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads field 22 of /proc/PID/stat; the name, which may hold anything, ends with the last parenthesis.
fn started_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;

    use munjigi_core::grant::AuthorizedKey;
    use munjigi_core::ssh::PublicKey;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn socket() -> (tempfile::TempDir, KeySocket, Keys) {
        let directory = tempfile::tempdir().unwrap();
        let socket = KeySocket::listen(&directory.path().join("keys.sock")).unwrap();
        let mut keys = Keys::default();
        let key = PublicKey::parse(KEY).unwrap();
        let pushed = AuthorizedKey { key, life_secs: 60, single_use: false, request_id: "r".into() };
        keys.take("alice".into(), pushed, "kim".into(), Instant::now()).unwrap();
        (directory, socket, keys)
    }

    fn ask(socket: &mut KeySocket, keys: &mut Keys, question: &[u8]) -> String {
        let mut stream = UnixStream::connect(&socket.path).unwrap();
        stream.write_all(question).unwrap();
        let local = ["ansible".to_owned()];
        // The test is no sshd, so its questions go nowhere else.
        let mut unanswered = Vec::new();
        let mut known = Known { keys, registered: None, local: &local, unanswered: Some(&mut unanswered) };
        socket.serve(&mut known, Instant::now());
        assert!(unanswered.is_empty());
        let mut answer = String::new();
        stream.set_nonblocking(true).unwrap();
        // Closed at once, or nothing yet.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn questions_are_answered_and_everything_else_is_not() {
        let (_directory, mut socket, mut keys) = socket();
        let good = format!("munjigi-keys 1 alice {KEY}\n");
        assert_eq!(ask(&mut socket, &mut keys, good.as_bytes()), format!("key {KEY}\nend\n"));
        assert_eq!(ask(&mut socket, &mut keys, b"munjigi-keys 1 bob - -\n"), "end\n");
        assert_eq!(ask(&mut socket, &mut keys, b"munjigi-keys 1 ansible - -\n"), "local\nend\n");
        for bad in [&b"\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"munjigi-keys 1 ../a - -\n", &[0; MAX_QUESTION + 1]] {
            assert_eq!(ask(&mut socket, &mut keys, bad), "");
        }
        assert!(socket.asking.is_empty());
    }

    #[test]
    fn whoever_says_nothing_is_dropped_and_few_of_one_user_may_wait() {
        let (_directory, mut socket, mut keys) = socket();
        let waiting: Vec<UnixStream> =
            (0..MAX_PER_USER + 5).map(|_| UnixStream::connect(&socket.path).unwrap()).collect();
        let now = Instant::now();
        let mut known = Known { keys: &mut keys, registered: None, local: &[], unanswered: None };
        socket.serve(&mut known, now);
        assert_eq!(socket.asking.len(), MAX_PER_USER);
        assert_eq!(socket.descriptors().count(), 1 + MAX_PER_USER);
        assert!(socket.next_end().is_some());
        socket.serve(&mut known, now + QUESTION + Duration::from_millis(1));
        assert!(socket.asking.is_empty());
        let mut line = String::new();
        assert_eq!(std::io::BufReader::new(&waiting[0]).read_line(&mut line).unwrap(), 0);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let (directory, socket, _keys) = socket();
        let path = socket.path.clone();
        std::mem::forget(socket);
        let again = KeySocket::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        drop(again);
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(KeySocket::listen(&path).unwrap_err().to_string().contains("no socket"));
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(KeySocket::listen(&open.join("s")).unwrap_err().to_string().contains("writable for nobody else"));
    }

    #[test]
    fn a_process_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tsshd\nUmask:\t0022\nPid:\t9\nPPid:\t4\nUid:\t0\t65534\t0\t0\n";
        let process = Process::parse(status).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.real_uid), ("sshd", 4, 0));
        assert!(Process::parse("Name:\tx\\nPPid:\t1\nUid:\t0\n").is_none());
        let rest: Vec<String> = (3..30).map(|n| n.to_string()).collect();
        assert_eq!(started_in(&format!("12 (a) b) {}", rest.join(" "))), Some(22));
        assert_eq!(started_in("12 (a"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Process::read(own).is_some() && started(own).is_some());
    }
}
