//! SSH certificates, against the real `ssh`, `sshd`, `ssh-keygen`, `ssh-agent` and `ssh-add`, at our own door and at a
//! plain sshd.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::faults::user;
use crate::harness::{TestAgent, TestServer, TestSsh, TestSshd, output, success, wait_for};

/// A server, a node, and an sshd on the node that believes what the node's agent writes down.
pub(crate) struct Stage {
    // Ends first: its directory is the server's.
    agent: TestAgent,
    pub(crate) server: TestServer,
    pub(crate) sshd: TestSshd,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let mut sshd = TestSshd::prepare("LogLevel VERBOSE");
        let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
        // There before it is written, so that nothing is read that happened before.
        std::fs::write(sshd.log(), "").unwrap();
        let lines =
            format!("sshd_log = '{}'\nssh_host_key = '{}'\n", sshd.log().display(), sshd.path("host.pub").display());
        let agent = server.agent_configured("web-1", &[], None, &lines);
        let files = agent.data_dir().join("ssh");
        let file = |name: &str| files.join(name);
        for name in ["revoked_keys", "user_ca.pub", "host-cert.pub"] {
            wait_for(name, || file(name).is_file().then_some(()));
        }
        let settings = format!(
            "TrustedUserCAKeys {}\nRevokedKeys {}\nHostCertificate {}\n",
            file("user_ca.pub").display(),
            file("revoked_keys").display(),
            file("host-cert.pub").display()
        );
        std::fs::write(sshd.path("sshd_config.d/certificates.conf"), settings).unwrap();
        sshd.start();
        Self { agent, server, sshd }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.agent.data_dir().join("ssh").join(name)
    }

    /// Logs in into files `name` and its like, beside sshd's, and returns the certificate's serial number.
    fn login(&self, name: &str, more: &[&str]) -> u64 {
        let path = self.sshd.path(name);
        let mut login = self.server.munjigi(&["login", "--file"]);
        let said = success(login.arg(path).args(more));
        said.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Logs in into a file for the test's own user.
    pub(crate) fn login_as_me(&self, name: &str) -> u64 {
        self.login(name, &["--os-user", &user()])
    }

    /// Waits for events of the trail.
    pub(crate) fn events(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        wait_for(&format!("the event {name}"), || {
            let trail = success(&mut self.server.munjigi(&["audit", "--output", "json"]));
            let events = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let found: Vec<Value> = events.filter(|event| event["eventName"] == name && wanted(event)).collect();
            (!found.is_empty()).then_some(found)
        })
    }

    /// Waits for sshd's refusal of a certificate in the trail.
    fn refused_by_sshd(&self, code: &str, serial: u64) {
        self.events("SshLoginRefused", |event| {
            event["errorCode"] == code && event["additionalEventData"]["certificateSerial"] == serial
        });
    }

    pub(crate) fn revoke(&self, serial: u64) {
        let serial = serial.to_string();
        success(&mut self.server.munjigi(&["ssh-authority", "revoke", "--serial", &serial, "--reason", "test"]));
    }
}

/// `ssh-keygen -L` of a certificate.
fn shown(certificate: &Path) -> String {
    success(Command::new("ssh-keygen").arg("-L").arg("-f").arg(certificate))
}

