//! What people do with these programs beyond one file: names of every kind, patterns, transfers that go on where they
//! stopped, modes and times.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Files, listing, noise};

/// Names that mean something to a shell, to a program's options, or to nobody.
const NAMES: [&str; 16] = [
    "한글 이름.log",
    " blank ",
    "-dash.log",
    "--delete",
    "line\nend",
    "tab\there",
    "*",
    "[x]?",
    "~",
    "~root",
    "back\\slash",
    "\"quoted\" 'twice'",
    "$HOME`id`;",
    "#hash",
    "a:b",
    "\u{1b}[31m",
];

fn odd(root: &Path) {
    fs::create_dir(root).unwrap();
    for (at, name) in NAMES.iter().enumerate() {
        fs::write(root.join(name), noise(at * 7)).unwrap();
    }
    fs::create_dir(root.join("-한 글")).unwrap();
    fs::write(root.join("-한 글/속"), "안").unwrap();
    fs::set_permissions(root.join("-한 글"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(root.join("#hash"), fs::Permissions::from_mode(0o400)).unwrap();
    for name in ["-한 글", "#hash"] {
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(root.join(name)).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn names_of_every_kind_go_there_and_back() {
    let files = Files::start();
    let from = files.here("from");
    odd(&from);
    let from_text = from.to_str().unwrap();
    files.run("scp", &["-s", "-rp", from_text, &files.on_node("scp")]).success();
    assert_eq!(listing(&from), listing(&files.there("scp")));
    files.run("scp", &["-s", "-rp", &files.on_node("scp"), files.here("back").to_str().unwrap()]).success();
    assert_eq!(listing(&from), listing(&files.here("back")));
    files.rsync(&["-a", &format!("{from_text}/"), &files.on_node("rsync/")]).success();
    assert_eq!(listing(&from), listing(&files.there("rsync")));
    files.rsync(&["-a", &files.on_node("rsync/"), &format!("{}/", files.here("rsync").display())]).success();
    assert_eq!(listing(&from), listing(&files.here("rsync")));
    files.sftp(&format!("put -rp {from_text} {}\n", files.there("sftp").display())).success();
    assert_eq!(listing(&from), listing(&files.there("sftp")));
    files.sftp(&format!("get -rp {} {}\n", files.there("sftp").display(), files.here("sftp").display())).success();
    assert_eq!(listing(&from), listing(&files.here("sftp")));
    for name in NAMES {
        files.hash_is_told("UploadFile", &files.there("scp").join(name), &fs::read(from.join(name)).unwrap());
        files.hash_is_told("UploadFile", &files.there("rsync").join(name), &fs::read(from.join(name)).unwrap());
    }
    // The protocol of rcp has no name with a line end: it is said, and everything else goes.
    let ran = files.run("scp", &["-O", "-rp", &files.on_node("scp"), files.here("rcp").to_str().unwrap()]);
    assert!(ran.code != Some(0) && ran.err.contains("line ends"), "{ran:?}");
    fs::remove_file(from.join("line\nend")).unwrap();
    assert_eq!(listing(&from), listing(&files.here("rcp")));
    files.run("scp", &["-O", "-rp", from_text, &files.on_node("rcp")]).success();
    assert_eq!(listing(&from), listing(&files.there("rcp")));
}

#[test]
fn patterns_are_expanded_on_the_node() {
    let files = Files::start();
    let there = files.there("logs");
    odd(&there);
    for name in ["a.log", "b.log", ".hidden.log", "c.txt"] {
        fs::write(there.join(name), name).unwrap();
    }
    let names = |dir: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for (at, protocol) in ["-s", "-O"].into_iter().enumerate() {
        let got = files.here(&format!("got-{at}"));
        let copy = |pattern: &str| {
            let _ = fs::remove_dir_all(&got);
            fs::create_dir(&got).unwrap();
            let ran = files.run("scp", &[protocol, &files.on_node(&format!("logs/{pattern}")), got.to_str().unwrap()]);
            (ran.code, names(&got))
        };
        assert_eq!(
            copy("*.log"),
            (Some(0), ["-dash.log", "a.log", "b.log", "한글 이름.log"].map(String::from).to_vec())
        );
        assert_eq!(copy("[ab].*"), (Some(0), ["a.log", "b.log"].map(String::from).to_vec()), "{protocol}");
        assert_eq!(copy("?.txt"), (Some(0), vec!["c.txt".to_owned()]), "{protocol}");
        assert_eq!(copy("\\*"), (Some(0), vec!["*".to_owned()]), "{protocol}");
        assert_eq!(copy("한글*"), (Some(0), vec!["한글 이름.log".to_owned()]), "{protocol}");
        let (code, found) = copy("none*");
        assert!(code != Some(0) && found.is_empty(), "{protocol}: {found:?}");
    }
    let got = files.here("sftp");
    fs::create_dir(&got).unwrap();
    files.sftp(&format!("cd {}\nlcd {}\nmget *.log\n", there.display(), got.display())).success();
    assert_eq!(names(&got), ["-dash.log", "a.log", "b.log", "한글 이름.log"]);
    let to = format!("{}/", files.here("rsync").display());
    files.rsync(&["-a", &files.on_node("logs/*.log"), &to]).success();
    assert_eq!(names(&files.here("rsync")), ["-dash.log", "a.log", "b.log", "한글 이름.log"]);
}

#[test]
fn transfers_go_on_where_they_stopped_and_are_told_as_parts() {
    let files = Files::start();
    let content = noise(3_000_000);
    let (local, there) = (files.here("local"), files.there("there"));
    fs::write(&local, &content).unwrap();
    fs::write(&there, &content[..1_000_001]).unwrap();
    files.sftp(&format!("reput {} {}\n", local.display(), there.display())).success();
    assert!(fs::read(&there).unwrap() == content);
    let parts = |event: &serde_json::Value| event["additionalEventData"]["parts"].as_str().map(str::to_owned);
    // OpenSSH opens such a file to append to it.
    files.told("UploadFile", &there, |event| parts(event).as_deref() == Some("1999999 at the end"));
    let got = files.here("got");
    fs::write(&got, &content[..2_000_003]).unwrap();
    files.sftp(&format!("reget {} {}\n", there.display(), got.display())).success();
    assert!(fs::read(&got).unwrap() == content);
    files.told("DownloadFile", &there, |event| parts(event).as_deref() == Some("2000003-3000000"));
    // rsync goes on by comparing what is there, and its hash is of the whole.
    fs::write(&there, &content[..1_000_001]).unwrap();
    files.rsync(&["--append-verify", local.to_str().unwrap(), &files.on_node("there")]).success();
    assert!(fs::read(&there).unwrap() == content);
    files.hash_is_told("UploadFile", &there, &content);
}
