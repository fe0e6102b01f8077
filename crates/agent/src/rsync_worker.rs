//! The worker that runs `rsync --server` for one connection: a process of its own, as the session's OS user.
//!
//! The call comes from the verified grant and is built anew from what was understood of it; nothing else is ever run. Before
//! rsync begins, the gateway hears where the paths lead and says whether it may. What rsync did is read from a log that
//! it writes into a pipe; the hash of each file is made here, of the file itself.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context as Hash, SHA256};
use munjigi_copy::sftp::{glob, open_real, resolve};
use munjigi_core::file_command::rsync_link::{
    GO, KIND_DATA, KIND_ERRORS, LOG_FORMAT, MAX_BODY, RsyncDone, RsyncSays, header, log_line,
};
use munjigi_core::file_command::{MAX_PATHS, RsyncCall};
use munjigi_core::sftp::ResolveLast;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};

/// Where rsync is looked for.
const PROGRAMS: [&str; 3] = ["/usr/bin/rsync", "/usr/local/bin/rsync", "/bin/rsync"];
/// Longest line of the log that is read as one; names are shorter.
const MAX_LINE: u64 = 64 * 1024;

/// Serves one call over the socket to its end.
pub(crate) fn serve(socket: OwnedFd, call: &RsyncCall, home: &Path) -> io::Result<()> {
    let socket = std::fs::File::from(socket);
    let out = Link(Mutex::new(socket.try_clone()?));
    match run(socket, &out, call, home) {
        Ok(status) => out.say(&RsyncSays::Exit { status }),
        Err(why) => out.say(&RsyncSays::Failed { why }),
    }
}

/// The way to the gateway, for several threads.
struct Link(Mutex<std::fs::File>);

impl Link {
    fn say(&self, says: &RsyncSays) -> io::Result<()> {
        self.send(&says.encode())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }

    /// Carries what a program writes, in messages of a kind.
    fn carry(&self, mut from: impl Read, kind: u8) -> io::Result<()> {
        let begin = header(kind, 0).len();
        let mut buffer = vec![0; begin + MAX_BODY];
        loop {
            let count = match from.read(buffer.get_mut(begin..).unwrap_or_default()) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(place) = buffer.get_mut(..begin) {
                place.copy_from_slice(&header(kind, count));
            }
            self.send(buffer.get(..begin + count).unwrap_or_default())?;
        }
    }
}

fn run(mut socket: std::fs::File, out: &Link, call: &RsyncCall, home: &Path) -> Result<u8, String> {
    let broken = |error: io::Error| format!("the connection to the gateway broke: {error}");
    let program = PROGRAMS.iter().find(|program| Path::new(program).is_file());
    let program = program.ok_or("rsync is not installed on this node; use scp or sftp, or install it there")?;
    let paths = real_paths(call, home)?;
    let bare = paths.iter().map(|path| trimmed(path).to_vec());
    let judged: Vec<_> = bare.chain(beside(call, &paths)?).collect();
    if judged.len() > MAX_PATHS {
        return Err("the options name too many directories".to_owned());
    }
    out.say(&RsyncSays::Ready { paths: judged }).map_err(broken)?;
    let mut go = [0];
    socket.read_exact(&mut go).map_err(broken)?;
    if go != [GO] {
        return Err("the gateway did not let it begin".to_owned());
    }
    let (log, child) = start(program, call, &paths, home).map_err(|error| format!("rsync does not start: {error}"))?;
    follow(socket, out, call, &paths, log, child).map_err(|error| format!("rsync could not be followed: {error}"))
}

/// Returns where the paths lead; a slash at the end stays, since it means something to rsync.
fn real_paths(call: &RsyncCall, home: &Path) -> Result<Vec<Vec<u8>>, String> {
    let mut real = Vec::new();
    for pattern in call.paths() {
        let found = glob(home, pattern.as_str().as_bytes()).map_err(|errno| format!("{pattern}: {errno}"))?;
        for path in found {
            let place = resolve(home, &path, last(call, &path));
            let place = place.map_err(|errno| format!("{}: {errno}", String::from_utf8_lossy(&path)))?;
            let mut bytes = place.real;
            // A directory by itself, as with `.`, is its content.
            let is_content = path.ends_with(b"/") || path.ends_with(b"/.");
            if is_content && !bytes.ends_with(b"/") {
                bytes.push(b'/');
            }
            real.push(bytes);
        }
    }
    if real.is_empty() || real.len() > MAX_PATHS || (!call.sends() && real.len() != 1) {
        return Err("the paths stand for nothing, or for too much".to_owned());
    }
    Ok(real)
}

/// Returns where the directories lead that options name: a link in the target may lead out of it, and what is backed up or
/// compared would be written or read there.
fn beside(call: &RsyncCall, paths: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let Some(target) = paths.first().filter(|_| !call.sends()) else { return Ok(Vec::new()) };
    let target = Path::new(std::ffi::OsStr::from_bytes(trimmed(target)));
    let root = if target.is_dir() { target } else { target.parent().unwrap_or(target) };
    let lead = |name: &str| match resolve(root, name.as_bytes(), ResolveLast::Followed) {
        Ok(place) => Ok(place.real),
        // What is not there yet leads nowhere else.
        Err(Errno::ENOENT) => Ok(root.join(name).into_os_string().into_encoded_bytes()),
        Err(errno) => Err(format!("{name}: {errno}")),
    };
    call.directories().map(lead).collect()
}

