use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use munjigi_core::sftp::{OpenFlags, ResolveLast, ResolvedKind};
use tempfile::TempDir;

use super::*;

fn worker(home: &TempDir, access: FileAccess) -> Worker {
    let home = home.path().canonicalize().unwrap();
    Worker { access, home, handles: Handles::default(), names: Names::default(), greeted: true }
}

fn path(home: &TempDir, name: &str) -> Vec<u8> {
    home.path().canonicalize().unwrap().join(name).as_os_str().as_bytes().to_vec()
}

fn ask(worker: &mut Worker, request: Request<'_>) -> (Status, Vec<u8>) {
    let (mut packet, mut out) = (Vec::new(), Vec::new());
    request.encode(1, &mut packet);
    worker.answer(&packet, &mut out).unwrap();
    match Response::decode(&out).unwrap() {
        (1, Response::Status { status, .. }) => (status, Vec::new()),
        (1, Response::Handle { handle }) => (Status::Ok, handle.to_be_bytes().to_vec()),
        (1, Response::Data { data }) => (Status::Ok, data.to_vec()),
        (1, other) => (Status::Ok, format!("{other:?}").into_bytes()),
        other => panic!("{other:?}"),
    }
}

fn handle(answer: (Status, Vec<u8>)) -> u32 {
    assert_eq!(answer.0, Status::Ok);
    u32::from_be_bytes(answer.1.try_into().unwrap())
}

#[test]
fn a_symbolic_link_on_the_way_is_never_followed() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("real")).unwrap();
    std::fs::write(home.path().join("real/file"), "x").unwrap();
    symlink("real", home.path().join("link")).unwrap();
    symlink("file", home.path().join("real/last")).unwrap();
    let mut worker = worker(&home, FileAccess::Both);
    let attributes = Attributes::default();
    let open = |worker: &mut Worker, name: &str| {
        ask(worker, Request::Open { path: &path(&home, name), flags: OpenFlags::TO_READ, attributes }).0
    };
    assert_eq!(open(&mut worker, "real/file"), Status::Ok);
    for name in ["link/file", "real/last", "real/../real/file", "real//file", "real/./file"] {
        assert_ne!(open(&mut worker, name), Status::Ok, "{name}");
    }
    let through = path(&home, "link/new");
    for request in [
        Request::Open { path: &through, flags: OpenFlags::TO_REPLACE, attributes },
        Request::Mkdir { path: &through, attributes },
        Request::Remove { path: &path(&home, "link/file") },
        Request::Rename { from: &path(&home, "real/file"), to: &through },
        Request::Hardlink { from: &path(&home, "link/file"), to: &path(&home, "hard") },
        Request::Symlink { target: b"x", path: &through },
        Request::Setstat { path: &path(&home, "real/last"), attributes: Attributes { size: Some(0), ..attributes } },
        Request::Opendir { path: &path(&home, "link") },
        Request::Stat { path: &path(&home, "link/file") },
    ] {
        assert_ne!(ask(&mut worker, request.clone()).0, Status::Ok, "{request:?}");
    }
    assert_eq!(std::fs::read(home.path().join("real/file")).unwrap(), b"x");
    assert!(!home.path().join("real/new").exists());
}

#[test]
fn what_the_grant_does_not_name_is_refused_whatever_the_gateway_says() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "x").unwrap();
    let file = path(&home, "file");
    let attributes = Attributes::default();
    let read = Request::Open { path: &file, flags: OpenFlags::TO_READ, attributes };
    let write = Request::Open { path: &file, flags: OpenFlags::TO_REPLACE, attributes };
    let remove = Request::Remove { path: &file };
    let mut down = worker(&home, FileAccess::Download);
    assert_eq!(ask(&mut down, read.clone()).0, Status::Ok);
    for request in [write.clone(), remove] {
        assert_eq!(ask(&mut down, request).0, Status::PermissionDenied);
    }
    let mut up = worker(&home, FileAccess::Upload);
    assert_eq!(ask(&mut up, read).0, Status::PermissionDenied);
    assert_eq!(std::fs::read(home.path().join("file")).unwrap(), b"x");
    assert_eq!(ask(&mut up, write).0, Status::Ok);
}

