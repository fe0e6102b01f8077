//! The change itself: a lookup through the new way gives a key, sshd asks the new way, a lookup as sshd does it gives a key
//! again, and only then the old pieces go. A step that fails takes back every one before it.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::unistd::{Uid, User};
use serde::Serialize;

use super::journal::Journal;
use super::pieces::{self, Pieces};
use super::sshd_lines::{self, Edit};
use super::{System, note};
use crate::command::sshd;

/// How long the new way has time to give a key: the node may just be told of it.
const PROOF: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// There while systemd runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What an older system has on a host, in the settings of sshd and beside them.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Old {
    /// Lines of sshd's settings, each behind its file.
    pub(super) sshd_lines: Vec<String>,
    /// Files, links and units.
    pub(super) pieces: Pieces,
    #[serde(skip)]
    edits: Vec<Edit>,
}

/// Where and by whom the new way is proved.
pub(super) struct Removal<'a> {
    /// The host's files.
    pub(super) root: &'a Path,
    /// Data directory of the host's agent.
    pub(super) agent_dir: &'a Path,
    /// The account whose keys are asked for.
    pub(super) proof_user: &'a str,
    /// The daemon.
    pub(super) sshd: &'a Path,
    /// Path of munjigi as sshd shall run it.
    pub(super) program: Option<&'a Path>,
}

impl Old {
    /// Looks what there is.
    pub(super) fn find(root: &Path, system: System) -> Self {
        let edits = sshd_lines::find(root, system);
        let lines =
            edits.iter().flat_map(|edit| edit.lines.iter().map(move |line| format!("{}: {line}", edit.path.display())));
        Self { sshd_lines: lines.collect(), pieces: pieces::find(root, system), edits }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.pieces.moved.is_empty() && self.pieces.masked.is_empty()
    }
}

impl Removal<'_> {
    /// Does it, or leaves everything as it was.
    pub(super) fn run(&self, old: &Old) -> anyhow::Result<()> {
        let socket = munjigi_agent::keys_socket(self.agent_dir)
            .with_context(|| format!("{} is no agent's data directory", self.agent_dir.display()))?;
        self.prove(&socket, None).context("the old pieces stay")?;
        let mut journal = Journal::default();
        let done = self.change(old, &socket, &mut journal);
        match done {
            Ok(told) => {
                told.iter().for_each(|line| note(line));
                self.tell_systemd(&old.pieces);
                Ok(())
            }
            Err(error) => {
                let stuck = journal.undo();
                match stuck.is_empty() {
                    true => Err(error.context("the host is as it was")),
                    false => Err(error.context(format!("not everything could be put back: {}", stuck.join("; ")))),
                }
            }
        }
    }

    fn change(&self, old: &Old, socket: &Path, journal: &mut Journal) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        for edit in &old.edits {
            journal.write(&edit.path, edit.text.as_bytes())?;
            told.push(format!("commented out in {}: {}", edit.path.display(), edit.lines.join(", ")));
        }
        let is_here = self.root == Path::new("/");
        let config = self.root.join("etc/ssh");
        let has_sshd = is_here && self.sshd.is_file() && config.join("sshd_config").is_file();
        if has_sshd {
            journal.about_to_write(&sshd::drop_in_path(&config))?;
            let user = sshd::install_quietly(&config, self.sshd, self.agent_dir, self.program)
                .context("sshd could not be made to ask the agent")?;
            // As sshd does it: as the helper's account, which is not root.
            self.prove(socket, Some(&user))?;
            told.push(format!("sshd asks the agent as {user}"));
        } else {
            told.push("there is no sshd here whose settings could be changed".to_owned());
        }
        told.extend(pieces::put_aside(self.root, &old.pieces, journal)?);
        if has_sshd {
            told.push(sshd::reload_quietly(&config, self.sshd)?);
        }
        Ok(told)
    }

    /// Asks sshd's helper for the account's keys, until it gives one or the time is over.
    fn prove(&self, socket: &Path, as_user: Option<&str>) -> anyhow::Result<()> {
        let until = Instant::now() + PROOF;
        loop {
            let (keys, said) = self.look_up(socket, as_user)?;
            if keys > 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                let user = self.proof_user;
                bail!(
                    "the lookup through the new way gave no key for {user}{said}; `munjigi authorized-keys --socket {} \
                     {user}` shows what sshd would get",
                    socket.display()
                );
            }
            thread::sleep(PAUSE);
        }
    }

    fn look_up(&self, socket: &Path, as_user: Option<&str>) -> anyhow::Result<(usize, String)> {
        let own = std::env::current_exe().context("this program's own file is not known")?;
        let mut command = Command::new(self.program.map_or(own, PathBuf::from));
        command.arg("authorized-keys").arg("--socket").arg(socket).arg(self.proof_user);
        command.env_clear().current_dir("/").stdin(Stdio::null());
        if let Some(name) = as_user.filter(|_| Uid::effective().is_root()) {
            let user = User::from_name(name).ok().flatten().with_context(|| format!("there is no account {name}"))?;
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let asked = command.output().context("failed to run the lookup")?;
        let keys = String::from_utf8_lossy(&asked.stdout).lines().filter(|line| !line.trim().is_empty()).count();
        let said = String::from_utf8_lossy(&asked.stderr);
        Ok((keys, if said.trim().is_empty() { String::new() } else { format!(" ({})", said.trim()) }))
    }

    /// Has systemd stop what was taken away. What it does not do is said: the pieces are gone in any case.
    fn tell_systemd(&self, pieces: &Pieces) {
        let services: Vec<&String> = pieces.units.iter().filter(|unit| unit.starts_with("ssh")).collect();
        for service in &services {
            note(&format!(
                "restart sshd (systemctl restart {service}): the running one still has the old command on its command line; \
                 and remove the package ec2-instance-connect when you can"
            ));
        }
        if pieces.units.is_empty() || self.root != Path::new("/") || !Path::new(BOOTED).is_dir() {
            return;
        }
        let stop: Vec<&str> = pieces.units.iter().map(String::as_str).filter(|unit| !unit.starts_with("ssh")).collect();
        let mut wishes = vec![vec!["daemon-reload"]];
        if !stop.is_empty() {
            wishes.insert(0, [&["stop"], stop.as_slice()].concat());
        }
        for wish in wishes {
            let done = Command::new("systemctl").args(&wish).stdin(Stdio::null()).status();
            if !done.is_ok_and(|status| status.success()) {
                note(&format!("systemctl {} did not work; run it yourself", wish.join(" ")));
            }
        }
    }
}
