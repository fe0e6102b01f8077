//! `rsync`, run by a worker on the node and followed here: where its paths lead is judged before it begins, and what it did to
//! each file is written down as it tells.
//!
//! What passes is rsync's own protocol and is not read. So policy must allow everything below the paths, for as long as
//! it runs; where it tells paths apart there, rsync is refused.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::file_command::RsyncCall;
use munjigi_core::file_command::rsync_link::{
    GO, HEADER_BYTES, KIND_DATA, KIND_ERRORS, RsyncDone, RsyncSays, body_length,
};
use munjigi_core::recording::{FileAction, FileChange, FileCopied, FileDirection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::oneshot;

use super::session::FilesSession;
use super::{FileEnd, FileJudge, FileQuestion, relay};
use crate::Server;
use crate::gateway::copying::outbox::{Entry, Noted, Outbox};

/// Bytes that are carried at once, either way.
const PIECE: usize = 128 * 1024;
/// How long what follows a message on standard error waits: rsync ends its client by what it prints, and the client's `ssh`, which
/// writes output before errors, with it. So often at most.
const ERRORS_FIRST: (Duration, u32) = (Duration::from_millis(20), 50);
/// rsync's own status for an error in starting (`RERR_STARTCLIENT`).
const START_FAILED: u32 = 5;
/// rsync's own status for a connection that broke (`RERR_STREAMIO`).
const BROKE: u32 = 12;

/// Serves one call of rsync.
pub(super) async fn serve<S, E>(
    server: &Arc<Server>,
    session: &FilesSession,
    stream: S,
    mut errors: E,
    call: &RsyncCall,
) -> FileEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    E: AsyncWrite + Send + Unpin,
{
    let Some((connection, judge)) = session.take() else { return FileEnd::failed("the session has no connection") };
    let number = connection.number();
    let journal = session.journal(&connection);
    let outbox = Arc::new(Outbox::default());
    let facts = Arc::clone(&session.session().handle().facts);
    let written = tokio::spawn(Arc::clone(&outbox).write(Arc::clone(server), facts, journal));
    let follow = Follow { call, judge, outbox: &outbox, number };
    let ended = follow.carry(stream, connection, &mut errors).await;
    outbox.close();
    // What was done is written before its client hears that it is over.
    let _ = written.await;
    match ended {
        Ok(_) if outbox.is_lost() => FileEnd::failed("what was done could not be written into the trail"),
        Ok(ended) => ended,
        Err(error) => FileEnd { status: BROKE, message: format!("the transfer ended: {error}") },
    }
}

/// Follows one call.
pub(super) struct Follow<'a> {
    pub(super) call: &'a RsyncCall,
    pub(super) judge: FileJudge,
    pub(super) outbox: &'a Arc<Outbox>,
    pub(super) number: u64,
}

