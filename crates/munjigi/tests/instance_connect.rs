//! EC2 Instance Connect on any machine: the real `aws`, the real `ssh` and a real sshd of the test's own.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use nix::unistd::{Uid, User};
use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::{TestAgent, TestServer, TestSshd, binary, output, python_tool, success, wait_for};

/// A server, a node, and an sshd that asks the node's agent.
pub(crate) struct Stage {
    // Ends first: its directory is the server's.
    pub(crate) agent: TestAgent,
    pub(crate) server: TestServer,
    pub(crate) sshd: TestSshd,
}

impl Stage {
    pub(crate) fn new(server_settings: &str) -> Self {
        Self::with_agent(server_settings, "")
    }

    /// As [`Self::new`], with more lines of `agent.toml`.
    pub(crate) fn with_agent(server_settings: &str, agent_lines: &str) -> Self {
        let sshd = TestSshd::prepare("");
        let socket = sshd.path("keys.sock");
        let helper = format!(
            "AuthorizedKeysCommand /usr/bin/env {} authorized-keys --socket {} %u %t %k\nAuthorizedKeysCommandUser {}\n",
            binary(),
            socket.display(),
            helper_account()
        );
        std::fs::write(sshd.path("sshd_config.d/keys.conf"), helper).unwrap();
        Self::with_both(server_settings, sshd, agent_lines)
    }

    /// `sshd` knows already whom it asks.
    fn with(server_settings: &str, sshd: TestSshd) -> Self {
        Self::with_both(server_settings, sshd, "")
    }

    fn with_both(server_settings: &str, mut sshd: TestSshd, agent_lines: &str) -> Self {
        let server = TestServer::with_config(server_settings);
        // There before it is written, so that nothing is read that happened before.
        std::fs::write(sshd.log(), "").unwrap();
        let lines = format!(
            "keys_socket = '{}'\nsshd_log = '{}'\n{agent_lines}",
            sshd.path("keys.sock").display(),
            sshd.log().display()
        );
        let agent = server.agent_configured("web-1", &["Role=web"], None, &lines);
        sshd.start();
        Self { agent, server, sshd }
    }

    /// Calls `aws ec2-instance-connect send-ssh-public-key` for the key file `key`.
    pub(crate) fn send(&self, key: &str, os_user: &str) -> Command {
        let file = format!("file://{}", self.sshd.path(key).with_extension("pub").display());
        let mut aws = self.server.aws(&["ec2-instance-connect", "send-ssh-public-key", "--output", "json"]);
        aws.args(["--instance-id", &self.instance(), "--instance-os-user", os_user, "--ssh-public-key", &file]);
        aws
    }

    pub(crate) fn push(&self, key: &str) -> Value {
        let answer: Value = serde_json::from_str(&success(&mut self.send(key, &user()))).unwrap();
        assert_eq!(answer["Success"], true, "{answer}");
        answer
    }

    fn instance(&self) -> String {
        self.agent.node.replacen("mi-", "i-", 1)
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
}

/// An account without rights for the helper, if it can get to the binary; else the test's own.
fn helper_account() -> String {
    let open = Path::new(binary()).ancestors().all(|path| std::fs::metadata(path).is_ok_and(|m| m.mode() & 0o001 != 0));
    if Uid::effective().is_root() && open { "nobody".to_owned() } else { user() }
}

fn refused(output: &Output, code: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(code), "{code}: {output:?}");
}

#[test]
fn a_pushed_key_lets_its_owner_in_once() {
    let stage = Stage::new("");
    stage.sshd.new_key("kim");
    assert!(!stage.sshd.lets_in("kim"), "nothing was pushed yet");
    let pushed = stage.push("kim");
    assert!(stage.sshd.lets_in("kim"));
    assert!(!stage.sshd.lets_in("kim"), "the key was used up");
    // A second push is a second login, whatever became of the first.
    stage.push("kim");
    assert!(stage.sshd.lets_in("kim"));
    assert!(!stage.sshd.lets_in("kim"));
    // Every login stands in the trail with the push that allowed it.
    let request = pushed["RequestId"].as_str().unwrap();
    let logins = stage.events("SshLogin", |event| event["additionalEventData"]["allowedBy"]["requestID"] == request);
    let details = &logins[0]["additionalEventData"];
    assert!(logins[0].get("errorCode").is_none(), "{logins:?}");
    assert_eq!((&details["osUser"], &details["target"]), (&json!(user()), &json!(stage.agent.node)));
    assert!(details["allowedBy"]["principalArn"].as_str().unwrap().ends_with(":user/admin"), "{details}");
    assert_eq!(details["sourceIPAddress"], "127.0.0.1");
}

