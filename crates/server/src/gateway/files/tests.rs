use munjigi_core::sftp::{
    Attributes, Handle, OpenFlags, Request, ResolveLast, Resolved, ResolvedKind, Response, Status, packet_length,
};

use super::follow::Follower;
use super::pending::{Broken, Passing};
use super::{FileJudge, FileQuestion};
use crate::gateway::copying::outbox::Noted;

fn judge() -> FileJudge {
    Box::new(|question| match question {
        FileQuestion::Download(path) | FileQuestion::DownloadTree(path) | FileQuestion::DownloadSome(path)
            if path.starts_with("/out") =>
        {
            Ok(())
        }
        FileQuestion::Upload(path) | FileQuestion::UploadTree(path) if path.starts_with("/in") => Ok(()),
        question => Err(format!("{question:?} is not for you")),
    })
}

fn packet(request: &Request<'_>, id: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    request.encode(id, &mut packet);
    packet
}

fn answer(response: &Response<'_>, id: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    response.encode(id, &mut packet);
    packet
}

/// Takes packets apart.
fn packets(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut packets = Vec::new();
    while let Some(length) = packet_length(rest).unwrap() {
        let (packet, after) = rest.split_at(length);
        packets.push(packet);
        rest = after;
    }
    packets
}

/// A client and a node at the follower.
struct Stage(Follower);

impl Stage {
    fn new() -> Self {
        Self::with(judge())
    }

    fn with(judge: FileJudge) -> Self {
        let mut follower = Follower::new(judge, 1);
        let mut init = Vec::new();
        Request::encode_init(&mut init);
        assert_eq!(follower.client(&mut init), Ok(Passing::Here));
        let mut version = Vec::new();
        Response::encode_version(&mut version);
        assert_eq!(follower.node(&mut version), Ok(Passing::Here));
        follower.take_for_node();
        follower.take_for_client();
        Self(follower)
    }

    /// The client asks; returns what the node hears: what passes, and what comes instead.
    fn ask(&mut self, request: &Request<'_>, id: u32) -> Vec<u8> {
        let mut packet = packet(request, id);
        let passes = self.0.client(&mut packet).unwrap() == Passing::On;
        let mut heard = if passes { packet } else { Vec::new() };
        heard.extend(self.0.take_for_node());
        heard
    }

    /// The node answers the last question about a path.
    fn resolve(&mut self, heard: &[u8], real: &str, kind: ResolvedKind) {
        for packet in packets(heard) {
            let (id, Request::Resolve { .. }) = Request::decode(packet).unwrap() else { panic!() };
            let body = Resolved { real: real.as_bytes(), plain: b"/plain", kind, size: 0 }.encode();
            let mut answer = answer(&Response::Extended { body: &body }, id);
            assert_eq!(self.0.node(&mut answer), Ok(Passing::Here));
        }
    }

    /// Opens a file; returns nothing if it was denied.
    fn open(&mut self, real: &str, flags: OpenFlags, handle: Handle) -> Option<()> {
        let (opened, passing) = self.try_open(real, flags, handle)?;
        assert_eq!(passing, Ok(Passing::On));
        assert_eq!(Response::decode(&opened), Ok((7, Response::Handle { handle })));
        Some(())
    }

    /// Asks for a file and has the node open it; returns its answer, and what becomes of that.
    fn try_open(&mut self, real: &str, flags: OpenFlags, handle: Handle) -> Option<(Vec<u8>, Result<Passing, Broken>)> {
        let open = Request::Open { path: b"asked", flags, attributes: Attributes::default() };
        let heard = self.ask(&open, 7);
        self.resolve(&heard, real, ResolvedKind::File);
        let heard = self.0.take_for_node();
        let packet = *packets(&heard).first()?;
        let (id, Request::Open { path, .. }) = Request::decode(packet).unwrap() else { panic!() };
        assert_eq!(path, real.as_bytes());
        let mut opened = answer(&Response::Handle { handle }, id);
        let passing = self.0.node(&mut opened);
        Some((opened, passing))
    }

    fn noted(&mut self) -> Vec<Noted> {
        self.0.take_events().into_iter().map(|event| event.what).collect()
    }
}