impl Follow<'_> {
    /// Carries it to its end.
    pub(super) async fn carry<S, N, E>(&self, stream: S, node: N, errors: &mut E) -> io::Result<FileEnd>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        N: AsyncRead + AsyncWrite + Send + Unpin,
        E: AsyncWrite + Send + Unpin,
    {
        let (mut from_client, mut to_client) = tokio::io::split(stream);
        let (from_node, mut to_node) = tokio::io::split(node);
        let mut from_node = BufReader::with_capacity(PIECE, from_node);
        let paths = match message(&mut from_node, &mut Vec::new()).await? {
            Message::Says(RsyncSays::Ready { paths }) => paths,
            Message::Says(RsyncSays::Failed { why }) => {
                // Where it leads is not known.
                let asked = self.call.paths().first().map(|path| path.as_str().to_owned());
                self.note(self.not_copied(asked.unwrap_or_default(), &why));
                return Ok(failed(&why));
            }
            _ => return Err(invalid("the node does not keep to the protocol")),
        };
        let first = paths.first().map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default();
        if let Err(why) = self.judge(&paths) {
            self.denied(first, &why).await?;
            return Ok(failed(&why));
        }
        to_node.write_all(&[GO]).await?;
        to_node.flush().await?;
        let towards_node = async {
            let mut piece = vec![0; PIECE];
            loop {
                let count = from_client.read(&mut piece).await?;
                if count == 0 {
                    return to_node.shutdown().await;
                }
                to_node.write_all(piece.get(..count).unwrap_or_default()).await?;
                to_node.flush().await?;
            }
        };
        let towards_client = async {
            let mut body = Vec::new();
            // What rsync said last on standard error.
            let mut complaint = Vec::new();
            let (pause, mut pauses) = ERRORS_FIRST;
            let mut has_complained = false;
            loop {
                match message(&mut from_node, &mut body).await? {
                    Message::Data => {
                        if std::mem::take(&mut has_complained) && pauses > 0 {
                            pauses -= 1;
                            tokio::time::sleep(pause).await;
                        }
                        to_client.write_all(&body).await?;
                        to_client.flush().await?;
                    }
                    Message::Errors => {
                        complaint.clone_from(&body);
                        has_complained = true;
                        errors.write_all(&body).await?;
                        errors.flush().await?;
                    }
                    Message::Says(RsyncSays::Done { done, path, size, hash, why }) => {
                        self.room().await?;
                        self.note(self.told(done, &path, size, hash, why));
                    }
                    Message::Says(RsyncSays::Exit { status }) => {
                        if status != 0 {
                            self.note(self.not_copied(first.clone(), &incomplete(status, &complaint)));
                        }
                        to_client.shutdown().await?;
                        return Ok(FileEnd { status: u32::from(status), message: String::new() });
                    }
                    Message::Says(RsyncSays::Failed { why }) => return Ok(failed(&why)),
                    Message::Says(RsyncSays::Ready { .. }) => {
                        return Err(invalid("the node does not keep to the protocol"));
                    }
                }
            }
        };
        let no_longer_allowed = relay::denied_by(|| self.judge(&paths));
        tokio::pin!(towards_node, towards_client, no_longer_allowed);
        let mut sends = true;
        let why = loop {
            tokio::select! {
                ended = &mut towards_client => return ended,
                broken = &mut towards_node, if sends => match broken {
                    Ok(()) => sends = false,
                    Err(error) => return Err(error),
                },
                why = &mut no_longer_allowed => break why,
            }
        };
        self.denied(first.clone(), &why).await?;
        Ok(failed(&why))
    }

    /// Asks policy about everything that rsync may touch.
    fn judge(&self, paths: &[Vec<u8>]) -> Result<(), String> {
        let question = |path: &str| match self.call.sends() {
            true => (self.judge)(FileQuestion::DownloadTree(path)),
            false => (self.judge)(FileQuestion::UploadTree(path)),
        };
        if self.call.follows_links() {
            // A link may lead anywhere.
            question("/")?;
        }
        paths.iter().try_for_each(|path| {
            if !path.starts_with(b"/") {
                return Err("the node named a path that is none".to_owned());
            }
            question(&String::from_utf8_lossy(path))
        })
    }

    fn direction(&self) -> FileDirection {
        if self.call.sends() { FileDirection::Download } else { FileDirection::Upload }
    }

    /// Writes down what policy refused, and waits until the trail has it.
    async fn denied(&self, path: String, why: &str) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        self.outbox.push([Entry { what: self.not_copied(path, why), denied: Some(tell) }]);
        told.await.map_err(|_| io::Error::other("the trail cannot be written"))
    }

    fn not_copied(&self, path: String, why: &str) -> Noted {
        let (connection, direction, why) = (self.number, self.direction(), why.to_owned());
        Noted::Copied(FileCopied { connection, direction, path, bytes: 0, kept: 0, hash: [0; 32], why })
    }

    fn told(&self, done: RsyncDone, path: &[u8], bytes: u64, hash: Option<[u8; 32]>, why: String) -> Noted {
        let path = String::from_utf8_lossy(path).into_owned();
        let connection = self.number;
        let action = match done {
            RsyncDone::Sent | RsyncDone::Received => {
                let why = match hash {
                    Some(_) => String::new(),
                    None if why.is_empty() => "its hash is not known".to_owned(),
                    None => why,
                };
                let (direction, hash) = (self.direction(), hash.unwrap_or_default());
                return Noted::Copied(FileCopied { connection, direction, path, bytes, kept: 0, hash, why });
            }
            RsyncDone::Removed => FileAction::Remove,
            RsyncDone::Directory => FileAction::MakeDirectory,
            RsyncDone::Link => FileAction::SymbolicLink,
            RsyncDone::HardLink => FileAction::HardLink,
        };
        Noted::Changed(FileChange { connection, action, path, detail: String::new(), bytes: 0, why })
    }

    fn note(&self, what: Noted) {
        self.outbox.push([Entry { what, denied: None }]);
    }

    async fn room(&self) -> io::Result<()> {
        use std::task::Poll;
        std::future::poll_fn(|cx| if self.outbox.has_room(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        if self.outbox.is_lost() { Err(io::Error::other("the trail cannot be written")) } else { Ok(()) }
    }
}

/// What came from the worker.
enum Message {
    /// The body is for the client.
    Data,
    /// The body is for the client's standard error.
    Errors,
    Says(RsyncSays),
}

async fn message<R: AsyncRead + Unpin>(from: &mut R, body: &mut Vec<u8>) -> io::Result<Message> {
    let mut head = [0; HEADER_BYTES];
    from.read_exact(&mut head).await?;
    let (kind, length) = body_length(head).map_err(|error| invalid(&error.to_string()))?;
    body.resize(length, 0);
    from.read_exact(body).await?;
    match kind {
        KIND_DATA => Ok(Message::Data),
        KIND_ERRORS => Ok(Message::Errors),
        kind => RsyncSays::decode(kind, body).map(Message::Says).map_err(|error| invalid(&error.to_string())),
    }
}

/// Says how a call ended that did not do everything.
fn incomplete(status: u8, complaint: &[u8]) -> String {
    let said: String = String::from_utf8_lossy(complaint).chars().filter(|c| !c.is_control()).take(400).collect();
    let colon = if said.is_empty() { "" } else { ": " };
    format!("rsync ended with status {status}{colon}{said}")
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn failed(why: &str) -> FileEnd {
    let why: String = why.chars().filter(|c| !c.is_control()).take(1000).collect();
    FileEnd { status: START_FAILED, message: format!("rsync: {why}") }
}
