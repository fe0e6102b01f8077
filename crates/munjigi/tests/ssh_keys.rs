//! Who somebody at the SSH door is: keys that people registered with the real `aws` and boto3, security keys, pushed keys,
//! and logins that somebody approves, with OpenSSH's own client.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::aws_client::boto3;
use crate::harness::browser::Browser;
use crate::harness::ssh::{Ran, end};
use crate::harness::ssh_agent::{self, SecurityKey};
use crate::harness::{TestServer, TestSsh, binary, output, success, wait_for};
use crate::instance_connect::Stage;

/// Flags of a security key's signature: somebody was there.
const PRESENT: u8 = 0x01;

fn server() -> TestServer {
    // Pushed keys last longer than a busy machine takes for what is done with them.
    let settings = "[instance_connect]\nkey_life_seconds = 900\n";
    TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n{settings}", user()))
}

/// Registers a key of a file for a user, with `aws`; returns its id.
fn upload(server: &TestServer, name: &str, file: &std::path::Path) -> String {
    let body = format!("file://{}", file.display());
    let answer =
        server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", name, "--ssh-public-key-body", &body]);
    answer["SSHPublicKey"]["SSHPublicKeyId"].as_str().unwrap().to_owned()
}

/// Waits for events of the trail.
fn events(server: &TestServer, name: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    wait_for(&format!("the event {name}"), || {
        let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
        let events = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<Value> = events.filter(|event| event["eventName"] == name && wanted(event)).collect();
        (!found.is_empty()).then_some(found)
    })
}

fn refused(server: &TestServer, code: &str) -> Value {
    events(server, "AuthenticateSsh", |event| event["errorCode"] == code).remove(0)
}

#[test]
fn aws_and_boto3_register_show_switch_and_delete_keys() {
    let server = TestServer::start();
    let ssh = TestSsh::of(&server);
    let key = ssh.new_key("ed");
    let id = upload(&server, "admin", &ssh.path("ed.pub"));
    let one = ["--user-name", "admin", "--ssh-public-key-id", &id];
    let aws = |operation: &str, more: &[&str]| {
        server.aws_json(&[&["iam", operation][..], &one[..], more].concat())["SSHPublicKey"].clone()
    };
    let shown = aws("get-ssh-public-key", &["--encoding", "SSH"]);
    assert_eq!(shown["SSHPublicKeyBody"], key.trim());
    let md5 = success(Command::new("ssh-keygen").args(["-l", "-E", "md5", "-f"]).arg(ssh.path("ed.pub")));
    assert_eq!(format!("MD5:{}", shown["Fingerprint"].as_str().unwrap()), md5.split(' ').nth(1).unwrap());

    // An RSA key goes in as OpenSSL has it and comes out in both forms, as ssh-keygen reads them.
    success(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(ssh.path("rsa")));
    let pem = success(Command::new("ssh-keygen").args(["-e", "-m", "PKCS8", "-f"]).arg(ssh.path("rsa.pub")));
    let rsa = boto3(&server, "iam", "upload_ssh_public_key", &json!({ "UserName": "admin", "SSHPublicKeyBody": pem }));
    let rsa = rsa["SSHPublicKey"]["SSHPublicKeyId"].as_str().unwrap();
    let get = |encoding: &str| {
        let input = json!({ "UserName": "admin", "SSHPublicKeyId": rsa, "Encoding": encoding });
        let shown = boto3(&server, "iam", "get_ssh_public_key", &input);
        shown["SSHPublicKey"]["SSHPublicKeyBody"].as_str().unwrap().to_owned()
    };
    assert_eq!(get("PEM").trim(), pem.trim());
    let line = std::fs::read_to_string(ssh.path("rsa.pub")).unwrap();
    assert_eq!(get("SSH"), line.split(' ').take(2).collect::<Vec<_>>().join(" ").trim());

    aws("update-ssh-public-key", &["--status", "Inactive"]);
    let listed = boto3(&server, "iam", "list_ssh_public_keys", &json!({ "UserName": "admin" }));
    let of = |id: &str| listed["SSHPublicKeys"].as_array().unwrap().iter().find(|key| key["SSHPublicKeyId"] == *id);
    assert_eq!((&of(&id).unwrap()["Status"], &of(rsa).unwrap()["Status"]), (&json!("Inactive"), &json!("Active")));
    aws("delete-ssh-public-key", &[]);
    let again = boto3(&server, "iam", "delete_ssh_public_key", &json!({ "UserName": "admin", "SSHPublicKeyId": id }));
    assert_eq!(again["Error"], "NoSuchEntity", "{again}");
    for (body, code) in [
        ("ssh-ed25519 AAAA", "InvalidPublicKey"),
        ("hello", "UnrecognizedPublicKeyEncoding"),
        (line.as_str(), "DuplicateSSHPublicKey"),
    ] {
        let bad =
            boto3(&server, "iam", "upload_ssh_public_key", &json!({ "UserName": "admin", "SSHPublicKeyBody": body }));
        assert_eq!(bad["Error"], code, "{bad}");
    }
}

