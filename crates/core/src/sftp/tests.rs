use super::*;

fn attributes() -> Attributes {
    Attributes {
        size: Some(7),
        owner: Some(Owner { uid: 1000, gid: 100 }),
        permissions: Some(0o100_644),
        times: Some(Times { accessed: 1, modified: u32::MAX }),
    }
}

fn requests() -> Vec<Request<'static>> {
    let (path, none) = ("/srv/한글 1".as_bytes(), Attributes::default());
    vec![
        Request::Open { path, flags: OpenFlags::TO_REPLACE, attributes: attributes() },
        Request::Close { handle: 7 },
        Request::Read { handle: 7, offset: 1 << 40, length: 32768 },
        Request::Write { handle: 7, offset: 9, data: b"data" },
        Request::Lstat { path },
        Request::Fstat { handle: 1 },
        Request::Setstat { path, attributes: attributes() },
        Request::Fsetstat { handle: 1, attributes: none },
        Request::Opendir { path: b"" },
        Request::Readdir { handle: 1 },
        Request::Remove { path },
        Request::Mkdir { path, attributes: none },
        Request::Rmdir { path },
        Request::Realpath { path: b"." },
        Request::Stat { path },
        Request::Rename { from: path, to: b"b" },
        Request::Readlink { path },
        Request::Symlink { target: b"../x", path },
        Request::PosixRename { from: path, to: b"b" },
        Request::Statvfs { path },
        Request::Fstatvfs { handle: 3 },
        Request::Hardlink { from: path, to: b"b" },
        Request::Fsync { handle: 3 },
        Request::Lsetstat { path, attributes: attributes() },
        Request::Limits,
        Request::ExpandPath { path: b"~/x" },
        Request::CopyData { from: 1, from_offset: 2, length: 3, to: 4, to_offset: 5 },
        Request::UsersGroupsById { uids: vec![0, 1000], gids: vec![] },
        Request::Resolve { path, last: ResolveLast::Itself },
        Request::Glob { pattern: b"/var/log/*.log" },
    ]
}

fn responses() -> Vec<Response<'static>> {
    let entry = Entry { name: b"a".to_vec(), line: b"-rw-r--r-- 1 a".to_vec(), attributes: attributes() };
    vec![
        Response::Status { status: Status::PermissionDenied, text: b"no" },
        Response::Handle { handle: 1 },
        Response::Data { data: b"bytes" },
        Response::Names { entries: vec![entry.clone(), entry] },
        Response::Attributes { attributes: attributes() },
        Response::Extended { body: b"body" },
    ]
}

#[test]
fn each_packet_round_trips_and_has_one_form() {
    for request in requests() {
        let mut packet = Vec::new();
        request.encode(9, &mut packet);
        assert_eq!(packet_length(&packet), Ok(Some(packet.len())));
        assert_eq!(Request::decode(&packet), Ok((9, request.clone())));
        set_id(&mut packet, 77);
        assert_eq!(Request::decode(&packet), Ok((77, request)));
    }
    for response in responses() {
        let mut packet = Vec::new();
        response.encode(9, &mut packet);
        assert_eq!(packet_length(&packet), Ok(Some(packet.len())));
        assert_eq!(Response::decode(&packet), Ok((9, response)));
    }
    let (mut init, mut version) = (Vec::new(), Vec::new());
    Request::encode_init(&mut init);
    Response::encode_version(&mut version);
    assert_eq!(Request::decode_init(&init), Ok(3));
    assert_eq!(Response::decode_version(&version), Ok(3));
}

#[test]
fn the_layout_is_that_of_the_draft() {
    let mut packet = Vec::new();
    Request::Open { path: b"/a", flags: OpenFlags::TO_READ, attributes: Attributes::default() }.encode(1, &mut packet);
    assert_eq!(packet, [0, 0, 0, 19, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'/', b'a', 0, 0, 0, 1, 0, 0, 0, 0]);
    let mut packet = Vec::new();
    Response::Status { status: Status::Eof, text: b"E" }.encode(2, &mut packet);
    assert_eq!(packet, [0, 0, 0, 18, 101, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, b'E', 0, 0, 0, 0]);
}

