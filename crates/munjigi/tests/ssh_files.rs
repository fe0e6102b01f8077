//! Files over SSH from a node without any sshd: OpenSSH's `sftp` and `scp` in both of its protocols, and `rsync`; what
//! policy lets through, and what trail and recording say of each file.

mod client;
mod extensions;
mod model;
mod mounted;
mod names;
mod policies;
mod refused;
mod stalled;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::faults::user;
use crate::harness::ssh::Ran;
use crate::harness::{TestAgent, TestServer, TestSsh, success, wait_for};

/// A server, a node, a person, and a directory on either side.
struct Files {
    // Stopped before the server, whose directory holds its own.
    agent: TestAgent,
    server: TestServer,
    ssh: TestSsh,
    here: TempDir,
    there: TempDir,
}

impl Files {
    fn start() -> Self {
        let server = TestServer::start();
        let agent = server.agent("web-1");
        let ssh = TestSsh::of(&server);
        let dir = || tempfile::Builder::new().prefix("munjigi-files-").tempdir().unwrap();
        Self { agent, server, ssh, here: dir(), there: dir() }
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.path().canonicalize().unwrap().join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.there.path().canonicalize().unwrap().join(name)
    }

    fn on_node(&self, name: &str) -> String {
        format!("web-1.munjigi:{}", self.there(name).display())
    }

