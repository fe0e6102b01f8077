//! Starts at a fixed rate, whatever becomes of the earlier ones (`mix`): shells, commands and forwards, each ended after a
//! while by its client.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{Connect, End, ForwardWish, Open, OpenSession, Pty, open::Wish};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Opener;
use munjigi_link::framed::{FrameReader, FrameWriter};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::place::Place;
use super::sessions::{Held, accepted, command, dial_all, open, ready};
use super::{Result, Settings, report};

/// What is neither started nor over by then has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// Of ninety starts forty are shells, thirty commands, and the rest forwards (R-41; logins at the SSH door are another
/// program's).
const SHARES: [u64; 2] = [40, 70];
const OF: u64 = 90;

/// A kind of session.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Shell,
    Command,
    Forward,
}

impl Kind {
    /// Returns the kind of a start by its number: mixed, and the same in every run.
    fn of(number: u64) -> Self {
        match number * 37 % OF {
            at if at < SHARES[0] => Self::Shell,
            at if at < SHARES[1] => Self::Command,
            _ => Self::Forward,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Command => "exec",
            Self::Forward => "forward",
        }
    }
}

/// Starts `rate` sessions a second for `seconds`, over `links`, on the `target`s in turn, and ends each after `hold` seconds.
/// Prints how long each took from the moment at which it was due to its first output, or until its connection stood.
pub(super) async fn run(place: &Place, settings: &Settings) -> Result<()> {
    let (rate, seconds): (u64, u64) = (settings.number("rate", 90)?, settings.number("seconds", 60)?);
    let hold = Duration::from_secs(settings.number("hold", 2)?);
    let echo = command(settings, "echo ready; exec sleep 600")?;
    let targets: Vec<String> = settings.text("target")?.split(',').map(str::to_owned).collect();
    let links = dial_all(place, settings.number("links", 12)?).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let near: Endpoint = format!("localhost:{}", listener.local_addr()?.port()).parse()?;
    tokio::spawn(async move {
        // Whoever connects is held until it goes.
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move { tokio::io::copy(&mut socket, &mut tokio::io::sink()).await });
        }
    });
    let shared = Arc::new((echo, near));
    let begun = Instant::now() + Duration::from_millis(200);
    let mut tasks = JoinSet::new();
    for ((number, link), target) in (0..rate * seconds).zip(links.iter().cycle()).zip(targets.iter().cycle()) {
        let due = begun + Duration::from_nanos(number.saturating_mul(1_000_000_000) / rate.max(1));
        sleep_until(due).await;
        let (opener, target, shared) = (link.connection.opener(), target.clone(), Arc::clone(&shared));
        let kind = Kind::of(number);
        tasks.spawn(async move {
            let (echo, near) = &*shared;
            let one = one(&opener, kind, target, echo, near, (due, hold));
            (kind, timeout(LIMIT + hold, one).await.unwrap_or_else(|_| Err("it took too long".into())))
        });
    }
    let (mut times, mut failures) = (serde_json::Map::new(), Vec::new());
    for (kind, outcome) in tasks.join_all().await {
        match outcome {
            Ok(took) => match times.get_mut(kind.name()).and_then(Value::as_array_mut) {
                Some(list) => list.push(json!(took.as_secs_f64() * 1e3)),
                None => drop(times.insert(kind.name().to_owned(), json!([took.as_secs_f64() * 1e3]))),
            },
            Err(error) => failures.push(format!("{}: {error}", kind.name())),
        }
    }
    report(&json!({ "seconds": begun.elapsed().as_secs_f64(), "times_ms": times, "failures": failures }))
}

/// One session, from its start to its end; returns how long the start took.
async fn one(
    opener: &Opener,
    kind: Kind,
    target: String,
    echo: &OpenSession,
    near: &Endpoint,
    (due, hold): (Instant, Duration),
) -> Result<Duration> {
    let wish = OpenSession { target, ..echo.clone() };
    let (mut session, took) = match kind {
        Kind::Command => (ready(opener, wish).await?, due.elapsed()),
        Kind::Shell => {
            let pty = Some(Pty { term: "xterm".to_owned(), rows: 24, columns: 80, ..Pty::default() });
            // A prompt is what a shell prints first.
            (ready(opener, OpenSession { pty, command: Vec::new(), ..wish }).await?, due.elapsed())
        }
        Kind::Forward => return forward(opener, wish.target, near, (due, hold)).await,
    };
    sleep(hold).await;
    end(&mut session).await?;
    Ok(took)
}

async fn forward(
    opener: &Opener,
    target: String,
    near: &Endpoint,
    (due, hold): (Instant, Duration),
) -> Result<Duration> {
    let forward =
        Some(ForwardWish { endpoints: vec![near.into()], purpose: "bench".to_owned(), ..ForwardWish::default() });
    let mut session = open(opener, OpenSession { target, forward, ..OpenSession::default() }).await?;
    session.1.flush().await?;
    let session_id = accepted(&mut session.0).await?.session_id;
    let (read, write) = tokio::io::split(opener.open().await?);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let wish = Wish::Connect(Connect { session_id, ..Connect::default() });
    writer.send(&Frame::Open(Box::new(Open { wish: Some(wish) }))).await?;
    accepted(&mut reader).await?;
    let took = due.elapsed();
    sleep(hold).await;
    drop((reader, writer));
    end(&mut session).await?;
    Ok(took)
}

/// Ends a session and waits until the server says so.
async fn end((reader, writer): &mut Held) -> Result<()> {
    writer.send(&Frame::End(End::default())).await?;
    loop {
        match reader.read(FrameSet::TO_CLIENT).await? {
            Some(Frame::End(_)) => return Ok(()),
            Some(_) => {}
            None => return Err("the stream ended before the session did".into()),
        }
    }
}
