//! OpenSSH's client against the server's SSH door: a configuration, an identity and known hosts of its own, and nothing
//! of the person's.

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use tempfile::TempDir;

use super::{TestServer, binary, success, wait_for};

/// A person with `ssh`.
pub(crate) struct TestSsh {
    directory: TempDir,
    port: u16,
    variables: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl TestSsh {
    /// Makes a key pair and a configuration for a server. `ssh` comes to its nodes as `NODE.munjigi` over our own link
    /// as the server's administrator, and to the server itself as `gate`.
    pub(crate) fn of(server: &TestServer) -> Self {
        let directory = tempfile::Builder::new().prefix("munjigi-ssh-").tempdir().unwrap();
        let ssh = Self { directory, port: server.address().port(), variables: server.environment() };
        ssh.new_key("id");
        let here = ssh.directory.path().display();
        let text = format!(
            "Host *.munjigi\n  ProxyCommand {program} ssh --stdio %n\n  User default\n  IdentityFile none\n\
             Host gate\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {here}/id\n\
             Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n  LogLevel ERROR\n\
             \x20 StrictHostKeyChecking accept-new\n  UserKnownHostsFile {here}/known_hosts\n\
             \x20 GlobalKnownHostsFile /dev/null\n  ConnectTimeout 60\n  SetEnv LANG=C.UTF-8\n",
            program = binary(),
            port = ssh.port,
        );
        std::fs::write(ssh.config(), text).unwrap();
        ssh
    }

    /// Is somebody else from now on, for our own link: the owner of this access key.
    pub(crate) fn acting_as(mut self, access_key: &str, secret: &str) -> Self {
        self.variables.retain(|(name, _)| name != "AWS_PROFILE" && name != "AWS_SHARED_CREDENTIALS_FILE");
        for (name, value) in [("AWS_ACCESS_KEY_ID", access_key), ("AWS_SECRET_ACCESS_KEY", secret)] {
            self.variables.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Returns the configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config")
    }

    /// Returns a path in the person's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a key pair `name` and `name.pub`, and returns the public key.
    pub(crate) fn new_key(&self, name: &str) -> String {
        let path = self.path(name);
        success(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test key", "-f"]).arg(&path));
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    }

    /// Prepares a program for this person: `ssh` and those beside it get the configuration.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        if ["ssh", "scp", "sftp"].contains(&program) {
            command.arg("-F").arg(self.config());
        }
        command.args(arguments);
        self.configure(&mut command);
        command
    }

    /// Keeps the person's own settings out.
    pub(crate) fn configure(&self, command: &mut Command) {
        for name in ["AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY"] {
            command.env_remove(name);
        }
        command.env("HOME", self.directory.path()).env("XDG_CONFIG_HOME", self.directory.path());
        command.envs(self.variables.iter().cloned());
    }

    /// Runs `ssh` to its end, without input.
    pub(crate) fn ssh(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command("ssh", arguments), b"")
    }

    /// Runs `ssh` to its end with this input.
    pub(crate) fn ssh_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        Ran::of(self.command("ssh", arguments), input)
    }
}

impl Ran {
    /// Runs a command to its end with this input; one that does not end in time is killed, and the test with it.
    pub(crate) fn of(mut command: Command, input: &[u8]) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = thread::spawn(move || {
            // Whoever does not read it to its end has its reasons.
            let _ = stdin.write_all(&input);
        });
        let out = read(child.stdout.take().unwrap());
        let err = read(child.stderr.take().unwrap());
        let status = end(&mut child, &format!("{command:?}"));
        let text = |bytes: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&bytes.join().unwrap()).into_owned();
        let ran = Self { code: status.code(), out: text(out), err: text(err) };
        writer.join().unwrap();
        ran
    }

    /// Returns what was printed by a command that must have succeeded.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

fn read(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Waits for the end of a process.
pub(crate) fn end(child: &mut Child, what: &str) -> ExitStatus {
    struct Kill<'c>(&'c mut Child);
    impl Drop for Kill<'_> {
        fn drop(&mut self) {
            // It has ended already, unless the wait gave up.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let child = Kill(child);
    wait_for(&format!("the end of {what}"), || child.0.try_wait().unwrap())
}
