//! `munjigi play`: replays a recording on the terminal, or exports it.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use munjigi_core::recording::asciicast::{Asciicast, Input};
use munjigi_core::recording::{Event, EventKind, output_bytes};
use munjigi_core::session::OutputStream;
use serde_json::Value;
use tokio::time::Instant;

use super::{Finish, looking, sessions};
use crate::cli::{Format, Where};
use crate::client::api::Api;
use crate::client::playback::Playback;
use crate::client::recording::RecordingReader;
use crate::client::sanitize::Sanitizer;
use crate::client::signals::Signals;
use crate::client::stdio::{Screen, Source};
use crate::client::terminal::RawMode;

/// Most output that a replay on the terminal keeps, for seeking; exports have no limit.
const MAX_REPLAY_BYTES: usize = 256 * 1024 * 1024;

/// Replay a session on the terminal, or export it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi play alice-0123456789abcdef0\n  munjigi play alice-01 --speed 4 --idle-limit 2\n  \
    munjigi play alice-01 --text | less\n  munjigi play alice-01 --cast > session.cast\n  munjigi play alice-01 --output json\n\n\
    While it plays: space pauses, the arrow keys seek by 10 s and 60 s, + and - change the speed, q quits.\n\
    Escape sequences that could act on your terminal (clipboard, links, title, answers) are not replayed."
)]
pub(crate) struct Arguments {
    /// The session's id, or its head
    session: String,
    /// Plain text: exactly what the program wrote, without waiting
    #[arg(long, conflicts_with = "cast")]
    text: bool,
    /// asciicast v3, for asciinema and other players
    #[arg(long)]
    cast: bool,
    /// Form of the output; json: each event on a line, as ReadRecording gives it
    #[arg(long, short, value_name = "FORM", value_enum, conflicts_with_all = ["text", "cast"])]
    output: Option<Format>,
    /// Times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    speed: f64,
    /// Begin here: seconds, or 1:30, or 1:02:30
    #[arg(long, value_name = "TIME", value_parser = position)]
    from: Option<Duration>,
    /// Shorten times without output to so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    idle_limit: Option<Duration>,
    /// With --text: do not make the output safe for a terminal
    #[arg(long, requires = "text")]
    raw: bool,
    /// With --raw: even if standard output is a terminal
    #[arg(long, requires = "raw")]
    raw_on_terminal: bool,
    #[command(flatten)]
    place: Where,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "expected a number of seconds".to_owned())
}

fn position(text: &str) -> Result<Duration, String> {
    let mut total = 0.0;
    for part in text.split(':') {
        total = total * 60.0 + seconds(part)?.as_secs_f64();
    }
    Duration::try_from_secs_f64(total).map_err(|_| "expected a time such as 90, 1:30 or 1:02:30".to_owned())
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    if arguments.raw && io::stdout().is_terminal() && !arguments.raw_on_terminal {
        bail!("a raw recording can act on this terminal; send it to a file, or add --raw-on-terminal if you trust it");
    }
    looking(&arguments.place, async |api| {
        let session_id = sessions::find(api, &arguments.session).await?.session_id;
        let recording = RecordingReader::new(session_id);
        if arguments.cast {
            export_cast(api, recording).await?;
        } else if arguments.output == Some(Format::Json) {
            export_json(api, recording).await?;
        } else if arguments.text || !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
            export_text(api, recording, arguments.raw || !io::stdout().is_terminal()).await?;
        } else {
            let mut replay = Playback::new(load(api, recording).await?, arguments.speed, arguments.idle_limit);
            show(&mut replay, arguments.from).await?;
        }
        Ok(Finish::Done)
    })
    .await
}

async fn export_text(api: &mut Api, mut recording: RecordingReader, raw: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut sanitizer = Sanitizer::default();
    while let Some(events) = recording.next(api).await? {
        for event in events {
            let event = told(event, "\n");
            if raw {
                out.write_all(output_bytes(&event)).context(CANNOT_WRITE)?;
            } else {
                let mut safe = Vec::new();
                sanitizer.filter(output_bytes(&event), &mut safe);
                out.write_all(&safe).context(CANNOT_WRITE)?;
            }
        }
    }
    let mut rest = Vec::new();
    sanitizer.finish(&mut rest);
    out.write_all(&rest).and_then(|()| out.flush()).context(CANNOT_WRITE)
}

const CANNOT_WRITE: &str = "cannot write to standard output";

async fn export_cast(api: &mut Api, mut recording: RecordingReader) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut cast = Asciicast::new(Input::LeaveOut);
    while let Some(events) = recording.next(api).await? {
        let mut lines = Vec::new();
        for event in &events {
            cast.write(event, &mut lines);
        }
        out.write_all(&lines).context(CANNOT_WRITE)?;
    }
    let mut lines = Vec::new();
    cast.finish(&mut lines);
    out.write_all(&lines).and_then(|()| out.flush()).context(CANNOT_WRITE)
}

/// Writes a line for each event. JSON escapes what could act on a terminal.
async fn export_json(api: &mut Api, mut recording: RecordingReader) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    while let Some(events) = recording.next_as::<Value>(api).await? {
        for event in events {
            writeln!(out, "{event}").context(CANNOT_WRITE)?;
        }
    }
    out.flush().context(CANNOT_WRITE)
}