    /// Prepares one of OpenSSH's programs as the OS user of this test.
    fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let user = format!("User={}", user());
        self.ssh.command(program, &[&["-o", user.as_str()], arguments].concat())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.program(program, arguments), b"")
    }

    fn sftp(&self, batch: &str) -> Ran {
        let path = self.here("batch");
        fs::write(&path, batch).unwrap();
        self.run("sftp", &["-b", path.to_str().unwrap(), "web-1.munjigi"])
    }

    fn rsync(&self, arguments: &[&str]) -> Ran {
        let shell = format!("ssh -F {} -o User={}", self.ssh.config().display(), user());
        let mut command = Command::new("rsync");
        command.args(["-e", &shell]).args(arguments);
        self.ssh.configure(&mut command);
        Ran::of(command, b"")
    }

    /// Returns what the trail tells of files with this name, oldest first.
    fn events(&self, name: &str) -> Vec<Value> {
        let text =
            success(&mut self.server.munjigi(&["audit", "--output", "json", "--name", name, "--limit", "10000"]));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the trail has an event for which this holds.
    fn told(&self, name: &str, of: &Path, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("{name} of {}", of.display()), || {
            let of = of.to_str().unwrap();
            self.events(name).into_iter().find(|event| event["additionalEventData"]["path"] == of && holds(event))
        })
    }

    fn hash_is_told(&self, name: &str, of: &Path, content: &[u8]) {
        let hash = sha256(content);
        self.told(name, of, |event| event["additionalEventData"]["sha256"] == hash.as_str());
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// Everything below a directory: name, mode, time of change and content.
fn listing(root: &Path) -> Vec<(String, u32, i64, Vec<u8>)> {
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
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let modified = if meta.is_symlink() { 0 } else { meta.mtime() };
            found.push((name, meta.mode() & 0o777, modified, content));
        }
    }
    found.sort();
    found
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// A tree with what is awkward: Hangul, blanks, quotes, an empty file, a mode, an old time.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("문서/깊은 곳")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("문서/보고서.txt"), "안녕하세요\n").unwrap();
    fs::write(root.join("문서/깊은 곳/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("문서/깊은 곳/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(root.join("it's \"odd\" $HOME *;"), "odd").unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    fs::write(root.join("large"), noise(9_000_000)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(root.join("large")).unwrap().set_modified(old).unwrap();
}

#[test]
fn both_protocols_of_scp_carry_trees_there_and_back() {
    let files = Files::start();
    let from = files.here("자료");
    tree(&from);
    for protocol in ["-s", "-O"] {
        let there = format!("there{protocol}");
        fs::create_dir(files.there(&there)).unwrap();
        let to = files.on_node(&there);
        files.run("scp", &[protocol, "-rp", from.to_str().unwrap(), &to]).success();
        assert_eq!(listing(&from), listing(&files.there(&format!("{there}/자료"))), "{protocol}");
        let back = files.here(&format!("back{protocol}"));
        files.run("scp", &[protocol, "-rp", &format!("{to}/자료"), back.to_str().unwrap()]).success();
        assert_eq!(listing(&from), listing(&back), "{protocol}");
        for (name, content) in [("large", noise(9_000_000)), ("nothing", Vec::new())] {
            let path = files.there(&format!("{there}/자료/{name}"));
            files.hash_is_told("UploadFile", &path, &content);
            files.hash_is_told("DownloadFile", &path, &content);
        }
        // Patterns of the person's own.
        let got = files.here(&format!("got{protocol}"));
        fs::create_dir(&got).unwrap();
        files.run("scp", &[protocol, &format!("{to}/자료/문서/*.txt"), got.to_str().unwrap()]).success();
        assert_eq!(fs::read_to_string(got.join("보고서.txt")).unwrap(), "안녕하세요\n");
        // What fails is said, and the status says it too.
        for (source, target) in [
            (files.on_node("missing"), got.display().to_string()),
            (from.join("large").display().to_string(), files.on_node("no/such/directory/x")),
            (to.clone(), got.display().to_string()),
        ] {
            let ran = files.run("scp", &[protocol, &source, &target]);
            assert!(ran.code != Some(0) && !ran.err.is_empty(), "{protocol} {source}: {ran:?}");
        }
    }
    let session = files.server.sessions().into_iter().last().unwrap();
    let shown = success(&mut files.server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    assert!(shown.contains("connection 1"), "{shown}");
}

#[test]
fn a_batch_of_sftp_does_what_it_says_and_the_trail_tells_it() {
    let files = Files::start();
    let (local, there) = (files.here("보고서"), files.there(""));
    fs::write(&local, "content").unwrap();
    let there = there.to_str().unwrap().trim_end_matches('/');
    let batch = format!(
        "cd {there}\nmkdir dir\nput {local} dir/a\nput -p {local} dir/b\nrename dir/a dir/c\nln dir/c dir/hard\n\
         ln -s c dir/soft\nls -la dir\nchmod 600 dir/b\nget dir/soft {got}\ndf .\nrm dir/b\ncp dir/c dir/copied\n\
         -rmdir dir\n-get missing\npwd\n",
        local = local.display(),
        got = files.here("got").display(),
    );
    let ran = files.sftp(&batch);
    let out = ran.success();
    assert!(out.contains("hard") && out.contains(&format!("working directory: {there}")), "{out}");
    assert_eq!(fs::read(files.here("got")).unwrap(), b"content");
    assert_eq!(fs::read_link(files.there("dir/soft")).unwrap(), Path::new("c"));
    assert_eq!(fs::read(files.there("dir/copied")).unwrap(), b"content");
    assert_eq!(fs::metadata(files.there("dir/c")).unwrap().nlink(), 2);
    files.hash_is_told("UploadFile", &files.there("dir/a"), b"content");
    // Through the link it is the file that it leads to.
    files.hash_is_told("DownloadFile", &files.there("dir/c"), b"content");
    let changes = files.events("ChangeFile");
    let done: Vec<_> = changes
        .iter()
        .map(|event| (event["additionalEventData"]["action"].as_str().unwrap(), event["errorCode"].is_null()))
        .collect();
    for expected in [
        ("makeDirectory", true),
        ("rename", true),
        ("hardLink", true),
        ("symbolicLink", true),
        ("setAttributes", true),
        ("remove", true),
        ("removeDirectory", false),
    ] {
        assert!(done.contains(&expected), "{expected:?}: {done:?}");
    }
    let session = files.server.sessions().into_iter().last().unwrap();
    let shown = success(&mut files.server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    for words in ["uploaded", "downloaded", "renamed", "made the directory", "wrote parts of"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn rsync_mirrors_both_ways_again_and_again() {
    let files = Files::start();
    let from = files.here("자료");
    tree(&from);
    symlink("large", from.join("link")).unwrap();
    let (source, to) = (format!("{}/", from.display()), files.on_node("mirror/"));
    files.rsync(&["-a", &source, &to]).success();
    assert_eq!(listing(&from), listing(&files.there("mirror")));
    files.hash_is_told("UploadFile", &files.there("mirror/large"), &noise(9_000_000));
    files.hash_is_told("UploadFile", &files.there("mirror/it's \"odd\" $HOME *;"), b"odd");
    // Something changes, something goes, something is in the way.
    fs::write(from.join("문서/보고서.txt"), "안녕히 가세요\n").unwrap();
    fs::remove_file(from.join("nothing")).unwrap();
    fs::write(files.there("mirror/extra"), "x").unwrap();
    files.rsync(&["-a", "--delete", &source, &to]).success();
    assert_eq!(listing(&from), listing(&files.there("mirror")));
    files.hash_is_told("UploadFile", &files.there("mirror/문서/보고서.txt"), "안녕히 가세요\n".as_bytes());
    for gone in ["mirror/nothing", "mirror/extra"] {
        files.told("ChangeFile", &files.there(gone), |event| event["additionalEventData"]["action"] == "remove");
    }
    // Nothing was sent twice.
    let uploads = files.events("UploadFile");
    let of_large =
        |event: &&Value| event["additionalEventData"]["path"] == files.there("mirror/large").to_str().unwrap();
    assert_eq!(uploads.iter().filter(of_large).count(), 1);
    // And back, by pattern and as a whole.
    let back = files.here("back");
    files.rsync(&["-a", "--delete", &to, &format!("{}/", back.display())]).success();
    assert_eq!(listing(&from), listing(&back));
    files.hash_is_told("DownloadFile", &files.there("mirror/large"), &noise(9_000_000));
    files.rsync(&["-a", &format!("{to}문*"), &format!("{}/", files.here("part").display())]).success();
    assert!(files.here("part/문서/보고서.txt").exists());
    // A single file under another name.
    files.rsync(&[from.join("large").to_str().unwrap(), &files.on_node("renamed")]).success();
    files.hash_is_told("UploadFile", &files.there("renamed"), &noise(9_000_000));
    // What is not served is refused with its reason.
    let ran = files.rsync(&["-a", "-M--log-file=/tmp/x", &source, &to]);
    assert!(ran.code != Some(0) && ran.err.contains("--log-file=/tmp/x"), "{ran:?}");
    let ran = files.rsync(&["-a", &files.on_node("missing/x"), back.to_str().unwrap()]);
    assert!(ran.code != Some(0) && ran.err.contains("ENOENT"), "{ran:?}");
}

#[test]
fn five_thousand_small_files_go_by_rsync() {
    let files = Files::start();
    let from = files.here("many");
    fs::create_dir(&from).unwrap();
    for n in 0..5000_usize {
        let dir = from.join(format!("d{}", n / 500));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), noise(n % 4000)).unwrap();
    }
    files.rsync(&["-a", &format!("{}/", from.display()), &files.on_node("many/")]).success();
    assert_eq!(listing(&from), listing(&files.there("many")));
    let session = files.server.sessions().into_iter().last().unwrap();
    let shown = success(&mut files.server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    assert_eq!(shown.matches("uploaded").count(), 5000);
}

#[test]
fn a_full_disk_is_said_by_every_program() {
    let files = Files::start();
    let disk = files.there("disk");
    fs::create_dir(&disk).unwrap();
    let mounted =
        nix::mount::mount(Some("none"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=1m,mode=777"));
    if let Err(errno) = mounted {
        println!("nothing can be mounted here ({errno}), so no disk is full");
        return;
    }
    let large = files.here("large");
    fs::write(&large, noise(5_000_000)).unwrap();
    let (from, to) = (large.to_str().unwrap(), files.on_node("disk/large"));
    let ran: Vec<_> = [&["-s"][..], &["-O"]]
        .into_iter()
        .map(|protocol| files.run("scp", &[protocol, &[from, &to]].concat()))
        .chain([files.rsync(&[from, &to])])
        .collect();
    nix::mount::umount(&disk).unwrap();
    for ran in ran {
        assert!(ran.code != Some(0) && !ran.err.is_empty(), "{ran:?}");
    }
    files.told("UploadFile", &disk.join("large"), |event| {
        let bytes = event["additionalEventData"]["bytes"].as_u64().unwrap();
        event["errorMessage"].as_str().is_some_and(|why| why.contains("no space is left")) && bytes < 5_000_000
    });
}

#[test]
fn what_is_killed_in_the_middle_is_told_as_far_as_it_came() {
    let files = Files::start();
    let large = files.here("large");
    // Without a size that fits any buffer on the way.
    fs::write(&large, noise(80_000_000)).unwrap();
    let there = files.there("large");
    let arguments = ["-l", "40000", large.to_str().unwrap(), &files.on_node("large")];
    let mut child = files.program("scp", &arguments).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a part of the file", || fs::metadata(&there).ok().filter(|meta| meta.len() > 100_000).map(drop));
    child.kill().unwrap();
    child.wait().unwrap();
    let event = files.told("UploadFile", &there, |_| true);
    let bytes = event["additionalEventData"]["bytes"].as_u64().unwrap();
    assert!(bytes > 0 && bytes < 80_000_000, "{event}");
    assert_eq!(event["errorCode"], "FileNotCopied", "{event}");
    assert!(event["additionalEventData"]["sha256"].is_null(), "{event}");
}