/// Signs a certificate with an authority of the test's own: `options` are those of ssh-keygen.
fn sign_elsewhere(sshd: &TestSshd, name: &str, options: &[&str]) {
    sshd.new_key(name);
    if !sshd.path("other-authority").exists() {
        sshd.new_key("other-authority");
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen.arg("-q").arg("-s").arg(sshd.path("other-authority")).args(["-I", "elsewhere", "-z", "4711"]).args(options);
    success(keygen.arg(sshd.path(name).with_extension("pub")));
}

#[test]
fn the_real_ssh_keygen_reads_what_was_issued_and_finds_what_was_asked_for() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    let login = |more: &[&str]| {
        let mut login = server.munjigi(&["login", "--file"]);
        login.arg(&path).args(["--os-user", "alice", "--os-user", "deploy", "--hours", "2"]).args(more);
        login
    };
    let said = success(&mut login(&["--force-command", "uptime -p", "--source-address", "192.0.2.0/24"]));
    assert!(said.contains("for alice, deploy until"), "{said}");
    let certificate = directory.path().join("id-cert.pub");
    let text = shown(&certificate);
    let serial = said.split(' ').nth(1).unwrap();
    for part in [
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate",
        "Signing CA: ED25519 SHA256:",
        "Key ID: \"munjigi:arn:aws:iam::",
        ":user/admin:",
        &format!("Serial: {serial}\n"),
        "force-command uptime -p",
        "source-address 192.0.2.0/24",
        "permit-pty",
        "principal@munjigi",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let after = |head: &str| lines.iter().position(|line| line.starts_with(head)).unwrap() + 1;
    assert_eq!(lines[after("Principals:")..after("Critical Options:") - 1], ["alice", "deploy"]);
    // Whoever is forced to one command forwards nothing.
    assert!(!text.contains("permit-port-forwarding") && !text.contains("permit-agent-forwarding"), "{text}");
    for file in ["id", "id.pub", "id-cert.pub"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // The key that it is for is the one in the file.
    let print =
        |file: &Path| success(Command::new("ssh-keygen").arg("-lf").arg(file)).split(' ').nth(1).unwrap().to_owned();
    assert!(text.contains(&print(&path)), "{text}");
    // It lives two hours, and a minute for clocks that are behind.
    let valid = lines.iter().find_map(|line| line.strip_prefix("Valid: from ")).unwrap();
    let (from, to) = valid.split_once(" to ").unwrap();
    let seconds = |time: &str| success(Command::new("date").args(["+%s", "-d", time])).trim().parse::<u64>().unwrap();
    assert_eq!(seconds(to) - seconds(from), 2 * 3600 + 60);

    // Another login renews it with another key; a key of somebody else's stays.
    let before = std::fs::read(&path).unwrap();
    success(&mut login(&["--permit", "permit-agent-forwarding"]));
    assert_ne!(std::fs::read(&path).unwrap(), before);
    let text = shown(&certificate);
    assert!(text.contains("permit-agent-forwarding") && !text.contains("permit-pty"), "{text}");
    let other = directory.path().join("other");
    std::fs::write(&other, "somebody's key").unwrap();
    let refused = output(server.munjigi(&["login", "--os-user", "alice", "--file"]).arg(&other));
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("nothing was changed"));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "somebody's key");
    let listed: Value =
        serde_json::from_str(&success(&mut server.munjigi(&["ssh-authority", "list", "--output", "json"]))).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["ForceCommand"], "uptime -p");
}

#[test]
fn a_plain_sshd_takes_certificates_and_refuses_each_bad_one_with_its_reason_in_the_trail() {
    let stage = Stage::new();
    let serial = stage.login_as_me("id");
    assert!(stage.sshd.lets_in("id"));
    let login = stage.events("SshLogin", |event| event["additionalEventData"]["allowedBy"]["serial"] == serial);
    assert!(login[0].get("errorCode").is_none(), "{login:?}");
    let allowed = &login[0]["additionalEventData"]["allowedBy"];
    assert!(allowed["principalArn"].as_str().unwrap().ends_with(":user/admin"), "{allowed}");
    assert!(allowed["keyID"].as_str().unwrap().starts_with("munjigi:arn:"), "{allowed}");

    let elsewhere = stage.login("elsewhere", &["--os-user", &user(), "--source-address", "192.0.2.1"]);
    assert!(!stage.sshd.lets_in("elsewhere"));
    stage.refused_by_sshd("CertificateSourceAddressMismatch", elsewhere);
    let other_user = stage.login("other-user", &["--os-user", "somebody-else"]);
    assert!(!stage.sshd.lets_in("other-user"));
    stage.refused_by_sshd("CertificatePrincipalMismatch", other_user);
    for (name, options) in [
        ("stranger", &["-n", &user(), "-V", "-1m:+10m"][..]),
        ("ended", &["-n", &user(), "-V", "-10m:-5m"]),
        ("early", &["-n", &user(), "-V", "+10m:+20m"]),
        ("for-all", &["-V", "-1m:+10m"]),
    ] {
        sign_elsewhere(&stage.sshd, name, options);
        assert!(!stage.sshd.lets_in(name), "{name}");
    }
    stage.refused_by_sshd("CertificateAuthorityUnknown", 4711);
    // A host's certificate proves nobody. Where ssh itself does not offer it, its bare key is unknown too.
    sign_elsewhere(&stage.sshd, "host-as-user", &["-h", "-n", &user(), "-V", "-1m:+10m"]);
    assert!(!stage.sshd.lets_in("host-as-user"));
    assert!(stage.sshd.lets_in("id"), "nothing of that harmed a good one");
}

