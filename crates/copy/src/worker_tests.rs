//! Both ends over a socket pair: what is sent is there afterwards, and nothing else.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use munjigi_core::copy::{Attributes, EntryPath, FileHead, HEADER_BYTES, Moment, Pattern, data_header};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::progress::Snapshot;
use crate::sources::Source;

const HELLO: Hello = Hello { version: VERSION, recursive: true, preserve: true, resume: false, totals: true };

/// A client's ends of a copy with a worker that runs on a thread.
struct Client {
    out: Out,
    input: In,
}

fn worker(direction: Direction, root: PathBuf) -> Client {
    let (near, far) = pair();
    std::thread::spawn(move || serve(far, direction, &root));
    connect(near)
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

fn connect(near: OwnedFd) -> Client {
    let near = Arc::new(near);
    let ((to_in, from_socket), (to_socket, from_out)) = (channel(), channel());
    let reading = Arc::clone(&near);
    std::thread::spawn(move || pump::read_in(&reading, &to_in));
    std::thread::spawn(move || pump::write_out(&near, from_out));
    Client { out: Out::new(to_socket), input: In::new(from_socket) }
}

impl Client {
    fn hello(&mut self, hello: Hello) -> Result<Ready, CopyFailure> {
        self.out.message(&Message::Hello(hello)).unwrap();
        self.out.flush().unwrap();
        match self.input.message(Kinds::ANSWER)? {
            Message::Ready(ready) => Ok(ready),
            Message::Failed { code, why } => Err(CopyFailure::Refused { code, why }),
            other => panic!("{other:?}"),
        }
    }
}

/// Sends a path to a worker's root; its entry is the root itself, or the name below an existing directory.
fn upload(from: &Path, to: &Path, hello: Hello) -> (Result<(), CopyFailure>, Snapshot, Vec<String>) {
    let mut client = worker(Direction::Upload, to.to_owned());
    let progress = Arc::new(Progress::default());
    let ready = match client.hello(hello) {
        Ok(ready) => ready,
        Err(failure) => return (Err(failure), progress.snapshot(), Vec::new()),
    };
    let name = from.file_name().unwrap().as_bytes();
    let entry = if ready.kind == RootKind::Directory { EntryPath::new(name).unwrap() } else { EntryPath::root() };
    let sources = vec![Source::Path { path: from.to_owned(), entry }];
    let what = Send { sources, recursive: hello.recursive, resume: hello.resume, totals: hello.totals };
    let result = send(what, client.out, client.input, &progress);
    (result, progress.snapshot(), problems(&progress))
}

fn download(from: &Path, place: Place, hello: Hello) -> (Result<(), CopyFailure>, Snapshot, Vec<String>) {
    let mut client = worker(Direction::Download, from.to_owned());
    let progress = Arc::new(Progress::default());
    let result = client.hello(hello).and_then(|ready| {
        let expected = (ready.kind == RootKind::Matches).then(|| Pattern::new(from.file_name().unwrap().as_bytes()));
        let what = Receive { place, preserve: hello.preserve, resume: hello.resume, expected };
        receive(what, client.out, client.input, &progress)
    });
    (result, progress.snapshot(), problems(&progress))
}

fn problems(progress: &Progress) -> Vec<String> {
    progress.take_problems().into_iter().map(|(path, why)| format!("{path}: {why}")).collect()
}

/// Everything below a directory: name, mode, time and content.
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
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let time = if meta.is_symlink() { 0 } else { meta.mtime() };
            found.push((path.strip_prefix(root).unwrap().display().to_string(), meta.mode() & 0o777, time, content));
        }
    }
    found.sort();
    found
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("문서/깊은 곳")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("문서/보고서.txt"), "안녕\n").unwrap();
    fs::write(root.join("문서/깊은 곳/big"), vec![7; 1_000_000]).unwrap();
    fs::write(root.join("none"), "").unwrap();
    fs::write(root.join("-rf *\n"), "odd").unwrap();
    fs::set_permissions(root.join("none"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("/etc/passwd", root.join("문서/link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let old = fs::File::options().write(true).open(root.join("문서/보고서.txt")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_007)).unwrap();
    for file in 0..2500 {
        fs::write(root.join("empty/..").join(format!("small-{file}")), format!("{file}")).unwrap();
    }
}

#[test]
fn a_tree_is_the_same_at_the_other_end_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let (from, there, back) = (dir.path().join("from"), dir.path().join("there"), dir.path().join("back"));
    fs::create_dir(&from).unwrap();
    tree(&from);
    let (result, seen, problems) = upload(&from, &there, HELLO);
    assert_eq!((result, problems), (Ok(()), vec![]));
    assert_eq!(listing(&from), listing(&there));
    assert_eq!((seen.files, seen.total_files), (2504, 2504));
    assert_eq!(seen.bytes, seen.total_bytes);
    let (result, ..) = download(&there, Place::As(back.clone()), HELLO);
    assert_eq!(result, Ok(()));
    assert_eq!(listing(&from), listing(&back));
    // Once more, into the directory that is there now: below its own name.
    let (result, _, problems) = upload(&from, &there, HELLO);
    assert_eq!((result, problems), (Ok(()), vec![]));
    assert_eq!(listing(&from), listing(&there.join("from")));
}

#[test]
fn a_file_replaces_one_and_keeps_its_mode_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, "new").unwrap();
    fs::write(&to, "old and longer").unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o640)).unwrap();
    let (result, ..) = upload(&from, &to, Hello { preserve: false, ..HELLO });
    assert_eq!(result, Ok(()));
    assert_eq!(fs::read(&to).unwrap(), b"new");
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_pattern_brings_what_fits_it_and_a_missing_path_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    for name in ["a.log", "b.log", "c.txt", ".log"] {
        fs::write(from.join(name), name).unwrap();
    }
    let (result, ..) = download(&from.join("*.log"), Place::Into(to.clone()), HELLO);
    assert_eq!(result, Ok(()));
    let names: Vec<_> = listing(&to).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a.log", "b.log"]);
    for missing in ["missing", "*.zip", "c.txt/below"] {
        let (result, ..) = download(&from.join(missing), Place::Into(to.clone()), HELLO);
        let Err(CopyFailure::Refused { code, why }) = result else { panic!("{result:?}") };
        assert_eq!(code, "NotFound", "{why}");
    }
    let (result, ..) = upload(&from.join("a.log"), &dir.path().join("missing/below"), HELLO);
    assert!(matches!(result, Err(CopyFailure::Refused { code, .. }) if code == "NotFound"));
}

