//! What does not go as it should: tools that fail, accounts in the way, servers that start again.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::island::{Island, possible};
use crate::harness::{output, success, wait_for};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";

/// Commands that put programs in front of the system's, which fail for as long as a file of their name is there.
fn breakable(directory: &Path, programs: &[&str]) -> String {
    let here = directory.display();
    let one = |path: &&str| {
        let name = path.rsplit('/').next().unwrap();
        let fake = format!(
            "#!/bin/sh\nif [ -e {here}/broken-{name} ]; then echo 'in use at present' >&2; exit 8; fi\nexec {here}/real-{name} \"$@\"\n"
        );
        fs::write(directory.join(format!("fake-{name}")), fake).unwrap();
        format!("cp {path} {here}/real-{name}; chmod 755 {here}/fake-{name}; mount --bind {here}/fake-{name} {path}; ")
    };
    programs.iter().map(one).collect()
}

fn synchronised(island: &Island, more: &[&str]) {
    let rule = ["dev", "--who", "group:dev", "--nodes", "*", "--mode", "synchronised", "--shell", "/bin/sh"];
    island.rule(&[&rule[..], more].concat());
}

fn member(island: &Island, name: &str) {
    island.iam(&["create-user", "--user-name", name]);
    island.add(name, "dev");
}

#[test]
fn what_failed_is_tried_again_until_it_is_done() {
    if !possible() {
        return;
    }
    let island = Island::configured(
        |directory| breakable(directory, &["/usr/sbin/usermod", "/usr/sbin/visudo"]),
        "account_retry_seconds = 2\n",
    );
    let broken = |name: &str| island.directory.join(format!("broken-{name}"));
    island.iam(&["create-group", "--group-name", "dev"]);
    member(&island, "kim");
    synchronised(&island, &[]);
    wait_for("kim", || island.is_in("kim", "munjigi-users").then_some(()));

    let status = || {
        let agent = island.agent.data_dir().display().to_string();
        let told =
            output(&mut island.server.munjigi(&["account", "status", "--agent-dir", &agent, "--output", "json"]));
        (told.status.code(), serde_json::from_slice::<Value>(&told.stdout).unwrap())
    };
    let told = wait_for("all to be well", || Some(status()).filter(|(code, _)| *code == Some(0))).1;
    assert_eq!((&told["health"], &told["active"]), (&json!("healthy"), &json!(1)), "{told}");

    // The account cannot be locked: said, tried again, done.
    fs::write(broken("usermod"), "").unwrap();
    island.remove("kim", "dev");
    let problem = wait_for("the failure in the list", || island.problem("kim"));
    assert_eq!(problem["What"], "failed");
    assert!(problem["Detail"].as_str().unwrap().contains("in use at present"), "{problem}");
    assert!(!island.is_locked("kim"));
    let (code, told) = status();
    assert_eq!((code, &told["problems"][0]["what"]), (Some(1), &json!("failed")), "{told}");
    fs::remove_file(broken("usermod")).unwrap();
    wait_for("kim's lock", || island.is_locked("kim").then_some(()));
    wait_for("the list without the failure", || island.problem("kim").is_none().then_some(()));
    for event in ["AccountFailed", "AccountLocked", "AccountSettled"] {
        wait_for(event, || (island.events(event, "kim") == 1).then_some(()));
    }

    // Rights by sudo that the checker refuses are not in force, and are once it takes them.
    fs::write(broken("visudo"), "").unwrap();
    member(&island, "lee");
    synchronised(&island, &["--sudo", "ALL"]);
    wait_for("the failure in the list", || island.problem("lee"));
    assert_eq!(island.sudo(), "");
    fs::remove_file(broken("visudo")).unwrap();
    wait_for("the rights", || island.sudo().contains("lee ALL=").then_some(()));
    wait_for("the end in the trail", || (island.events("AccountSettled", "lee") == 1).then_some(()));
    wait_for("the list without the failure", || island.problem("lee").is_none().then_some(()));
}

