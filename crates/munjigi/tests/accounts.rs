//! The life of people's accounts on a node: with a real server and a real agent that has account files, homes and sudoers of
//! its own in a mount namespace, which only root can make. Nothing of the machine's is changed.

mod failures;
mod island;
mod taking_over;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{output, success, wait_for};
use island::{Island, field, owner, possible};

#[test]
fn ten_people_in_three_groups_come_move_leave_and_return() {
    if !possible() {
        return;
    }
    let island = Island::start("");
    let start = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*" } });
    let people = [
        ("dev", ["kim", "Lee@example.com", "choi", "yoon"].as_slice()),
        ("ops", &["park", "jung", "han"]),
        ("data", &["a@b", "song", "moon"]),
    ];
    thread::scope(|scope| {
        for (group, names) in people {
            let (island, start) = (&island, start.to_string());
            scope.spawn(move || {
                island.iam(&["create-group", "--group-name", group]);
                let put =
                    ["put-group-policy", "--group-name", group, "--policy-name", "p", "--policy-document", &start];
                island.iam(&put);
                for name in names {
                    island.iam(&["create-user", "--user-name", name]);
                    island.add(name, group);
                }
            });
        }
    });
    island.rule(&[
        "dev",
        "--who",
        "group:dev",
        "--nodes",
        "Role=web",
        "--mode",
        "synchronised",
        "--groups",
        "builders",
    ]);
    island.rule(&[
        "ops",
        "--who",
        "group:ops",
        "--nodes",
        "*",
        "--mode",
        "synchronised",
        "--sudo",
        "ALL",
        "--grace",
        "0",
    ]);
    island.rule(&["data", "--who", "group:data", "--nodes", "*"]);

    // They are there, each with an id of its own from the range, and the stranger is as he was.
    let present = ["kim", "lee.at.example.com", "choi", "park", "jung", "han"];
    for name in present {
        let uid = wait_for(name, || island.uid(name));
        assert!((60_000..=65_000).contains(&uid), "{name}: {uid}");
        wait_for("a home", || (owner(&island.home(name)) == Some(uid)).then_some(()));
    }
    wait_for("their groups", || {
        let told = ["kim", "lee.at.example.com", "choi"].iter().all(|name| island.is_in(name, "builders"));
        (told && island.is_in("park", "munjigi-users")).then_some(())
    });
    assert_eq!(island.uid("yoon"), Some(1500));
    wait_for("the conflict in the trail", || (island.events("AccountConflict", "yoon") == 1).then_some(()));
    wait_for("the rights", || (island.sudo().lines().count() == 4).then_some(()));
    assert!(!island.sudo().contains("kim"));
    assert_eq!(island.uid("song"), None, "just in time means not before");

    // A session runs as one's account, with the rights of it and no others.
    let (kim, park) = (island.person("kim"), island.person("park"));
    assert_eq!(kim.says(&["id", "-un"]), "kim");
    assert!(!output(&mut kim.run(&["sudo", "-n", "true"])).status.success());
    assert_eq!(park.says(&["sudo", "-n", "id", "-u"]), "0");
    assert!(park.says(&["sudo", "-l"]).contains("NOPASSWD: ALL"));
    let refused = output(&mut island.person("yoon").run(&["id"]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("did not make"), "{said}");

    // Just in time: there for the session, gone after it; the home is archived and given back to who returns.
    let song = island.person("song");
    // It stays until it was looked at: behind its last session it is gone within seconds.
    let words = ["sh", "-c", "id -un; echo kept > ~/file; until [ -e /home/go ]; do sleep 0.1; done"];
    let session = song.run(&words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let listed = wait_for("its account in the list", || island.listed("song").filter(|song| song["State"] == "in-use"));
    let uid = island.uid("song").unwrap();
    assert_eq!((&listed["Mode"], listed["Uid"].as_u64()), (&json!("just-in-time"), Some(u64::from(uid))));
    assert!(listed["Since"].as_f64().is_some_and(|since| since > 1.7e9), "{listed}");
    fs::write(island.home("go"), "").unwrap();
    assert_eq!(session.wait_with_output().unwrap().stdout, b"song\n");
    wait_for("its end", || island.uid("song").is_none().then_some(()));
    assert_eq!(owner(&island.home("song")), None);
    wait_for("its end in the list", || island.listed("song").is_none().then_some(()));
    wait_for("its end in the trail", || (island.events("AccountRemoved", "song") == 1).then_some(()));
    assert_eq!(song.says(&["sh", "-c", "cat ~/file; id -u"]), format!("kept\n{uid}"));
    // Somebody whose mapped name is a person's own name already: the later one is refused, nobody else is.
    assert_eq!(island.person("a@b").says(&["id", "-un"]), "a.at.b");
    island.iam(&["create-user", "--user-name", "a.at.b"]);
    island.add("a.at.b", "ops");
    wait_for("the refusal in the trail", || {
        let text = success(&mut island.server.munjigi(&[
            "audit",
            "--output",
            "json",
            "--limit",
            "0",
            "--name",
            "AccountNameRefused",
        ]));
        text.contains("user/a.at.b").then_some(())
    });

    // Moved: groups and rights go with the group.
    island.add("choi", "ops");
    island.remove("choi", "dev");
    wait_for("choi's move", || {
        (island.sudo().contains("choi ALL=") && !island.is_in("choi", "builders")).then_some(())
    });
    // Renamed: the account, its id and its files stay.
    let uid = island.uid("choi");
    island.iam(&["update-user", "--user-name", "choi", "--new-user-name", "choi.lee"]);
    let choi = island.person("choi.lee");
    assert_eq!(choi.says(&["id", "-un"]), "choi");
    assert_eq!(island.uid("choi"), uid);

    // Leaving: the running session ends, and so does everything the person could do.
    assert_eq!(park.says(&["sh", "-c", "echo mine > ~/file; id -un"]), "park");
    let (park_uid, jung_uid) = (island.uid("park").unwrap(), island.uid("jung").unwrap());
    let mut running = park.run(&["sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
    wait_for("the session", || (processes(park_uid) > 0).then_some(()));
    island.remove("park", "ops");
    wait_for("its end", || (processes(park_uid) == 0).then_some(()));
    assert!(!running.wait().unwrap().success());
    wait_for("the rights to be gone", || (!island.sudo().contains("park")).then_some(()));
    // Without a grace the account goes, and its home into the archive.
    wait_for("the account to be gone", || island.uid("park").is_none().then_some(()));
    assert_eq!(owner(&island.home("park")), None);
    assert_eq!(owner(&island.home(".munjigi-archive")), Some(0));
    wait_for("its removal in the trail", || (island.events("AccountRemoved", "park") == 1).then_some(()));
    island.add("park", "ops");
    wait_for("park's return", || (island.uid("park") == Some(park_uid)).then_some(()));
    wait_for("park's rights", || island.sudo().contains("park ALL=").then_some(()));
    assert_eq!(park.says(&["sh", "-c", "cat ~/file"]), "mine");
    // With a grace it is locked, and unlocked for who returns.
    island.remove("kim", "dev");
    wait_for("kim's lock", || (island.is_locked("kim") && !island.is_in("kim", "builders")).then_some(()));
    assert!(island.uid("kim").is_some());
    island.add("kim", "dev");
    wait_for("kim's return", || (!island.is_locked("kim") && island.is_in("kim", "builders")).then_some(()));
    assert_eq!(kim.says(&["id", "-un"]), "kim");

    too_many_at_once_wait(&island);
    the_server_away_changes_nothing(island, jung_uid);
}

/// A rule that goes would take everybody along: nobody leaves before a person says so.
fn too_many_at_once_wait(island: &Island) {
    success(&mut island.server.munjigi(&["account", "rule", "delete", "ops"]));
    let held = || {
        let text = success(&mut island.server.munjigi(&["account", "list", "web-1", "--output", "json"]));
        let nodes: Value = serde_json::from_str(&text).unwrap();
        nodes[0]["Held"].as_u64().unwrap()
    };
    wait_for("the hold", || (held() == 4).then_some(()));
    assert!(island.uid("jung").is_some() && !island.is_locked("jung"));
    success(&mut island.server.munjigi(&["account", "confirm", "web-1", "han"]));
    wait_for("han's end", || island.uid("han").is_none().then_some(()));
    assert!(island.uid("jung").is_some() && !island.is_locked("jung"));
    assert_eq!(held(), 3);
}

/// Nothing is removed because nobody answers, and the agent takes up where it was.
fn the_server_away_changes_nothing(mut island: Island, jung_uid: u32) {
    island.server.kill();
    let before = island.etc("passwd");
    island.agent.stop();
    assert_eq!(island.etc("passwd"), before);
    assert_eq!(island.uid("jung"), Some(jung_uid));
    // A bundle that somebody changed on the node's disk is no bundle.
    let path = island.agent.data_dir().join("accounts.bundle");
    let mut bundle = fs::read(&path).unwrap();
    let last = bundle.len() - 1;
    bundle[last] ^= 1;
    fs::write(&path, bundle).unwrap();
    // Rules that cannot be read are no answer: nobody comes, and nobody leaves either.
    let database = island.server.data_dir().join("munjigi.db");
    let damage = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute(\"update account_rules set settings = '{'\"); d.commit()";
    success(Command::new("python3").args(["-c", damage]).arg(database));
    island.server.start_again();
    island.run_agent("");
    island.iam(&["create-user", "--user-name", "new"]);
    island.add("new", "dev");
    island.remove("kim", "dev");
    let refused = output(&mut island.person("song").run(&["id"]));
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(island.etc("passwd"), before);
    assert!(!island.is_locked("kim") && island.uid("new").is_none());
    // Put again, they are an answer.
    for (name, more) in [("dev", ["--groups", "builders"]), ("data", ["--grace", "1"])] {
        let group = format!("group:{name}");
        let rule = [name, "--who", group.as_str(), "--nodes", "*", "--mode", "synchronised"];
        island.rule(&[&rule[..], &more].concat());
    }
    wait_for("the next account", || island.uid("new"));
    wait_for("kim's lock", || island.is_locked("kim").then_some(()));
    assert_eq!(island.uid("jung"), Some(jung_uid));
}

/// Counts the processes of a user id.
fn processes(uid: u32) -> usize {
    let is_process = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    let of_user = |entry: &fs::DirEntry| {
        entry.file_name().to_str().is_some_and(is_process) && entry.metadata().is_ok_and(|meta| meta.uid() == uid)
    };
    fs::read_dir("/proc").unwrap().flatten().filter(of_user).count()
}

#[test]
fn without_the_systems_tools_the_account_files_are_written() {
    if !possible() {
        return;
    }
    // No useradd, usermod, userdel, groupadd, groupdel or visudo here.
    let island = Island::start("mount -t tmpfs tmpfs /usr/sbin;");
    island.iam(&["create-group", "--group-name", "dev"]);
    for name in ["kim", "lee"] {
        island.iam(&["create-user", "--user-name", name]);
        island.add(name, "dev");
    }
    let rule =
        ["dev", "--who", "group:dev", "--nodes", "*", "--mode", "synchronised", "--shell", "/bin/sh", "--grace", "0"];
    island.rule(&[&rule[..], &["--groups", "builders", "--sudo", "/usr/bin/id -u"]].concat());
    let uid = wait_for("kim", || island.uid("kim"));
    wait_for("kim's group", || island.is_in("kim", "builders").then_some(()));
    wait_for("kim's home", || (owner(&island.home("kim")) == Some(uid)).then_some(()));
    assert_eq!(field(&island.etc("shadow"), "kim", 1).as_deref(), Some("!"));
    assert_eq!(field(&island.etc("group"), "kim", 2), Some(uid.to_string()));
    wait_for("the rights", || island.sudo().contains("kim ALL=(root) NOPASSWD: /usr/bin/id -u").then_some(()));
    let statement = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*" } });
    let policy = statement.to_string();
    island.iam(&["put-user-policy", "--user-name", "kim", "--policy-name", "p", "--policy-document", &policy]);
    let kim = island.person("kim");
    assert_eq!(kim.says(&["id", "-un"]), "kim");
    assert_eq!(kim.says(&["sudo", "-n", "/usr/bin/id", "-u"]), "0");
    assert!(!output(&mut kim.run(&["sudo", "-n", "/usr/bin/id"])).status.success());
    island.remove("kim", "dev");
    wait_for("kim's end", || island.uid("kim").is_none().then_some(()));
    wait_for("nothing of kim", || {
        let left = ["shadow", "group", "gshadow", "sudoers.d/munjigi"].iter().any(|file| {
            island
                .etc(file)
                .lines()
                .any(|line| line.starts_with("kim") || line.ends_with(":kim") || line.contains(",kim"))
        });
        (!left).then_some(())
    });
    assert!(island.uid("lee").is_some() && island.is_in("lee", "builders"));
    island.add("kim", "dev");
    wait_for("kim's return", || (island.uid("kim") == Some(uid)).then_some(()));
}
