//! What `munjigi ssh-config` writes, with OpenSSH's own client and no question about host keys allowed.

use std::process::Command;

use crate::faults::user;
use crate::harness::ssh::Ran;
use crate::harness::{TestServer, TestSsh, output, success};

#[test]
fn ssh_config_ends_questions_about_host_keys_on_every_way() {
    let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let key = std::fs::read_to_string(ssh.path("id.pub")).unwrap();
    server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", "admin", "--ssh-public-key-body", &key]);
    let gate = server.address().ip().to_string();
    let run = |config: &str, arguments: &[&str]| {
        let text = format!(
            "Include {config}\nHost *\n  IdentityFile {id}\n  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n  \
             StrictHostKeyChecking yes\n  GlobalKnownHostsFile /dev/null\n",
            id = ssh.path("id").display()
        );
        std::fs::write(ssh.path("strict"), text).unwrap();
        let mut command = Command::new("ssh");
        command.arg("-F").arg(ssh.path("strict")).args(arguments);
        ssh.configure(&mut command);
        Ran::of(command, b"")
    };
    let write = |more: &[&str]| {
        let arguments = [&["ssh-config", "--write"], more].concat();
        success(&mut ssh.command(crate::harness::binary(), &arguments));
        ssh.path("munjigi/ssh/config").to_str().unwrap().to_owned()
    };
    let ours = write(&[]);
    let me = user();
    let at_gate = format!("{me}%web-1@{gate}");
    for way in [
        &["web-1.munjigi"][..],
        &[&at_gate],
        &["-l", "web-1", &gate],
        &["-J", &gate, "-l", &me, "web-1"],
        &["-J", &gate, "-l", &me, "web-1.munjigi"],
        &["-J", &gate, "-l", &me, &node_id(&server)],
    ] {
        assert_eq!(run(&ours, &[way, &["echo in"]].concat()).success(), "in\n", "{way:?}");
    }
    // A host that is no node is vouched for by nobody, though the same server would stand for it.
    let jump = ["-J", &gate, "-l", &me, "web-2", "true"];
    let ran = run(&ours, &jump);
    assert!(ran.code == Some(255) && ran.err.contains("Host key verification failed"), "{ran:?}");
    let ours = write(&["--behind", "web-?"]);
    let ran = run(&ours, &jump);
    assert!(ran.code == Some(255) && !ran.err.contains("Host key verification"), "{ran:?}");
    let bad = output(&mut ssh.command(crate::harness::binary(), &["ssh-config", "--behind", "a b"]));
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("one word"), "{bad:?}");
}

fn node_id(server: &TestServer) -> String {
    let listed = success(&mut server.munjigi(&["ls", "--output", "json"]));
    let nodes: serde_json::Value = serde_json::from_str(&listed).unwrap();
    nodes[0]["id"].as_str().unwrap().to_owned()
}
