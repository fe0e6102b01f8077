//! Real PostgreSQL, MariaDB and Redis with data, ports and passwords of their own, on loopback; nothing of the machine's
//! is read or changed. As root they run as `nobody`, because they refuse root.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use tempfile::TempDir;

use super::{free_port, output, success, wait_for};

/// How often another port is tried when somebody else took the first.
const TRIES: usize = 5;

/// A database server. Stops when it is dropped.
pub(crate) struct TestDatabase {
    daemon: Child,
    /// Ends the daemon at once, breaking its connections.
    stop: Signal,
    port: u16,
    directory: TempDir,
}

/// Returns where a program is: in the PATH, where Debian keeps servers, or below PostgreSQL's own directories. Says so
/// when it is nowhere; the test is passed over then.
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    directories.extend(versions.map(|version| version.path().join("bin")));
    let found = directories.into_iter().map(|directory| directory.join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("passed over: there is no {name}; `scripts/deps test` installs it");
    }
    found
}

impl TestDatabase {
    /// Starts PostgreSQL. Its superuser is `admin` with the password `admin-secret`, which loopback asks for by SCRAM and
    /// the socket in its directory does not; `settings` are lines of `postgresql.conf`. `None` where there is none.
    pub(crate) fn postgres(settings: &str) -> Option<Self> {
        let (initdb, postgres) = (program("initdb")?, program("postgres")?);
        let directory = directory("munjigi-postgres-");
        let data = directory.path().join("data");
        let password = directory.path().join("password");
        write(&password, "admin-secret\n");
        let mut command = Command::new(initdb);
        command.arg("-D").arg(&data).arg("--pwfile").arg(&password);
        command.args(["-U", "admin", "-N", "-E", "UTF8", "--locale=C.UTF-8"]);
        success(as_nobody(command.args(["--auth-local=trust", "--auth-host=scram-sha-256"])));
        std::fs::remove_file(password).unwrap();
        let conf = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
        write(&data.join("postgresql.conf"), &format!("{conf}\nfsync = off\nmax_connections = 300\n{settings}\n"));
        Some(Self::run(directory, Signal::SIGQUIT, |directory, port| {
            let mut command = Command::new(&postgres);
            command.arg("-D").arg(&data).arg("-k").arg(directory).arg("-p").arg(port.to_string());
            command.args(["-h", "127.0.0.1"]);
            command
        }))
    }

    /// Starts MariaDB. Its superuser is `root`, who needs no password on the socket and has none elsewhere; `settings`
    /// are options of the command line. `None` where there is none.
    pub(crate) fn mariadb(settings: &[&str]) -> Option<Self> {
        let (install, daemon) = (program("mariadb-install-db")?, program("mariadbd")?);
        let directory = directory("munjigi-mariadb-");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        own(&data);
        let mut command = Command::new(install);
        command.arg("--no-defaults").arg("--datadir").arg(&data);
        success(as_nobody(command.args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-log-bin",
        ])));
        Some(Self::run(directory, Signal::SIGKILL, |directory, port| {
            let mut command = Command::new(&daemon);
            command.arg("--no-defaults").arg("--datadir").arg(&data).arg("--socket").arg(directory.join("mysql.sock"));
            command.arg("--pid-file").arg(directory.join("pid")).arg("--port").arg(port.to_string());
            command.args(["--bind-address=127.0.0.1", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"]);
            command.args(settings);
            command
        }))
    }

    /// Starts Redis without a password. `None` where there is none.
    pub(crate) fn redis() -> Option<Self> {
        let daemon = program("redis-server")?;
        Some(Self::run(directory("munjigi-redis-"), Signal::SIGKILL, |directory, port| {
            let mut command = Command::new(&daemon);
            command.args(["--bind", "127.0.0.1", "--save", "", "--port"]).arg(port.to_string());
            command.arg("--unixsocket").arg(directory.join("redis.sock"));
            command
        }))
    }

    /// Runs a daemon in its directory on a free port until it takes connections.
    fn run(directory: TempDir, stop: Signal, command: impl Fn(&Path, u16) -> Command) -> Self {
        let path = directory.path().to_owned();
        let log = path.join("log");
        let mut directory = Some(directory);
        for _ in 0..TRIES {
            let port = free_port();
            let mut command = command(&path, port);
            let file = std::fs::File::create(&log).unwrap();
            command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).current_dir(&path);
            let mut daemon = as_nobody(&mut command).spawn().unwrap();
            let up = wait_for("a database to listen", || {
                if daemon.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true)
            });
            if up && let Some(directory) = directory.take() {
                return Self { daemon, stop, port, directory };
            }
        }
        panic!("the database does not start: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    /// Returns its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of its sockets (`.s.PGSQL.PORT`, `mysql.sock`, `redis.sock`), data and log.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs statements as superuser of PostgreSQL, by the socket, and returns what they print, unaligned.
    pub(crate) fn psql(&self, database: &str, statements: &str) -> String {
        let mut command = Command::new(program("psql").unwrap());
        command.env("PGHOST", self.directory()).env("PGPORT", self.port.to_string()).env("PGUSER", "admin");
        let ran = wait_for("PostgreSQL to be ready", || {
            let output = output(command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statements]));
            // It listens before it is ready.
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            (!error.contains("starting up")).then_some((output, error))
        });
        assert!(ran.0.status.success(), "{statements}: {}", ran.1);
        String::from_utf8(ran.0.stdout).unwrap()
    }

    /// Runs statements as superuser of MariaDB, by the socket, and returns what they print, without headings.
    pub(crate) fn mysql(&self, statements: &str) -> String {
        let mut command = Command::new(program("mariadb").unwrap());
        command.arg("--no-defaults").arg("--socket").arg(self.directory().join("mysql.sock"));
        success(command.args(["-u", "root", "-N", "-B", "-e", statements]))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.daemon.id()).unwrap()), self.stop);
        let _ = self.daemon.wait();
    }
}

/// Makes a directory that the database owns.
fn directory(prefix: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
    own(directory.path());
    directory
}

/// Writes a file that the database owns.
fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    own(path);
}

fn nobody() -> Option<User> {
    Uid::effective().is_root().then(|| User::from_name("nobody").unwrap().unwrap())
}

fn own(path: &Path) {
    if let Some(nobody) = nobody() {
        chown(path, Some(nobody.uid), Some(nobody.gid)).unwrap();
    }
}

fn as_nobody(command: &mut Command) -> &mut Command {
    match nobody() {
        Some(nobody) => command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()),
        None => command,
    }
}