#[test]
fn a_login_that_nothing_allowed_is_an_alarm() {
    let stage = Stage::new("");
    // By a key of an authorized_keys file, as somebody who was here before may have left one.
    assert!(stage.sshd.lets_in("own"));
    let logins = stage.events("SshLogin", |event| event["errorCode"] == "UnexplainedSshLogin");
    let details = &logins[0]["additionalEventData"];
    assert!(details.get("allowedBy").is_none() && details["method"] == "publickey", "{details}");
    let own = success(Command::new("ssh-keygen").arg("-lf").arg(stage.sshd.path("own.pub")));
    assert_eq!(details["keyFingerprint"], own.split(' ').nth(1).unwrap());
}

#[test]
fn a_key_is_good_for_its_time_and_then_no_more() {
    let stage = Stage::new("[instance_connect]\nkey_life_seconds = 60\nsingle_use = false\n");
    stage.sshd.new_key("kim");
    stage.push("kim");
    let pushed = Instant::now();
    assert!(stage.sshd.lets_in("kim"));
    assert!(stage.sshd.lets_in("kim"), "without single use it is good for its whole time");
    wait_for("the key's end", || (!stage.sshd.lets_in("kim")).then_some(()));
    // The node counts from when it took the key, which was before the answer came.
    assert!(pushed.elapsed().as_secs() >= 58, "it ended after {:?}", pushed.elapsed());
    assert!(!stage.sshd.lets_in("kim"));
}

#[test]
fn a_key_is_for_one_account_and_asking_for_another_does_not_use_it_up() {
    let stage = Stage::new("");
    stage.sshd.new_key("kim");
    stage.sshd.new_key("lee");
    stage.push("kim");
    let other = ["nobody", "daemon", "root"].into_iter().find(|name| *name != user()).unwrap();
    assert!(User::from_name(other).unwrap().is_some());
    let tried = output(stage.sshd.ssh("kim", other, &[]).arg("echo in"));
    assert!(!stage.sshd.judge(&tried));
    assert!(!stage.sshd.lets_in("lee"), "another key");
    // Whoever can read the socket can ask, and takes nothing away by it.
    let key = std::fs::read_to_string(stage.sshd.path("kim.pub")).unwrap();
    let words: Vec<&str> = key.split(' ').collect();
    let mut ask = Command::new(binary());
    ask.arg("authorized-keys").arg("--socket").arg(stage.sshd.path("keys.sock")).args([&user(), words[0], words[1]]);
    assert_eq!(success(&mut ask), "");
    assert!(stage.sshd.lets_in("kim"));
}

#[test]
fn the_push_says_what_the_node_made_of_it() {
    let mut stage = Stage::new("");
    stage.sshd.new_key("kim");
    let call = |change: [&str; 2]| {
        // The last of two equal options holds.
        output(stage.send("kim", &user()).args(change))
    };
    refused(&call(["--instance-id", "i-00000000000000000"]), "EC2InstanceNotFoundException");
    refused(&call(["--instance-id", "i-0000000000000"]), "InvalidArgsException");
    refused(&call(["--availability-zone", "us-east-1a"]), "EC2InstanceNotFoundException");
    refused(&call(["--instance-os-user", "a b"]), "InvalidArgsException");
    refused(&call(["--instance-os-user", "no-such-user"]), "AuthException");
    let with_options = format!("command=\"id\" {}", stage.sshd.new_key("options"));
    refused(&call(["--ssh-public-key", &with_options]), "InvalidArgsException");
    let serial = stage
        .server
        .aws(&["ec2-instance-connect", "send-serial-console-ssh-public-key"])
        .args([
            "--instance-id",
            &stage.instance(),
            "--ssh-public-key",
            &std::fs::read_to_string(stage.sshd.path("kim.pub")).unwrap(),
        ])
        .output()
        .unwrap();
    refused(&serial, "SerialConsoleAccessDisabledException");
    stage.push("kim");
    stage.agent.stop();
    let mut aws = stage.send("kim", &user());
    refused(&output(&mut aws), "EC2InstanceUnavailableException");
    assert!(!stage.sshd.path("keys.sock").exists(), "the agent takes its socket along");
    assert!(!stage.sshd.lets_in("kim"), "a key is in the agent's memory and nowhere else");
}

