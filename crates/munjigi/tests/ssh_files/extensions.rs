//! OpenSSH's extensions of SFTP, each by itself: what they do on the node, and what the trail tells.

use std::fs;
use std::io::Write as _;

use munjigi_core::sftp::{Attributes, MAX_DATA, OpenFlags, Request, Response, Status};

use super::Files;
use super::client::Client;

#[test]
fn what_openssh_offers_beyond_the_protocol_does_what_it_says() {
    let files = Files::start();
    let mut client = Client::new(&files);
    let path = |name: &str| files.there(name).into_os_string().into_encoded_bytes();
    fs::write(files.there("a"), "of a").unwrap();
    fs::write(files.there("b"), "b").unwrap();
    let extended = |client: &mut Client, request: Request<'_>| {
        let answer = client.ask(request);
        match Response::decode(&answer).unwrap().1 {
            Response::Extended { body } => body.to_vec(),
            other => panic!("{other:?}"),
        }
    };
    let numbers = |body: &[u8]| -> Vec<u64> {
        body.chunks_exact(8).map(|number| u64::from_be_bytes(number.try_into().unwrap())).collect()
    };
    // limits@openssh.com: what is said is taken.
    let limits = numbers(&extended(&mut client, Request::Limits));
    assert_eq!(limits, [256 * 1024, MAX_DATA as u64, MAX_DATA as u64, 64]);
    // statvfs@openssh.com and fstatvfs@openssh.com.
    let system = numbers(&extended(&mut client, Request::Statvfs { path: &path("a") }));
    let really = nix::sys::statvfs::statvfs(&files.there("a")).unwrap();
    assert_eq!((system.len(), system[0], system[2], system[10]), (11, really.block_size(), really.blocks(), 255));
    let handle = client.open(&path("a"), OpenFlags::TO_READ).unwrap();
    assert_eq!(numbers(&extended(&mut client, Request::Fstatvfs { handle }))[2], really.blocks());
    // copy-data, of a part and of the whole, and fsync@openssh.com.
    let to = client.open(&path("copied"), OpenFlags::TO_REPLACE).unwrap();
    let copy = |from_offset, length, to_offset| Request::CopyData { from: handle, from_offset, length, to, to_offset };
    assert_eq!(client.status(copy(0, 0, 0)), Status::Ok);
    assert_eq!(client.status(copy(1, 2, 4)), Status::Ok);
    assert_eq!(client.status(Request::Fsync { handle: to }), Status::Ok);
    assert_eq!(fs::read(files.there("copied")).unwrap(), b"of af ");
    for handle in [handle, to] {
        assert_eq!(client.status(Request::Close { handle }), Status::Ok);
    }
    files.told("UploadFile", &files.there("copied"), |event| event["additionalEventData"]["parts"] == "0-6");
    // Renaming in place of something, or not.
    let (from, to) = (path("a"), path("b"));
    assert_eq!(client.status(Request::Rename { from: &from, to: &to }), Status::Failure);
    assert_eq!(client.status(Request::PosixRename { from: &from, to: &to }), Status::Ok);
    assert_eq!(fs::read(files.there("b")).unwrap(), b"of a");
    // hardlink@openssh.com, and lsetstat@openssh.com of a link itself.
    assert_eq!(client.status(Request::Hardlink { from: &to, to: &from }), Status::Ok);
    assert_eq!(client.status(Request::Symlink { target: b"b", path: &path("soft") }), Status::Ok);
    let times = munjigi_core::sftp::Times { accessed: 5, modified: 1_000_000_000 };
    let attributes = Attributes { times: Some(times), ..Attributes::default() };
    assert_eq!(client.status(Request::Lsetstat { path: &path("soft"), attributes }), Status::Ok);
    let modified = |name: &str| {
        let meta = fs::symlink_metadata(files.there(name)).unwrap();
        std::os::unix::fs::MetadataExt::mtime(&meta)
    };
    assert_eq!(modified("soft"), 1_000_000_000);
    assert_ne!(modified("b"), 1_000_000_000);
    // expand-path@openssh.com: the home directory, and nobody else's.
    let home = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().dir.canonicalize();
    if let Ok(home) = home {
        let answer = client.ask(Request::ExpandPath { path: b"~/x" });
        let Response::Names { entries } = Response::decode(&answer).unwrap().1 else { panic!() };
        assert_eq!(entries[0].name, home.join("x").into_os_string().into_encoded_bytes());
    }
    // users-groups-by-id@openssh.com.
    let uid = nix::unistd::geteuid().as_raw();
    let body = extended(&mut client, Request::UsersGroupsById { uids: vec![uid, 4_000_000_000], gids: vec![] });
    let name = crate::faults::user();
    assert!(body.windows(name.len()).any(|part| part == name.as_bytes()), "{body:?}");
    // What is not known is said, and the connection goes on.
    let mut packet = Vec::new();
    Request::Unknown.encode(99, &mut packet);
    client.input.write_all(&packet).unwrap();
    let answer = client.packet();
    let (id, response) = Response::decode(&answer).unwrap();
    assert!(id == 99 && matches!(response, Response::Status { status: Status::Unsupported, .. }), "{response:?}");
    client.end();
}
