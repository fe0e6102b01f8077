//! `scp -f`: files go.

use futures_util::future::BoxFuture;
use munjigi_core::file_command::ScpCall;
use munjigi_core::sftp::{Attributes, OpenFlags, Times};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::client::Client;
use super::rcp::{MAX_DEPTH, Peer, Stop, below, is_directory, is_file, or_gone};

/// Entries of one directory that are sent at most.
const MAX_ENTRIES: usize = 50_000;

/// Sends what was asked for.
pub(super) async fn source<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    call: &ScpCall,
) -> Result<(), Stop> {
    if !peer.answer().await? {
        return Ok(());
    }
    for pattern in &call.paths {
        let found = match client.glob(pattern.as_str().as_bytes()).await {
            Ok(found) => found,
            Err(failed) => {
                let why = or_gone(failed)?;
                peer.complain(pattern.as_str(), &why).await?;
                continue;
            }
        };
        for path in found {
            entry(peer, client, call, path, 0).await?;
        }
    }
    Ok(())
}

async fn entry<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    call: &ScpCall,
    path: Vec<u8>,
    depth: usize,
) -> Result<(), Stop> {
    let shown = String::from_utf8_lossy(&path).into_owned();
    let attributes = match client.stat(&path).await {
        Ok(attributes) => attributes,
        Err(failed) => {
            let why = or_gone(failed)?;
            return peer.complain(&shown, &why).await;
        }
    };
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let trimmed = path.get(..end).unwrap_or_default();
    let name = trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    if name.contains(&b'\n') {
        return peer.complain(&shown, "this protocol knows no names with line ends; use scp without -O").await;
    }
    // A directory that is named by `.` has no name of its own to go under.
    let name = if name.is_empty() { b".".to_vec() } else { name };
    match () {
        () if is_file(&attributes) => file(peer, client, call, (&path, &name), &attributes).await,
        () if is_directory(&attributes) && call.recursive && depth < MAX_DEPTH => {
            // On the heap: it goes as deep as the directories.
            directory(peer, client, call, (&path, &name), &attributes, depth).await
        }
        () => peer.complain(&shown, "not a regular file").await,
    }
}

/// Sends the times of what comes next; tells whether they were taken.
async fn times<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    call: &ScpCall,
    attributes: &Attributes,
) -> Result<bool, Stop> {
    let Some(Times { accessed, modified }) = attributes.times.filter(|_| call.preserve) else { return Ok(true) };
    peer.send(format!("T{modified} 0 {accessed} 0\n").as_bytes()).await?;
    peer.answer().await
}

async fn head<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    letter: char,
    attributes: &Attributes,
    size: u64,
    name: &[u8],
) -> Result<bool, Stop> {
    let mode = attributes.permissions.unwrap_or(0o600) & 0o777;
    let mut line = format!("{letter}{mode:04o} {size} ").into_bytes();
    line.extend_from_slice(name);
    line.push(b'\n');
    peer.send(&line).await?;
    peer.answer().await
}

async fn file<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    call: &ScpCall,
    (path, name): (&[u8], &[u8]),
    attributes: &Attributes,
) -> Result<(), Stop> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let handle = match client.open(path, OpenFlags::TO_READ, None).await {
        Ok(handle) => handle,
        Err(failed) => {
            let why = or_gone(failed)?;
            return peer.complain(&shown, &why).await;
        }
    };
    let size = attributes.size.unwrap_or_default();
    if times(peer, call, attributes).await? && head(peer, 'C', attributes, size, name).await? {
        let (mut sent, read) = client.read_all(handle, size, peer.writer()).await;
        // The client waits for as many bytes as were announced.
        let nothing = [0; 4096];
        while sent < size {
            let piece = usize::try_from(size - sent).unwrap_or(nothing.len()).min(nothing.len());
            peer.writer().write_all(nothing.get(..piece).unwrap_or_default()).await?;
            sent += piece as u64;
        }
        match read {
            Ok(()) => peer.well().await?,
            Err(failed) => {
                let why = or_gone(failed)?;
                peer.complain(&shown, &why).await?;
            }
        }
        peer.answer().await?;
    }
    match client.close(handle).await {
        Ok(()) => Ok(()),
        Err(failed) => or_gone(failed).map(drop),
    }
}

fn directory<'a, S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &'a mut Peer<S>,
    client: &'a mut Client,
    call: &'a ScpCall,
    (path, name): (&'a [u8], &'a [u8]),
    attributes: &'a Attributes,
    depth: usize,
) -> BoxFuture<'a, Result<(), Stop>> {
    Box::pin(async move {
        let entries = match client.list(path, MAX_ENTRIES).await {
            Ok(entries) => entries,
            Err(failed) => {
                let why = or_gone(failed)?;
                return peer.complain(&String::from_utf8_lossy(path), &why).await;
            }
        };
        if !times(peer, call, attributes).await? || !head(peer, 'D', attributes, 0, name).await? {
            return Ok(());
        }
        for one in entries {
            entry(peer, client, call, below(path, &one.name), depth + 1).await?;
        }
        peer.send(b"E\n").await?;
        peer.answer().await.map(drop)
    })
}