#[test]
fn policy_chooses_the_account_and_the_trail_has_what_cloudtrail_shows() {
    let stage = Stage::new("");
    stage.sshd.new_key("kim");
    stage.server.aws_json(&["iam", "create-user", "--user-name", "alice"]);
    let key = stage.server.aws_json(&["iam", "create-access-key", "--user-name", "alice"]);
    let arn = format!("arn:aws:ec2:*:*:instance/{}", stage.instance());
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "ec2-instance-connect:SendSSHPublicKey", "Resource": arn,
         "Condition": {"StringEquals": {"ec2:osuser": user(), "aws:ResourceTag/Role": "web"}}},
        // The test may run as root.
        {"Effect": "Allow", "Action": "munjigi:StartPrivilegedSession", "Resource": "*"},
    ]});
    let policy = policy.to_string();
    let put = ["iam", "put-user-policy", "--user-name", "alice", "--policy-name", "push", "--policy-document", &policy];
    stage.server.aws_json(&put);
    let as_alice = |os_user: &str| {
        let secret = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
        let mut aws = stage.send("kim", os_user);
        aws.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE").env("AWS_DEFAULT_REGION", "local-1");
        aws.env("AWS_ACCESS_KEY_ID", secret("AccessKeyId")).env("AWS_SECRET_ACCESS_KEY", secret("SecretAccessKey"));
        output(&mut aws)
    };
    let other = if user() == "root" { "daemon" } else { "root" };
    let denied = as_alice(other);
    refused(&denied, "AccessDeniedException");
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(said.contains("perform: ec2-instance-connect:SendSSHPublicKey on resource"), "{said}");
    let allowed = as_alice(&user());
    assert!(allowed.status.success(), "{allowed:?}");
    assert!(stage.sshd.lets_in("kim"));

    let attribute = "AttributeKey=EventName,AttributeValue=SendSSHPublicKey";
    let events = stage.server.aws_json(&["cloudtrail", "lookup-events", "--lookup-attributes", attribute]);
    let events: Vec<Value> = events["Events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap()).unwrap())
        .collect();
    let find = |failed: bool| events.iter().find(|event| event.get("errorCode").is_some() == failed).unwrap();
    let (good, bad) = (find(false), find(true));
    let public_key = std::fs::read_to_string(stage.sshd.path("kim.pub")).unwrap();
    assert_eq!(
        good["requestParameters"],
        json!({"instanceId": stage.instance(), "osUser": user(), "SSHKey": {"publicKey": public_key.trim_end()}})
    );
    assert_eq!(good["eventSource"], "ec2-instance-connect.amazonaws.com");
    assert_eq!(good["userIdentity"]["type"], "IAMUser");
    assert_eq!(good["userIdentity"]["userName"], "alice");
    assert_eq!((&good["eventType"], &good["readOnly"]), (&json!("AwsApiCall"), &json!(false)));
    assert_eq!(good["responseElements"]["success"], true);
    assert_eq!(good["responseElements"]["requestId"], good["requestID"]);
    let resource = &good["resources"][0];
    assert_eq!(resource["type"], "AWS::EC2::Instance");
    assert!(resource["ARN"].as_str().unwrap().ends_with(&format!(":instance/{}", stage.instance())), "{resource}");
    let print = success(Command::new("ssh-keygen").arg("-lf").arg(stage.sshd.path("kim.pub")));
    assert_eq!(good["additionalEventData"]["keyFingerprint"], print.split(' ').nth(1).unwrap());
    assert_eq!(bad["errorCode"], "AccessDeniedException");
    for field in [
        "eventVersion",
        "eventTime",
        "awsRegion",
        "sourceIPAddress",
        "userAgent",
        "requestID",
        "eventID",
        "recipientAccountId",
    ] {
        assert!(good[field].is_string() && bad[field].is_string(), "{field}: {good}");
    }
}