/// A link that is sent by its own name is sent as a link; a target is where it leads.
fn last(call: &RsyncCall, path: &[u8]) -> ResolveLast {
    let is_content = path.ends_with(b"/") || path.ends_with(b"/.");
    if call.sends() && !is_content { ResolveLast::Itself } else { ResolveLast::Followed }
}

fn trimmed(path: &[u8]) -> &[u8] {
    match path.strip_suffix(b"/") {
        Some(b"") | None => path,
        Some(rest) => rest,
    }
}

fn start(program: &str, call: &RsyncCall, paths: &[Vec<u8>], home: &Path) -> io::Result<(std::fs::File, Child)> {
    let (log, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // rsync opens it once more by this name. There is one thread, and nothing else is started meanwhile.
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("LC_ALL", "C.UTF-8").current_dir(home);
    command.arg("--server");
    if call.sends() {
        command.arg("--sender");
    }
    command.args(call.options());
    command.arg(format!("--log-file=/proc/self/fd/{}", writer.as_raw_fd()));
    command.arg(format!("--log-file-format={LOG_FORMAT}"));
    command.arg(".");
    command.args(paths.iter().map(|path| std::ffi::OsStr::from_bytes(path)));
    // Its own group, so that all of it can be ended.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    Ok((log.into(), child))
}

fn follow(
    mut socket: std::fs::File,
    out: &Link,
    call: &RsyncCall,
    paths: &[Vec<u8>],
    log: std::fs::File,
    mut child: Child,
) -> io::Result<u8> {
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let missing = || io::Error::other("a pipe is missing");
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut stdin, stdout, stderr) =
        (stdin.ok_or_else(missing)?, stdout.ok_or_else(missing)?, stderr.ok_or_else(missing)?);
    // It ends with the client's direction, or with this process.
    std::thread::Builder::new().name("rsync-in".to_owned()).spawn(move || {
        let mut buffer = vec![0; MAX_BODY];
        // Not `io::copy`: it would splice, which keeps the pipe locked while it waits for the socket.
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            if stdin.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                // rsync may end before its client does.
                return;
            }
        }
    })?;
    let status = std::thread::scope(|scope| {
        let output = scope.spawn(|| out.carry(stdout, KIND_DATA));
        let errors = scope.spawn(|| out.carry(stderr, KIND_ERRORS));
        // Of its processes one may wait for ever for another that is gone.
        let ended = scope.spawn(|| {
            let status = child.wait();
            // There may be none left.
            let _ = killpg(group, Signal::SIGKILL);
            status
        });
        let told = tell(log, out, call, paths);
        for carried in [output, errors] {
            carried.join().map_err(|_| io::Error::other("a thread broke"))??;
        }
        told?;
        ended.join().map_err(|_| io::Error::other("a thread broke"))?
    })?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    Ok(u8::try_from(code).unwrap_or(255))
}

/// Reads the log and tells of each file.
fn tell(log: std::fs::File, out: &Link, call: &RsyncCall, paths: &[Vec<u8>]) -> io::Result<()> {
    let mut log = BufReader::new(log);
    loop {
        let mut line = Vec::new();
        if (&mut log).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        line.pop_if(|last| *last == b'\n');
        let Some((done, name, size)) = log_line(&line) else { continue };
        let path = if call.sends() { [b"/", name.as_slice()].concat() } else { received(paths, &name) };
        let is_file = matches!(done, RsyncDone::Sent | RsyncDone::Received);
        let (hash, size, why) = match is_file.then(|| hash_of(&path)) {
            None => (None, size, String::new()),
            Some(Ok((hash, bytes))) => (Some(hash), bytes, String::new()),
            Some(Err(error)) => (None, size, format!("it could not be read for its hash: {error}")),
        };
        out.say(&RsyncSays::Done { done, path, size, hash, why })?;
    }
}

/// Names are below the target, which is the file itself where it was no directory before.
fn received(paths: &[Vec<u8>], name: &[u8]) -> Vec<u8> {
    let root = trimmed(paths.first().map_or(&[][..], Vec::as_slice));
    let below = PathBuf::from(std::ffi::OsStr::from_bytes(&[root, b"/", name].concat()));
    let is_root = matches!(name, b"" | b".")
        || (below.symlink_metadata().is_err() && !Path::new(std::ffi::OsStr::from_bytes(root)).is_dir());
    if is_root { root.to_vec() } else { below.into_os_string().into_encoded_bytes() }
}

fn hash_of(path: &[u8]) -> io::Result<([u8; 32], u64)> {
    let mut file = open_real(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file any more"));
    }
    let mut hash = Hash::new(&SHA256);
    let mut buffer = vec![0; MAX_BODY];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(buffer.get(..count).unwrap_or_default());
        bytes += count as u64;
    }
    let hash = hash.finish().as_ref().try_into().map_err(|_| io::Error::other("a hash has another length"))?;
    Ok((hash, bytes))
}
