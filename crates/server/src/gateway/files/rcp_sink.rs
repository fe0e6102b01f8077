//! `scp -t`: files come.

use munjigi_core::file_command::ScpCall;
use munjigi_core::sftp::{Attributes, Handle, OpenFlags, Times};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Client, Failed, PIECE};
use super::rcp::{MAX_DEPTH, Peer, Stop, below, is_directory, or_gone};

/// A directory that is being filled.
struct Level {
    path: Vec<u8>,
    /// Set once it is complete.
    then: Option<Attributes>,
}

/// Takes files until the client is done.
pub(super) async fn sink<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    call: &ScpCall,
) -> Result<(), Stop> {
    let Some(pattern) = call.paths.first() else { return Ok(()) };
    // A shell would have done this: quotation, `~`, and wildcards.
    let targets = match client.glob(pattern.as_str().as_bytes()).await {
        Ok(targets) => targets,
        Err(failed) => {
            let why = or_gone(failed)?;
            return peer.complain(pattern.as_str(), &why).await;
        }
    };
    let [target] = targets.as_slice() else { return peer.complain(pattern.as_str(), "ambiguous target").await };
    let into = client.stat(target).await.is_ok_and(|attributes| is_directory(&attributes));
    if call.into_directory && !into {
        return peer.complain(pattern.as_str(), "not a directory").await;
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut times = None;
    peer.well().await?;
    while let Some(line) = peer.line().await? {
        let Some((letter, rest)) = line.split_first() else { return Err(Stop::Protocol("an empty line")) };
        match letter {
            // The client could not read something, and has said so where it is.
            1 | 2 => peer.has_failed = true,
            b'T' => {
                times = Some(parse_times(rest).ok_or(Stop::Protocol("times cannot be read"))?);
                peer.well().await?;
            }
            b'E' => {
                let level = levels.pop().ok_or(Stop::Protocol("a directory ends that did not begin"))?;
                match level.then {
                    Some(attributes) => match client.set(&level.path, attributes).await {
                        Ok(()) => peer.well().await?,
                        Err(failed) => complain(peer, &level.path, failed).await?,
                    },
                    None => peer.well().await?,
                }
            }
            b'C' | b'D' => {
                let head = Head::parse(rest).ok_or(Stop::Protocol("a file's head cannot be read"))?;
                let path = match levels.last() {
                    Some(level) => below(&level.path, head.name),
                    None if into => below(target, head.name),
                    None => target.clone(),
                };
                let times = times.take().filter(|_| call.preserve);
                if *letter == b'C' {
                    file(peer, client, &path, &head, times, call.preserve).await?;
                } else if !call.recursive {
                    return Err(Stop::Protocol("a directory came that nobody asked for"));
                } else if levels.len() >= MAX_DEPTH {
                    return Err(Stop::Protocol("directories stand too deep in each other"));
                } else if let Some(level) = directory(peer, client, path, &head, times, call.preserve).await? {
                    levels.push(level);
                }
            }
            _ => return Err(Stop::Protocol("a line begins with an unknown letter")),
        }
    }
    Ok(())
}

/// `0644 12 name` behind a letter.
struct Head<'a> {
    mode: u32,
    size: u64,
    name: &'a [u8],
}

impl<'a> Head<'a> {
    fn parse(rest: &'a [u8]) -> Option<Self> {
        let mut parts = rest.splitn(3, |byte| *byte == b' ');
        let text = |part: Option<&'a [u8]>| std::str::from_utf8(part?).ok();
        let mode = text(parts.next()).filter(|mode| mode.len() == 4)?;
        let mode = u32::from_str_radix(mode, 8).ok()?;
        let size = text(parts.next()).filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
        let name = parts.next()?;
        // A name is a name: it leads nowhere (T-71).
        let bad = matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
        (!bad).then_some(Self { mode, size, name })
    }
}

fn parse_times(rest: &[u8]) -> Option<Times> {
    let mut parts = std::str::from_utf8(rest).ok()?.split(' ');
    let mut seconds = || parts.next()?.parse::<u64>().ok().map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    let (modified, _, accessed, _) = (seconds()?, seconds()?, seconds()?, seconds()?);
    parts.next().is_none().then_some(Times { accessed, modified })
}

async fn complain<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    path: &[u8],
    failed: Failed,
) -> Result<(), Stop> {
    let why = or_gone(failed)?;
    peer.complain(&String::from_utf8_lossy(path), &why).await
}

async fn directory<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    path: Vec<u8>,
    head: &Head<'_>,
    times: Option<Times>,
    preserve: bool,
) -> Result<Option<Level>, Stop> {
    let mode = head.mode & 0o777;
    let was_there = client.stat(&path).await.is_ok_and(|attributes| is_directory(&attributes));
    if !was_there {
        // Writable for its owner until it is complete.
        if let Err(failed) = client.make_directory(&path, mode | 0o700).await {
            complain(peer, &path, failed).await?;
            return Ok(None);
        }
    }
    let permissions = (preserve || (!was_there && mode | 0o700 != mode)).then_some(mode);
    let then = Attributes { permissions, times, ..Attributes::default() };
    peer.well().await?;
    Ok(Some(Level { path, then: (then != Attributes::default()).then_some(then) }))
}

async fn file<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    path: &[u8],
    head: &Head<'_>,
    times: Option<Times>,
    preserve: bool,
) -> Result<(), Stop> {
    let mode = head.mode & 0o777;
    let handle = match client.open(path, OpenFlags::TO_REPLACE, Some(mode)).await {
        Ok(handle) => handle,
        // The client hears it and sends nothing of the file.
        Err(failed) => return complain(peer, path, failed).await,
    };
    peer.well().await?;
    let mut result = content(peer, client, handle, head.size).await?;
    let is_whole = peer.answer().await?;
    let then = Attributes { permissions: preserve.then_some(mode), times, ..Attributes::default() };
    if result.is_ok() && is_whole && then != Attributes::default() {
        result = client.set_open(handle, then).await;
    }
    let result = result.and(client.close(handle).await);
    match result {
        Ok(()) => peer.well().await,
        Err(failed) => complain(peer, path, failed).await,
    }
}

/// Takes the bytes of a file, all of them, whatever becomes of them.
async fn content<S: AsyncRead + AsyncWrite + Send + Unpin>(
    peer: &mut Peer<S>,
    client: &mut Client,
    handle: Handle,
    size: u64,
) -> Result<Result<(), Failed>, Stop> {
    let mut buffer = vec![0; PIECE];
    let (mut at, mut filled) = (0, 0);
    let mut result = Ok(());
    while at + (filled as u64) < size {
        let most = usize::try_from(size - at - filled as u64).unwrap_or(PIECE).min(PIECE - filled);
        let room = buffer.get_mut(filled..filled + most).unwrap_or_default();
        filled += peer.read(room).await?;
        if filled == PIECE || at + filled as u64 == size {
            if result.is_ok() {
                result = client.write(handle, at, buffer.get(..filled).unwrap_or_default()).await;
            }
            at += filled as u64;
            filled = 0;
        }
    }
    let settled = client.settle().await;
    Ok(result.and(settled))
}
