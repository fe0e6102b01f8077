//! `munjigi verify`: proves that trail and recordings are whole, or names the first bad place.

use clap::Args;
use serde::Serialize;

use super::{Finish, looking, note, print, print_json, sessions};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{Empty, ListSessions, Verdict, VerifyRecording};
use crate::client::progress::Progress;
use crate::client::text::escaped;

/// Prove that the audit trail and the recordings are whole
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi verify\n  munjigi verify --data-dir /var/lib/munjigi\n  \
    munjigi verify --session alice-0123456789abcdef0\n\n\
    The exit status is 0 only if nothing was changed, removed, inserted or reordered.\n\
    With --data-dir it also works while no server runs.")]
pub(crate) struct Arguments {
    /// Only this session's recording
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

/// What was found, for `--output json`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    whole: bool,
    trail_records: Option<u64>,
    recordings: usize,
    recording_records: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    place: String,
    what: String,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    looking(&arguments.place, async |api| {
        let mut report = Report::default();
        match &arguments.session {
            Some(session) => {
                let found = sessions::find(api, session).await?;
                recording(api, &found.session_id, &mut report).await?;
            }
            None => everything(api, &mut report).await?,
        }
        report.whole = report.problems.is_empty();
        match arguments.output.output {
            Format::Json => print_json(&report)?,
            Format::Table => tell(&report)?,
        }
        Ok(if report.whole { Finish::Done } else { Finish::Problems })
    })
    .await
}

async fn everything(api: &mut Api, report: &mut Report) -> anyhow::Result<()> {
    let progress = Progress::new();
    progress.show("verifying the audit trail");
    let trail: Verdict =
        api.munjigi("VerifyTrail", &Empty {}).await.doing(api.context(), "cannot verify the audit trail")?;
    report.trail_records = Some(trail.records);
    report.note("audit trail", &trail);
    let sessions = sessions::list(api, ListSessions::default(), usize::MAX).await?;
    for (done, session) in sessions.iter().enumerate() {
        progress.show(&format!("verifying recording {} of {}", done + 1, sessions.len()));
        recording(api, &session.session_id, report).await?;
    }
    Ok(())
}

async fn recording(api: &mut Api, session_id: &str, report: &mut Report) -> anyhow::Result<()> {
    let request = VerifyRecording { session_id: session_id.to_owned() };
    let verdict: Verdict =
        api.munjigi("VerifyRecording", &request).await.doing(api.context(), "cannot verify a recording")?;
    report.recordings += 1;
    report.recording_records += verdict.records;
    report.note(&format!("recording {session_id}"), &verdict);
    Ok(())
}

impl Report {
    fn note(&mut self, place: &str, verdict: &Verdict) {
        if !verdict.whole {
            let what = verdict.problem.clone().unwrap_or_else(|| "not whole".to_owned());
            self.problems.push(Problem { place: place.to_owned(), what });
        }
    }
}

fn tell(report: &Report) -> anyhow::Result<()> {
    for problem in &report.problems {
        note(&format!("munjigi: {}: {}", escaped(&problem.place), escaped(&problem.what)));
    }
    let verdict = if report.whole { "whole" } else { "NOT WHOLE" };
    let trail = report.trail_records.map(|count| format!("{count} audit records, ")).unwrap_or_default();
    print(&format!("{verdict}: {trail}{} recordings with {} records\n", report.recordings, report.recording_records))
}