#[test]
fn nodes_are_instances_with_addresses_of_their_own() {
    let server = TestServer::start();
    let (one, two) = (server.agent_through("web-1", &["Role=web"], None), server.agent("db-1"));
    let id = |agent: &TestAgent| agent.node.replacen("mi-", "i-", 1);
    let all = server.aws_json(&["ec2", "describe-instances"]);
    let instances: Vec<&Value> =
        all["Reservations"].as_array().unwrap().iter().map(|one| &one["Instances"][0]).collect();
    assert_eq!(instances.len(), 2, "{all}");
    let web = instances.iter().find(|instance| instance["InstanceId"] == id(&one)).unwrap();
    assert_eq!(web["State"], json!({"Code": 16, "Name": "running"}));
    assert!(web.get("PublicIpAddress").is_none() && web["VpcId"].is_string() && web["SubnetId"].is_string(), "{web}");
    let address = web["PrivateIpAddress"].as_str().unwrap();
    assert!(address.starts_with("100."), "{address}");
    let tags =
        server.aws_json(&["ec2", "describe-tags", "--filters", &format!("Name=resource-id,Values={}", id(&one))]);
    let tags: Vec<(&str, &str)> = tags["Tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| (tag["Key"].as_str().unwrap(), tag["Value"].as_str().unwrap()))
        .collect();
    assert_eq!(tags, [("Name", "web-1"), ("Role", "web")]);
    for filter in ["tag:Role,Values=web", &format!("private-ip-address,Values={address}"), "tag:Name,Values=web-*"] {
        let found = server.aws_json(&["ec2", "describe-instances", "--filters", &format!("Name={filter}")]);
        assert_eq!(found["Reservations"][0]["Instances"][0]["InstanceId"], id(&one), "{filter}");
        assert_eq!(found["Reservations"].as_array().unwrap().len(), 1, "{filter}");
    }
    // Only the alias is known to AWS's clients; everything here takes either.
    drop(two);
    wait_for("the other node's end", || {
        let other =
            server.aws_json(&["ec2", "describe-instances", "--filters", "Name=instance-state-name,Values=stopped"]);
        (other["Reservations"].as_array().unwrap().len() == 1).then_some(())
    });
    let connected = server.aws_json(&["ssm", "get-connection-status", "--target", &id(&one)]);
    assert_eq!(connected["Status"], "connected");
    let ran = success(&mut server.munjigi(&["run", &id(&one), "--user", &user(), "--", "echo", "here"]));
    assert_eq!(ran, "here\n");
    for (name, code) in
        [("i-00000000000000000", "InvalidInstanceID.NotFound"), ("web-1", "InvalidInstanceID.Malformed")]
    {
        refused(&output(&mut server.aws(&["ec2", "describe-instances", "--instance-ids", name])), code);
    }
    let unknown = server.aws(&["ec2", "describe-instances", "--filters", "Name=colour,Values=red"]).output().unwrap();
    refused(&unknown, "InvalidParameterValue");
    refused(&output(&mut server.aws(&["ec2", "describe-instances", "--dry-run"])), "DryRunOperation");
    let vpc = web["VpcId"].as_str().unwrap();
    let endpoints = server.aws_json(&[
        "ec2",
        "describe-instance-connect-endpoints",
        "--filters",
        &format!("Name=vpc-id,Values={vpc}"),
        "Name=state,Values=create-complete,update-complete",
    ]);
    let endpoint = &endpoints["InstanceConnectEndpoints"][0];
    assert_eq!((&endpoint["SubnetId"], &endpoint["DnsName"]), (&web["SubnetId"], &json!("127.0.0.1")));
    assert!(endpoint["InstanceConnectEndpointId"].as_str().unwrap().starts_with("eice-"), "{endpoint}");
}

/// `munjigi sshd …` for an sshd of a test.
pub(crate) fn setup(sshd: &TestSshd, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["sshd", arguments[0], "--config"]).arg(sshd.config()).args(&arguments[1..]);
    command
}

