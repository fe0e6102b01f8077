//! Forwards that run in the background: a file for each in a directory of the person's, by which `--list` and `--stop`
//! find them.
//!
//! A file says which process serves the forward. Numbers of processes are used again, so the process' start time and the
//! machine's boot stand in it, too; a file whose process is not that one is removed by whoever sees it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Longest file that is read; one of 64 forwards has a few KiB.
const MAX_FILE: u64 = 256 * 1024;
/// Most files that are looked at.
const MAX_FILES: usize = 1024;
/// How long a forward may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A forward in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    /// Names it among the person's own.
    pub(crate) id: String,
    /// Node or target as it was asked for.
    pub(crate) target: String,
    /// The node that served it when it was started.
    pub(crate) node: String,
    /// The server's URL.
    pub(crate) server: String,
    /// Its session when it was started.
    pub(crate) session_id: String,
    /// When it was ready, RFC 3339.
    pub(crate) since: String,
    /// What listens, and where it leads to.
    pub(crate) forwards: Vec<Listening>,
    /// The process that serves it.
    pub(crate) process: Process,
}

/// One place that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listening {
    /// What it is.
    pub(crate) kind: ListeningKind,
    /// Where: `ADDRESS:PORT` or `unix:PATH`; on the node for [`ListeningKind::Reverse`].
    pub(crate) local: String,
    /// Port, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Where it leads to; empty if programs say so themselves, or the target has only one place.
    #[serde(default)]
    pub(crate) remote: String,
}

/// What listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListeningKind {
    /// This machine, for one place behind the node.
    Forward,
    /// This machine, as a SOCKS and HTTP proxy.
    Proxy,
    /// The node, for a place behind this machine.
    Reverse,
}

/// A process, told from others that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Process {
    /// Its number.
    pub(crate) id: i32,
    /// When it was started, in the kernel's ticks since boot.
    pub(crate) started: u64,
    /// Which boot that was.
    pub(crate) boot: String,
}

impl Process {
    /// This process.
    pub(crate) fn own() -> anyhow::Result<Self> {
        let id = i32::try_from(std::process::id())?;
        Self::of(id).context("cannot read this process' start time from /proc")
    }

    fn of(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in brackets, may hold anything; the start time is the 20th field behind it (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        // One that waits for its parent to notice has ended.
        let state = fields.next().filter(|state| !["Z", "X"].contains(state));
        let started = state.and(fields.nth(18))?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { id, started, boot })
    }

    /// Tells whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        self.id > 1 && Self::of(self.id).as_ref() == Some(self)
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn end(&self) -> anyhow::Result<()> {
        if !self.runs() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.id), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot end process {}", self.id)),
        }
        let gone = async {
            while self.runs() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(END_LIMIT, gone).await.is_err() {
            bail!("process {} does not end; if need be `kill -9 {}`", self.id, self.id);
        }
        Ok(())
    }
}

/// The directory of the files.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

/// Removes a forward's file when it is dropped.
#[derive(Debug)]
pub(crate) struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        // Gone already if somebody else cleared it away.
        let _ = fs::remove_file(&self.0);
    }
}

impl Directory {
    /// Takes the directory, and makes it, for this person alone, if it is not there.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Returns where the messages of a forward go.
    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.log"))
    }

    fn file(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// Writes a forward's file, whole or not at all.
    pub(crate) fn add(&self, entry: &Entry) -> anyhow::Result<Listed> {
        let (path, new) = (self.file(&entry.id), self.0.join(format!("{}.new", entry.id)));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(entry)?)?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Listed(path))
    }

    /// Reads the file of a forward that runs.
    pub(crate) fn get(&self, id: &str) -> anyhow::Result<Entry> {
        let path = self.file(id);
        read(&path).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Returns the forwards that run, oldest first, and clears away what is left of others.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let files = fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        for file in files.take(MAX_FILES) {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(entry) if entry.process.runs() && self.file(&entry.id) == path => entries.push(entry),
                // What nobody serves, or nobody can read, is of no use to anybody.
                _ => self.clear(&path),
            }
        }
        entries.sort_by(|one, other| (&one.since, &one.id).cmp(&(&other.since, &other.id)));
        Ok(entries)
    }

    /// Removes what belongs to a forward that has ended.
    pub(crate) fn remove(&self, id: &str) {
        self.clear(&self.file(id));
    }

    fn clear(&self, file: &Path) {
        // Gone already if somebody else looked at the same moment.
        let _ = fs::remove_file(file);
        let _ = fs::remove_file(file.with_extension("log"));
    }
}

fn read(path: &Path) -> anyhow::Result<Entry> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(id: &str, process: Process) -> Entry {
        let listening = Listening {
            kind: ListeningKind::Forward,
            local: "127.0.0.1:8080".to_owned(),
            port: Some(8080),
            remote: "db:5432".to_owned(),
        };
        Entry {
            id: id.to_owned(),
            target: "web-1".to_owned(),
            node: "web-1".to_owned(),
            server: "https://gate".to_owned(),
            session_id: "s".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            forwards: vec![listening],
            process,
        }
    }

    #[test]
    fn only_forwards_whose_process_is_still_the_same_are_listed() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path().join("a/b")).unwrap();
        let own = Process::own().unwrap();
        let listed = directory.add(&entry("run", own.clone())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory.0), mode(&directory.file("run"))), (0o700, 0o600));
        for (id, process) in [
            ("later", Process { started: own.started + 1, ..own.clone() }),
            ("boot", Process { boot: "another".to_owned(), ..own.clone() }),
            ("init", Process { id: 1, ..own.clone() }),
            ("all", Process { id: -1, ..own.clone() }),
        ] {
            std::mem::forget(directory.add(&entry(id, process)).unwrap());
            fs::write(directory.log(id), "words").unwrap();
        }
        fs::write(directory.file("damaged"), "{").unwrap();
        fs::write(directory.file("renamed"), serde_json::to_vec(&entry("x", own.clone())).unwrap()).unwrap();
        assert_eq!(directory.list().unwrap(), [entry("run", own.clone())]);
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "the others are cleared away");
        assert_eq!(directory.get("run").unwrap(), entry("run", own));
        drop(listed);
        assert!(directory.list().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_process_is_ended_and_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.runs());
        let reaped = std::thread::spawn(move || child.wait().unwrap());
        process.end().await.unwrap();
        assert!(!process.runs());
        reaped.join().unwrap();
        process.end().await.unwrap();
    }
}
