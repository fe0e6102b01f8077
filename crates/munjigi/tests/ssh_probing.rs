//! What somebody learns by asking for nodes and targets by guessed names: nothing. One that is there and denied, and one that
//! is not, get the same answers, whichever way is tried; whoever may list them is told which it is.

use serde_json::{Value, json};

use crate::harness::ssh::Ran;
use crate::harness::{TestServer, TestSsh, binary, success};

/// A person with access key and registered key who may not list anything.
struct Stranger {
    ssh: TestSsh,
    identity: String,
    port: String,
}

impl Stranger {
    fn may(server: &TestServer, name: &str, statements: &[Value]) -> Self {
        server.aws_json(&["iam", "create-user", "--user-name", name]);
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
        server.aws_json(&put);
        let made = server.aws_json(&["iam", "create-access-key", "--user-name", name]);
        let field = |field: &str| made["AccessKey"][field].as_str().unwrap().to_owned();
        let ssh = TestSsh::of(server).acting_as(&field("AccessKeyId"), &field("SecretAccessKey"));
        let key = ssh.new_key(name);
        server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", name, "--ssh-public-key-body", &key]);
        // An identity of the jump's own as well: that is another `ssh`.
        let identity = ssh.path(name).display().to_string();
        let config = std::fs::read_to_string(ssh.config()).unwrap();
        let config = format!("IdentityFile {identity}\nLogLevel INFO\n{config}");
        std::fs::write(ssh.config(), config.replace("LogLevel ERROR", "")).unwrap();
        let here = Self { ssh, identity, port: server.address().port().to_string() };
        // The first one is told of the host's key.
        here.ssh.ssh(&["-l", "nobody", "gate", "true"]);
        here
    }