#[test]
fn a_registered_key_lets_its_owner_in_and_ends_their_sessions_when_it_goes() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let tried = ssh.ssh(&["web-1@gate", "true"]);
    assert!(tried.code == Some(255) && tried.err.contains("Permission denied"), "{tried:?}");
    let nobody = refused(&server, "NobodyProved");
    assert_eq!(nobody["requestParameters"]["node"], "web-1");

    let id = upload(&server, "admin", &ssh.path("id.pub"));
    assert_eq!(ssh.ssh(&["web-1@gate", "echo in"]).success(), "in\n");
    let start = events(&server, "StartSession", |_| true).remove(0);
    let (identity, data) = (&start["userIdentity"], &start["additionalEventData"]);
    assert_eq!((&identity["type"], &identity["userName"]), (&json!("IAMUser"), &json!("admin")), "{start}");
    assert_eq!((&data["authenticationMethod"], &data["ssh"]["keyId"]), (&json!("SshPublicKey"), &json!(id)), "{start}");
    let print = success(Command::new("ssh-keygen").arg("-lf").arg(ssh.path("id.pub")));
    assert_eq!(data["ssh"]["fingerprint"], print.split(' ').nth(1).unwrap());

    let mut stays = ssh.command("ssh", &["web-1@gate", "echo ready; exec sleep 600"]);
    let mut stays = stays.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(stays.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "ready\n");
    success(&mut server.aws(&[
        "iam",
        "update-ssh-public-key",
        "--user-name",
        "admin",
        "--ssh-public-key-id",
        &id,
        "--status",
        "Inactive",
    ]));
    assert!(!end(&mut stays, "ssh").success(), "its key was switched off");
    let session = wait_for("the session's end", || {
        let session = server.sessions().remove(0);
        session["endReason"].is_string().then_some(session)
    });
    assert_eq!(session["endReason"], "revoked", "{session}");
    let tried = ssh.ssh(&["web-1@gate", "true"]);
    assert!(tried.code == Some(255) && tried.err.contains("Permission denied"), "{tried:?}");
}

#[test]
fn a_security_key_lets_in_only_if_somebody_touched_it() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let keys = [
        ("ed", SecurityKey::ed25519(), PRESENT),
        ("ec", SecurityKey::ecdsa(), PRESENT),
        ("none", SecurityKey::ed25519(), 0),
    ];
    for (name, key, flags) in keys {
        let public = ssh.path(&format!("{name}.pub"));
        std::fs::write(&public, key.line()).unwrap();
        upload(&server, "admin", &public);
        let socket = ssh_agent::serve(ssh.path("").as_path(), name, key, flags);
        let agent = format!("IdentityAgent={}", socket.display());
        let identity = format!("IdentityFile={}", public.display());
        let ran = ssh.ssh(&["-o", &agent, "-o", &identity, "web-1@gate", "echo in"]);
        match flags {
            PRESENT => assert_eq!(ran.success(), "in\n", "{name}"),
            _ => {
                assert!(ran.code == Some(255) && ran.err.contains("Permission denied"), "{ran:?}");
                refused(&server, "NoUserPresence");
            }
        }
    }
}