#[test]
fn holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let file = fs::File::create(&from).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 5_000_000).unwrap();
    file.set_len(64 << 20).unwrap();
    let (result, seen, _) = upload(&from, &to, HELLO);
    assert_eq!(result, Ok(()));
    assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
    assert_eq!(seen.bytes, 64 << 20);
    if fs::metadata(&from).unwrap().blocks() < 1000 {
        assert!(fs::metadata(&to).unwrap().blocks() < 1000);
    }
}

/// Sends the first part of a file and breaks off.
fn send_part(to: &Path, content: &[u8], part: usize) {
    let mut client = worker(Direction::Upload, to.to_owned());
    client.hello(Hello { resume: true, ..HELLO }).unwrap();
    let path = EntryPath::root();
    let size = content.len() as u64;
    client.out.message(&Message::Ask { path: path.clone(), size }).unwrap();
    let attributes = Attributes { mode: 0o600, modified: Moment { seconds: 1, nanoseconds: 0 } };
    let head = FileHead { path, size: Some(size), offset: 0, attributes };
    client.out.message(&Message::File(head)).unwrap();
    for piece in content[..part].chunks(1000) {
        let fill = |place: &mut [u8]| {
            place[..piece.len()].copy_from_slice(piece);
            Ok::<_, ()>(piece.len())
        };
        client.out.data(piece.len() as u64, fill).unwrap().unwrap();
    }
    client.out.flush().unwrap();
    drop(client.out);
    // The worker has noticed when it ends its own direction.
    while let Some(rest) = client.input.rest() {
        assert!(!rest.is_empty());
        client.input.use_all_but(0);
    }
}

