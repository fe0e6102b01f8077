//! What policy lets through, whatever a path looks like.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::{Files, Ran};
use crate::faults::user;
use crate::harness::wait_for;

/// Makes a person with these statements, and returns its variables.
fn person(files: &Files, name: &str, statements: &[Value]) -> [(String, String); 2] {
    let users = json!({ "Effect": "Allow", "Resource": "*",
        "Action": ["munjigi:ChooseOsUser", "munjigi:StartPrivilegedSession"] });
    let statements: Vec<_> = [users].iter().chain(statements).cloned().collect();
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let server = &files.server;
    server.aws_json(&["iam", "create-user", "--user-name", name]);
    let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
    server.aws_json(&put);
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", name]);
    let member = |member: &str| key["AccessKey"][member].as_str().unwrap().to_owned();
    [
        ("AWS_ACCESS_KEY_ID".to_owned(), member("AccessKeyId")),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), member("SecretAccessKey")),
    ]
}

fn statement(effect: &str, action: &str, path: &str) -> Value {
    json!({ "Effect": effect, "Action": format!("munjigi:{action}"), "Resource": "*",
        "Condition": { "StringLike": { "munjigi:Path": path } } })
}

fn run_as(files: &Files, who: &[(String, String); 2], program: &str, arguments: &[&str]) -> Ran {
    let mut command = files.program(program, arguments);
    command.envs(who.clone());
    Ran::of(command, b"")
}

fn rsync_as(files: &Files, who: &[(String, String); 2], arguments: &[&str]) -> Ran {
    let shell = format!("ssh -F {} -o User={}", files.ssh.config().display(), user());
    let mut command = std::process::Command::new("rsync");
    command.args(["-e", &shell]).args(arguments);
    files.ssh.configure(&mut command);
    command.envs(who.clone());
    Ran::of(command, b"")
}

fn sftp_as(files: &Files, who: &[(String, String); 2], line: &str) -> Ran {
    let batch = files.here("batch");
    fs::write(&batch, format!("{line}\n")).unwrap();
    run_as(files, who, "sftp", &["-b", batch.to_str().unwrap(), "web-1.munjigi"])
}

#[test]
fn each_direction_is_a_right_of_its_own() {
    let files = Files::start();
    fs::write(files.there("file"), "there").unwrap();
    fs::write(files.here("file"), "here").unwrap();
    let any = |action: &str| json!({ "Effect": "Allow", "Action": format!("munjigi:{action}"), "Resource": "*" });
    let down = person(&files, "reader", &[any("DownloadFile")]);
    let up = person(&files, "writer", &[any("UploadFile")]);
    let nobody = person(&files, "nobody", &[]);
    let (here, got) = (files.here("file"), files.here("got"));
    let (here, got) = (here.to_str().unwrap(), got.to_str().unwrap());
    let (there, new) = (files.on_node("file"), files.on_node("new"));
    for protocol in ["-s", "-O"] {
        let copy = |who, from: &str, to: &str| run_as(&files, who, "scp", &[protocol, from, to]).code == Some(0);
        assert!(copy(&down, &there, got), "{protocol}");
        assert_eq!(fs::read_to_string(got).unwrap(), "there");
        assert!(copy(&up, here, &new), "{protocol}");
        for (who, from, to) in [(&down, here, new.as_str()), (&up, &there, got), (&nobody, &there, got)] {
            fs::write(got, "before").unwrap();
            assert!(!copy(who, from, to), "{protocol} {from} {to}");
            assert_eq!(fs::read_to_string(got).unwrap_or_default().replace("before", ""), "");
        }
        assert_eq!(fs::read_to_string(files.there("new")).unwrap(), "here");
    }
    assert_eq!(rsync_as(&files, &down, &[&there, got]).code, Some(0));
    assert_eq!(rsync_as(&files, &up, &[here, &new]).code, Some(0));
    for (who, from, to) in [(&down, here, new.as_str()), (&up, &there, got)] {
        let ran = rsync_as(&files, who, &["-I", from, to]);
        assert!(ran.code != Some(0) && ran.err.contains("not authorized"), "{ran:?}");
    }
    for line in ["rm", "mkdir /tmp/x", "rename", "ln -s a", "chmod 600"] {
        let path = files.there("file");
        let ran = sftp_as(&files, &down, &format!("{line} {} {}", path.display(), path.with_extension("x").display()));
        assert_ne!(ran.code, Some(0), "{line}: {ran:?}");
    }
    assert_eq!(fs::read_to_string(files.there("file")).unwrap(), "there");
    // The refusal is in the trail, with its reason.
    let denied: Vec<_> =
        files.events("UploadFile").into_iter().filter(|event| event["errorCode"] == "AccessDenied").collect();
    assert!(!denied.is_empty());
}

