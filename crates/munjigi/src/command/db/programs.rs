//! How each family of database clients is told where to connect: by its own variables and arguments, so that whatever
//! the person adds comes later and wins. No secret is among them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::bail;
use munjigi_core::target::{TargetKind, TlsMode};
use tokio::process::Command;

use crate::client::targets::Target;
use crate::client::text;

/// Clients that take the same settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Whatever uses libpq, or its variables.
    Postgres,
    /// The clients of MySQL and MariaDB.
    Mysql,
    /// The clients of Redis.
    Redis,
    /// The clients of MongoDB.
    Mongodb,
}

/// Where the forward listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// On this socket.
    Socket(PathBuf),
    /// On this port of 127.0.0.1.
    Port(u16),
}

/// A program with what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    program: OsString,
    arguments: Vec<OsString>,
    /// Variables that are set, or taken away.
    variables: Vec<(&'static str, Option<OsString>)>,
}

impl Family {
    /// Returns the family that reaches targets of a kind.
    pub(super) fn of(kind: TargetKind) -> Option<Self> {
        match kind {
            TargetKind::Postgres => Some(Self::Postgres),
            TargetKind::Mysql => Some(Self::Mysql),
            TargetKind::Redis => Some(Self::Redis),
            TargetKind::Mongodb => Some(Self::Mongodb),
            TargetKind::Tcp | TargetKind::Http | TargetKind::Ssh | TargetKind::Rdp => None,
        }
    }

    /// Returns the programs to try, the usual one first.
    pub(super) fn programs(self) -> &'static [&'static str; 2] {
        match self {
            Self::Postgres => &["psql", "pgcli"],
            Self::Mysql => &["mysql", "mariadb"],
            Self::Redis => &["redis-cli", "valkey-cli"],
            Self::Mongodb => &["mongosh", "mongo"],
        }
    }

    /// Returns the name that a socket must have.
    pub(super) fn socket(self) -> &'static str {
        match self {
            // libpq is told the directory and a port, and makes the name of them.
            Self::Postgres => ".s.PGSQL.5432",
            Self::Mysql => "mysql.sock",
            Self::Redis => "redis.sock",
            // The driver takes for a socket what ends so.
            Self::Mongodb => "mongodb.sock",
        }
    }

    /// Builds the command line. `ca`: a file with the authorities that the client has to check the server against.
    pub(super) fn line(
        self,
        target: &Target,
        at: &At,
        ca: Option<&Path>,
        program: OsString,
        own: Vec<OsString>,
    ) -> anyhow::Result<Line> {
        let mut line = Line { program, arguments: Vec::new(), variables: Vec::new() };
        match self {
            Self::Postgres => line.postgres(target, at, ca),
            Self::Mysql => line.mysql(target, at, &own)?,
            Self::Redis => line.redis(target, at, ca),
            Self::Mongodb => line.mongodb(target, at, ca)?,
        }
        let behind = line.arguments.len();
        line.arguments.extend(own);
        if self == Self::Mysql {
            // Options about option files are taken in the first place alone.
            let is_first = |argument: &OsString| {
                let text = argument.to_string_lossy();
                ["--defaults-", "--no-defaults", "--login-path"].iter().any(|option| text.starts_with(option))
            };
            let count = line.arguments.iter().skip(behind).take_while(|argument| is_first(argument)).count();
            line.arguments.rotate_left(behind);
            if let Some(rest) = line.arguments.get_mut(count..) {
                rest.rotate_right(behind);
            }
        }
        Ok(line)
    }
}

