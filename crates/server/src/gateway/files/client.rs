//! The gateway's own SFTP client, for doors that speak something else: it asks through the follower like any other client.

use munjigi_core::sftp::{
    Attributes, Entry, Handle, LENGTH_BYTES, OpenFlags, Request, Response, Status, packet_length,
};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};

/// Writes and reads that are under way at once.
const WINDOW: usize = 16;
/// Bytes of one of them.
pub(super) const PIECE: usize = 128 * 1024;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// The node or policy says no; for people.
    Said(Status, String),
    /// The connection is gone.
    Gone,
}

impl From<std::io::Error> for Failed {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl Failed {
    /// Says it in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Said(_, text) => text.chars().filter(|c| !c.is_control()).collect(),
            Self::Gone => "the connection to the node was lost".to_owned(),
        }
    }
}

/// An SFTP client that asks one thing at a time, but for the bytes of a file.
pub(super) struct Client {
    stream: DuplexStream,
    last_id: u32,
    /// Writes without an answer.
    writing: usize,
}

impl Client {
    /// Greets the server.
    pub(super) async fn new(mut stream: DuplexStream) -> Result<Self, Failed> {
        let mut init = Vec::new();
        Request::encode_init(&mut init);
        stream.write_all(&init).await?;
        let mut client = Self { stream, last_id: 0, writing: 0 };
        let packet = client.packet().await?;
        Response::decode_version(&packet).map_err(|_| Failed::Gone)?;
        Ok(client)
    }

    async fn packet(&mut self) -> Result<Vec<u8>, Failed> {
        let mut packet = vec![0; LENGTH_BYTES];
        self.stream.read_exact(&mut packet).await?;
        let length = packet_length(&packet).ok().flatten().ok_or(Failed::Gone)?;
        packet.resize(length, 0);
        self.stream.read_exact(packet.get_mut(LENGTH_BYTES..).unwrap_or_default()).await?;
        Ok(packet)
    }

    async fn send(&mut self, request: &Request<'_>) -> Result<(), Failed> {
        self.last_id = self.last_id.wrapping_add(1);
        let mut packet = Vec::new();
        request.encode(self.last_id, &mut packet);
        Ok(self.stream.write_all(&packet).await?)
    }

    async fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, Failed> {
        self.send(&request).await?;
        let packet = self.packet().await?;
        match Response::decode(&packet) {
            Ok((_, Response::Status { status, text })) if status != Status::Ok => {
                Err(Failed::Said(status, String::from_utf8_lossy(text).into_owned()))
            }
            Ok(_) => Ok(packet),
            Err(_) => Err(Failed::Gone),
        }
    }

    /// Returns what is at a path, behind links.
    pub(super) async fn stat(&mut self, path: &[u8]) -> Result<Attributes, Failed> {
        match Response::decode(&self.ask(Request::Stat { path }).await?) {
            Ok((_, Response::Attributes { attributes })) => Ok(attributes),
            _ => Err(Failed::Gone),
        }
    }

    async fn handle(&mut self, request: Request<'_>) -> Result<Handle, Failed> {
        match Response::decode(&self.ask(request).await?) {
            Ok((_, Response::Handle { handle })) => Ok(handle),
            _ => Err(Failed::Gone),
        }
    }

    /// Opens a file.
    pub(super) async fn open(
        &mut self,
        path: &[u8],
        flags: OpenFlags,
        permissions: Option<u32>,
    ) -> Result<Handle, Failed> {
        let attributes = Attributes { permissions, ..Attributes::default() };
        self.handle(Request::Open { path, flags, attributes }).await
    }

    /// Makes a directory.
    pub(super) async fn make_directory(&mut self, path: &[u8], mode: u32) -> Result<(), Failed> {
        let attributes = Attributes { permissions: Some(mode), ..Attributes::default() };
        self.ask(Request::Mkdir { path, attributes }).await.map(drop)
    }

    /// Changes attributes of a path.
    pub(super) async fn set(&mut self, path: &[u8], attributes: Attributes) -> Result<(), Failed> {
        self.ask(Request::Setstat { path, attributes }).await.map(drop)
    }

    /// Changes attributes of an open file.
    pub(super) async fn set_open(&mut self, handle: Handle, attributes: Attributes) -> Result<(), Failed> {
        self.ask(Request::Fsetstat { handle, attributes }).await.map(drop)
    }

    /// Closes a file.
    pub(super) async fn close(&mut self, handle: Handle) -> Result<(), Failed> {
        self.ask(Request::Close { handle }).await.map(drop)
    }

