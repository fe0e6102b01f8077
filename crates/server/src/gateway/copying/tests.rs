//! What passes the gateway, what does not, and what is written down.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use munjigi_core::copy::{
    Attributes, Done, EntryPath, FileHead, Hello, Message, Moment, Ready, RootKind, VERSION, data_header,
};
use munjigi_core::recording::{FileCopied, FileDirection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;

use super::PathJudge;
use super::eye::{Eye, From, Looked};
use super::follow::Followed;
use super::outbox::{Noted, Outbox};

const LONG: Duration = Duration::from_secs(60);

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes()).unwrap()
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut bytes));
    bytes
}

fn hello() -> Vec<u8> {
    let hello = Hello { version: VERSION, recursive: true, preserve: false, resume: false, totals: false };
    encode(&[Message::Hello(hello)])
}

fn ready() -> Vec<u8> {
    encode(&[Message::Ready(Ready { version: VERSION, kind: RootKind::Directory, real_path: b"/srv".to_vec() })])
}

/// A file of five bytes as a sender tells it.
fn file(name: &str) -> Vec<u8> {
    let attributes = Attributes { mode: 0o644, modified: Moment { seconds: 0, nanoseconds: 0 } };
    let mut bytes = encode(&[Message::File(FileHead { path: path(name), size: Some(5), offset: 0, attributes })]);
    bytes.extend_from_slice(&data_header(5));
    bytes.extend_from_slice(b"hello");
    bytes.extend(encode(&[Message::EndFile { hash: [7; 32] }]));
    bytes
}

/// Lets everything pass but what has `secret` in it.
fn judge() -> PathJudge {
    Box::new(|path| if path.contains("secret") { Err(format!("{path} is not for you")) } else { Ok(()) })
}

fn copied(direction: FileDirection, path: &str, bytes: u64, why: &str) -> FileCopied {
    let hash = if why.is_empty() { [7; 32] } else { [0; 32] };
    FileCopied { connection: 1, direction, path: path.to_owned(), bytes, kept: 0, hash, why: why.to_owned() }
}

fn all(eye: &mut Eye, from: From, bytes: &[u8]) {
    assert_eq!(eye.look(from, bytes), Ok(Looked { taken: bytes.len(), held: 0, denied: None }));
}

#[test]
fn files_of_both_directions_are_written_down_with_the_nodes_hash() {
    for (direction, sender, receiver) in
        [(FileDirection::Upload, From::Client, From::Node), (FileDirection::Download, From::Node, From::Client)]
    {
        let mut eye = Eye::new(direction, 1, judge());
        all(&mut eye, From::Client, &hello());
        all(&mut eye, From::Node, &ready());
        let sent = [file("a"), file("b"), file("c")].concat();
        for byte in sent {
            eye.look(sender, &[byte]).unwrap();
        }
        all(&mut eye, receiver, &encode(&[Message::Done(Done { file: 0, hash: [7; 32] })]));
        all(&mut eye, receiver, &encode(&[Message::Done(Done { file: 1, hash: [8; 32] })]));
        let problem = Message::Problem { file: Some(2), path: path("c"), why: "no space".to_owned() };
        all(&mut eye, receiver, &encode(&[problem]));
        assert_eq!(
            eye.take(),
            [
                copied(direction, "/srv/a", 5, ""),
                copied(direction, "/srv/b", 5, "both ends have another SHA-256"),
                copied(direction, "/srv/c", 5, "no space"),
            ]
        );
    }
}

#[test]
fn what_broke_off_is_written_down_as_far_as_it_came() {
    let mut eye = Eye::new(FileDirection::Upload, 1, judge());
    all(&mut eye, From::Client, &hello());
    all(&mut eye, From::Node, &ready());
    let bytes = file("a");
    // All but the end: 5 bytes of header and a field of 4 + 32.
    all(&mut eye, From::Client, &bytes[..bytes.len() - 41]);
    eye.end("it broke");
    assert_eq!(eye.take(), [copied(FileDirection::Upload, "/srv/a", 5, "it broke")]);
}

#[test]
fn nothing_is_sent_before_its_root_is_known_and_nothing_that_is_no_copy() {
    let mut eye = Eye::new(FileDirection::Upload, 1, judge());
    all(&mut eye, From::Client, &hello());
    assert!(eye.look(From::Client, &file("a")).is_err());
    for from in [From::Client, From::Node] {
        let mut eye = Eye::new(FileDirection::Download, 1, judge());
        assert!(eye.look(from, b"GET / HTTP/1.1\r\n").is_err());
    }
}

/// The relay's side of a followed copy, and the node's.
fn followed(direction: FileDirection, room: usize) -> (Followed<DuplexStream>, DuplexStream, Arc<Outbox>) {
    let (near, node) = duplex(room);
    let outbox = Arc::new(Outbox::default());
    let eye = Eye::new(direction, 1, judge());
    (Followed::new(near, |_, _| {}, eye, Arc::clone(&outbox)), node, outbox)
}

/// Takes what waits to be written, as the task that writes it does.
fn written(outbox: &Outbox) -> Vec<FileCopied> {
    outbox
        .take_all()
        .into_iter()
        .map(|entry| {
            if let Some(denied) = entry.denied {
                denied.send(()).unwrap();
            }
            match entry.what {
                Noted::Copied(file) => file,
                Noted::Changed(change) => panic!("{change:?}"),
            }
        })
        .collect()
}

