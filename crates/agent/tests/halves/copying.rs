//! Copies: a worker as the OS user, at the place that a grant names, without network, gone with its session.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::BytesMut;
use munjigi_core::copy::{
    Attributes, Decoder, EntryPath, FileHead, Hello, Kinds, Message, Moment, Piece, RootKind, VERSION, data_header,
};
use munjigi_core::endpoint::{Endpoint, NodePath};
use munjigi_core::grant::Action;
use munjigi_core::wire::message::{Connect, EndpointWish, Open, Refused, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Stream;
use munjigi_link::framed::FrameReader;
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::agent::{Agent, children, lives, until, user};
use crate::server::{Linked, Server, Session};

/// Longest wait for what comes at once on an idle machine.
const LONG: Duration = Duration::from_secs(120);
const ATTRIBUTES: Attributes = Attributes { mode: 0o640, modified: Moment { seconds: 1, nanoseconds: 0 } };

fn upload(path: &str) -> Endpoint {
    Endpoint::Upload(NodePath::new(path).unwrap())
}

fn download(path: &str) -> Endpoint {
    Endpoint::Download(NodePath::new(path).unwrap())
}

async fn session(server: &Server, link: &Linked, first: Vec<Endpoint>) -> Session {
    let grant = server.grant(link, &user().name, Action::Connect(first), false);
    Session::start(link, server.sign(&grant), None).await.unwrap()
}

/// One copy's stream, and what of it was not read yet.
struct Copy {
    stream: Stream,
    heard: BytesMut,
}

async fn open(link: &Linked, session: &str, endpoint: &Endpoint, grant: Vec<u8>) -> Result<Copy, Refused> {
    let mut stream = link.connection.opener().open().await.unwrap();
    let wish = open::Wish::Connect(Connect {
        session_id: session.to_owned(),
        endpoint: Some(EndpointWish::from(endpoint)),
        grant: grant.into(),
        ..Connect::default()
    });
    let mut first = BytesMut::new();
    Frame::Open(Box::new(Open { wish: Some(wish) })).encode(&mut first).unwrap();
    stream.write_all(&first).await.unwrap();
    stream.flush().await.unwrap();
    let mut reader = FrameReader::new(stream);
    match timeout(LONG, reader.read(FrameSet::ANSWER)).await.unwrap().unwrap().unwrap() {
        Frame::Accepted(_) => {
            let (stream, heard) = reader.into_parts();
            Ok(Copy { stream, heard })
        }
        Frame::Refused(refused) => Err(refused),
        other => panic!("{other:?}"),
    }
}

impl Copy {
    async fn say(&mut self, messages: &[Message]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        self.raw(&bytes).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn hello(&mut self) {
        let hello = Hello { version: VERSION, recursive: true, preserve: false, resume: false, totals: false };
        self.say(&[Message::Hello(hello)]).await;
    }

    /// Reads messages and data until one message fits.
    async fn hear(&mut self, allowed: Kinds, last: impl Fn(&Message) -> bool) -> (Vec<Message>, Vec<u8>) {
        let (mut messages, mut data, mut decoder) = (Vec::new(), Vec::new(), Decoder::default());
        loop {
            let bytes = self.heard.split();
            let mut input = &bytes[..];
            while let Some(piece) = decoder.next(&mut input, allowed).unwrap() {
                match piece {
                    Piece::Data(part) => data.extend_from_slice(part),
                    Piece::Message(message) => messages.push(message),
                }
                if messages.last().is_some_and(&last) {
                    self.heard.extend_from_slice(input);
                    return (messages, data);
                }
            }
            assert_ne!(timeout(LONG, self.stream.read_buf(&mut self.heard)).await.unwrap().unwrap(), 0, "{messages:?}");
        }
    }

    async fn ready(&mut self) -> (RootKind, String) {
        self.hello().await;
        let (messages, _) = self.hear(Kinds::ANSWER, |_| true).await;
        match &messages[0] {
            Message::Ready(ready) => (ready.kind, String::from_utf8(ready.real_path.clone()).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

/// A directory that the OS user of these tests may write to.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let user = user();
    std::os::unix::fs::chown(place.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    place
}

fn workers(agent: &Agent) -> Vec<Pid> {
    let link_half = agent.link_half();
    children(agent.spawn_half()).into_iter().filter(|pid| *pid != link_half).collect()
}

pub(crate) async fn files_go_both_ways_as_the_user_and_nowhere_that_no_grant_names() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let place = place();
    let path = place.path().canonicalize().unwrap().join("한글.txt").display().to_string();
    let session = session(&server, &link, vec![upload(&path)]).await;
    let mut copy = open(&link, &session.id, &upload(&path), Vec::new()).await.unwrap();
    assert_eq!(copy.ready().await, (RootKind::Missing, path.clone()));

    // The worker is confined before it hears anything.
    let [worker] = workers(&agent)[..] else { panic!("{:?}", workers(&agent)) };
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "1"));
    assert!(field("Uid:").split_whitespace().all(|uid| uid == user().uid.to_string()));

    let head = FileHead { path: EntryPath::root(), size: Some(5), offset: 0, attributes: ATTRIBUTES };
    copy.say(&[Message::File(head)]).await;
    copy.raw(&data_header(5)).await;
    copy.raw(b"hello").await;
    let hash = digest(&SHA256, b"hello").as_ref().try_into().unwrap();
    copy.say(&[Message::EndFile { hash }, Message::Finish]).await;
    let (heard, _) = copy.hear(Kinds::RECEIVER, |message| matches!(message, Message::Finished)).await;
    assert!(matches!(&heard[..], [Message::Done(done), Message::Finished] if done.hash == hash), "{heard:?}");
    let written = std::fs::metadata(&path).unwrap();
    assert_eq!((written.uid(), written.mode() & 0o777, written.len()), (user().uid.as_raw(), 0o640, 5));
    drop(copy);
    until("the worker to end", || !lives(worker)).await;

    // The same path to be read is another right.
    let refused = open(&link, &session.id, &download(&path), Vec::new()).await.err().unwrap();
    assert_eq!(refused.code, "GrantRequired");
    let mut grant = server.grant(&link, &user().name, Action::Extend(vec![download(&path)]), false);
    grant.session = munjigi_core::id::SessionId::parse(&session.id).unwrap();
    let mut copy = open(&link, &session.id, &download(&path), server.sign(&grant)).await.unwrap();
    assert_eq!(copy.ready().await, (RootKind::File, path.clone()));
    let between = |message: &Message| matches!(message, Message::File(_));
    copy.hear(Kinds::BETWEEN_FILES, between).await;
    let (_, data) = copy.hear(Kinds::IN_FILE, |message| matches!(message, Message::EndFile { .. })).await;
    assert_eq!(data, b"hello");
}

pub(crate) async fn a_copy_ends_with_its_session_and_leaves_nothing_behind() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let place = place();
    let path = place.path().join("big").display().to_string();
    let mut session = session(&server, &link, vec![upload(&path)]).await;
    let mut copy = open(&link, &session.id, &upload(&path), Vec::new()).await.unwrap();
    copy.ready().await;
    let [worker] = workers(&agent)[..] else { panic!("{:?}", workers(&agent)) };
    let head = FileHead { path: EntryPath::root(), size: Some(1 << 40), offset: 0, attributes: ATTRIBUTES };
    copy.say(&[Message::File(head)]).await;
    copy.raw(&data_header(1000)).await;
    copy.raw(&[1; 1000]).await;
    until("the file to begin", || std::fs::read_dir(place.path()).unwrap().count() == 1).await;
    session.end("Terminated").await;
    until("the worker to end", || !lives(worker)).await;
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