    /// Returns the names in a directory, but for `.` and `..`, at most so many.
    pub(super) async fn list(&mut self, path: &[u8], most: usize) -> Result<Vec<Entry>, Failed> {
        let handle = self.handle(Request::Opendir { path }).await?;
        let mut all = Vec::new();
        let listed = loop {
            match self.ask(Request::Readdir { handle }).await {
                Err(Failed::Said(Status::Eof, _)) => break Ok(()),
                Err(failed) => break Err(failed),
                Ok(packet) => match Response::decode(&packet) {
                    Ok((_, Response::Names { entries })) => {
                        all.extend(entries.into_iter().filter(|entry| !matches!(entry.name.as_slice(), b"." | b"..")));
                    }
                    _ => return Err(Failed::Gone),
                },
            }
            if all.len() > most {
                break Err(Failed::Said(Status::Failure, format!("the directory has more than {most} entries")));
            }
        };
        self.close(handle).await?;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        listed.map(|()| all)
    }

    /// Returns the paths that a pattern stands for.
    pub(super) async fn glob(&mut self, pattern: &[u8]) -> Result<Vec<Vec<u8>>, Failed> {
        match Response::decode(&self.ask(Request::Glob { pattern }).await?) {
            Ok((_, Response::Names { entries })) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            _ => Err(Failed::Gone),
        }
    }

    /// Writes without waiting for the answer of this one; an error may be that of an earlier one.
    pub(super) async fn write(&mut self, handle: Handle, offset: u64, data: &[u8]) -> Result<(), Failed> {
        self.send(&Request::Write { handle, offset, data }).await?;
        self.writing += 1;
        if self.writing < WINDOW { Ok(()) } else { self.written().await }
    }

    /// Waits for the answers of all writes; returns the first error.
    pub(super) async fn settle(&mut self) -> Result<(), Failed> {
        let mut first = Ok(());
        while self.writing > 0 {
            match self.written().await {
                Err(Failed::Gone) => return Err(Failed::Gone),
                result => first = first.and(result),
            }
        }
        first
    }

    async fn written(&mut self) -> Result<(), Failed> {
        let packet = self.packet().await?;
        self.writing -= 1;
        match Response::decode(&packet) {
            Ok((_, Response::Status { status: Status::Ok, .. })) => Ok(()),
            Ok((_, Response::Status { status, text })) => {
                Err(Failed::Said(status, String::from_utf8_lossy(text).into_owned()))
            }
            _ => Err(Failed::Gone),
        }
    }

    /// Reads `length` bytes from the beginning of a file and writes them in order. Returns how many there were; with the
    /// reason where they were fewer.
    pub(super) async fn read_all<W: AsyncWrite + Unpin>(
        &mut self,
        handle: Handle,
        length: u64,
        to: &mut W,
    ) -> (u64, Result<(), Failed>) {
        if length == 0 {
            // That there is nothing must have been seen.
            let read = Request::Read { handle, offset: 0, length: 1 };
            return match self.ask(read).await {
                Ok(_) | Err(Failed::Said(Status::Eof, _)) => (0, Ok(())),
                Err(failed) => (0, Err(failed)),
            };
        }
        let mut taken = 0;
        let read = self.read_pieces(handle, length, to, &mut taken).await;
        (taken, read)
    }

    async fn read_pieces<W: AsyncWrite + Unpin>(
        &mut self,
        handle: Handle,
        length: u64,
        to: &mut W,
        taken: &mut u64,
    ) -> Result<(), Failed> {
        let mut asked = 0;
        let mut under_way = std::collections::VecDeque::new();
        let mut failed = None;
        loop {
            while asked < length && under_way.len() < WINDOW && failed.is_none() {
                let piece = (length - asked).min(PIECE as u64);
                let wanted = u32::try_from(piece).unwrap_or(u32::MAX);
                self.send(&Request::Read { handle, offset: asked, length: wanted }).await?;
                under_way.push_back(piece);
                asked += piece;
            }
            let Some(piece) = under_way.pop_front() else { break };
            let packet = self.packet().await?;
            match Response::decode(&packet) {
                // What was asked for behind a gap would be out of order.
                Ok((_, Response::Data { data })) if data.len() as u64 == piece && failed.is_none() => {
                    to.write_all(data).await?;
                    *taken += piece;
                }
                Ok((_, Response::Data { .. })) => {
                    failed.get_or_insert(Failed::Said(Status::Failure, "the file became shorter".to_owned()));
                }
                Ok((_, Response::Status { status, text })) => {
                    let said = match status {
                        Status::Eof => "the file became shorter".to_owned(),
                        _ => String::from_utf8_lossy(text).into_owned(),
                    };
                    failed.get_or_insert(Failed::Said(status, said));
                }
                _ => return Err(Failed::Gone),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