#[test]
fn sshd_is_asked_after_install_and_everything_is_as_before_after_remove() {
    // The other command runs as an account that this sshd can become.
    let other = format!("AuthorizedKeysCommand /bin/cat /dev/null\nAuthorizedKeysCommandUser {}", helper_account());
    let stage = Stage::with("", TestSshd::prepare(&other));
    let sshd = &stage.sshd;
    sshd.new_key("kim");
    let before = std::fs::read(sshd.path("sshd_config")).unwrap();
    let agent = stage.agent.data_dir().to_str().unwrap();
    let status = output(&mut setup(sshd, &["status", "--data-dir", agent]));
    assert!(!status.status.success(), "{status:?}");
    let safe = Path::new(binary()).ancestors().all(|path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o022 == 0 && meta.mode() & 1 != 0)
    });
    if Uid::effective().is_root() && !safe {
        // sshd would not run a binary that lies here, and install says so.
        refused(&output(&mut setup(sshd, &["install", "--data-dir", agent])), "sshd runs only what nobody but root");
        return;
    }
    refused(&output(&mut setup(sshd, &["install", "--data-dir", agent, "--no-chain"])), "already has");
    success(&mut setup(sshd, &["install", "--data-dir", agent]));
    sshd.wait_until_it_listens();
    success(&mut setup(sshd, &["status", "--data-dir", agent]));
    let drop_in = std::fs::read_to_string(sshd.path("sshd_config.d/00-munjigi.conf")).unwrap();
    assert!(drop_in.contains("%u %t %k -- /bin/cat /dev/null\n"), "{drop_in}");
    // Again is the same.
    success(&mut setup(sshd, &["install", "--data-dir", agent]));
    assert_eq!(std::fs::read_to_string(sshd.path("sshd_config.d/00-munjigi.conf")).unwrap(), drop_in);
    sshd.wait_until_it_listens();
    if safe {
        stage.push("kim");
        assert!(sshd.lets_in("kim"));
    }
    success(&mut setup(sshd, &["remove"]));
    sshd.wait_until_it_listens();
    assert_eq!(std::fs::read(sshd.path("sshd_config")).unwrap(), before);
    assert_eq!(std::fs::read_dir(sshd.path("sshd_config.d")).unwrap().count(), 0);
    stage.push("kim");
    wait_for("sshd to read its settings", || (!sshd.lets_in("kim")).then_some(()));
    success(&mut setup(sshd, &["remove"]));
}

