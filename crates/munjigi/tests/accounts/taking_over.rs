//! Hosts on which an older system ran: reported, taken over, done away with, and left alone when something fails. Each has
//! the older system's files in the form in which its installer wrote them, in a namespace of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::island::{Island, possible};
use crate::harness::{binary, output, success, wait_for};

const MUNJIGI: &str = "/opt/munjigi/bin/munjigi";
const CONFIGURATION: &str = "# installed by install.sh\nIAM_AUTHORIZED_GROUPS=\"dev\"\nLOCAL_MARKER_GROUP=\"iam-synced-users\"\n\
     LOCAL_GROUPS=\"builders\"\nSUDOERS_GROUPS=\"##ALL##\"\nASSUMEROLE=\"\"\nDONOTSYNC=0\nUSERADD_PROGRAM=\"/usr/sbin/useradd\"\n\
     USERADD_ARGS=\"--user-group --create-home --shell /bin/sh\"\nif true; then LOCAL_GROUPS=other; fi\n";
const OLD_LINES: &str = "AuthorizedKeysCommand /opt/authorized_keys_command.sh\nAuthorizedKeysCommandUser nobody\n";

/// An island with an sshd, `/opt`, `/root` and `/var/lib` of its own.
struct Host {
    island: Island,
    sshd: Option<Child>,
    port: u16,
}