#[test]
fn keys_by_rules_open_only_accounts_that_were_made_by_them() {
    if !possible() {
        return;
    }
    let island = Island::start("");
    let keys = |os_user: &str| {
        let path = island.socket().display().to_string();
        let mut ask = island.server.munjigi(&["authorized-keys", "--socket", &path, os_user]);
        let answer = output(ask.stdin(Stdio::null()));
        String::from_utf8_lossy(&answer.stdout).lines().count()
    };
    let may = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Resource": "*",
        "Action": ["munjigi:LoginThroughSshd", "ssm:StartSession", "ec2-instance-connect:SendSSHPublicKey"] } });
    island.iam(&["create-group", "--group-name", "dev"]);
    let policy = may.to_string();
    island.iam(&["put-group-policy", "--group-name", "dev", "--policy-name", "p", "--policy-document", &policy]);
    for (name, key) in [("kim", KEY), ("yoon", OTHER_KEY)] {
        member(&island, name);
        island.iam(&["upload-ssh-public-key", "--user-name", name, "--ssh-public-key-body", key]);
    }
    // Just in time: nobody has asked, so there is no account; `yoon` is a stranger's.
    island.rule(&["dev", "--who", "group:dev", "--nodes", "*", "--shell", "/bin/sh"]);
    let kim = island.person("kim");
    assert_eq!(kim.says(&["id", "-un"]), "kim");
    assert_eq!(keys("yoon"), 0);
    // Synchronised: the one that was made takes its owner's key, the stranger's takes none.
    synchronised(&island, &[]);
    wait_for("kim's key", || (keys("kim") == 1).then_some(()));
    wait_for("the conflict", || island.problem("yoon").filter(|problem| problem["What"] == "conflict"));
    assert_eq!(keys("yoon"), 0);
    // Nor does a key that is pushed.
    let yoon = island.person("yoon");
    let push = |person: &super::island::Person<'_>, os_user: &str| {
        let id = island.node()["NodeId"].as_str().unwrap().replacen("mi-", "i-", 1);
        let line = ["ec2-instance-connect", "send-ssh-public-key", "--instance-id", &id, "--instance-os-user", os_user];
        output(&mut person.aws(&[&line[..], &["--ssh-public-key", KEY]].concat()))
    };
    let refused = push(&yoon, "yoon");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("did not make"), "{said}");
    assert!(!output(&mut yoon.run(&["id"])).status.success());
    // Moved away, the account is made, and with it come its keys.
    let passwd = island.etc("passwd").replace("yoon:x:1500:1500::/home/yoon", "old-yoon:x:1500:1500::/home/old-yoon");
    fs::write(island.directory.join("etc/passwd"), passwd).unwrap();
    let group = island.etc("group").replace("yoon:x:1500:", "old-yoon:x:1500:");
    fs::write(island.directory.join("etc/group"), group).unwrap();
    assert_eq!(yoon.says(&["id", "-un"]), "yoon");
    wait_for("yoon's key", || (keys("yoon") == 1).then_some(()));
    wait_for("its end in the trail", || (island.events("AccountSettled", "yoon") == 1).then_some(()));
    assert!(island.problem("yoon").is_none());
    success(&mut island.server.munjigi(&["account", "list"]));
}

#[test]
fn a_server_that_starts_again_leaves_the_accounts_of_running_sessions() {
    if !possible() {
        return;
    }
    let mut island = Island::start("");
    island.iam(&["create-group", "--group-name", "dev"]);
    member(&island, "kim");
    let may = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": ["ssm:StartSession", "ssm:ResumeSession"], "Resource": "*" } });
    let policy = may.to_string();
    island.iam(&["put-group-policy", "--group-name", "dev", "--policy-name", "p", "--policy-document", &policy]);
    island.rule(&["dev", "--who", "group:dev", "--nodes", "*", "--shell", "/bin/sh"]);
    let go = island.directory.join("home/go");
    let words = ["sh", "-c", "echo begun; until [ -e /home/go ]; do sleep 0.1; done; id -un"];
    let mut running = island.person("kim").run(&words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // A client that has not heard that its session stands asks the new server for another one.
    let mut begun = [0; 6];
    running.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"begun\n");
    let uid = wait_for("the account", || island.uid("kim"));
    wait_for("its use in the list", || island.listed("kim").filter(|kim| kim["State"] == "in-use"));
    island.server.kill();
    island.server.start_again();
    // The node is told what holds: for a rule that came since, and in the same message of kim.
    island.rule(&["other", "--who", "user:kim", "--nodes", "*", "--groups", "builders", "--shell", "/bin/sh"]);
    wait_for("the rule on the node", || island.is_in("kim", "builders").then_some(()));
    assert_eq!(island.uid("kim"), Some(uid));
    wait_for("its use in the list", || island.listed("kim").filter(|kim| kim["State"] == "in-use"));
    fs::write(go, "").unwrap();
    let done = running.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "kim");
    wait_for("its end", || island.uid("kim").is_none().then_some(()));
}