#[test]
fn data_is_written_in_place_and_nothing_remains_of_what_is_not_filled() {
    let mut out = b"before".to_vec();
    assert_eq!(Response::encode_data(5, 100, &mut out, |_| None), None);
    assert_eq!(out, b"before");
    let used = Response::encode_data(5, 100, &mut out, |room| {
        room[..3].copy_from_slice(b"abc");
        Some(3)
    });
    assert_eq!(used, Some(3));
    let packet = out.strip_prefix(b"before").unwrap();
    assert_eq!(packet_length(packet), Ok(Some(packet.len())));
    assert_eq!(Response::decode(packet), Ok((5, Response::Data { data: b"abc" })));
}

#[test]
fn a_length_is_judged_before_its_packet_is_there() {
    assert_eq!(packet_length(&[0, 0, 0]), Ok(None));
    assert_eq!(packet_length(&[0, 0, 0, 0]), Err(SftpError::Short));
    assert_eq!(packet_length(&[0, 4, 0, 0]), Ok(Some(MAX_PACKET + LENGTH_BYTES)));
    assert_eq!(packet_length(&[0, 4, 0, 1]), Err(SftpError::TooLong));
}

#[test]
fn what_no_field_may_hold_is_refused() {
    let encoded = |request: Request<'_>| {
        let mut packet = Vec::new();
        request.encode(1, &mut packet);
        packet
    };
    let decoded = |packet: &[u8]| Request::decode(packet).map(drop);
    assert_eq!(decoded(&encoded(Request::Stat { path: b"a\0b" })), Err(SftpError::Value));
    let long = vec![b'a'; MAX_PATH + 1];
    assert_eq!(decoded(&encoded(Request::Stat { path: &long })), Err(SftpError::TooLong));
    let data = vec![0; MAX_DATA + 1];
    assert_eq!(decoded(&encoded(Request::Write { handle: 0, offset: 0, data: &data })), Err(SftpError::TooLong));
    let mut packet = encoded(Request::Stat { path: b"a" });
    packet.push(0);
    assert_eq!(decoded(&packet), Err(SftpError::Trailing));
    for real in [&b""[..], b"a", b"/a/../b", b"/a//b", b"/a/", b"/.", b"/a\0"] {
        let body = Resolved { real, plain: b"/", kind: ResolvedKind::File, size: 0 }.encode();
        assert_eq!(Resolved::decode(&body), Err(SftpError::Value), "{real:?}");
    }
    let good = Resolved { real: b"/", plain: b"/a b", kind: ResolvedKind::Nothing, size: 1 };
    assert_eq!(Resolved::decode(&good.encode()), Ok(good.clone()));
}

#[test]
fn altered_packets_are_refused_or_read_but_never_more() {
    for (index, request) in requests().into_iter().enumerate().step_by(5) {
        let mut seed = Vec::new();
        request.encode(1, &mut seed);
        crate::mutate::each(&seed, index as u64 + 1, |bytes| {
            let _ = packet_length(bytes);
            let _ = Request::decode_init(bytes);
            if let Ok((id, request)) = Request::decode(bytes) {
                let mut again = Vec::new();
                request.encode(id, &mut again);
                if request != Request::Unknown {
                    assert_eq!(Request::decode(&again), Ok((id, request)));
                }
            }
        });
    }
    for (index, response) in responses().into_iter().enumerate() {
        let mut seed = Vec::new();
        response.encode(1, &mut seed);
        crate::mutate::each(&seed, index as u64 + 99, |bytes| {
            let _ = Response::decode_version(bytes);
            if let Ok((id, response)) = Response::decode(bytes) {
                let mut again = Vec::new();
                response.encode(id, &mut again);
                assert_eq!(Response::decode(&again), Ok((id, response)));
            }
        });
    }
    let seed = Resolved { real: b"/a/b", plain: b"/c", kind: ResolvedKind::Link, size: 3 }.encode();
    crate::mutate::each(&seed, 5, |bytes| drop(Resolved::decode(bytes)));
}