    /// Returns what each way of asking for a name comes to, without the name.
    fn ask(&self, name: &str) -> Vec<(String, Ran)> {
        let at = |login: &str| format!("{login}@gate");
        let (jump, as_user) = (format!("kim@{name}"), format!("kim%{name}@gate"));
        let passthrough = format!("{name}.passthrough:22");
        let (ours, own_port) = (format!("{name}.munjigi"), format!("{name}:22"));
        let (copied, over_gate) = (format!("{name}:/tmp/x"), format!("{name}@gate:/tmp/x"));
        let file = self.identity.as_str();
        let named = at(name);
        let ways: Vec<Vec<&str>> = vec![
            vec!["ssh", &named, "true"],
            vec!["ssh", &as_user, "true"],
            vec!["ssh", "-T", &named],
            vec!["ssh", "-W", "localhost:80", &named],
            vec!["ssh", "-W", "localhost:80", &as_user],
            // A jump to a node that nobody has: the name of the login is no node to this person.
            vec!["ssh", "-W", "elsewhere:2222", &named],
            vec!["ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1", &named],
            vec!["ssh", "-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "/tmp/x:localhost:1", &named],
            vec!["ssh", "-J", "gate", &jump, "true"],
            vec!["ssh", "-W", &passthrough, "kim@gate"],
            vec!["ssh", "-W", &own_port, "kim@gate"],
            vec!["ssh", &ours, "true"],
            vec!["ssh", "-W", "localhost:80", &ours],
            vec!["scp", "-q", file, &over_gate],
            vec!["sftp", "-q", "-b", "/dev/null", &named],
            vec!["munjigi", "run", name, "--", "true"],
            vec!["munjigi", "cp", file, &copied],
            vec!["munjigi", "cp", &copied, "/dev/null"],
            vec!["munjigi", "forward", name, "--stdio", "localhost:80"],
            vec!["munjigi", "ssh", name, "true"],
        ];
        ways.iter().map(|way| (way.join(" ").replace(name, "NAME"), self.asked(way, name))).collect()
    }

    fn asked(&self, way: &[&str], name: &str) -> Ran {
        let [program, arguments @ ..] = way else { unreachable!("a way is a program and its arguments") };
        let program = if *program == "munjigi" { binary() } else { program };
        let mut ran = Ran::of(self.ssh.command(program, arguments), b"");
        // What `ssh -v` says of itself is none of the server's.
        let own = |line: &str| line.starts_with("debug1:") && !line.contains("Remote:");
        let said =
            ran.err.lines().filter(|line| !own(line) && !line.contains(" seconds") && !line.contains(" second:"));
        ran.err = said.collect::<Vec<_>>().join("\n").replace(name, "NAME").replace(&self.port, "PORT");
        ran.out = ran.out.replace(name, "NAME");
        ran
    }
}

fn allow(actions: &[&str]) -> Value {
    json!({"Effect": "Allow", "Action": actions, "Resource": "*"})
}

#[test]
fn a_denied_node_and_one_that_is_not_there_look_alike_to_strangers() {
    let server = TestServer::start();
    let _agent = server.agent_through("web-1", &["Env=prod"], None);
    let not_prod = json!({
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:ResourceTag/Env": "prod"}}
    });
    let everything = allow(&["ssm:StartSession", "munjigi:Open*", "munjigi:UploadFile", "munjigi:DownloadFile"]);
    for (who, statements) in [("alice", vec![allow(&["iam:GetUser"])]), ("bob", vec![everything, not_prod])] {
        let stranger = Stranger::may(&server, who, &statements);
        for ((way, there), (_, absent)) in stranger.ask("web-1").into_iter().zip(stranger.ask("web-9")) {
            // Behind a jump another SSH server speaks, which begins with random bytes.
            let is_a_jump = way.contains("NAME:22 ");
            let of = |ran: &Ran| (ran.code, if is_a_jump { "" } else { &ran.out }.to_owned(), ran.err.clone());
            assert_eq!(of(&there), of(&absent), "{who}: {way}");
            assert!(!there.err.contains("mi-"), "{who}: {way}: {there:?}");
            assert!(is_a_jump || there.code != Some(0), "{who}: {way}: {there:?}");
        }
    }
    // The trail knows better: what was denied has the node's own reason.
    let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", "StartSession"]));
    let denied = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<String> = denied.filter_map(|event| Some(event["errorMessage"].as_str()?.to_owned())).collect();
    assert!(told.iter().any(|why| why.contains("managed-instance/mi-")), "{told:?}");
    assert!(told.iter().any(|why| why.contains("explicit deny")), "{told:?}");
    assert!(told.iter().any(|why| why.contains("web-9, or there is no such resource")), "{told:?}");
}

#[test]
fn whoever_may_list_nodes_is_told_which_it_is() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let lister = Stranger::may(&server, "carol", &[allow(&["ssm:DescribeInstanceInformation", "ssm:StartSession"])]);
    let ran = lister.ssh.ssh(&["-W", "localhost:80", "web-1@gate"]);
    assert!(ran.err.contains("managed-instance/mi-"), "{ran:?}");
    let ran = lister.ssh.ssh(&["-W", "localhost:80", "web-9@gate"]);
    assert!(ran.err.contains("names no node"), "{ran:?}");
    let ran = lister.ssh.ssh(&["web-9.munjigi", "true"]);
    assert!(ran.err.contains("web-9 is not connected"), "{ran:?}");
    let ran = lister.ssh.ssh(&["web-9@gate", "true"]);
    assert!(ran.code == Some(1) && ran.err.contains("you are logged in, but named no node"), "{ran:?}");
}

#[test]
fn a_denied_target_is_a_host_like_any_other() {
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let put =
        ["target", "put", "orders-db", "--address", "localhost:5432", "--through", "Role=bastion", "--kind", "tcp"];
    success(&mut server.munjigi(&put));
    let stranger = Stranger::may(&server, "dave", &[allow(&["iam:GetUser"])]);
    for (port, login) in [("5432", "dave@gate"), ("81", "dave@gate"), ("5432", "hop-1@gate"), ("22", "dave@gate")] {
        let ask = |name: &str| {
            let to = format!("{name}:{port}");
            let ran = stranger.asked(&["ssh", "-W", &to, login], name);
            // Port 22 is a jump.
            (ran.code, if port == "22" { String::new() } else { ran.out }, ran.err)
        };
        assert_eq!(ask("orders-db"), ask("orders-xy"), "{port} as {login}");
    }
    for prefix in ["", "target:"] {
        let forward = |name: &str| {
            let target = format!("{prefix}{name}");
            let ran = stranger.asked(&["munjigi", "forward", &target, "--stdio", "localhost:5432"], name);
            (ran.code, ran.out, ran.err)
        };
        assert_eq!(forward("orders-db"), forward("orders-xy"), "{prefix}");
    }
}