/// Turns what happened to a connection, statement or file into lines: a port session prints nothing else.
fn told(event: Event, line_end: &str) -> Event {
    let line: &dyn Display = match &event.kind {
        EventKind::Connection(connection) => connection,
        EventKind::Statement(statement) => statement,
        EventKind::StatementEnd(end) => end,
        EventKind::File(file) => file,
        EventKind::FileChange(change) => change,
        _ => return event,
    };
    let bytes = Bytes::from(format!("{line}{line_end}").replace("\r\n", "\n").replace('\n', line_end));
    Event { at: event.at, kind: EventKind::Output { stream: OutputStream::Stdout, offset: 0, bytes } }
}

async fn load(api: &mut Api, mut recording: RecordingReader) -> anyhow::Result<Vec<Event>> {
    let (mut all, mut kept) = (Vec::new(), 0);
    while let Some(events) = recording.next(api).await? {
        for event in events {
            let event = told(event, "\r\n");
            kept += output_bytes(&event).len();
            if kept > MAX_REPLAY_BYTES {
                bail!("the recording has more than {} MiB of output; use --text or --cast", MAX_REPLAY_BYTES >> 20);
            }
            if matches!(event.kind, EventKind::Output { .. } | EventKind::End { .. }) {
                all.push(event);
            }
        }
    }
    Ok(all)
}

/// A key of the replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Pause,
    Quit,
    Seek(i64),
    Faster,
    Slower,
}

/// Reads keys from what a raw terminal sent at once.
fn keys(typed: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = typed;
    loop {
        let (key, length) = match rest {
            [] => return keys,
            [0x1b, b'[' | b'O', b'A', ..] => (Some(Key::Seek(60)), 3),
            [0x1b, b'[' | b'O', b'B', ..] => (Some(Key::Seek(-60)), 3),
            [0x1b, b'[' | b'O', b'C', ..] => (Some(Key::Seek(10)), 3),
            [0x1b, b'[' | b'O', b'D', ..] => (Some(Key::Seek(-10)), 3),
            [b' ', ..] => (Some(Key::Pause), 1),
            [b'q' | 0x03 | 0x04, ..] => (Some(Key::Quit), 1),
            [b'+' | b'=', ..] => (Some(Key::Faster), 1),
            [b'-', ..] => (Some(Key::Slower), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Shows the replay until its end or until the person quits. Everything passes the filter (T-69).
async fn show(replay: &mut Playback, from: Option<Duration>) -> anyhow::Result<()> {
    let mut source = Source::stdin().context("cannot read the keyboard")?;
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let mut screen = Screen::new().context(CANNOT_WRITE)?;
    let mut sanitizer = Sanitizer::default();
    let raw = RawMode::enter().context("cannot set up the terminal")?;
    let mut shown = match from {
        Some(from) => replay.seek_to(u64::try_from(from.as_micros()).unwrap_or(u64::MAX)),
        None => Vec::new(),
    };
    let mut last = Instant::now();
    loop {
        for piece in shown.drain(..) {
            let mut safe = Vec::new();
            sanitizer.filter(&piece, &mut safe);
            screen.push(OutputStream::Stdout, safe.into());
        }
        if replay.is_over() && screen.pending() == 0 {
            break;
        }
        // What cannot be shown yet holds the replay up.
        let wait = replay.wait().filter(|_| screen.pending() == 0);
        tokio::select! {
            drained = screen.drain(), if screen.pending() > 0 => drained?,
            _ = signals.next_ending() => break,
            typed = source.read(4096) => {
                let typed = typed.context("cannot read the keyboard")?;
                shown = replay.pass(last.elapsed());
                for key in keys(&typed) {
                    match key {
                        Key::Pause => replay.toggle_pause(),
                        Key::Seek(seconds) => shown.extend(replay.seek_by(seconds)),
                        Key::Faster => replay.change_speed(2.0),
                        Key::Slower => replay.change_speed(0.5),
                        Key::Quit => return finish(screen, sanitizer, raw).await,
                    }
                }
                if typed.is_empty() {
                    return finish(screen, sanitizer, raw).await;
                }
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => shown = replay.pass(last.elapsed()),
        }
        last = Instant::now();
    }
    finish(screen, sanitizer, raw).await
}

async fn finish(mut screen: Screen, mut sanitizer: Sanitizer, raw: RawMode) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    sanitizer.finish(&mut rest);
    rest.extend_from_slice(b"\r\n");
    screen.push(OutputStream::Stdout, Bytes::from(rest));
    screen.finish().await?;
    drop(raw);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_also_when_they_come_together() {
        assert_eq!(keys(b" \x1b[C\x1bOD+q"), [Key::Pause, Key::Seek(10), Key::Seek(-10), Key::Faster, Key::Quit]);
        assert_eq!(keys(b"\x1b[Ax\x1b"), [Key::Seek(60)]);
        assert_eq!(keys(b"\x03"), [Key::Quit]);
    }

    #[test]
    fn a_position_is_seconds_or_has_colons() {
        assert_eq!(position("90"), Ok(Duration::from_secs(90)));
        assert_eq!(position("1:30"), Ok(Duration::from_secs(90)));
        assert_eq!(position("1:00:01.5"), Ok(Duration::from_millis(3_601_500)));
        for bad in ["", "x", "-1", "1:", "inf", "1e400"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }
}
