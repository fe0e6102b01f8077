//! `munjigi sessions`: active and past sessions, newest first.

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use munjigi_core::time::Timestamp;
use serde::Serialize;

use super::{Finish, looking, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{ListSessions, Session, SessionList};
use crate::client::clock;
use crate::client::table;
use crate::client::text::{bytes, command_line, duration, escaped};

/// List active and past sessions, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi sessions\n  munjigi sessions --state active\n  \
    munjigi sessions --node web-1 --user alice --since 24h --output json")]
pub(crate) struct Arguments {
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only of this user (name or ARN)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only started since: 2026-11-21T12:00:00Z, or 30m, 24h, 7d ago
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    since: Option<Timestamp>,
    /// Only active or only past ones
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Most sessions to list
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Active,
    Past,
}

/// Reads an instant, or how long ago it is.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    if let Some(instant) = Timestamp::parse_iso(text) {
        return Ok(instant);
    }
    let wrong = || "expected an instant such as 2026-11-21T12:00:00Z, or 30m, 24h, 7d".to_owned();
    let (digits, seconds_each) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or_else(wrong)?;
    let ago = digits.parse::<u32>().ok().and_then(|count| i64::from(count).checked_mul(seconds_each));
    let ago = ago.filter(|ago| *ago <= i64::from(u32::MAX)).ok_or_else(wrong)?;
    Ok(Timestamp::from_secs(clock::now().as_secs() - ago))
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let request = ListSessions {
        state: arguments.state.map(|state| match state {
            State::Active => "Active".to_owned(),
            State::Past => "History".to_owned(),
        }),
        target: arguments.node,
        owner: arguments.user,
        since: arguments.since.map(Into::into),
        ..ListSessions::default()
    };
    let sessions = looking(&arguments.place, async |api| list(api, request, arguments.limit).await).await?;
    let lines: Vec<Line> = sessions.iter().map(Line::of).collect();
    match arguments.output.output {
        Format::Json => print_json(&lines)?,
        Format::Table => print(&table::render(&HEADER, &lines.iter().map(Line::row).collect::<Vec<_>>()))?,
    }
    Ok(Finish::Done)
}

/// Asks for at most `limit` sessions, newest first.
pub(super) async fn list(api: &mut Api, mut request: ListSessions, limit: usize) -> anyhow::Result<Vec<Session>> {
    /// Most sessions in one answer.
    const PAGE: usize = 200;
    let mut sessions: Vec<Session> = Vec::new();
    while sessions.len() < limit {
        request.max_results = u32::try_from((limit - sessions.len()).min(PAGE)).ok();
        let page: SessionList =
            api.munjigi("ListSessions", &request).await.doing(api.context(), "cannot list the sessions")?;
        sessions.extend(page.sessions);
        match page.next_token {
            Some(token) => request.next_token = Some(token),
            None => break,
        }
    }
    sessions.truncate(limit);
    Ok(sessions)
}

/// Finds the one session that an id or the head of an id names.
pub(super) async fn find(api: &mut Api, id: &str) -> anyhow::Result<Session> {
    let request = ListSessions { session_id: Some(id.to_owned()), ..ListSessions::default() };
    let mut found = list(api, request, 20).await?;
    if let Some(exact) = found.iter().position(|session| session.session_id == id) {
        return Ok(found.swap_remove(exact));
    }
    match found.len() {
        0 => Err(anyhow!("no session is called `{}`; `munjigi sessions` lists them", escaped(id))),
        1 => Ok(found.swap_remove(0)),
        _ => {
            let names: Vec<_> = found.iter().map(|session| escaped(&session.session_id)).collect();
            Err(anyhow!("`{}` could be any of {}", escaped(id), names.join(", ")))
        }
    }
}

const HEADER: [&str; 9] = ["ID", "STATUS", "OWNER", "NODE", "COMMAND", "START", "DURATION", "END", "OUTPUT"];

/// A session as it is shown; the members are part of the command line's contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: String,
    status: String,
    owner: String,
    node: String,
    node_id: String,
    kind: String,
    command: Vec<String>,
    os_user: String,
    reason: Option<String>,
    start: String,
    end: Option<String>,
    duration_seconds: f64,
    end_reason: Option<String>,
    exit: Option<i32>,
    exit_signal: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    recording_hash: Option<String>,
}

impl Line {
    fn of(session: &Session) -> Self {
        let start = session.started_at.timestamp();
        let end = session.ended_at.map(|end| end.timestamp());
        let lasted = end.unwrap_or_else(clock::now).since(start);
        Self {
            id: session.session_id.clone(),
            status: session.status.clone(),
            owner: session.owner.clone(),
            node: session.node_name.clone(),
            node_id: session.node_id.clone(),
            kind: session.kind.clone(),
            command: session.command.clone(),
            os_user: session.os_user.clone(),
            reason: session.reason.clone(),
            start: start.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
            end: end.map(|end| end.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
            duration_seconds: lasted.as_secs_f64(),
            end_reason: session.end_reason.clone(),
            exit: session.exit_code,
            exit_signal: session.exit_signal.clone(),
            bytes_in: session.bytes_in,
            bytes_out: session.bytes_out,
            recording_hash: session.recording_hash.clone(),
        }
    }

    fn row(&self) -> Vec<String> {
        let owner = self.owner.rsplit('/').next().unwrap_or_default();
        let end = match (&self.end_reason, self.exit, &self.exit_signal) {
            (_, Some(code), _) => format!("exit {code}"),
            (_, None, Some(signal)) => format!("signal {signal}"),
            (Some(reason), None, None) => reason.clone(),
            (None, None, None) => String::new(),
        };
        let command = if self.command.is_empty() { "(shell)".to_owned() } else { command_line(&self.command) };
        vec![
            self.id.clone(),
            self.status.clone(),
            owner.to_owned(),
            if self.node.is_empty() { self.node_id.clone() } else { self.node.clone() },
            command,
            self.start.chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect(),
            duration(std::time::Duration::from_secs_f64(self.duration_seconds)),
            end,
            bytes(self.bytes_out),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_absolute_or_so_long_ago() {
        assert_eq!(instant("2026-11-21T12:00:00Z"), Ok(Timestamp::from_secs(1_795_262_400)));
        let (day, hour) = (instant("1d").unwrap(), instant("1h").unwrap());
        assert!((hour.as_secs() - day.as_secs() - 23 * 3600).abs() <= 60);
        for bad in ["", "h", "yesterday", "-3h", "9999999999999999d", "5 h", "한"] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }
}