#[tokio::test]
async fn a_denied_file_never_reaches_the_client_and_the_trail_has_it_first() {
    let (mut followed, mut node, outbox) = followed(FileDirection::Download, 1 << 20);
    followed.write_all(&hello()).await.unwrap();
    let good = [ready(), file("open")].concat();
    let sent = [good.clone(), file("secret"), file("open2")].concat();
    // In pieces that cut every message.
    for piece in sent.chunks(3) {
        node.write_all(piece).await.unwrap();
    }
    let mut heard = vec![0; good.len()];
    timeout(LONG, followed.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, good);
    // The last word waits for the trail.
    let mut rest = Vec::new();
    let mut buffer = [0; 64 * 1024];
    let mut buf = tokio::io::ReadBuf::new(&mut buffer);
    let polled = {
        let mut cx = Context::from_waker(Waker::noop());
        tokio::io::AsyncRead::poll_read(Pin::new(&mut followed), &mut cx, &mut buf)
    };
    assert!(matches!(polled, Poll::Pending), "{polled:?}");
    let seen = written(&outbox);
    assert_eq!(seen[0].path, "/srv/secret");
    assert_eq!(seen[1].path, "/srv/open");
    timeout(LONG, followed.read_to_end(&mut rest)).await.unwrap().unwrap();
    let why = "/srv/secret is not for you".to_owned();
    assert_eq!(rest, encode(&[Message::Failed { code: "AccessDeniedException".to_owned(), why }]));
}

#[tokio::test]
async fn a_denied_upload_stops_before_its_name_is_complete_at_the_node() {
    let (mut followed, mut node, outbox) = followed(FileDirection::Upload, 1 << 20);
    followed.write_all(&hello()).await.unwrap();
    node.write_all(&ready()).await.unwrap();
    let mut heard = vec![0; ready().len()];
    followed.read_exact(&mut heard).await.unwrap();
    followed.write_all(&file("open")).await.unwrap();
    followed.write_all(&file("secret")).await.unwrap();
    // What follows is dropped.
    followed.write_all(&file("more")).await.unwrap();
    let mut passed = Vec::new();
    timeout(LONG, node.read_to_end(&mut passed)).await.unwrap().unwrap();
    assert_eq!(passed, [hello(), file("open")].concat());
    assert_eq!(written(&outbox).len(), 2);
    let mut rest = Vec::new();
    timeout(LONG, followed.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("not for you"));
}

/// Reads with room for so many bytes at a time until the stream ends or has nothing to give.
fn read_by(followed: &mut Followed<DuplexStream>, room: usize) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
    loop {
        let mut buf = tokio::io::ReadBuf::new(&mut buffer);
        let mut cx = Context::from_waker(Waker::noop());
        match tokio::io::AsyncRead::poll_read(Pin::new(followed), &mut cx, &mut buf) {
            Poll::Ready(read) => read.unwrap(),
            Poll::Pending => return all,
        }
        if buf.filled().is_empty() {
            return all;
        }
        all.extend_from_slice(buf.filled());
    }
}

#[tokio::test]
async fn whatever_room_a_reader_has_it_gets_every_whole_message_and_nothing_that_is_denied() {
    let good = [ready(), file("open"), file("a name that is longer than the room of most readers here")].concat();
    let sent = [good.clone(), file("secret"), file("open2")].concat();
    let why = "/srv/secret is not for you".to_owned();
    let last = encode(&[Message::Failed { code: "AccessDeniedException".to_owned(), why }]);
    for room in [1, 2, 3, 5, 17, 40, 63, 64, 65, 128, 4096] {
        for pieces in [1, 7, 1 << 20] {
            let (mut followed, mut node, outbox) = followed(FileDirection::Download, 1 << 20);
            followed.write_all(&hello()).await.unwrap();
            for piece in sent.chunks(pieces) {
                node.write_all(piece).await.unwrap();
            }
            let heard = read_by(&mut followed, room);
            assert_eq!(heard, good, "room for {room}, pieces of {pieces}");
            assert_eq!(written(&outbox).len(), 3);
            assert_eq!(read_by(&mut followed, room), last, "room for {room}, pieces of {pieces}");
        }
    }
}

#[tokio::test]
async fn an_end_inside_of_a_message_is_an_error_for_any_reader() {
    for room in [1, 64, 4096] {
        let (mut followed, mut node, _outbox) = followed(FileDirection::Download, 1 << 20);
        followed.write_all(&hello()).await.unwrap();
        let sent = ready();
        node.write_all(&sent[..sent.len() - 1]).await.unwrap();
        drop(node);
        let mut buffer = vec![0; room];
        let error = timeout(LONG, followed.read(&mut buffer)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "room for {room}");
    }
}

#[tokio::test]
async fn bytes_pass_unchanged_through_a_narrow_node() {
    let (mut followed, mut node, _outbox) = followed(FileDirection::Upload, 7);
    let sent = [hello(), ready()].concat();
    let files: Vec<u8> = (0..100).flat_map(|n| file(&format!("f{n}"))).collect();
    let (expected, answer) = ([hello(), files.clone()].concat(), ready());
    let peer = tokio::spawn(async move {
        node.write_all(&answer).await.unwrap();
        let mut heard = vec![0; expected.len()];
        node.read_exact(&mut heard).await.unwrap();
        assert!(heard == expected);
    });
    followed.write_all(&sent[..hello().len()]).await.unwrap();
    let mut heard = vec![0; ready().len()];
    // A reader's buffer holds the longest message, as a relay's does.
    let mut reader = tokio::io::BufReader::with_capacity(64 * 1024, &mut followed);
    reader.read_exact(&mut heard).await.unwrap();
    drop(reader);
    assert_eq!(heard, ready());
    followed.write_all(&files).await.unwrap();
    timeout(LONG, peer).await.unwrap().unwrap();
}