#[test]
fn nothing_by_path_reaches_the_node_before_its_real_path_was_judged() {
    let mut stage = Stage::new();
    assert_eq!(stage.open("/out/file", OpenFlags::TO_READ, 1), Some(()));
    assert_eq!(stage.open("/in/file", OpenFlags::TO_REPLACE, 2), Some(()));
    assert!(stage.noted().is_empty());
    for (real, flags) in [("/in/file", OpenFlags::TO_READ), ("/out/file", OpenFlags::TO_REPLACE)] {
        assert_eq!(stage.open(real, flags, 3), None);
        let event = stage.0.take_events().pop().unwrap();
        let Noted::Copied(file) = event.what else { panic!() };
        assert_eq!(file.path, real);
        // The answer is held until that is written.
        assert!(stage.0.take_for_client().is_empty());
        let (7, Response::Status { status: Status::PermissionDenied, .. }) =
            Response::decode(event.denied.as_deref().unwrap()).unwrap()
        else {
            panic!()
        };
    }
    let changes = [
        Request::Remove { path: b"x" },
        Request::Mkdir { path: b"x", attributes: Attributes::default() },
        Request::Rmdir { path: b"x" },
        Request::Setstat { path: b"x", attributes: Attributes::default() },
        Request::Lsetstat { path: b"x", attributes: Attributes::default() },
        Request::Symlink { target: b"/in/x", path: b"x" },
        Request::Rename { from: b"x", to: b"y" },
        Request::PosixRename { from: b"x", to: b"y" },
        Request::Hardlink { from: b"x", to: b"y" },
        Request::Stat { path: b"x" },
        Request::Opendir { path: b"x" },
        Request::Readlink { path: b"x" },
        Request::Statvfs { path: b"x" },
    ];
    for request in changes {
        for (real, allowed) in [("/secret", false), ("/in/x", true)] {
            let heard = stage.ask(&request, 9);
            stage.resolve(&heard, real, ResolvedKind::File);
            let heard = stage.0.take_for_node();
            assert_eq!(packets(&heard).len(), usize::from(allowed), "{request:?} {real}");
            let denied = stage.0.take_events().into_iter().filter(|event| event.denied.is_some()).count();
            assert_eq!(denied, usize::from(!allowed), "{request:?} {real}");
        }
    }
}

#[test]
fn a_rename_makes_nothing_readable_and_a_directory_is_judged_with_all_that_is_in_it() {
    let both: FileJudge = Box::new(|question| match question {
        FileQuestion::Upload(_) | FileQuestion::UploadTree(_) => Ok(()),
        FileQuestion::Download(path) if path.starts_with("/open") => Ok(()),
        FileQuestion::DownloadTree("/open/dir") | FileQuestion::DownloadSome("/open" | "/open/new") => Ok(()),
        _ => Err("no".to_owned()),
    });
    let place = |real: &str, kind| super::steps::Place { real: real.into(), plain: real.into(), kind };
    let (file, directory) = (ResolvedKind::File, ResolvedKind::Directory);
    for (from, to, kind, good) in [
        ("/open/a", "/open/new", file, true),
        ("/closed/a", "/closed/b", file, true),
        ("/open/a", "/closed/b", file, true),
        ("/closed/a", "/open/new", file, false),
        ("/open/dir", "/open/new", directory, true),
        ("/closed/dir", "/closed/new", directory, true),
        ("/closed/dir", "/open/new", directory, false),
    ] {
        let request = Request::PosixRename { from: b"", to: b"" };
        let judged = super::steps::judge(&both, &request, &[place(from, kind), place(to, ResolvedKind::Nothing)]);
        assert_eq!(judged.is_ok(), good, "{from} {to}");
    }
}

#[test]
fn requests_by_path_go_one_after_the_other_and_the_rest_goes_by() {
    let mut stage = Stage::new();
    stage.open("/out/file", OpenFlags::TO_READ, 1).unwrap();
    let first = stage.ask(&Request::Stat { path: b"a" }, 100);
    assert_eq!(packets(&first).len(), 1);
    assert!(stage.ask(&Request::Stat { path: b"b" }, 101).is_empty());
    assert!(stage.0.is_holding());
    let read = stage.ask(&Request::Read { handle: 1, offset: 0, length: 10 }, 102);
    assert_eq!(packets(&read).len(), 1);
    stage.resolve(&first, "/out/a", ResolvedKind::File);
    let next = stage.0.take_for_node();
    let heard: Vec<_> = packets(&next).into_iter().map(|packet| Request::decode(packet).unwrap().1).collect();
    assert_eq!(
        heard,
        [Request::Stat { path: b"/out/a" }, Request::Resolve { path: b"b", last: ResolveLast::Followed }]
    );
}

#[test]
fn ends_that_do_not_keep_to_the_protocol_are_cut_off() {
    let read = Request::Read { handle: 1, offset: 0, length: 10 };
    let mut stage = Stage::new();
    stage.open("/out/file", OpenFlags::TO_READ, 1).unwrap();
    let heard = stage.ask(&read, 5);
    let (id, _) = Request::decode(&heard).unwrap();
    // More than was asked for; an answer to nothing; a handle twice.
    assert_eq!(stage.0.node(&mut answer(&Response::Data { data: &[0; 11] }, id)), Err(Broken::Node));
    assert_eq!(stage.0.node(&mut answer(&Response::Handle { handle: 3 }, 4242)), Err(Broken::Node));
    let again = stage.try_open("/out/other", OpenFlags::TO_READ, 1).unwrap();
    assert_eq!(again.1, Err(Broken::Node));
    // What only the gateway may ask, what is not known, and what is not open is answered here.
    let mut stage = Stage::new();
    for request in [Request::Resolve { path: b"/", last: ResolveLast::Followed }, Request::Glob { pattern: b"*" }, read]
    {
        assert!(stage.ask(&request, 6).is_empty());
        let said = stage.0.take_for_client();
        assert!(matches!(Response::decode(&said), Ok((6, Response::Status { .. }))));
    }
    let mut old = vec![0, 0, 0, 5, 1, 0, 0, 0, 2];
    assert_eq!(Follower::new(judge(), 1).client(&mut old), Err(Broken::Version));
}