impl Line {
    fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.variables.push((name, Some(value.into())));
    }

    fn add(&mut self, argument: impl Into<OsString>) {
        self.arguments.push(argument.into());
    }

    fn postgres(&mut self, target: &Target, at: &At, ca: Option<&Path>) {
        // A service would be asked before these variables.
        self.variables.push(("PGSERVICE", None));
        match at {
            At::Socket(path) => {
                self.set("PGHOST", path.parent().unwrap_or(path));
                self.set("PGPORT", "5432");
                self.variables.push(("PGHOSTADDR", None));
            }
            At::Port(port) => {
                let name = target.verified().map_or("127.0.0.1", |(name, _)| name);
                self.set("PGHOST", name);
                self.set("PGHOSTADDR", "127.0.0.1");
                self.set("PGPORT", port.to_string());
                match target.tls.mode {
                    _ if target.inspect => self.set("PGSSLMODE", "disable"),
                    TlsMode::Off => {}
                    mode => self.set("PGSSLMODE", mode.as_str()),
                }
            }
        }
        if let Some(ca) = ca {
            self.set("PGSSLROOTCERT", ca);
        }
        if let Some(user) = &target.user_name {
            self.set("PGUSER", user);
        }
        if let Some(database) = &target.database {
            self.set("PGDATABASE", database);
        }
    }

    fn mysql(&mut self, target: &Target, at: &At, own: &[OsString]) -> anyhow::Result<()> {
        if target.client_tls() && !own.iter().any(|argument| argument.to_string_lossy().starts_with("--ssl")) {
            // MariaDB's and MySQL's clients have different options for it, and neither can be told the server's name.
            bail!(
                "the target {} wants TLS from its client: say how with the client's own options, e.g. `-- --ssl`, or have \
                 the gateway speak it (`munjigi target put --inspect`)",
                target.name
            );
        }
        match at {
            At::Socket(path) => {
                self.add("--protocol=socket");
                self.add("--socket");
                self.add(path);
            }
            At::Port(port) => {
                self.add("--protocol=tcp");
                self.add("--host=127.0.0.1");
                self.add(format!("--port={port}"));
            }
        }
        if let Some(user) = &target.user_name {
            self.add(format!("--user={user}"));
        }
        // Only the clients proper have this option; others of the family name the database as an argument.
        let program = Path::new(&self.program).file_name().unwrap_or_default();
        if let Some(database) = &target.database
            && (program == "mysql" || program == "mariadb")
        {
            self.add(format!("--database={database}"));
        }
        Ok(())
    }

    fn redis(&mut self, target: &Target, at: &At, ca: Option<&Path>) {
        match at {
            At::Socket(path) => {
                self.add("-s");
                self.add(path);
            }
            At::Port(port) => {
                for word in ["-h", "127.0.0.1", "-p"] {
                    self.add(word);
                }
                self.add(port.to_string());
            }
        }
        if target.client_tls() {
            self.add("--tls");
            match target.verified() {
                Some((name, _)) => {
                    self.add("--sni");
                    self.add(name);
                }
                None => self.add("--insecure"),
            }
        }
        if let Some(ca) = ca {
            self.add("--cacert");
            self.add(ca);
        }
        if let Some(database) = &target.database {
            self.add("-n");
            self.add(database);
        }
    }

    fn mongodb(&mut self, target: &Target, at: &At, ca: Option<&Path>) -> anyhow::Result<()> {
        if target.verified().is_some() {
            bail!(
                "mongosh can only check a certificate for the name that it connects to, and that is this machine: put the \
                 target with --tls require, or use `munjigi forward` with a name of your own"
            );
        }
        let user = target.user_name.as_deref().map(|user| format!("{}@", escaped(user))).unwrap_or_default();
        let place = match at {
            At::Socket(path) => escaped(&path.to_string_lossy()),
            At::Port(port) => format!("127.0.0.1:{port}"),
        };
        let database = target.database.as_deref().map(escaped).unwrap_or_default();
        // Members of a replica set would be looked for by their own names, which lead nowhere from here.
        let tls = if target.client_tls() { "&tls=true&tlsAllowInvalidCertificates=true" } else { "" };
        self.add(format!("mongodb://{user}{place}/{database}?directConnection=true{tls}"));
        if let Some(ca) = ca {
            self.add("--tlsCAFile");
            self.add(ca);
        }
        Ok(())
    }

    /// Returns the command for a shell.
    pub(super) fn shown(&self) -> String {
        let quoted = |text: &OsStr| text::shell_quoted(&text.to_string_lossy());
        let taken = self.variables.iter().filter(|(_, value)| value.is_none());
        let taken: String = taken.map(|(name, _)| format!("-u {name} ")).collect();
        let taken = if taken.is_empty() { taken } else { format!("env {taken}") };
        let set = self.variables.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let set: String = set.map(|(name, value)| format!("{name}={} ", quoted(value))).collect();
        let words: Vec<String> =
            std::iter::once(&self.program).chain(&self.arguments).map(|word| quoted(word)).collect();
        format!("{taken}{set}{}", words.join(" "))
    }

    /// Returns the command to start.
    pub(super) fn command(self) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.arguments);
        for (name, value) in self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