impl Host {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let island = Island::configured(
            |directory| {
                prepare(directory, port);
                String::new()
            },
            "",
        );
        // sshd's helper runs as somebody else and has to get to the agent's socket.
        for directory in [island.server.directory(), &island.directory] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).unwrap();
        }
        Self { island, sshd: None, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.island.directory.join(name.trim_start_matches('/').replacen("var/lib", "var-lib", 1))
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn is_there(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Builds a command that runs on the host.
    fn inside(&self, words: &[&str]) -> Command {
        let here = self.island.directory.display();
        let more = format!(
            "mount --bind {here}/opt /opt; mount --bind {here}/root /root; mount --bind {here}/var-lib /var/lib; \
             mount --bind {} {MUNJIGI};",
            binary()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &self.island.script(&more), "sh"]).args(words);
        self.island.server.configure(&mut command);
        command
    }

    fn migrate(&self, words: &[&str]) -> Output {
        output(self.inside(&[&[MUNJIGI, "migrate"], words].concat()).stdin(Stdio::null()))
    }

    /// Does away with a system; `kim`'s key is the proof.
    fn remove(&self, system: &str) -> Output {
        let agent = self.island.agent.data_dir().display().to_string();
        self.migrate(&["--from", system, "--agent-dir", &agent, "--remove", "--proof-user", "kim", "--apply"])
    }

    fn start_sshd(&mut self) {
        if !Path::new("/run/sshd").exists() {
            // Compiled into sshd, which as root does not start without it.
            fs::create_dir("/run/sshd").unwrap();
        }
        let mut command = self.inside(&["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"]);
        let log = fs::File::create(self.path("sshd.log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.sshd = Some(child);
        self.wait_for_sshd();
    }

    fn wait_for_sshd(&self) {
        wait_for("sshd", || TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop));
    }

    /// Waits until sshd has read its settings so often: they must not change while it reads.
    fn wait_for_restart(&self, times: usize) {
        wait_for("sshd to read its settings", || {
            (self.text("sshd.log").matches("Server listening").count() > times).then_some(())
        });
    }

    /// Logs in with kim's key; says who was let in.
    fn log_in(&self) -> String {
        let port = self.port.to_string();
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-p", &port, "-l", "kim", "-i"]).arg(self.path("id"));
        for option in [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "ConnectTimeout=60",
        ] {
            ssh.args(["-o", option]);
        }
        let tried = output(ssh.args(["127.0.0.1", "id -un"]).stdin(Stdio::null()));
        let said = String::from_utf8_lossy(&tried.stderr);
        let log = self.text("sshd.log");
        assert!(
            tried.status.success() || said.contains("Permission denied") || said.contains("closed"),
            "{said}\n{log}"
        );
        String::from_utf8_lossy(&tried.stdout).trim().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }
}

/// Writes the files of a host on which widdix' aws-ec2-ssh ran and made `kim`.
fn prepare(directory: &Path, port: u16) {
    for name in ["opt/munjigi/bin", "root", "var-lib"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let append = |name: &str, text: &str| {
        let path = directory.join("etc").join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap_or_default() + text).unwrap();
    };
    write("opt/munjigi/bin/munjigi", "");
    append("passwd", "kim:x:1600:1600::/home/kim:/bin/sh\n");
    // No password, and not locked: without PAM, sshd lets nobody in whose password is.
    append("shadow", "kim:*:19000:0:99999:7:::\n");
    append("group", "kim:x:1600:\niam-synced-users:x:1601:kim\n");
    write("etc/aws-ec2-ssh.conf", CONFIGURATION);
    write("etc/cron.d/import_users", "*/10 * * * * root /opt/import_users.sh\n");
    write("opt/import_users.sh", "#!/bin/bash\n");
    write("opt/authorized_keys_command.sh", "#!/bin/sh\n");
    write("etc/sudoers.d/kim", "kim ALL=(ALL) NOPASSWD:ALL\n");
    let _ = fs::remove_dir_all(directory.join("etc/ssh"));
    fs::create_dir_all(directory.join("etc/ssh/sshd_config.d")).unwrap();
    for (name, kind) in [("etc/ssh/host", "host"), ("id", "kim@laptop")] {
        let mut keygen = Command::new("ssh-keygen");
        success(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", kind, "-f"]).arg(directory.join(name)));
    }
    write("etc/ssh/sshd_config", &(settings(port) + "Match User git\n  X11Forwarding no\n" + OLD_LINES));
}

fn settings(port: u16) -> String {
    format!(
        "Include /etc/ssh/sshd_config.d/*.conf\nPort {port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host\nUsePAM no\n\
         StrictModes no\nPidFile /etc/ssh/sshd.pid\nPasswordAuthentication no\n"
    )
}

#[test]
fn hosts_of_older_systems_are_taken_over_and_a_failure_leaves_them_as_they_were() {
    if !possible() {
        return;
    }
    let mut host = Host::start();
    let iam = |words: &[&str]| host.island.iam(words);
    iam(&["create-group", "--group-name", "dev"]);
    iam(&["create-user", "--user-name", "kim"]);
    let key = fs::read_to_string(host.path("id.pub")).unwrap();
    iam(&["upload-ssh-public-key", "--user-name", "kim", "--ssh-public-key-body", key.trim()]);
    host.island.add("kim", "dev");
    let may = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Resource": "*", "Action": "munjigi:LoginThroughSshd" } });
    let policy = may.to_string();
    iam(&["put-group-policy", "--group-name", "dev", "--policy-name", "p", "--policy-document", &policy]);
    reported(&host, key.trim());

    // First it is only said.
    let before = host.text("/etc/ssh/sshd_config");
    let said = host.migrate(&["--from", "widdix"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{said:?}");
    for word in [
        "account rule imported-accounts",
        "iam-synced-users",
        "old piece: etc/cron.d/import_users",
        "old piece: etc/sudoers.d/kim",
        "sshd_config: AuthorizedKeysCommand /opt/authorized_keys_command.sh",
        "is shell code",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!success(&mut host.island.server.munjigi(&["account", "rule", "list"])).contains("imported"));
    assert_eq!(host.text("/etc/ssh/sshd_config"), before);

    // The rules are made, the account that is there is taken over with its number.
    let agent = host.island.agent.data_dir().display().to_string();
    let done = host.migrate(&["--from", "widdix", "--agent-dir", &agent, "--apply"]);
    assert!(done.status.success(), "{done:?}");
    assert!(host.is_there("/etc/cron.d/import_users") && host.text("/etc/ssh/sshd_config") == before);
    host.island.agent.stop();
    host.island.run_agent("");
    wait_for("kim's adoption", || host.island.is_in("kim", "munjigi-users").then_some(()));
    wait_for("its rights", || host.island.sudo().contains("kim ALL=").then_some(()));
    assert_eq!(host.island.uid("kim"), Some(1600));
    assert!(host.island.is_in("kim", "builders"));

    // sshd takes no settings that are wrong: everything is as it was.
    let wrong = before.clone() + "NoSuchKeyword yes\n";
    fs::write(host.path("/etc/ssh/sshd_config"), &wrong).unwrap();
    let failed = host.remove("widdix");
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && text.contains("the host is as it was"), "{text}");
    assert_eq!(host.text("/etc/ssh/sshd_config"), wrong);
    assert!(host.is_there("/opt/import_users.sh") && !host.is_there("/etc/ssh/sshd_config.d/00-munjigi.conf"));
    fs::write(host.path("/etc/ssh/sshd_config"), &before).unwrap();

    host.start_sshd();
    assert_eq!(host.log_in(), "", "the old command gives no key here");
    let done = host.remove("widdix");
    assert!(done.status.success(), "{done:?}");
    let now = host.text("/etc/ssh/sshd_config");
    assert!(now.contains("# munjigi migrate: AuthorizedKeysCommand /opt/authorized_keys_command.sh\n"), "{now}");
    assert!(now.contains("# munjigi migrate: AuthorizedKeysCommandUser nobody\n"), "{now}");
    let drop_in = host.text("/etc/ssh/sshd_config.d/00-munjigi.conf");
    assert!(drop_in.contains(MUNJIGI) && !drop_in.contains("authorized_keys_command"), "{drop_in}");
    for name in
        ["/etc/cron.d/import_users", "/opt/import_users.sh", "/opt/authorized_keys_command.sh", "/etc/sudoers.d/kim"]
    {
        assert!(!host.is_there(name), "{name}");
        assert!(host.is_there(&format!("/var/lib/munjigi/replaced{name}")), "{name}");
    }
    assert!(host.island.sudo().contains("kim ALL="), "the rights come from the rule now");
    host.wait_for_restart(1);
    wait_for("a login", || (host.log_in() == "kim").then_some(()));

    coreos(&host);
    host.wait_for_restart(2);
    key_manager(&host);
    host.wait_for_restart(3);
    instance_connect(&host);
    host.wait_for_restart(4);
    wait_for("a login", || (host.log_in() == "kim").then_some(()));
}

/// andromedarabbit's: sshd's settings are a link to a copy below /opt, and units of systemd do the work.
fn coreos(host: &Host) {
    let config = host.path("/etc/ssh/sshd_config");
    let copy = host.path("/opt/etc/ssh/sshd_config");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, settings(host.port) + &OLD_LINES.replace("nobody", "root")).unwrap();
    fs::remove_file(&config).unwrap();
    symlink("/opt/etc/ssh/sshd_config", &config).unwrap();
    let units = host.path("/etc/systemd/system");
    fs::create_dir_all(units.join("timers.target.wants")).unwrap();
    for unit in ["import-iam-users.service", "import-iam-users.timer", "install-aws-ec2-ssh.service"] {
        fs::write(units.join(unit), "[Unit]\n").unwrap();
    }
    let link = units.join("timers.target.wants/import-iam-users.timer");
    symlink("/etc/systemd/system/import-iam-users.timer", &link).unwrap();
    fs::create_dir_all(host.path("/opt/aws/bin")).unwrap();
    fs::write(host.path("/opt/aws/bin/aws"), "#!/bin/bash\ndocker run opsgang/awscli:stable\n").unwrap();
    let done = host.remove("andromedarabbit");
    assert!(done.status.success(), "{done:?}");
    assert!(fs::read_to_string(&copy).unwrap().contains("# munjigi migrate: AuthorizedKeysCommandUser root\n"));
    assert_eq!(fs::read_link(&config).unwrap(), Path::new("/opt/etc/ssh/sshd_config"));
    for unit in ["import-iam-users.timer", "import-iam-users.service", "timers.target.wants/import-iam-users.timer"] {
        assert!(units.join(unit).symlink_metadata().is_err(), "{unit}");
    }
    assert!(!host.is_there("/opt/aws/bin/aws"));
}

/// key-manager's: a wrapper around a container that runs as root.
fn key_manager(host: &Host) {
    fs::create_dir_all(host.path("/root/bin")).unwrap();
    let wrapper =
        "#!/bin/sh\ndocker run --rm alexrudd/key-manager:latest -u $1 -k $2 -t $3 -f $4 -s3_bucket=team-keys\n";
    fs::write(host.path("/root/bin/authorizedkeys-command"), wrapper).unwrap();
    let lines = "AuthorizedKeysCommand /root/bin/authorizedkeys-command %u %k %t %f\nAuthorizedKeysCommandUser root\nPermitRootLogin no\n";
    let config = host.path("/opt/etc/ssh/sshd_config");
    fs::write(&config, settings(host.port) + lines).unwrap();
    let keys = host.path("/home/keys");
    fs::create_dir_all(keys.join("ops")).unwrap();
    fs::write(keys.join("ops/authorized_keys"), fs::read_to_string(host.path("id.pub")).unwrap()).unwrap();
    let import = ["--from", "key-manager", "--keys-dir", "/home/keys", "--map", "ops=deploy", "--apply"];
    let done = host.migrate(&import);
    assert!(done.status.success(), "{done:?}");
    assert!(success(&mut host.island.server.munjigi(&["account", "key-file", "list"])).contains("deploy"));
    let done = host.remove("key-manager");
    assert!(done.status.success(), "{done:?}");
    let now = fs::read_to_string(&config).unwrap();
    assert!(
        now.contains("# munjigi migrate: AuthorizedKeysCommand /root/bin/") && now.contains("\nPermitRootLogin no")
    );
    assert!(!host.is_there("/root/bin/authorizedkeys-command"));
}

/// The drop-in of aws-ec2-instance-connect-config is a package's: it is masked.
fn instance_connect(host: &Host) {
    let packaged = host.path("/etc/systemd/system/ssh.service.d/ec2-instance-connect.conf");
    fs::create_dir_all(packaged.parent().unwrap()).unwrap();
    fs::write(
        &packaged,
        "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o \"AuthorizedKeysCommand /x %%u %%f\"\n",
    )
    .unwrap();
    let done = host.remove("eic");
    assert!(done.status.success(), "{done:?}");
    assert!(packaged.symlink_metadata().is_err());
    assert!(host.is_there("/var/lib/munjigi/replaced/etc/systemd/system/ssh.service.d/ec2-instance-connect.conf"));
}

/// Every key on the host is named: whose it is, weak, several times, shared.
fn reported(host: &Host, key: &str) {
    let unknown = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f old";
    for (name, text) in [("kim", format!("{key}\n{key} again\n")), ("yoon", format!("{key}\n{unknown}\n"))] {
        let file = host.path(&format!("/home/{name}/.ssh/authorized_keys"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let report =
        host.inside(&[MUNJIGI, "report", "authorized-keys", "--registered", "--output", "json"]).output().unwrap();
    let lines: Vec<Value> = serde_json::from_slice(&report.stdout).unwrap_or_else(|_| panic!("{report:?}"));
    let of = |os_user: &str| -> Vec<&Value> { lines.iter().filter(|line| line["OsUser"] == os_user).collect() };
    let kims = of("kim");
    assert_eq!((kims.len(), &kims[0]["Standing"], &kims[0]["RegisteredBy"]), (2, &json!("registered"), &json!("kim")));
    assert_eq!((&kims[0]["Times"], &kims[0]["Accounts"]), (&json!(2), &json!(2)));
    let yoons = of("yoon");
    assert_eq!((&yoons[0]["RegisteredBy"], &yoons[1]["Standing"]), (&json!("kim"), &json!("unknown")));
    // With less rights less is known, and that is said.
    let policy = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Resource": "*", "Action": "iam:ListUsers" } });
    let iam = |words: &[&str]| host.island.iam(words);
    iam(&["create-user", "--user-name", "auditor"]);
    iam(&["put-user-policy", "--user-name", "auditor", "--policy-name", "p", "--policy-document", &policy.to_string()]);
    let mut asked = host.inside(&[MUNJIGI, "report", "authorized-keys", "--registered"]);
    host.island.person("auditor").sign(&mut asked);
    let asked = output(&mut asked);
    let (table, notes) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
    assert!(table.contains("unknown") && !table.contains("registered"), "{table}");
    assert!(notes.contains("you may not list the keys of") && !asked.status.success(), "{notes}");
    for name in ["kim", "yoon"] {
        fs::remove_file(host.path(&format!("/home/{name}/.ssh/authorized_keys"))).unwrap();
    }
}