#[test]
fn an_install_that_sshd_does_not_accept_changes_nothing() {
    let sshd = TestSshd::prepare("");
    let socket = ["install", "--socket", "/run/munjigi/x.sock", "--program", "/bin/true", "--no-reload"];
    let listing = || std::fs::read_dir(sshd.path("sshd_config.d")).unwrap().count();
    // Its own settings are wrong.
    let good = std::fs::read_to_string(sshd.path("sshd_config")).unwrap();
    std::fs::write(sshd.path("sshd_config"), format!("{good}NoSuchKeyword yes\n")).unwrap();
    refused(&output(&mut setup(&sshd, &socket)), "NoSuchKeyword");
    assert_eq!(listing(), 0);
    // It reads no drop-in files.
    let without: String = good.lines().skip(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(sshd.path("sshd_config"), &without).unwrap();
    refused(&output(&mut setup(&sshd, &socket)), "Include");
    assert_eq!(listing(), 0);
    // Somebody else's file of that name stays.
    std::fs::write(sshd.path("sshd_config"), &good).unwrap();
    std::fs::write(sshd.path("sshd_config.d/00-munjigi.conf"), "PermitRootLogin no\n").unwrap();
    for command in [&socket[..], &["remove", "--no-reload"]] {
        refused(&output(&mut setup(&sshd, command)), "not our file");
    }
    assert_eq!(std::fs::read_to_string(sshd.path("sshd_config.d/00-munjigi.conf")).unwrap(), "PermitRootLogin no\n");
}

#[test]
fn the_helper_is_quiet_without_an_agent_and_asks_the_other_command() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("keys.sock");
    let helper = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("authorized-keys").arg("--socket").arg(&socket).args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    };
    let none = helper(&["alice", "ssh-ed25519", "AAAA"]);
    assert!(none.status.success() && none.stdout.is_empty() && none.stderr.is_empty(), "{none:?}");
    let other = helper(&["alice", "--", "/bin/echo", "ssh-ed25519 AAAA of alice"]);
    assert_eq!(String::from_utf8_lossy(&other.stdout), "ssh-ed25519 AAAA of alice\n");
    // A socket behind which nobody is: an error that sshd sees, and no output.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = helper(&["alice"]);
    assert!(dead.status.code() == Some(1) && dead.stdout.is_empty(), "{dead:?}");
    let other = helper(&["alice", "--", "/bin/echo", "other"]);
    assert_eq!(String::from_utf8_lossy(&other.stdout), "other\n");
    // An agent that says nothing does not hold sshd up.
    std::fs::remove_file(&socket).unwrap();
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let slow = helper(&["alice"]);
    assert!(slow.status.code() == Some(1) && String::from_utf8_lossy(&slow.stderr).contains("within 1 s"), "{slow:?}");
    drop(silent);
    let unsafe_program = directory.path().join("other");
    std::fs::write(&unsafe_program, "#!/bin/sh\necho bad\n").unwrap();
    std::fs::set_permissions(&unsafe_program, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let bad = helper(&["alice", "--", unsafe_program.to_str().unwrap()]);
    assert!(!bad.status.success() && bad.stdout.is_empty(), "{bad:?}");
}