#[test]
fn a_pushed_key_is_good_at_the_door_too_once_on_its_node_as_its_user() {
    let server = server();
    let ssh = TestSsh::of(&server);
    let socket = ssh.path("keys.sock");
    let agent = server.agent_configured("web-2", &[], None, &format!("keys_socket = '{}'\n", socket.display()));
    let instance = agent.node.replacen("mi-", "i-", 1);
    let file = format!("file://{}", ssh.path("id.pub").display());
    success(&mut server.aws(&[
        "ec2-instance-connect",
        "send-ssh-public-key",
        "--instance-id",
        &instance,
        "--instance-os-user",
        &user(),
        "--ssh-public-key",
        &file,
    ]));
    let other = ssh.ssh(&["daemon%web-2@gate", "true"]);
    assert_eq!(other.code, Some(255), "{other:?}");
    refused(&server, "PushedForOther");
    assert_eq!(ssh.ssh(&["web-2@gate", "id -un"]).success().trim(), user());
    let start = events(&server, "StartSession", |_| true).remove(0);
    assert_eq!(start["additionalEventData"]["authenticationMethod"], "SshPushedKey", "{start}");
    let again = ssh.ssh(&["web-2@gate", "true"]);
    assert_eq!(again.code, Some(255), "used up: {again:?}");
}

/// An `ssh` without a key that waits for an approval.
struct Waiting {
    child: Child,
    /// The link that it shows.
    url: String,
    /// The code of `munjigi approve` that it shows.
    code: String,
}

impl Waiting {
    fn start(ssh: &TestSsh) -> Self {
        let mut command = ssh.command(
            "ssh",
            &["-o", "BatchMode=no", "-o", "LogLevel=INFO", "-o", "PubkeyAuthentication=no", "web-1@gate", "echo in"],
        );
        // Whoever is at the keyboard types y.
        let typed = ssh.path("typed");
        std::fs::write(&typed, "#!/bin/sh\necho y\n").unwrap();
        std::fs::set_permissions(&typed, std::fs::Permissions::from_mode(0o755)).unwrap();
        command.env("SSH_ASKPASS", typed).env("SSH_ASKPASS_REQUIRE", "force");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut shown = String::new();
        let (mut url, mut code) = (None, None);
        while url.is_none() || code.is_none() {
            let Some(Ok(line)) = lines.next() else { panic!("{shown}: {:?}", child.wait()) };
            url = url.or_else(|| line.trim().starts_with("https://").then(|| line.trim().to_owned()));
            code = code.or_else(|| Some(line.split("munjigi approve ").nth(1)?.split('`').next()?.to_owned()));
            shown.push_str(&line);
        }
        // It writes more, which nobody needs; a full pipe would hold it up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.unwrap(), code: code.unwrap() }
    }

    /// Returns what it printed and whether it was let in.
    fn end(mut self) -> (bool, String) {
        let mut out = String::new();
        let status = end(&mut self.child, "ssh");
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        (status.success(), out)
    }
}

#[test]
fn a_login_without_a_key_becomes_whoever_approves_it_on_the_command_line() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let waiting = Waiting::start(&ssh);
    assert!(waiting.url.ends_with(&format!("/approve/{}", waiting.code.replace('-', ""))), "{}", waiting.url);
    let wrong = output(&mut server.munjigi(&["approve", "--yes", "2222-2222"]));
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("no login waits"), "{wrong:?}");
    let unsure = output(&mut server.munjigi(&["approve", &waiting.code]));
    assert!(!unsure.status.success(), "without a terminal nobody was asked: {unsure:?}");
    let approved = output(&mut server.munjigi(&["approve", "--yes", &waiting.code]));
    let said = String::from_utf8_lossy(&approved.stderr);
    assert!(approved.status.success() && said.contains("from 127.0.0.1 to web-1"), "{approved:?}");
    let code = waiting.code.clone();
    assert_eq!(waiting.end(), (true, "in\n".to_owned()));
    let start = events(&server, "StartSession", |_| true).remove(0);
    assert_eq!(start["additionalEventData"]["authenticationMethod"], "SshApproval", "{start}");
    assert_eq!(start["userIdentity"]["userName"], "admin");
    assert!(!output(&mut server.munjigi(&["approve", "--yes", &code])).status.success(), "used up");

    let waiting = Waiting::start(&ssh);
    success(&mut server.munjigi(&["approve", "--deny", &waiting.code]));
    assert_eq!(waiting.end(), (false, String::new()));
    refused(&server, "ApprovalDenied");
}