#[test]
fn paths_are_resolved_to_where_they_lead_or_would_be_made() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    std::fs::create_dir_all(at.join("a/b")).unwrap();
    std::fs::write(at.join("a/file"), "12345").unwrap();
    symlink("a", at.join("to-a")).unwrap();
    symlink("a/b/new", at.join("dangling")).unwrap();
    symlink("loop", at.join("loop")).unwrap();
    let root = at.canonicalize().unwrap();
    let check = |given: &str, last, real: &str, kind, size| {
        let place = resolve(&root, given.as_bytes(), last).unwrap();
        assert_eq!((place.kind, place.size), (kind, size), "{given}");
        assert_eq!(place.real, root.join(real).as_os_str().as_bytes(), "{given}");
    };
    let (follow, itself) = (ResolveLast::Followed, ResolveLast::Itself);
    check("a/file", follow, "a/file", ResolvedKind::File, 5);
    check("to-a/../to-a/b/../file", follow, "a/file", ResolvedKind::File, 5);
    check("to-a", follow, "a", ResolvedKind::Directory, 0);
    check("to-a", itself, "to-a", ResolvedKind::Link, 0);
    check("to-a/b/", itself, "a/b", ResolvedKind::Directory, 0);
    check("to-a/new", follow, "a/new", ResolvedKind::Nothing, 0);
    check("dangling", follow, "a/b/new", ResolvedKind::Nothing, 0);
    check("dangling", itself, "dangling", ResolvedKind::Link, 0);
    for (given, errno) in [("no/way", Errno::ENOENT), ("a/file/x", Errno::ENOTDIR), ("loop", Errno::ELOOP)] {
        assert_eq!(resolve(&root, given.as_bytes(), follow), Err(errno), "{given}");
    }
    assert_eq!(resolve(&root, b"/../../etc/./hostname", follow).unwrap().plain, b"/etc/hostname");
    assert_eq!(resolve(&root, b"/", itself).unwrap().real, b"/");
    // What has no path of its own has none here.
    let (read, _write) = nix::unistd::pipe().unwrap();
    let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&read));
    assert_eq!(resolve(&root, magic.as_bytes(), follow), Err(Errno::EACCES));
}

#[test]
fn a_process_own_files_are_no_files() {
    let home = tempfile::tempdir().unwrap();
    let mut worker = worker(&home, FileAccess::Both);
    for name in ["mem", "environ"] {
        let magic = format!("/proc/self/{name}");
        let real = resolve(home.path(), magic.as_bytes(), ResolveLast::Followed).unwrap().real;
        let open = Request::Open { path: &real, flags: OpenFlags::TO_READ, attributes: Attributes::default() };
        assert_eq!(ask(&mut worker, open).0, Status::PermissionDenied, "{name}");
    }
    let open = Request::Open { path: b"/proc/cpuinfo", flags: OpenFlags::TO_READ, attributes: Attributes::default() };
    assert_eq!(ask(&mut worker, open).0, Status::Ok);
}

#[test]
fn handles_are_bounded_and_reads_are_clamped() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), vec![7; 600_000]).unwrap();
    let file = path(&home, "file");
    let mut worker = worker(&home, FileAccess::Both);
    let open = Request::Open { path: &file, flags: OpenFlags::TO_READ, attributes: Attributes::default() };
    let first = handle(ask(&mut worker, open.clone()));
    for _ in 1..munjigi_core::sftp::MAX_HANDLES {
        assert_eq!(ask(&mut worker, open.clone()).0, Status::Ok);
    }
    assert_eq!(ask(&mut worker, open.clone()).0, Status::Failure);
    let read = |offset, length| Request::Read { handle: first, offset, length };
    assert_eq!(ask(&mut worker, read(0, u32::MAX)).1.len(), munjigi_core::sftp::MAX_DATA);
    assert_eq!(ask(&mut worker, read(599_990, 100)).1, [7; 10]);
    assert_eq!(ask(&mut worker, read(600_000, 1)).0, Status::Eof);
    assert_eq!(ask(&mut worker, read(u64::MAX, 1)).0, Status::Failure);
    assert_eq!(ask(&mut worker, Request::Close { handle: first }).0, Status::Ok);
    assert_eq!(ask(&mut worker, Request::Close { handle: first }).0, Status::Failure);
    assert_eq!(ask(&mut worker, open).0, Status::Ok);
}

#[test]
fn patterns_stand_for_what_fits_and_else_for_themselves() {
    let home = tempfile::tempdir().unwrap();
    for name in ["a.log", "b.log", ".c.log", "d*.log"] {
        std::fs::write(home.path().join(name), "").unwrap();
    }
    std::fs::create_dir(home.path().join("sub")).unwrap();
    std::fs::write(home.path().join("sub/e.log"), "").unwrap();
    let names = |pattern: &str| -> Vec<String> {
        let found = glob(home.path(), pattern.as_bytes()).unwrap();
        let short = |path: Vec<u8>| String::from_utf8(path).unwrap().replace(home.path().to_str().unwrap(), "");
        found.into_iter().map(short).collect()
    };
    assert_eq!(names("*.log"), ["/a.log", "/b.log", "/d*.log"]);
    assert_eq!(names("~/.*.log"), ["/.c.log"]);
    assert_eq!(names("d\\*.log"), ["/d*.log"]);
    assert_eq!(names("*/?.log"), ["/sub/e.log"]);
    assert_eq!(names("s*/"), ["/sub/"]);
    assert_eq!(names("[xy]"), ["/[xy]"]);
    assert_eq!(names("~"), ["/."]);
    assert_eq!(glob(home.path(), b"~root/x"), Err(Errno::ENOENT));
}