#[test]
fn a_revoked_certificate_is_refused_everywhere_and_the_real_ssh_keygen_finds_it_in_the_list() {
    let stage = Stage::new();
    let serial = stage.login_as_me("id");
    stage.login_as_me("other");
    let question = |name: &str| {
        let mut keygen = Command::new("ssh-keygen");
        keygen.arg("-Q").arg("-f").arg(stage.file("revoked_keys")).arg(stage.sshd.path(&format!("{name}-cert.pub")));
        output(&mut keygen)
    };
    assert!(question("id").status.success(), "{:?}", question("id"));
    assert!(stage.sshd.lets_in("id"));
    stage.revoke(serial);
    wait_for("the node to know", || (!question("id").status.success()).then_some(()));
    assert!(String::from_utf8_lossy(&question("id").stdout).contains("REVOKED"));
    assert!(question("other").status.success(), "only what was revoked");
    assert!(!stage.sshd.lets_in("id"));
    stage.refused_by_sshd("CertificateRevoked", serial);
    // By key id, and by key: each in the list that ssh-keygen reads.
    let id = |name: &str| {
        let text = shown(&stage.sshd.path(&format!("{name}-cert.pub")));
        text.split("Key ID: \"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    success(&mut stage.server.munjigi(&["ssh-authority", "revoke", "--key-id", &id("other")]));
    wait_for("the node to know", || (!question("other").status.success()).then_some(()));
    stage.login_as_me("third");
    let print = success(Command::new("ssh-keygen").arg("-lf").arg(stage.sshd.path("third.pub")));
    let print = print.split(' ').nth(1).unwrap();
    success(&mut stage.server.munjigi(&["ssh-authority", "revoke", "--fingerprint", print]));
    wait_for("the node to know", || (!question("third").status.success()).then_some(()));
    assert!(!stage.sshd.lets_in("third"));
    let listed = success(&mut stage.server.munjigi(&["ssh-authority", "list", "--output", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert!(listed.as_array().unwrap().iter().all(|one| one["State"] == "revoked"), "{listed}");

    // Logging out revokes, and takes the files along.
    stage.login_as_me("mine");
    assert!(stage.sshd.lets_in("mine"));
    std::fs::copy(stage.sshd.path("mine"), stage.sshd.path("stolen")).unwrap();
    std::fs::copy(stage.sshd.path("mine-cert.pub"), stage.sshd.path("stolen-cert.pub")).unwrap();
    success(stage.server.munjigi(&["logout", "--file"]).arg(stage.sshd.path("mine")));
    assert!(!stage.sshd.path("mine").exists() && !stage.sshd.path("mine-cert.pub").exists());
    wait_for("the node to know", || (!question("stolen").status.success()).then_some(()));
    assert!(!stage.sshd.lets_in("stolen"));
}

#[test]
fn certificates_outlive_a_rotation_and_the_servers_absence_and_distrust_ends_them() {
    let mut stage = Stage::new();
    stage.login_as_me("old");
    let authorities = || std::fs::read_to_string(stage.file("user_ca.pub")).unwrap();
    let before = authorities();
    assert_eq!(before.lines().count(), 2, "the next one is known before it signs");
    success(&mut stage.server.munjigi(&["ssh-authority", "rotate", "user"]));
    // What is signed with the new key is taken at once, whether or not the node was told of the rotation by then.
    stage.login_as_me("new");
    assert!(stage.sshd.lets_in("old") && stage.sshd.lets_in("new"));
    wait_for("the node to know the next key", || (authorities().lines().count() == 3).then_some(()));
    assert!(before.lines().all(|line| authorities().contains(line)));

    stage.server.stop();
    assert!(stage.sshd.lets_in("old") && stage.sshd.lets_in("new"), "the node keeps what it has");
    stage.server.start_again();
    success(&mut stage.server.munjigi(&["ssh-authority", "rotate", "user", "--distrust"]));
    wait_for("the node to believe neither", || {
        let text = std::fs::read_to_string(stage.file("user_ca.pub")).unwrap();
        before.lines().all(|line| !text.contains(line)).then_some(())
    });
    assert!(!stage.sshd.lets_in("old") && !stage.sshd.lets_in("new"));
    stage.login_as_me("after");
    assert!(stage.sshd.lets_in("after"));
}

#[test]
fn a_host_certificate_ends_the_question_about_host_keys() {
    let stage = Stage::new();
    stage.login_as_me("id");
    let known = success(&mut stage.server.munjigi(&["ssh-authority", "show", "--known-hosts", "*"]));
    assert!(known.lines().count() == 2 && known.starts_with("@cert-authority * ssh-ed25519 "), "{known}");
    std::fs::write(stage.sshd.path("known_hosts"), &known).unwrap();
    let known_hosts = format!("UserKnownHostsFile={}", stage.sshd.path("known_hosts").display());
    let ssh = |alias: &str| {
        // Of two options the first holds.
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "StrictHostKeyChecking=yes", "-o", &known_hosts, "-o", &format!("HostKeyAlias={alias}")]);
        let whole = stage.sshd.ssh("id", &user(), &[]);
        output(ssh.args(whole.get_args()).arg("echo in"))
    };
    for name in ["web-1", "web-1.munjigi", &stage.agent.node] {
        let ran = ssh(name);
        assert!(ran.status.success(), "{name}: {ran:?}");
    }
    let other = ssh("web-2");
    assert!(!other.status.success(), "{other:?}");
    // Further names are an administrator's to give.
    let text = || shown(&stage.file("host-cert.pub"));
    assert!(!text().contains("web-1.example.com"));
    let tags =
        ["ssm", "add-tags-to-resource", "--resource-type", "ManagedInstance", "--resource-id", &stage.agent.node];
    let names = ["--tags", "Key=SshHostNames,Value=web-1.example.com 127.0.0.1"];
    success(stage.server.aws(&tags).args(names));
    wait_for("a certificate with the new names", || text().contains("web-1.example.com").then_some(()));
}

/// An ssh-agent of the test's own.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("agent.sock");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = agent.spawn().unwrap();
        wait_for("ssh-agent", || socket.exists().then_some(()));
        Self { process, socket }
    }

    fn run(&self, mut command: Command) -> std::process::Output {
        output(command.env("SSH_AUTH_SOCK", &self.socket))
    }

    fn held(&self) -> String {
        let mut add = Command::new("ssh-add");
        add.arg("-L");
        String::from_utf8_lossy(&self.run(add).stdout).into_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_login_goes_into_the_running_agent_and_out_again() {
    let stage = Stage::new();
    let agent = Agent::start(stage.sshd.config());
    let login = |hours: &str| {
        let ran = agent.run(stage.server.munjigi(&["login", "--os-user", &user(), "--hours", hours]));
        assert!(ran.status.success(), "{ran:?}");
    };
    // Somebody's own key stays where it is.
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(stage.sshd.path("own"));
    assert!(agent.run(add).status.success());
    login("1");
    login("2");
    let held = agent.held();
    assert_eq!(held.lines().filter(|line| line.contains("cert-v01") && line.contains("munjigi login")).count(), 1);
    assert_eq!(held.lines().count(), 2, "{held}");
    // A file without its private half has the agent's certificate used.
    let line = held.lines().find(|line| line.contains("cert-v01")).unwrap();
    std::fs::write(stage.sshd.path("agents.pub"), format!("{line}\n")).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", &format!("IdentityAgent={}", agent.socket.display())]);
    let whole = stage.sshd.ssh("agents.pub", &user(), &[]);
    let ran = output(ssh.args(whole.get_args()).arg("echo in"));
    assert!(stage.sshd.judge(&ran), "{ran:?}");

    let ran = agent.run(stage.server.munjigi(&["logout"]));
    assert!(ran.status.success(), "{ran:?}");
    let held = agent.held();
    assert!(held.lines().count() == 1 && held.contains("test key"), "{held}");
    let listed = success(&mut stage.server.munjigi(&["ssh-authority", "list", "--output", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let states: Vec<&Value> = listed.as_array().unwrap().iter().map(|one| &one["State"]).collect();
    // The one that was replaced ends by itself; nobody has its key any more.
    assert_eq!(states, ["valid", "revoked"], "{listed}");
    // The agent itself forgets what has ended: at the least life, after a minute.
    login("0.0167");
    wait_for("the agent to forget", || (agent.held().lines().count() == 1).then_some(()));
    let without = output(stage.server.munjigi(&["login"]).env_remove("SSH_AUTH_SOCK"));
    assert!(String::from_utf8_lossy(&without.stderr).contains("--file PATH"), "{without:?}");
}

#[test]
fn our_door_takes_certificates_and_refuses_each_bad_one_with_its_reason_in_the_trail() {
    let stage = Stage::new();
    let person = TestSsh::of(&stage.server);
    // The gateway shows a certificate too: nobody is asked about its key.
    let known = success(&mut stage.server.munjigi(&["ssh-authority", "show", "--known-hosts", "*"]));
    std::fs::write(person.path("known_hosts"), known).unwrap();
    let ssh = |key: &str, os_user: &str, command: &str| {
        let identity = format!("IdentityFile={}", stage.sshd.path(key).display());
        let certificate = format!("CertificateFile={}-cert.pub", stage.sshd.path(key).display());
        let login = format!("{os_user}%web-1");
        let options = ["-o", "StrictHostKeyChecking=yes", "-o", &identity, "-o", &certificate, "-l", &login];
        person.ssh(&[&options[..], &["gate", command]].concat())
    };
    let me = user();
    let serial = stage.login_as_me("id");
    assert_eq!(ssh("id", &me, "echo in").success(), "in\n");
    let started =
        stage.events("StartSession", |event| event["additionalEventData"].to_string().contains(&serial.to_string()));
    assert!(started[0]["userIdentity"]["arn"].as_str().unwrap().ends_with(":user/admin"), "{started:?}");

    let refused = |key: &str, os_user: &str, code: &str| {
        let ran = ssh(key, os_user, "echo in");
        assert!(ran.code == Some(255) && ran.err.contains("Permission denied"), "{key}: {ran:?}");
        stage.events("AuthenticateSsh", |event| event["errorCode"] == code);
    };
    refused("id", "nobody", "CertificatePrincipalMismatch");
    stage.login("elsewhere", &["--os-user", &me, "--source-address", "192.0.2.1"]);
    refused("elsewhere", &me, "CertificateSourceAddressMismatch");
    sign_elsewhere(&stage.sshd, "stranger", &["-n", &me, "-V", "-1m:+10m"]);
    refused("stranger", &me, "CertificateAuthorityUnknown");
    sign_elsewhere(&stage.sshd, "for-all", &["-V", "-1m:+10m"]);
    refused("for-all", &me, "CertificateAuthorityUnknown");
    stage.revoke(serial);
    refused("id", &me, "CertificateRevoked");
    let short = stage.login("short", &["--os-user", &me, "--hours", "0.0167"]);
    assert_eq!(ssh("short", &me, "echo in").success(), "in\n");
    assert!(stage.sshd.lets_in("short"));
    wait_for("the certificate's end", || (!stage.sshd.lets_in("short")).then_some(()));
    refused("short", &me, "CertificateExpired");
    stage.refused_by_sshd("CertificateExpired", short);
}
