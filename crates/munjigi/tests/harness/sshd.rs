//! A real sshd with keys, settings, log and port of its own; nothing of the machine's is read or changed.

use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use super::{free_port, output, success, wait_for};
use crate::faults::user;

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd on loopback. Stops when it is dropped.
pub(crate) struct TestSshd {
    directory: TempDir,
    port: u16,
    daemon: Option<Child>,
}

impl TestSshd {
    /// Makes keys and settings; `settings` are lines of `sshd_config`.
    pub(crate) fn prepare(settings: &str) -> Self {
        assert!(Path::new(SSHD).exists(), "no {SSHD}: run `scripts/deps test`");
        let directory = tempfile::Builder::new().prefix("munjigi-sshd-").tempdir().unwrap();
        // The helper runs as somebody else and has to get to the agent's socket.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let sshd = Self { directory, port, daemon: None };
        std::fs::create_dir(sshd.path("sshd_config.d")).unwrap();
        for key in ["host", "own"] {
            sshd.new_key(key);
        }
        std::fs::copy(sshd.path("own.pub"), sshd.path("authorized")).unwrap();
        let here = sshd.directory.path().display();
        let text = format!(
            "Include {here}/sshd_config.d/*.conf\nPort {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\n\
             PidFile {here}/sshd.pid\nAuthorizedKeysFile {here}/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 100\nAllowTcpForwarding yes\n{settings}\n"
        );
        std::fs::write(sshd.path("sshd_config"), text).unwrap();
        sshd
    }

    /// Starts the daemon.
    pub(crate) fn start(&mut self) {
        if Uid::effective().is_root() && !Path::new("/run/sshd").exists() {
            // Compiled into sshd, which as root does not start without it.
            std::fs::DirBuilder::new().mode(0o755).create("/run/sshd").unwrap();
        }
        let mut command = Command::new(SSHD);
        command.arg("-D").arg("-f").arg(self.path("sshd_config")).arg("-E").arg(self.log());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.daemon = Some(child);
        self.wait_until_it_listens();
    }

    /// Waits until it takes connections (again).
    pub(crate) fn wait_until_it_listens(&self) {
        wait_for("sshd to listen", || TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop));
    }

    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of its settings.
    pub(crate) fn config(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a path below its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path("sshd.log")
    }

    /// Makes a key pair `name` and `name.pub`, and returns the public key.
    pub(crate) fn new_key(&self, name: &str) -> String {
        let path = self.path(name);
        let mut keygen = Command::new("ssh-keygen");
        success(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test key", "-f"]).arg(&path));
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    }

    /// Builds `ssh` with a key of this directory; options come before the host.
    pub(crate) fn ssh(&self, key: &str, os_user: &str, options: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-p", &self.port.to_string(), "-l", os_user, "-i"]).arg(self.path(key));
        for option in [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=60",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(options).arg("127.0.0.1");
        ssh
    }

    /// Logs in as the test's own user and says whether it was let in.
    pub(crate) fn lets_in(&self, key: &str) -> bool {
        let tried = output(self.ssh(key, &user(), &[]).arg("echo in"));
        self.judge(&tried)
    }

    /// Says whether a login that echoes `in` was let in; any other end than a refusal is a failure of the test.
    pub(crate) fn judge(&self, tried: &Output) -> bool {
        let said = String::from_utf8_lossy(&tried.stderr);
        if tried.status.success() {
            assert!(String::from_utf8_lossy(&tried.stdout).contains("in"), "{tried:?}");
            return true;
        }
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        assert!(said.contains("Permission denied"), "{tried:?}\n{log}");
        false
    }
}

impl Drop for TestSshd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM);
            let _ = daemon.wait();
        }
    }
}