#[test]
fn where_etc_cannot_be_written_it_is_said_what_to_do() {
    if !possible() {
        return;
    }
    let island = Island::start("mount -o remount,bind,ro /etc;");
    let before = island.etc("passwd");
    island.iam(&["create-group", "--group-name", "dev"]);
    member(&island, "kim");
    synchronised(&island, &["--sudo", "ALL"]);
    let problem = wait_for("the problem", || island.problem("kim"));
    assert_eq!(problem["What"], "failed");
    let detail = problem["Detail"].as_str().unwrap();
    assert!(detail.contains("/etc is read-only here") && detail.ends_with("run as one account"), "{detail}");
    let may = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*" } });
    let policy = may.to_string();
    island.iam(&["put-user-policy", "--user-name", "kim", "--policy-name", "p", "--policy-document", &policy]);
    let refused = output(&mut island.person("kim").run(&["id"]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("leave this node out of the rule"), "{said}");
    assert_eq!(island.etc("passwd"), before);
    // Left out of the rules, its sessions run as the account that is named for them.
    success(&mut island.server.munjigi(&["account", "rule", "delete", "dev"]));
    island.iam(&["tag-user", "--user-name", "kim", "--tags", "Key=SSMSessionRunAs,Value=yoon"]);
    fs::create_dir_all(island.home("yoon")).unwrap();
    assert_eq!(island.person("kim").says(&["id", "-un"]), "yoon");
}

#[test]
fn a_worker_that_is_killed_while_it_makes_an_account_leaves_one_that_is_made_whole() {
    if !possible() {
        return;
    }
    let kills = |directory: &Path| {
        let here = directory.display();
        let fake = format!(
            "#!/bin/sh\nif [ -e {here}/kill-before ]; then kill -9 $PPID; touch {here}/kill-before.done; exit 9; fi\n\
             {here}/real-useradd \"$@\"; ended=$?\n\
             if [ -e {here}/kill-behind ]; then kill -9 $PPID; touch {here}/kill-behind.done; fi; exit $ended\n"
        );
        fs::write(directory.join("fake-useradd"), fake).unwrap();
        format!(
            "cp /usr/sbin/useradd {here}/real-useradd; chmod 755 {here}/fake-useradd; \
             mount --bind {here}/fake-useradd /usr/sbin/useradd; "
        )
    };
    let island = Island::configured(kills, "account_retry_seconds = 1\n");
    island.iam(&["create-group", "--group-name", "dev"]);
    synchronised(&island, &[]);
    for (name, when) in [("kim", "kill-before"), ("lee", "kill-behind")] {
        let kill = island.directory.join(when);
        fs::write(&kill, "").unwrap();
        member(&island, name);
        wait_for("a killed worker", || island.directory.join(format!("{when}.done")).exists().then_some(()));
        fs::remove_file(&kill).unwrap();
        wait_for(name, || island.is_in(name, "munjigi-users").then_some(()));
        let uid = island.uid(name).unwrap();
        let home = fs::metadata(island.home(name)).unwrap();
        assert_eq!((home.uid(), home.mode() & 0o777), (uid, 0o700), "{name}");
        wait_for("a healthy node", || island.problem(name).is_none().then_some(()));
    }
    assert!(
        !fs::read_dir(island.home(""))
            .unwrap()
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().starts_with(".munjigi-new") })
    );
}