#[test]
fn a_login_is_approved_in_a_browser_whose_key_never_leaves_it() {
    let server = server();
    let Some(mut browser) = Browser::start(&server) else { return };
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    server.aws_json(&["iam", "create-user", "--user-name", "alice"]);
    let policy = json!({ "Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": ["munjigi:*", "ssm:*"], "Resource": "*" } });
    success(&mut server.aws(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "alice",
        "--policy-name",
        "p",
        "--policy-document",
        &policy.to_string(),
    ]));
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", "alice"])["AccessKey"].clone();

    let waiting = Waiting::start(&ssh);
    browser.open(&waiting.url);
    assert_eq!(browser.evaluate("document.getElementById('code').value"), waiting.code.replace('-', ""));
    fn status(browser: &mut Browser, text: &str) {
        wait_for(text, || {
            let shown = browser.evaluate("document.getElementById('status').textContent");
            shown.as_str().unwrap().contains(text).then_some(())
        });
    }
    let sign_in = |browser: &mut Browser, secret: &str| {
        let fill = format!(
            "document.getElementById('key').value = {}; document.getElementById('secret').value = {};
             document.getElementById('look').click()",
            key["AccessKeyId"],
            json!(secret)
        );
        browser.evaluate(&fill);
    };
    sign_in(&mut browser, "wrong");
    status(&mut browser, "does not match");
    assert_eq!(browser.evaluate("document.getElementById('login').hidden"), true);
    sign_in(&mut browser, key["SecretAccessKey"].as_str().unwrap());
    wait_for("the login", || (browser.evaluate("document.getElementById('login').hidden") == false).then_some(()));
    let shown = browser.evaluate("document.getElementById('login').innerText");
    for part in ["127.0.0.1", "web-1", ":user/alice"] {
        assert!(shown.as_str().unwrap().contains(part), "{shown}");
    }
    browser.evaluate("document.getElementById('approve').click()");
    status(&mut browser, "Let in");
    assert_eq!(waiting.end(), (true, "in\n".to_owned()));
    let start = events(&server, "StartSession", |_| true).remove(0);
    assert_eq!(start["userIdentity"]["userName"], "alice", "{start}");

    // Nothing of the key is left, and nothing else can run in the page.
    let left =
        "document.getElementById('secret').value + localStorage.length + sessionStorage.length + document.cookie";
    assert_eq!(browser.evaluate(left), "00");
    let injected = "(() => { const script = document.createElement('script');
        try { script.textContent = 'window.injected = 1'; document.body.append(script) } catch (error) {}
        return typeof window.injected })()";
    assert_eq!(browser.evaluate(injected), "undefined");
    assert_eq!(browser.evaluate("fetch('https://example.com/').then(() => 'sent', () => 'refused')"), "refused");
}

#[test]
fn a_login_that_nobody_watches_is_sent_away_at_once() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    // Without a terminal: as cron has it.
    let mut alone = Command::new("setsid");
    let options = ["-o", "BatchMode=no", "-o", "LogLevel=INFO", "-o", "PubkeyAuthentication=no"];
    alone.args(["--wait", "ssh", "-F"]).arg(ssh.config()).args(options).args(["web-1@gate", "echo in"]);
    ssh.configure(&mut alone);
    let ran = Ran::of(alone, b"");
    assert!(ran.code == Some(255) && ran.out.is_empty(), "{ran:?}");
    assert!(ran.err.contains("/approve/") && ran.err.contains("Ctrl-C gives up"), "{ran:?}");
    refused(&server, "ApprovalNotAwaited");

    let known = success(Command::new("ssh-keygen").arg("-lf").arg(ssh.path("known_hosts")));
    let print = known.split(' ').nth(1).unwrap();
    let port = server.address().port().to_string();
    if !std::path::Path::new("/usr/bin/plink").exists() {
        eprintln!("no plink here: run `scripts/deps test`");
        return;
    }
    let mut plink = Command::new("plink");
    plink.args(["-batch", "-ssh", "-P", &port, "-hostkey", print, "web-1@127.0.0.1", "echo in"]);
    ssh.configure(&mut plink);
    let ran = Ran::of(plink, b"");
    assert!(ran.code == Some(1) && ran.out.is_empty(), "{ran:?}");
    // It went away by itself.
    refused(&server, "NobodyProved");
    let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
    assert!(!trail.contains("\"NotApproved\""), "nobody waited: {trail}");
}

