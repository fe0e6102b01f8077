//! Files over SSH: SFTP, `scp` and `rsync`, without any of them being a shell's business on the node.
//!
//! A worker on the node serves files as the OS user, for an endpoint that only a verified grant names. Its bytes pass here,
//! and the gateway reads both directions along: each path is first resolved by the worker, its real path is judged, and the
//! operation goes on with that real path, at which the worker follows no symbolic link any more. What was done goes
//! to recording and trail.

mod client;
mod follow;
mod opened;
mod packets;
mod pending;
mod rcp;
mod rcp_sink;
mod rcp_source;
mod relay;
mod rsync;
mod session;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use munjigi_core::endpoint::{Endpoint, FileAccess};
use munjigi_core::file_command::FileCommand;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Server;
use crate::door::RequestMeta;
use crate::identity::Caller;
use session::FilesSession;

/// What policy is asked about a real path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileQuestion<'a> {
    /// May it be written, or changed?
    Upload(&'a str),
    /// May it be read?
    Download(&'a str),
    /// May everything from it downwards be written?
    UploadTree(&'a str),
    /// May everything from it downwards be read?
    DownloadTree(&'a str),
    /// May anything from it downwards be read?
    DownloadSome(&'a str),
}

/// Answers such questions; the error is for people.
pub(crate) type FileJudge = Box<dyn Fn(FileQuestion<'_>) -> Result<(), String> + Send + Sync>;

/// What a client wants files by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileService {
    /// The subsystem `sftp`.
    Sftp,
    /// `scp -t`, `scp -f` or `rsync --server`.
    Command(FileCommand),
}

/// Who wants files, and where.
pub(crate) struct FileWish<'a> {
    /// Who.
    pub(crate) caller: &'a Caller,
    /// With what request.
    pub(crate) request: &'a RequestMeta,
    /// The node, as the client names it.
    pub(crate) target: &'a str,
    /// The wished OS user, if one is named.
    pub(crate) os_user: Option<&'a str>,
}

/// How it ended, as an SSH client is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FileEnd {
    /// Exit status; 0 if all went well.
    pub(crate) status: u32,
    /// For standard error; empty if there is nothing to say.
    pub(crate) message: String,
}

impl FileEnd {
    fn failed(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into() }
    }
}

/// Serves files over a stream until its client is done; the session is over when this returns. What standard error gets while
/// it runs goes to `errors`.
pub(crate) async fn serve<S, E>(
    server: &Arc<Server>,
    wish: FileWish<'_>,
    service: FileService,
    stream: S,
    errors: E,
) -> FileEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: AsyncWrite + Send + Unpin,
{
    let (purpose, endpoint) = match &service {
        FileService::Sftp => ("sftp", None),
        FileService::Command(FileCommand::Scp(_)) => ("scp", None),
        FileService::Command(FileCommand::Rsync(call)) => ("rsync", Some(Endpoint::Rsync(Box::new(call.clone())))),
    };
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        // Nothing is possible: the start says so, and the trail has it.
        None => match session::access(server, &wish).await {
            Ok(access) => Endpoint::Files(access.unwrap_or(FileAccess::Both)),
            Err(message) => return FileEnd::failed(message),
        },
    };
    let session = match FilesSession::start(server, &wish, endpoint, purpose).await {
        Ok(session) => session,
        Err(message) => return FileEnd::failed(message),
    };
    let ended = match service {
        FileService::Sftp => relay::sftp(server, &session, stream).await,
        FileService::Command(FileCommand::Scp(call)) => rcp::serve(server, &session, stream, call).await,
        FileService::Command(FileCommand::Rsync(call)) => rsync::serve(server, &session, stream, errors, &call).await,
    };
    session.end(server, &ended).await;
    ended
}
