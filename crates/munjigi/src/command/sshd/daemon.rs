//! sshd itself: what it makes of its settings (`sshd -T`), whether it accepts them (`sshd -t`), and how the running one
//! is told to read them again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::client::text::escaped;

/// The directory whose configuration an sshd without `-f` reads.
const DEFAULT_CONFIG: &str = "/etc/ssh";
/// Most bytes of a settings file that is looked through.
const MAX_BYTES: u64 = 1024 * 1024;

/// An sshd and its settings.
pub(super) struct Daemon {
    program: PathBuf,
    config: PathBuf,
}

/// The command that sshd asks for keys.
#[derive(Debug)]
pub(super) struct KeysCommand {
    pub(super) command: String,
    pub(super) user: String,
}

impl KeysCommand {
    /// Tells whether it is ours and asks at the socket.
    pub(super) fn asks(&self, socket: &Path) -> bool {
        let mut words = self.command.split(' ').skip(1);
        words.next() == Some("authorized-keys")
            && words.next() == Some("--socket")
            && words.next().map(Path::new) == Some(socket)
    }
}

impl Daemon {
    pub(super) fn new(program: &Path, config: &Path) -> Self {
        Self { program: program.to_owned(), config: config.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.config.join("sshd_config")
    }

    fn ask(&self, flag: &str) -> anyhow::Result<String> {
        let (program, file) = (self.program.display(), self.file());
        let output = Command::new(&self.program)
            .args([flag, "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}; name it with --sshd"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {flag} -f {}: {}", file.display(), escaped(said.trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Has sshd check its settings.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.ask("-t").map(drop)
    }

    /// Returns the command that sshd asks for keys, wherever it is set.
    pub(super) fn keys_command(&self) -> anyhow::Result<Option<KeysCommand>> {
        let settings = self.ask("-T")?;
        let value = |name: &str| {
            let line = settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.filter(|value| *value != "none").map(str::to_owned)
        };
        let user = value("authorizedkeyscommanduser");
        Ok(value("authorizedkeyscommand").zip(user).map(|(command, user)| KeysCommand { command, user }))
    }

    /// Returns the value of a setting, wherever it is set; `None` for `none`.
    pub(super) fn setting(&self, name: &str) -> anyhow::Result<Option<String>> {
        let settings = self.ask("-T")?;
        let line = settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.filter(|value| *value != "none").map(str::to_owned))
    }

    /// Returns the running sshd whose command line sets a command: that wins over every file.
    pub(super) fn overridden_by(&self) -> anyhow::Result<Option<i32>> {
        let entries = fs::read_dir("/proc").context("cannot look at the running processes")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        Ok(pids.filter(|pid| is_sshd(*pid)).find(|pid| self.overrides(*pid)))
    }

    /// Tells whether the command line of a process names a program.
    pub(super) fn command_line_names(pid: i32, program: &str) -> bool {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(program))
    }

    fn overrides(&self, pid: i32) -> bool {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let words: Vec<String> =
            line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let file = words.iter().skip_while(|word| *word != "-f").nth(1);
        let same = match file {
            Some(file) => Path::new(file) == self.file(),
            None => self.config == Path::new(DEFAULT_CONFIG),
        };
        let sets = |word: &String| {
            let word = word.trim_start_matches("-o").trim_start().to_ascii_lowercase();
            word.starts_with("authorizedkeyscommand=") || word.starts_with("authorizedkeyscommand ")
        };
        same && words.iter().any(sets)
    }

    /// Tells the running sshd to read its settings again; returns its process id, or `None` if none runs.
    pub(super) fn reload(&self) -> anyhow::Result<Option<i32>> {
        let settings = self.ask("-T")?;
        let file = settings.lines().find_map(|line| line.strip_prefix("pidfile ")).filter(|file| *file != "none");
        let Some(text) = file.and_then(|file| fs::read_to_string(file).ok()) else { return Ok(None) };
        let Some(pid) = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1 && is_sshd(*pid)) else {
            // An old file, and perhaps another program with its number by now.
            return Ok(None);
        };
        kill(Pid::from_raw(pid), Signal::SIGHUP).with_context(|| format!("cannot tell sshd (process {pid})"))?;
        Ok(Some(pid))
    }

    /// Returns the settings files that set a command in a Match block, where ours does not reach.
    pub(super) fn commands_in_match_blocks(&self) -> Vec<PathBuf> {
        let below = fs::read_dir(self.config.join("sshd_config.d")).into_iter().flatten();
        let files = below.filter_map(|entry| Some(entry.ok()?.path())).chain([self.file()]);
        let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_BYTES);
        let sets = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| command_in_match_block(&text));
        files.filter(small).filter(sets).collect()
    }
}

fn command_in_match_block(text: &str) -> bool {
    let keyword =
        |line: &str| line.trim_start().split([' ', '\t', '=']).next().unwrap_or_default().to_ascii_lowercase();
    text.lines().skip_while(|line| keyword(line) != "match").any(|line| keyword(line) == "authorizedkeyscommand")
}

fn is_sshd(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sshd")
}

/// Checks what sshd will check: that nobody but root can have written the program, or moved another into its place.
pub(super) fn check_program(program: &Path) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        // sshd of an ordinary user; it says itself what it does not like.
        return Ok(());
    }
    for path in program.ancestors() {
        let meta = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
        if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            bail!(
                "sshd runs only what nobody but root can change, and {} is not so; install munjigi below /opt or /usr \
                 and name it with --program",
                path.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_behind_match_are_found_and_others_are_not() {
        assert!(command_in_match_block("Port 22\nMatch User a\n\tauthorizedkeyscommand=/x\n"));
        assert!(!command_in_match_block("AuthorizedKeysCommand /x\nMatch User a\n PasswordAuthentication no\n"));
        assert!(!command_in_match_block("Match User a\n# AuthorizedKeysCommand /x\n AuthorizedKeysCommandUser b\n"));
    }

    #[test]
    fn our_command_is_known_by_its_socket() {
        let command = |text: &str| KeysCommand { command: text.to_owned(), user: "nobody".to_owned() };
        let socket = Path::new("/run/munjigi/a.sock");
        assert!(command("/opt/munjigi authorized-keys --socket /run/munjigi/a.sock %u %t %k -- /x %u").asks(socket));
        assert!(!command("/opt/munjigi authorized-keys --socket /run/munjigi/b.sock %u %t %k").asks(socket));
        assert!(!command("/usr/bin/sss_ssh_authorizedkeys %u").asks(socket));
    }
}