#[test]
fn what_is_open_when_the_connection_ends_is_told() {
    let mut stage = Stage::new();
    stage.open("/in/file", OpenFlags::TO_REPLACE, 1).unwrap();
    let heard = stage.ask(&Request::Write { handle: 1, offset: 0, data: b"abc" }, 5);
    let (id, _) = Request::decode(&heard).unwrap();
    stage.0.node(&mut answer(&Response::Status { status: Status::Ok, text: b"" }, id)).unwrap();
    stage.0.end("it broke");
    let noted = stage.noted();
    let [Noted::Copied(file)] = noted.as_slice() else { panic!("{noted:?}") };
    assert_eq!((file.path.as_str(), file.bytes, file.why.as_str()), ("/in/file", 3, "it broke"));
}

/// Many altered packets, the same in every run.
fn altered(seeds: &[Vec<u8>], start: u64, mut check: impl FnMut(&mut Vec<u8>)) {
    let mut state = start;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    for _ in 0..1 << 18 {
        let mut packet = seeds[next() % seeds.len()].clone();
        for _ in 0..next() % 3 {
            let at = next() % packet.len();
            packet[at] = next() as u8;
        }
        check(&mut packet);
    }
}

#[test]
fn altered_packets_of_either_end_break_nothing_and_cost_little() {
    let path: &[u8] = b"/in/x";
    let attributes = Attributes { size: Some(1), ..Attributes::default() };
    let requests = [
        Request::Open { path, flags: OpenFlags::TO_REPLACE, attributes },
        Request::Close { handle: 1 },
        Request::Read { handle: 1, offset: 0, length: 3 },
        Request::Write { handle: 2, offset: 0, data: b"abc" },
        Request::Fsetstat { handle: 1, attributes },
        Request::Rename { from: path, to: b"/in/y" },
        Request::Realpath { path: b"." },
        Request::CopyData { from: 1, from_offset: 0, length: 1, to: 2, to_offset: 0 },
    ];
    let resolved = Resolved { real: path, plain: path, kind: ResolvedKind::File, size: 3 }.encode();
    let answers = [
        Response::Status { status: Status::Ok, text: b"done" },
        Response::Handle { handle: 1 },
        Response::Data { data: b"abc" },
        Response::Attributes { attributes },
        Response::Extended { body: &resolved },
    ];
    let asked: Vec<_> = requests.iter().map(|request| packet(request, 1)).collect();
    let mut stage = Stage::new();
    let mut count = 0_u32;
    altered(&asked, 0x1234_5678, |bytes| {
        // As the relay does: whole packets only, and none while there is no room.
        if packet_length(bytes) != Ok(Some(bytes.len())) {
            return;
        }
        if !stage.0.has_room() || stage.0.client(bytes).is_err() {
            stage = Stage::new();
        }
        for packet in packets(&stage.0.take_for_node()).into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>() {
            count += 1;
            let id = Request::decode(&packet).unwrap().0;
            let mut answer = answer(&answers[count as usize % answers.len()], id);
            if count.is_multiple_of(3) {
                let at = count as usize % answer.len();
                answer[at] ^= 1 << (count % 8);
            }
            if packet_length(&answer) == Ok(Some(answer.len())) && stage.0.node(&mut answer).is_err() {
                stage = Stage::new();
                break;
            }
        }
        stage.0.take_for_client();
        stage.0.take_events();
    });
    assert!(count > 1000);
}

#[test]
fn what_is_open_is_judged_again_for_what_it_was_opened() {
    let allowed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let now = allowed.clone();
    let judge: FileJudge = Box::new(move |question| match question {
        FileQuestion::Upload("/in/a") => Ok(()),
        FileQuestion::Download("/out/b") if now.load(std::sync::atomic::Ordering::Relaxed) => Ok(()),
        question => Err(format!("{question:?} is not for you")),
    });
    let mut stage = Stage::with(judge);
    assert_eq!(stage.0.judge_again(), Ok(()), "nothing is open");
    stage.open("/in/a", OpenFlags::TO_REPLACE, 1).unwrap();
    stage.open("/out/b", OpenFlags::TO_READ, 2).unwrap();
    assert_eq!(stage.0.judge_again(), Ok(()));
    allowed.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(stage.0.judge_again().unwrap_err().contains("/out/b"));
}