#[test]
fn a_copy_that_broke_goes_on_where_it_was_and_never_with_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 / 5) as u8).collect();
    fs::write(&from, &content).unwrap();
    let resume = Hello { resume: true, ..HELLO };
    send_part(&to, &content, 2_000_000);
    assert!(!to.exists());
    let (result, seen, _) = upload(&from, &to, resume);
    assert_eq!((result, seen.skipped_bytes, seen.bytes), (Ok(()), 2_000_000, 1_000_000));
    assert_eq!(fs::read(&to).unwrap(), content);
    // Complete: nothing travels.
    let (result, seen, _) = upload(&from, &to, resume);
    assert_eq!((result, seen.skipped_bytes, seen.bytes, seen.files), (Ok(()), 3_000_000, 0, 1));
    fs::remove_file(&to).unwrap();
    // A part of something else is of no use.
    send_part(&to, &vec![9; 3_000_000], 2_000_000);
    let (result, seen, _) = upload(&from, &to, resume);
    assert_eq!((result, seen.skipped_bytes), (Ok(()), 0));
    assert_eq!(fs::read(&to).unwrap(), content);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn without_resume_nothing_is_left_of_what_broke() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let mut client = worker(Direction::Upload, to.clone());
    client.hello(HELLO).unwrap();
    let attributes = Attributes { mode: 0o600, modified: Moment { seconds: 1, nanoseconds: 0 } };
    let head = FileHead { path: EntryPath::root(), size: Some(10), offset: 0, attributes };
    client.out.message(&Message::File(head)).unwrap();
    client.out.data(5, |place| Ok::<_, ()>(place.len())).unwrap().unwrap();
    client.out.flush().unwrap();
    drop(client.out);
    while client.input.rest().is_some() {
        client.input.use_all_but(0);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn links_in_the_way_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
    for path in [&from, &to, &outside] {
        fs::create_dir(path).unwrap();
    }
    fs::create_dir(from.join("sub")).unwrap();
    fs::write(from.join("sub/file"), "x").unwrap();
    fs::write(from.join("file"), "y").unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    fs::create_dir(to.join("from")).unwrap();
    // Somebody has put links where a directory and a file would go.
    symlink(&outside, to.join("from/sub")).unwrap();
    symlink(outside.join("file"), to.join("from/file")).unwrap();
    let (result, seen, problems) = upload(&from, &to, HELLO);
    assert_eq!(result, Ok(()));
    assert_eq!((seen.files, seen.problems), (1, 2), "{problems:?}");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
    assert!(!fs::symlink_metadata(to.join("from/file")).unwrap().is_symlink());
}

/// Sends messages as they are to a worker that receives; returns what it answered.
fn say(to: &Path, bytes: &[u8]) -> Vec<u8> {
    let (near, far) = pair();
    let root = to.to_owned();
    let serving = std::thread::spawn(move || serve(far, Direction::Upload, &root));
    let near = Arc::new(near);
    let writing = Arc::clone(&near);
    let mut hello = Vec::new();
    Message::Hello(HELLO).encode(&mut hello);
    hello.extend_from_slice(bytes);
    let writer = std::thread::spawn(move || {
        let mut left = hello.as_slice();
        while !left.is_empty() {
            match nix::unistd::write(&writing, left) {
                Ok(count) => left = &left[count..],
                Err(_) => return,
            }
        }
        let _ =
            nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&*writing), nix::sys::socket::Shutdown::Write);
    });
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = nix::unistd::read(&near, &mut buffer) {
        heard.extend_from_slice(&buffer[..count]);
    }
    writer.join().unwrap();
    let _ = serving.join().unwrap();
    heard
}

