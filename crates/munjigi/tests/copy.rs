//! `munjigi cp` through a real server and a real agent: trees, many and large files, broken links, what policy lets
//! through, and what recording and trail say about every file.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::faults::user;
use crate::harness::server::{children, command_line, is_alive};
use crate::harness::{CutProxy, TestServer, output, success, wait_for};

/// Size of the large file in MiB.
const LARGE_MIB: u64 = 512;

struct Copies {
    // Stopped before the server, whose directory holds its own.
    agent: crate::harness::TestAgent,
    server: TestServer,
    here: TempDir,
    there: TempDir,
}

impl Copies {
    fn start() -> Self {
        let server = TestServer::start();
        let agent = server.agent("web-1");
        let dir = || tempfile::Builder::new().prefix("munjigi-copy-").tempdir().unwrap();
        Self { agent, server, here: dir(), there: dir() }
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.path().canonicalize().unwrap().join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.there.path().canonicalize().unwrap().join(name)
    }

    fn cp(&self, arguments: &[&OsStr]) -> Command {
        let mut command = self.server.munjigi(&["cp", "--user", &user()]);
        command.args(arguments);
        command
    }

    /// Copies, and expects it to end with this status; returns what was said.
    fn copied(&self, arguments: &[&OsStr], status: i32) -> String {
        let output = output(&mut self.cp(arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    }

    /// Returns the trail's records with this name, oldest first.
    fn events(&self, name: &str) -> Vec<Value> {
        let text =
            success(&mut self.server.munjigi(&["audit", "--output", "json", "--name", name, "--limit", "10000"]));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Names a path on the node.
fn on_node(path: &Path) -> std::ffi::OsString {
    let mut name = std::ffi::OsString::from("web-1:");
    name.push(path);
    name
}

/// Everything below a directory: name, mode and content.
fn listing(root: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            found.push((path.strip_prefix(root).unwrap().display().to_string(), meta.mode() & 0o777, content));
        }
    }
    found.sort();
    found
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

#[test]
fn a_tree_goes_there_and_back_and_every_file_is_on_record() {
    let copies = Copies::start();
    let from = copies.here("자료");
    fs::create_dir_all(from.join("문서/깊은 곳")).unwrap();
    fs::write(from.join("문서/보고서.txt"), "안녕하세요\n").unwrap();
    fs::write(from.join("문서/깊은 곳/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(from.join("문서/깊은 곳/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(from.join("\u{1b}[31m"), "a name that moves cursors").unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();

    copies.copied(&["-r".as_ref(), "-p".as_ref(), from.as_ref(), &on_node(&copies.there(""))], 0);
    assert_eq!(listing(&from), listing(&copies.there("자료")));
    let back = copies.here("back");
    copies.copied(&["-rp".as_ref(), &on_node(&copies.there("자료")), back.as_ref()], 0);
    assert_eq!(listing(&from), listing(&back));
    // A directory without -r, and a file through a pattern.
    let said = copies.copied(&[&on_node(&copies.there("자료")), copies.here("x").as_ref()], 1);
    assert!(said.contains("-r copies directories"), "{said}");
    copies.copied(&[&on_node(&copies.there("자료/문서/*.txt")), copies.here("").as_ref()], 0);
    assert_eq!(fs::read(copies.here("보고서.txt")).unwrap(), "안녕하세요\n".as_bytes());

    let hash = sha256("안녕하세요\n".as_bytes());
    for (name, expected) in [("UploadFile", 3), ("DownloadFile", 4)] {
        let events = wait_for("the files in the trail", || {
            Some(copies.events(name)).filter(|events| {
                let files = events.iter().filter(|event| event["additionalEventData"]["sha256"].is_string());
                files.count() >= expected
            })
        });
        let text: Vec<String> = events.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|event| event.contains(&hash) && event.contains("보고서.txt")), "{text:?}");
    }
    let session = copies.server.sessions().into_iter().last().unwrap();
    let id = session["id"].as_str().unwrap();
    let shown = wait_for("the files in the recording", || {
        let shown = success(&mut copies.server.munjigi(&["play", id, "--text"]));
        shown.contains("connection 1 closed").then_some(shown)
    });
    assert!(shown.contains("uploaded") && shown.contains("보고서.txt") && shown.contains(&hash), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn five_thousand_small_files_and_a_large_one_arrive() {
    let copies = Copies::start();
    let from = copies.here("many");
    fs::create_dir(&from).unwrap();
    for n in 0..5000_u32 {
        let dir = from.join(format!("d{}", n % 50));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), vec![b'x'; (n % 4000) as usize]).unwrap();
    }
    copies.copied(&["-r".as_ref(), from.as_ref(), &on_node(&copies.there("many"))], 0);
    assert_eq!(listing(&from), listing(&copies.there("many")));
    copies.copied(&["-r".as_ref(), &on_node(&copies.there("many")), copies.here("back").as_ref()], 0);
    assert_eq!(listing(&from), listing(&copies.here("back")));

    let large = copies.here("large");
    let file = fs::File::create(&large).unwrap();
    let mut block: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for at in 0..LARGE_MIB {
        block[..8].copy_from_slice(&at.to_le_bytes());
        file.write_all_at(&block, at << 20).unwrap();
    }
    let (there, back) = (copies.there("large"), copies.here("large-back"));
    let said = copies.copied(&["--progress".as_ref(), large.as_ref(), &on_node(&there)], 0);
    assert!(said.contains("MiB/s") && said.contains("1 files"), "{said}");
    success(Command::new("cmp").args([&large, &there]));
    copies.copied(&[&on_node(&there), back.as_ref()], 0);
    success(Command::new("cmp").args([&large, &back]));
}

#[test]
fn standard_input_and_output_stand_for_one_file() {
    let copies = Copies::start();
    let content = vec![b'z'; 3_000_000];
    let mut child = copies.cp(&["-".as_ref(), &on_node(&copies.there("x"))]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&content).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read(copies.there("x")).unwrap(), content);
    let Output { stdout, status, .. } = output(&mut copies.cp(&[&on_node(&copies.there("x")), "-".as_ref()]));
    assert!(status.success());
    assert_eq!(stdout, content);
}

#[test]
fn what_is_missing_or_in_the_way_is_said_and_the_rest_goes_on() {
    let copies = Copies::start();
    let (from, to) = (copies.here("from"), copies.there("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/a"), "a").unwrap();
    fs::write(from.join("b"), "b").unwrap();
    nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // A directory where the file goes.
    fs::create_dir_all(to.join("from/b")).unwrap();
    let said = copies.copied(&["-r".as_ref(), from.as_ref(), &on_node(&to)], 1);
    assert!(said.contains("a directory is in its place") && said.contains("it is a pipe"), "{said}");
    assert_eq!(fs::read(to.join("from/sub/a")).unwrap(), b"a");
    for (arguments, words) in [
        (vec![copies.here("missing").into_os_string(), on_node(&to)], "No such file"),
        (vec![on_node(&copies.there("missing")), copies.here("y").into_os_string()], "no such file or directory"),
        (vec![from.join("b").into_os_string(), on_node(&copies.there("no/such/dir"))], "no such file or directory"),
        (vec![from.join("b").into_os_string(), "web-1:to/../up".into()], "no '.' or '..'"),
        (vec![from.join("b").into_os_string(), "web-1:/dev/null".into()], "a device is in its place"),
    ] {
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let said = copies.copied(&arguments, 1);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let said = String::from_utf8(output(&mut copies.cp(&["a".as_ref(), "nobody:/x".as_ref()])).stderr).unwrap();
    assert!(said.contains("nobody"), "{said}");
}

#[test]
fn a_full_disk_ends_a_copy_with_its_reason() {
    let copies = Copies::start();
    let disk = copies.there("disk");
    fs::create_dir(&disk).unwrap();
    let mounted =
        nix::mount::mount(Some("none"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=1m,mode=777"));
    if let Err(errno) = mounted {
        println!("nothing can be mounted here ({errno}), so no disk is full");
        return;
    }
    let large = copies.here("large");
    fs::write(&large, vec![1; 5_000_000]).unwrap();
    let said = copies.copied(&[large.as_ref(), &on_node(&disk.join("large"))], 1);
    let left = fs::read_dir(&disk).unwrap().count();
    nix::mount::umount(&disk).unwrap();
    assert!(said.contains("no space is left"), "{said}");
    assert_eq!(left, 0);
}

#[test]
fn a_copy_goes_on_over_broken_links_and_after_it_was_killed() {
    let copies = Copies::start();
    let near = CutProxy::start(copies.server.address());
    let large = copies.here("large");
    let content: Vec<u8> = (0..60_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&large, &content).unwrap();
    let there = copies.there("large");
    let url = copies.server.url(Some(near.port()));
    let partial = copies.there(".large.munjigi-part");
    let arguments = ["--resume".as_ref(), large.as_os_str(), &on_node(&there)];

    // Killed in the middle: what is there stays for the next one.
    let mut child = copies.cp(&arguments).env("AWS_ENDPOINT_URL", &url).spawn().unwrap();
    wait_for("a part of the file", || {
        let begun = fs::metadata(&partial).is_ok_and(|meta| meta.len() > 1_000_000);
        (begun || there.exists()).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let half = copies.agent.spawn_half();
    let is_worker = |pid: &nix::unistd::Pid| is_alive(*pid) && command_line(*pid).contains("copy-worker");
    wait_for("the worker to end", || (!children(half).iter().any(is_worker)).then_some(()));
    // Then over links that break again and again.
    let mut child = copies.cp(&arguments).env("AWS_ENDPOINT_URL", &url).spawn().unwrap();
    for _ in 0..3 {
        // A break before the session stands is an error, and not what is meant.
        let before = fs::metadata(&partial).map_or(0, |meta| meta.len());
        wait_for("the copy to go on", || {
            let goes_on = fs::metadata(&partial).is_ok_and(|meta| meta.len() > before);
            (goes_on || there.exists()).then_some(())
        });
        near.reset();
    }
    let status = wait_for("the copy", || child.try_wait().unwrap());
    assert!(status.success(), "{status:?}");
    assert!(fs::read(&there).unwrap() == content);
    assert!(!partial.exists());
}

#[test]
fn each_direction_and_every_real_path_is_asked_about() {
    let copies = Copies::start();
    let (server, root) = (&copies.server, copies.there(""));
    let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
    fs::create_dir(copies.there("tree")).unwrap();
    fs::write(copies.there("tree/open"), "open").unwrap();
    fs::write(copies.there("tree/secret"), "the secret").unwrap();
    fs::write(copies.there("outside"), "x").unwrap();
    symlink(copies.there("tree/secret"), copies.there("tree-link")).unwrap();
    let statement = |effect: &str, action: &str, path: &str| {
        serde_json::json!({ "Effect": effect, "Action": action, "Resource": "*",
            "Condition": { "StringLike": { "munjigi:Path": path } } })
    };
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["munjigi:ChooseOsUser", "munjigi:StartPrivilegedSession"], "Resource": "*" },
        statement("Allow", "munjigi:DownloadFile", &format!("{root}/tree*")),
        statement("Deny", "munjigi:DownloadFile", "*secret*"),
        statement("Allow", "munjigi:UploadFile", &format!("{root}/in/*")),
    ]});
    server.aws_json(&["iam", "create-user", "--user-name", "carrier"]);
    server.aws_json(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "carrier",
        "--policy-name",
        "p",
        "--policy-document",
        &policy.to_string(),
    ]);
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", "carrier"]);
    let cp = |arguments: &[&OsStr]| {
        let mut command = copies.cp(arguments);
        command
            .env("AWS_ACCESS_KEY_ID", key["AccessKey"]["AccessKeyId"].as_str().unwrap())
            .env("AWS_SECRET_ACCESS_KEY", key["AccessKey"]["SecretAccessKey"].as_str().unwrap());
        let output = output(&mut command);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let here = copies.here("got");
    let (good, said) = cp(&[&on_node(&copies.there("tree/open")), here.as_ref()]);
    assert!(good, "{said}");
    assert_eq!(fs::read(&here).unwrap(), b"open");
    // Another direction, another place, and a denied one.
    fs::create_dir(copies.there("in")).unwrap();
    for (from, to) in [
        (here.clone().into_os_string(), on_node(&copies.there("tree/open"))),
        (on_node(&copies.there("outside")), here.clone().into_os_string()),
        (on_node(&copies.there("tree/secret")), here.clone().into_os_string()),
    ] {
        let (good, said) = cp(&[&from, &to]);
        assert!(!good && said.contains("not authorized to perform"), "{from:?}: {said}");
    }
    let (good, said) = cp(&[here.as_ref(), &on_node(&copies.there("in/new"))]);
    assert!(good, "{said}");
    // A link, a pattern and a tree lead to the same file: its real path is what counts.
    let got = copies.here("tree-got");
    fs::create_dir(&got).unwrap();
    for (flag, asked) in [("-p", "tree-link"), ("-p", "tree/sec*"), ("-r", "tree")] {
        let (good, said) = cp(&[flag.as_ref(), &on_node(&copies.there(asked)), got.as_ref()]);
        assert!(!good && said.contains("not authorized to perform"), "{asked}: {said}");
        let written: Vec<_> = listing(&got).into_iter().filter(|(.., content)| content == b"the secret").collect();
        assert_eq!(written, []);
    }
    let denied: Vec<Value> = copies
        .events("DownloadFile")
        .into_iter()
        .filter(|event| event["errorCode"] == "AccessDenied" && event.to_string().contains("tree/secret"))
        .collect();
    assert!(denied.len() >= 2, "{denied:?}");
}
