//! Sessions over standing client links: one at a time (`standing`), as many as go (`starts`), many that idle (`hold`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use munjigi_core::session::OutputStream;
use munjigi_core::wire::message::{Accepted, Open, OpenSession, Pty, open::Wish};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::dial::Dialed;
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::{Opener, Stream};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::place::Place;
use super::{Result, Settings, report, summary};

/// Sessions on one link; a client's link carries 64 streams.
const SESSIONS_OF_A_LINK: usize = 50;
/// Sessions being opened at once; a client's link lets 16 wait.
const OPENING_TOGETHER: usize = 12;
/// A session that is not over (or not ready) by then counts as failed.
const SESSION_LIMIT: Duration = Duration::from_secs(60);

/// Runs `shell -c true` over one standing link for each line on standard input; prints each one's milliseconds.
pub(super) async fn standing(place: &Place, settings: &Settings) -> Result<()> {
    let wish = command(settings, "true")?;
    let link = place.link().await?;
    let opener = link.connection.opener();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    report(&json!({ "ready": true }))?;
    while lines.next_line().await?.is_some() {
        let begun = Instant::now();
        to_the_end(&opener, wish.clone()).await?;
        report(&json!({ "ms": begun.elapsed().as_secs_f64() * 1e3 }))?;
    }
    drop(link);
    Ok(())
}

/// Starts sessions for some seconds, many at once over a few links, each to its end.
pub(super) async fn starts(place: &Place, settings: &Settings) -> Result<()> {
    let wish = command(settings, "true")?;
    let (links, workers) = (settings.number("links", 2)?, settings.number("workers", 16)?);
    let limit = Duration::from_secs(settings.number("seconds", 10)?);
    let standing = dial_all(place, links).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let Some(link) = standing.get(worker % links.max(1)) else { continue };
        let (opener, wish, stop, failed) =
            (link.connection.opener(), wish.clone(), Arc::clone(&stop), Arc::clone(&failed));
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut why = None;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                match to_the_end(&opener, wish.clone()).await {
                    Ok(()) => times.push(begun.elapsed()),
                    Err(error) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        why = Some(error.to_string());
                        // What fails at once must not fail a million times.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
            (times, why)
        });
    }
    tokio::time::sleep(limit).await;
    stop.store(true, Ordering::Relaxed);
    let (mut times, mut why) = (Vec::new(), None);
    for (of_worker, failure) in tasks.join_all().await {
        times.extend(of_worker);
        why = failure.or(why);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = times.len() as f64 / seconds;
    let failed = failed.load(Ordering::Relaxed);
    report(&json!({ "seconds": seconds, "per_second": rate, "failed": failed, "why": why, "times": summary(times) }))
}

/// Opens idle sessions with terminals, says when all are ready, and holds them until standard input ends. The target may
/// be several, with commas between them, which take turns.
pub(super) async fn hold(place: &Place, settings: &Settings) -> Result<()> {
    let count: usize = settings.number("count", 100)?;
    let mut wish = command(settings, "echo ready; exec cat")?;
    wish.pty = Some(Pty { term: "xterm".to_owned(), rows: 24, columns: 80, ..Pty::default() });
    let targets: Vec<String> = settings.text("target")?.split(',').map(str::to_owned).collect();
    let links = dial_all(place, count.div_ceil(SESSIONS_OF_A_LINK)).await?;
    let turn = Arc::new(Semaphore::new(OPENING_TOGETHER));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for ((index, link), target) in (0..count).zip(links.iter().cycle()).zip(targets.into_iter().cycle()) {
        let (opener, wish, turn) =
            (link.connection.opener(), OpenSession { target, ..wish.clone() }, Arc::clone(&turn));
        tasks.spawn(async move {
            let _permit = turn.acquire().await;
            let held = tokio::time::timeout(SESSION_LIMIT, ready(&opener, wish)).await;
            held.map_err(|_| format!("session {index} was not ready in time"))?
                .map(|held| (held, begun.elapsed()))
                .map_err(|error| error.to_string())
        });
    }
    let (mut held, mut times) = (Vec::new(), Vec::new());
    for result in tasks.join_all().await {
        let (session, time) = result?;
        held.push(session);
        times.push(time);
    }
    report(&json!({ "open": held.len(), "seconds": begun.elapsed().as_secs_f64(), "times": summary(times) }))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {}
    for (_, writer) in &mut held {
        writer.send(&Frame::InputEnd { offset: 0 }).await?;
    }
    Ok(())
}

/// Both directions of a session's stream.
pub(super) type Held = (FrameReader<ReadHalf<Stream>>, FrameWriter<WriteHalf<Stream>>);

pub(super) fn command(settings: &Settings, line: &str) -> Result<OpenSession> {
    let command = vec![settings.text("shell")?.to_owned(), "-c".to_owned(), line.to_owned()];
    Ok(OpenSession { target: settings.text("target")?.to_owned(), command, ..OpenSession::default() })
}

pub(super) async fn dial_all(place: &Place, count: usize) -> Result<Vec<Dialed>> {
    let mut links = Vec::new();
    for _ in 0..count.max(1) {
        links.push(place.link().await?);
    }
    Ok(links)
}

pub(super) async fn open(opener: &Opener, wish: OpenSession) -> Result<Held> {
    let (read, write) = tokio::io::split(opener.open().await?);
    let mut writer = FrameWriter::new(write);
    writer.feed(&Frame::Open(Box::new(Open { wish: Some(Wish::Session(wish)) })))?;
    Ok((FrameReader::new(read), writer))
}

/// Runs one session without input to its end; an exit status other than 0 is an error.
async fn to_the_end(opener: &Opener, wish: OpenSession) -> Result<()> {
    let session = async {
        let (mut reader, mut writer) = open(opener, wish).await?;
        writer.feed(&Frame::InputEnd { offset: 0 })?;
        writer.flush().await?;
        accepted(&mut reader).await?;
        loop {
            if let Some(Frame::End(end)) = reader.read(FrameSet::TO_CLIENT).await? {
                let code = end.exit.as_ref().and_then(|exit| exit.code);
                return match code {
                    Some(0) => Ok(()),
                    _ => Err(format!("the session ended with {code:?}: {} {}", end.reason, end.message).into()),
                };
            }
        }
    };
    tokio::time::timeout(SESSION_LIMIT, session).await.map_err(|_| "a session did not end in time")?
}

/// Opens a session and waits for its first output.
pub(super) async fn ready(opener: &Opener, wish: OpenSession) -> Result<Held> {
    let (mut reader, mut writer) = open(opener, wish).await?;
    writer.flush().await?;
    accepted(&mut reader).await?;
    loop {
        match reader.read(FrameSet::TO_CLIENT).await? {
            Some(Frame::Output { stream: OutputStream::Stdout, .. }) => return Ok((reader, writer)),
            Some(Frame::End(end)) => return Err(format!("it ended: {} {}", end.reason, end.message).into()),
            Some(_) => {}
            None => return Err("the stream ended before any output".into()),
        }
    }
}

/// Waits for the answer to a wish, which must be granted.
pub(super) async fn accepted(reader: &mut FrameReader<ReadHalf<Stream>>) -> Result<Accepted> {
    match reader.read(FrameSet::ANSWER).await? {
        Some(Frame::Refused(refused)) => Err(format!("{}: {}", refused.code, refused.message).into()),
        Some(Frame::Accepted(accepted)) => Ok(*accepted),
        Some(_) => Err("the answer is no answer to a wish".into()),
        None => Err("the stream ended without an answer".into()),
    }
}