#[test]
fn hostile_senders_write_nothing_outside_and_are_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let attributes = Attributes { mode: 0o777, modified: Moment { seconds: 1, nanoseconds: 0 } };
    let mut link_then_through = Vec::new();
    let name = |text: &str| EntryPath::new(text.as_bytes()).unwrap();
    Message::Symlink { path: name("l"), target: b"..".to_vec() }.encode(&mut link_then_through);
    Message::Enter { path: name("l"), attributes }.encode(&mut link_then_through);
    let head = FileHead { path: name("l/escaped"), size: Some(1), offset: 0, attributes };
    Message::File(head).encode(&mut link_then_through);
    link_then_through.extend_from_slice(&data_header(1));
    link_then_through.push(b'x');
    Message::EndFile { hash: digest(&SHA256, b"x").as_ref().try_into().unwrap() }.encode(&mut link_then_through);
    Message::Leave { path: name("l"), attributes }.encode(&mut link_then_through);
    Message::Finish.encode(&mut link_then_through);
    say(&to, &link_then_through);
    assert!(!dir.path().join("escaped").exists());

    // The same file with `../` for its path: the codec does not even let it be written, so it is patched in.
    let head = FileHead { path: name("xx/escaped"), size: Some(1), offset: 0, attributes };
    let mut bytes = Vec::new();
    Message::File(head).encode(&mut bytes);
    let at = bytes.windows(2).position(|pair| pair == b"xx").unwrap();
    bytes[at..at + 2].copy_from_slice(b"..");
    let heard = say(&to, &bytes);
    assert!(String::from_utf8_lossy(&heard).contains("ProtocolError"), "{heard:?}");
    assert!(!dir.path().join("escaped").exists());

    // A hash that is wrong: nothing is put in place.
    let mut bytes = Vec::new();
    Message::File(FileHead { path: name("f"), size: Some(1), offset: 0, attributes }).encode(&mut bytes);
    bytes.extend_from_slice(&data_header(1));
    bytes.push(b'x');
    Message::EndFile { hash: [0; 32] }.encode(&mut bytes);
    Message::Finish.encode(&mut bytes);
    assert!(bytes.len() > HEADER_BYTES);
    let heard = say(&to, &bytes);
    assert!(String::from_utf8_lossy(&heard).contains("another SHA-256"), "{heard:?}");
    assert_eq!(listing(&to).into_iter().map(|(name, ..)| name).collect::<Vec<_>>(), ["l"]);
}

#[test]
fn hostile_bytes_end_a_worker_and_write_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..300)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if state >> 62 == 0 { (state >> 33) as u8 } else { (state >> 60) as u8 & 7 }
            })
            .collect();
        say(&to, &bytes);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_goes_to_a_stream_and_comes_from_one() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let content = vec![b'z'; 700_000];
    let (read, write) = nix::unistd::pipe().unwrap();
    let fed = content.clone();
    let feeder = std::thread::spawn(move || {
        let mut left = fed.as_slice();
        while !left.is_empty() {
            let count = nix::unistd::write(&write, left).unwrap();
            left = &left[count..];
        }
    });
    let mut client = worker(Direction::Upload, to.clone());
    client.hello(HELLO).unwrap();
    let sources = vec![Source::Stream { fd: read, entry: EntryPath::root() }];
    let progress = Arc::new(Progress::default());
    let what = Send { sources, recursive: false, resume: false, totals: true };
    assert_eq!(send(what, client.out, client.input, &progress), Ok(()));
    feeder.join().unwrap();
    assert_eq!(fs::read(&to).unwrap(), content);

    let (read, write) = nix::unistd::pipe().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::from(read), &mut all).unwrap();
        all
    });
    let (result, ..) = download(&to, Place::Stream(write), HELLO);
    assert_eq!(result, Ok(()));
    assert_eq!(reader.join().unwrap(), content);
}