/// Returns the file of authorities that this system trusts, where one of the usual ones is here.
pub(super) fn system_authorities() -> Option<PathBuf> {
    let usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    usual.into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// Writes what is no letter, digit or `_-.` as in a URI.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn target(more: Value) -> Target {
        let mut target = json!({
            "Name": "orders", "Arn": "arn:aws:munjigi:r:1:target/orders", "Address": "db.internal:1", "Kind": "tcp",
            "CreatedAt": 0, "UpdatedAt": 0,
        });
        target.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(target).unwrap()
    }

    fn shown(family: Family, more: Value, at: &At, own: &[&str]) -> Result<String, String> {
        let target = target(more);
        let ca = target.verified().map(|_| Path::new("/d/ca.pem"));
        let own = own.iter().map(OsString::from).collect();
        let line = family.line(&target, at, ca, family.programs()[0].into(), own);
        line.map(|line| line.shown()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_client_is_told_its_way() {
        use Family::{Mongodb, Mysql, Postgres, Redis};
        let (verify, require) = (json!({ "Mode": "verify-full" }), json!({ "Mode": "require" }));
        let app = json!({ "UserName": "app", "Database": "my db" });
        for (family, more, port, own, expected) in [
            (
                Postgres,
                json!({}),
                None,
                &["-c", "SELECT 1"][..],
                "env -u PGSERVICE -u PGHOSTADDR PGHOST=/d PGPORT=5432 psql -c 'SELECT 1'",
            ),
            (
                Postgres,
                app.clone(),
                None,
                &[],
                "env -u PGSERVICE -u PGHOSTADDR PGHOST=/d PGPORT=5432 PGUSER=app PGDATABASE='my db' psql",
            ),
            (Postgres, json!({}), Some(7), &[], "env -u PGSERVICE PGHOST=127.0.0.1 PGHOSTADDR=127.0.0.1 PGPORT=7 psql"),
            (
                Postgres,
                json!({ "Tls": verify }),
                Some(7),
                &[],
                "env -u PGSERVICE PGHOST=db.internal PGHOSTADDR=127.0.0.1 PGPORT=7 PGSSLMODE=verify-full PGSSLROOTCERT=/d/ca.pem psql",
            ),
            (
                Postgres,
                json!({ "Tls": verify, "Inspect": true }),
                Some(7),
                &[],
                "env -u PGSERVICE PGHOST=127.0.0.1 PGHOSTADDR=127.0.0.1 PGPORT=7 PGSSLMODE=disable psql",
            ),
            (
                Mysql,
                app.clone(),
                None,
                &["--no-defaults", "-e", "x"],
                "mysql --no-defaults --protocol=socket --socket /d/s --user=app '--database=my db' -e x",
            ),
            (
                Mysql,
                json!({ "Tls": require }),
                Some(7),
                &["--ssl"],
                "mysql --protocol=tcp --host=127.0.0.1 --port=7 --ssl",
            ),
            (Redis, json!({ "Database": "3" }), None, &["PING"], "redis-cli -s /d/s -n 3 PING"),
            (
                Redis,
                json!({ "Tls": verify }),
                Some(7),
                &[],
                "redis-cli -h 127.0.0.1 -p 7 --tls --sni db.internal --cacert /d/ca.pem",
            ),
            (
                Mongodb,
                app,
                None,
                &["--quiet"],
                "mongosh 'mongodb://app@%2Fd%2Fs/my%20db?directConnection=true' --quiet",
            ),
        ] {
            let at = port.map_or(At::Socket("/d/s".into()), At::Port);
            assert_eq!(shown(family, more, &at, own).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_a_client_cannot_do_is_said() {
        let tls = |mode: &str| json!({ "Tls": { "Mode": mode } });
        let mysql = shown(Family::Mysql, tls("require"), &At::Port(7), &[]);
        assert!(mysql.unwrap_err().contains("the client's own options"));
        let mongo = shown(Family::Mongodb, tls("verify-full"), &At::Port(7), &[]);
        assert!(mongo.unwrap_err().contains("this machine"));
    }
}