/// The client of tunnels, written from the documentation alone.
fn tunnel(stage: &Stage, port: u16, more: &[&str]) -> Command {
    let instances = stage.server.aws_json(&["ec2", "describe-instances", "--instance-ids", &stage.instance()]);
    let address = instances["Reservations"][0]["Instances"][0]["PrivateIpAddress"].as_str().unwrap().to_owned();
    let mut command = Command::new(python_tool("python3"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/open_tunnel.py"));
    command.arg(stage.server.url(None)).arg(stage.server.data_dir().join("ca.pem"));
    command.args([&endpoint(&stage.server), &address, &port.to_string()]).args(more);
    stage.server.configure(&mut command);
    command.env("AWS_DEFAULT_REGION", "local-1");
    command
}

fn endpoint(server: &TestServer) -> String {
    let endpoints = server.aws_json(&["ec2", "describe-instance-connect-endpoints"]);
    endpoints["InstanceConnectEndpoints"][0]["InstanceConnectEndpointId"].as_str().unwrap().to_owned()
}

/// A stage whose server lets tunnels to its sshd through.
fn tunnel_stage() -> (Stage, u16) {
    let sshd = TestSshd::prepare("");
    let port = sshd.port();
    (Stage::with(&format!("[instance_connect]\ntunnel_ports = [{port}]\n"), sshd), port)
}

#[test]
fn ssh_goes_through_a_tunnel_and_the_tunnel_is_a_session() {
    let (stage, port) = tunnel_stage();
    let proxy = tunnel(&stage, port, &[]);
    let words: Vec<String> = std::iter::once(proxy.get_program())
        .chain(proxy.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let option = format!("ProxyCommand={}", words.join(" "));
    let ssh = |command: &str| {
        let mut ssh = stage.sshd.ssh("own", &user(), &["-o", &option]);
        stage.server.configure(&mut ssh);
        ssh.env("AWS_DEFAULT_REGION", "local-1").arg(command);
        ssh
    };
    assert!(success(&mut ssh("echo in")).contains("in"));
    // Three megabytes there and back, in pieces of every size that the frames have.
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut cat = ssh("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, sent) = (cat.stdin.take().unwrap(), data.clone());
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent).unwrap());
    let echoed = cat.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(echoed.status.success() && echoed.stdout == data, "{} bytes came back", echoed.stdout.len());
    let sessions = wait_for("the tunnels' sessions to end", || {
        let sessions = stage.server.sessions();
        (sessions.len() == 2 && sessions.iter().all(|one| one["endReason"].is_string())).then_some(sessions)
    });
    assert!(sessions.iter().all(|session| session["kind"] == "port"), "{sessions:?}");
    let opened = stage.events("OpenTunnel", |event| event.get("errorCode").is_none());
    let parameters = &opened[0]["requestParameters"];
    assert_eq!(
        (&parameters["remotePort"], &parameters["instanceConnectEndpointId"]),
        (&json!(port), &json!(endpoint(&stage.server)))
    );
    assert!(opened[0]["responseElements"]["sessionId"].is_string(), "{opened:?}");
}

#[test]
fn a_tunnel_opens_once_for_whom_policy_lets_and_no_longer_than_it_may() {
    let (stage, port) = tunnel_stage();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    // The same URL again.
    let mut twice = tunnel(&stage, port, &[]);
    let twice = output(twice.env("TUNNEL_TWICE", "yes"));
    assert!(said(&twice).contains("again 4"), "{twice:?}");
    let other_port = output(&mut tunnel(&stage, 1, &[]));
    assert!(said(&other_port).contains("refused 400 InvalidArgsException: tunnels reach the ports"), "{other_port:?}");
    let too_long = output(&mut tunnel(&stage, port, &["3601"]));
    assert!(said(&too_long).contains("refused 400"), "{too_long:?}");
    // It ends by itself, quietly.
    let mut short = tunnel(&stage, port, &["2"]);
    let held = short.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = held.wait_with_output().unwrap();
    assert!(ended.status.success() && said(&ended).contains("closed 1000"), "{ended:?}");

    stage.server.aws_json(&["iam", "create-user", "--user-name", "alice"]);
    let key = stage.server.aws_json(&["iam", "create-access-key", "--user-name", "alice"]);
    let policy = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "ec2-instance-connect:OpenTunnel",
        "Resource": format!("arn:aws:ec2:*:*:instance-connect-endpoint/{}", endpoint(&stage.server)),
        "Condition": {
            "NumericEquals": {"ec2-instance-connect:remotePort": port.to_string()},
            "NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "60"},
            "IpAddress": {"ec2-instance-connect:privateIpAddress": "100.64.0.0/10"},
            "StringEquals": {"aws:ResourceTag/Role": "web"},
        },
    }});
    let policy = policy.to_string();
    let put = ["iam", "put-user-policy", "--user-name", "alice", "--policy-name", "open", "--policy-document", &policy];
    stage.server.aws_json(&put);
    let as_alice = |more: &[&str]| {
        let secret = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
        let mut command = tunnel(&stage, port, more);
        command.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE");
        command.env("AWS_ACCESS_KEY_ID", secret("AccessKeyId")).env("AWS_SECRET_ACCESS_KEY", secret("SecretAccessKey"));
        command
    };
    // Not naming a duration asks for an hour.
    let denied = output(&mut as_alice(&[]));
    assert!(said(&denied).contains("refused 403 AccessDeniedException: User: "), "{denied:?}");
    let mut allowed = as_alice(&["60"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut banner = [0; 8];
    std::io::Read::read_exact(allowed.stdout.as_mut().unwrap(), &mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
    // The end of its input ends it.
    drop(allowed.stdin.take());
    assert!(allowed.wait().unwrap().success());
    let events = stage.events("OpenTunnel", |event| event["errorCode"] == "AccessDeniedException");
    assert_eq!(events[0]["userIdentity"]["userName"], "alice");
}