/// Returns an account that is no administrator's: keys of groups are good for no other. The test's own, unless that is
/// root.
fn ordinary() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some(user());
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let good = |field: &Vec<&str>| {
        field[2].parse::<u32>().is_ok_and(|uid| (1000..60_000).contains(&uid)) && field[6].ends_with("sh")
    };
    fields.into_iter().find(good).map(|field| field[0].to_owned())
}

/// Options that an administrator wrote before keys of a group narrow what they are good for at a real sshd.
#[test]
fn options_before_the_keys_of_a_group_reach_sshd_and_others_are_refused() {
    let Some(whom) = ordinary() else {
        eprintln!("no ordinary account here, so there is nobody for whom keys of a group are good");
        return;
    };
    let stage = Stage::new("");
    let put = |name: &str, options: &str| {
        let key = stage.sshd.new_key(name);
        let file = stage.sshd.path(&format!("{name}.keys"));
        std::fs::write(&file, format!("{options} {key}")).unwrap();
        let mut put = stage.server.munjigi(&["account", "key-file", "put", name]);
        put.arg(&file).args(["--os-user", &whom, "--nodes", "*"]);
        output(&mut put)
    };
    for (name, options) in [
        ("near", r#"from="127.0.0.1,::1""#),
        ("far", r#"from="192.0.2.0/24""#),
        ("bound", r#"command="echo bound: $SSH_ORIGINAL_COMMAND; echo \"in\"",restrict"#),
        ("over", r#"expiry-time="20200101""#),
        ("later", r#"expiry-time="20990101""#),
    ] {
        let done = put(name, options);
        assert!(done.status.success(), "{name}: {done:?}");
    }
    let others =
        [r#"environment="A=b""#, r#"principals="root",cert-authority"#, r#"permitopen="a:1""#, "restrict,restrict"];
    for (number, bad) in others.into_iter().enumerate() {
        let done = put(&format!("bad{number}"), bad);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains("before a key may stand only"), "{bad}: {said}");
    }
    let lines = wait_for("the keys to reach the node", || {
        let mut helper = Command::new(binary());
        helper.args(["authorized-keys", "--socket"]).arg(stage.sshd.path("keys.sock")).arg(&whom);
        Some(success(&mut helper)).filter(|lines| lines.lines().count() == 5)
    });
    // In one form, whatever was written.
    assert!(
        lines.contains(r#"restrict,command="echo bound: $SSH_ORIGINAL_COMMAND; echo \"in\"" ssh-ed25519 "#),
        "{lines}"
    );
    // What sshd is told for that account it is told here for the test's own, whoever that is.
    std::fs::write(stage.sshd.path("authorized"), &lines).unwrap();
    for (name, good) in [("near", true), ("later", true), ("bound", true), ("far", false), ("over", false)] {
        assert_eq!(stage.sshd.lets_in(name), good, "{name}");
    }
    let ran = output(stage.sshd.ssh("bound", &user(), &[]).arg("rm -rf /nowhere"));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "bound: rm -rf /nowhere\nin\n");
}

#[test]
fn nobody_is_asked_about_accounts_of_the_nodes_owner() {
    let mut stage = Stage::new(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    stage.sshd.new_key("kim");
    upload(&stage.server, "admin", &stage.sshd.path("kim.pub"));
    wait_for("the key to reach the node", || stage.sshd.lets_in("kim").then_some(()));
    let settings = stage.agent.data_dir().join("agent.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}local_users = ['{}']\n", user())).unwrap();
    stage.agent.stop();
    stage.agent.run_again();
    assert!(!stage.sshd.lets_in("kim"));
    assert!(stage.sshd.lets_in("own"), "its own files hold");
    // A push is refused and says why, and another command that sshd would be told of is not asked either.
    stage.sshd.new_key("pushed");
    let push = output(&mut stage.send("pushed", &user()));
    let said = String::from_utf8_lossy(&push.stderr).into_owned();
    assert!(!push.status.success() && said.contains("is local"), "{said}");
    assert!(!stage.sshd.lets_in("pushed"));
    let mut helper = Command::new(binary());
    helper.args(["authorized-keys", "--socket"]).arg(stage.sshd.path("keys.sock")).arg(user());
    assert_eq!(success(helper.args(["--", "/bin/echo", "asked"])), "");
    let mut helper = Command::new(binary());
    helper.args(["authorized-keys", "--socket"]).arg(stage.sshd.path("keys.sock")).arg("nobody");
    assert_eq!(success(helper.args(["--", "/bin/echo", "asked"])), "asked\n");
}

/// The keys of people at a node's own sshd, through the same helper as pushed ones.
#[test]
fn plain_sshd_takes_registered_keys_also_while_the_server_is_away_and_not_when_they_are_gone() {
    let mut stage = Stage::new(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    stage.sshd.new_key("kim");
    assert!(!stage.sshd.lets_in("kim"));
    let id = upload(&stage.server, "admin", &stage.sshd.path("kim.pub"));
    wait_for("the key to reach the node", || stage.sshd.lets_in("kim").then_some(()));
    let logins = stage.events("SshLogin", |event| event["additionalEventData"]["allowedBy"]["keyId"] == *id);
    let details = &logins[0]["additionalEventData"];
    assert!(details["allowedBy"]["principalArn"].as_str().unwrap().ends_with(":user/admin"), "{details}");
    assert!(logins[0].get("errorCode").is_none(), "{logins:?}");

    // What sshd waits for, twice in every login. Printed, not judged: how fast the machine is is no business of tests.
    let key = std::fs::read_to_string(stage.sshd.path("kim.pub")).unwrap();
    let words: Vec<&str> = key.split(' ').collect();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            let mut ask = Command::new(binary());
            ask.arg("authorized-keys").arg("--socket").arg(stage.sshd.path("keys.sock"));
            assert_eq!(success(ask.args([&user(), words[0], words[1]])), format!("{} {}\n", words[0], words[1]));
            begun.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("the helper of sshd: p50 {:?}, p99 {:?} of {}", times[100], times[198], times.len());

    let switch = |stage: &Stage, status: &str| {
        let arguments =
            ["iam", "update-ssh-public-key", "--user-name", "admin", "--ssh-public-key-id", &id, "--status", status];
        success(&mut stage.server.aws(&arguments));
    };
    switch(&stage, "Inactive");
    wait_for("the key to be taken from the node", || (!stage.sshd.lets_in("kim")).then_some(()));
    switch(&stage, "Active");
    wait_for("the key to come back", || stage.sshd.lets_in("kim").then_some(()));
    stage.server.kill();
    for _ in 0..3 {
        assert!(stage.sshd.lets_in("kim"), "from the agent's memory");
    }
    // An agent that starts while the server is away knows what it was told, as the server signed it.
    let bundle = stage.agent.data_dir().join("accounts.bundle");
    let signed = std::fs::read(&bundle).unwrap();
    stage.agent.stop();
    assert!(!stage.sshd.lets_in("kim"), "nobody answers");
    stage.agent.run_alone();
    wait_for("the keys from disk", || stage.sshd.lets_in("kim").then_some(()));
    stage.agent.stop();
    let mut altered = signed.clone();
    let at = altered.len() / 2;
    altered[at] ^= 1;
    std::fs::write(&bundle, altered).unwrap();
    let state = stage.agent.data_dir().join("state.json");
    std::fs::remove_file(&state).unwrap();
    stage.agent.run_alone();
    // It has read its files when it says that the server is away.
    wait_for("the agent to start", || {
        std::fs::read_to_string(&state).is_ok_and(|text| text.contains("false")).then_some(())
    });
    assert!(!stage.sshd.lets_in("kim"), "what the server did not sign is worth nothing");
    stage.agent.stop();
    std::fs::write(&bundle, signed).unwrap();
    stage.agent.run_alone();
    wait_for("the keys from disk again", || stage.sshd.lets_in("kim").then_some(()));
    stage.server.start_again();
    // Policy decides, not the registration alone.
    let deny = json!({ "Version": "2012-10-17", "Statement": {
        "Effect": "Deny", "Action": "munjigi:LoginThroughSshd", "Resource": "*" } });
    success(&mut stage.server.aws(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "admin",
        "--policy-name",
        "no-sshd",
        "--policy-document",
        &deny.to_string(),
    ]));
    wait_for("the permission to go", || (!stage.sshd.lets_in("kim")).then_some(()));
}