#[test]
fn a_path_that_is_denied_is_reached_by_no_other_one() {
    let files = Files::start();
    let root = files.there("");
    let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
    for dir in ["in", "out", "secret", "secret/deep"] {
        fs::create_dir(files.there(dir)).unwrap();
    }
    for (name, content) in
        [("secret/file", "the secret"), ("secret/deep/x", "x"), ("out/file", "open"), ("in/mine", "m")]
    {
        fs::write(files.there(name), content).unwrap();
    }
    symlink(files.there("secret"), files.there("out/way")).unwrap();
    symlink("../secret/file", files.there("out/link")).unwrap();
    symlink(files.there("secret/new"), files.there("in/dangling")).unwrap();
    symlink(files.there("secret"), files.there("in/way")).unwrap();
    let who = person(
        &files,
        "carrier",
        &[
            statement("Allow", "DownloadFile", &format!("{root}/out*")),
            statement("Allow", "UploadFile", &format!("{root}/in*")),
            statement("Deny", "*", "*secret*"),
        ],
    );
    let got = files.here("got");
    let get = |path: &str| {
        let _ = fs::remove_file(&got);
        sftp_as(&files, &who, &format!("get {path} {}", got.display()))
    };
    assert_eq!(get(&format!("{root}/out/file")).code, Some(0));
    for path in [
        "secret/file",
        "out/link",
        "out/way/file",
        "out/../secret/file",
        "out/./way/../secret/file",
        "in/mine",
        "in/way/file",
    ] {
        let ran = get(&format!("{root}/{path}"));
        assert_ne!(ran.code, Some(0), "{path}: {ran:?}");
        assert!(!got.exists(), "{path}");
    }
    for path in ["/proc/self/root", "/proc/self/cwd/.."] {
        assert_ne!(get(&format!("{path}{root}/secret/file")).code, Some(0), "{path}");
    }
    let local = files.here("local");
    fs::write(&local, "planted").unwrap();
    let local = local.display();
    assert_eq!(sftp_as(&files, &who, &format!("put {local} {root}/in/new")).code, Some(0));
    for line in [
        format!("put {local} {root}/out/new"),
        format!("put {local} {root}/secret/new"),
        format!("put {local} {root}/in/dangling"),
        format!("put {local} {root}/in/way/new"),
        format!("put {local} {root}/in/../out/new"),
        format!("rename {root}/secret/file {root}/in/taken"),
        format!("rename {root}/in/mine {root}/out/mine"),
        format!("rename {root}/in/mine {root}/secret/mine"),
        format!("rename {root}/secret {root}/in/all"),
        format!("ln {root}/secret/file {root}/in/hard"),
        format!("ln {root}/in/mine {root}/out/hard"),
        format!("ln -s x {root}/out/soft"),
        format!("mkdir {root}/in/way/dir"),
        format!("rm {root}/in/way/file"),
        format!("rmdir {root}/in/way/deep"),
        format!("chmod 777 {root}/in/way/file"),
        format!("chmod 777 {root}/in/way"),
        format!("ls {root}/secret"),
    ] {
        let ran = sftp_as(&files, &who, &line);
        assert_ne!(ran.code, Some(0), "{line}: {ran:?}");
    }
    // sftp names what it cannot look into, and nothing of what is in it.
    assert!(!sftp_as(&files, &who, &format!("ls -l {root}/out/way/")).out.contains("deep"));
    assert_eq!(fs::read_to_string(files.there("secret/file")).unwrap(), "the secret");
    assert_eq!(fs::read_dir(files.there("secret")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(files.there("out")).unwrap().count(), 3);
    // Within what is allowed everything goes on.
    for line in [
        format!("rename {root}/in/mine {root}/in/yours"),
        format!("ln -s /anywhere {root}/in/soft"),
        format!("mkdir {root}/in/dir"),
        format!("rm {root}/in/dangling"),
    ] {
        let ran = sftp_as(&files, &who, &line);
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    }
    // Below a directory something could be denied.
    assert_ne!(sftp_as(&files, &who, &format!("rename {root}/in/dir {root}/in/dir2")).code, Some(0));
    // rsync is followed by what it says, so policy must not tell paths apart below.
    for from in ["out/", "out/file", "secret/"] {
        let ran = rsync_as(&files, &who, &["-a", &files.on_node(from), &format!("{}/", files.here("r").display())]);
        assert!(ran.code != Some(0) && ran.err.contains("policies do not allow everything below"), "{from}: {ran:?}");
    }
    let plain = person(&files, "plain", &[statement("Allow", "DownloadFile", &format!("{root}/out*"))]);
    let to = format!("{}/", files.here("r").display());
    assert_eq!(rsync_as(&files, &plain, &["-a", &files.on_node("out/"), &to]).code, Some(0));
    for arguments in [&["-a"][..], &["-aL"]] {
        let from = if arguments == ["-a"] { "secret/" } else { "out/" };
        let ran = rsync_as(&files, &plain, &[arguments, &[&files.on_node(from), &to]].concat());
        assert!(ran.code != Some(0) && ran.err.contains("policies do not allow"), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn rsync_writes_into_no_directory_that_a_link_in_the_target_stands_for() {
    let files = Files::start();
    let root = files.there("");
    let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
    for dir in ["in", "in/beside", "home"] {
        fs::create_dir(files.there(dir)).unwrap();
    }
    symlink(files.there("home"), files.there("in/way")).unwrap();
    let who = person(&files, "pusher", &[statement("Allow", "UploadFile", &format!("{root}/in*"))]);
    fs::write(files.here("keys"), "a new one").unwrap();
    let from = files.here("keys");
    let (from, to) = (from.to_str().unwrap(), files.on_node("in/"));
    let push = |option: &str| {
        fs::write(files.there("in/keys"), "planted").unwrap();
        rsync_as(&files, &who, &["-Ib", "--suffix=", option, from, &to])
    };
    assert_eq!(push("--backup-dir=beside").code, Some(0));
    assert_eq!(fs::read_to_string(files.there("in/beside/keys")).unwrap(), "planted");
    for option in ["--backup-dir=way", "--backup-dir=beside/../way", "--temp-dir=way", "--copy-dest=way"] {
        let ran = push(option);
        assert_ne!(ran.code, Some(0), "{option}: {ran:?}");
        assert_eq!(fs::read_to_string(files.there("in/keys")).unwrap(), "planted", "{option}");
        assert_eq!(fs::read_dir(files.there("home")).unwrap().count(), 0, "{option}");
    }
}

#[test]
fn a_transfer_ends_when_policy_no_longer_allows_its_path() {
    let files = Files::start();
    let root = files.there("");
    let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
    // At the speed that is asked for below it would take minutes.
    fs::File::create(files.there("large")).unwrap().set_len(64 << 20).unwrap();
    let who = person(&files, "leaver", &[]);
    let allow = |path: &str| {
        let users = json!({ "Effect": "Allow", "Resource": "*",
            "Action": ["munjigi:ChooseOsUser", "munjigi:StartPrivilegedSession"] });
        let statements = [users, statement("Allow", "DownloadFile", path)];
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let put =
            ["iam", "put-user-policy", "--user-name", "leaver", "--policy-name", "p", "--policy-document", &policy];
        files.server.aws_json(&put);
    };
    let got = files.here("got");
    fs::create_dir(&got).unwrap();
    let batch = files.here("batch");
    fs::write(&batch, format!("get {root}/large {}/\n", got.display())).unwrap();
    let sftp = files.program("sftp", &["-l", "2000", "-b", batch.to_str().unwrap(), "web-1.munjigi"]);
    let shell = format!("ssh -F {} -o User={}", files.ssh.config().display(), user());
    let mut rsync = std::process::Command::new("rsync");
    rsync.args(["--bwlimit=200", "-e", &shell, &files.on_node("large"), &format!("{}/", got.display())]);
    files.ssh.configure(&mut rsync);
    for mut command in [sftp, rsync] {
        allow(&format!("{root}/*"));
        let mut running = command.envs(who.clone()).stdin(std::process::Stdio::null()).spawn().unwrap();
        wait_for("the beginning of the file", || {
            let mut here = fs::read_dir(&got).unwrap().flatten();
            here.any(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 0)).then_some(())
        });
        allow(&format!("{root}/other/*"));
        let ended = wait_for("the end of the transfer", || running.try_wait().unwrap());
        assert!(!ended.success(), "{command:?}");
        for entry in fs::read_dir(&got).unwrap().flatten() {
            assert!(entry.metadata().unwrap().len() < 64 << 20, "{command:?}");
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
