//! `munjigi verify`: proves that trail and recordings are whole, or names the first bad place.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use munjigi_server::{Progress as Step, verify_data_dir};
use serde::Serialize;

use super::{Finish, looking, note, print, print_json, resolve, sessions};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{Empty, ListSessions, Verdict, VerifyRecording};
use crate::client::embedded;
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
    let context = resolve(&arguments.place)?;
    let mut report = match (&arguments.session, &context.data_dir) {
        // Nothing of ours may touch the files before they are proved: no server is started for this.
        (None, Some(data_dir)) if !embedded::is_running(&context).await? => offline(data_dir).await?,
        _ => {
            looking(&arguments.place, async |api| {
                let mut report = Report::default();
                match &arguments.session {
                    Some(session) => {
                        let found = sessions::find(api, session).await?;
                        recording(api, &found.session_id, &mut report).await?;
                    }
                    None => everything(api, &mut report).await?,
                }
                Ok(report)
            })
            .await?
        }
    };
    report.whole = report.problems.is_empty();
    match arguments.output.output {
        Format::Json => print_json(&report)?,
        Format::Table => tell(&report)?,
    }
    Ok(if report.whole { Finish::Done } else { Finish::Problems })
}

/// Verifies the files of a data directory whose server does not run.
async fn offline(data_dir: &Path) -> anyhow::Result<Report> {
    let progress = Progress::new();
    progress.show("verifying the audit trail");
    let found = verify_data_dir(data_dir, move |step| {
        if let Step::Recordings { done } = step {
            progress.show(&format!("verifying recordings: {done}"));
        }
    });
    let found = found.await.with_context(|| format!("cannot verify {}", data_dir.display()))?;
    let problem = |problem: munjigi_server::Problem| Problem { place: problem.place, what: problem.what };
    Ok(Report {
        whole: false,
        trail_records: Some(found.events),
        recordings: usize::try_from(found.recordings).unwrap_or(usize::MAX),
        recording_records: found.records,
        problems: found.problems.into_iter().map(problem).collect(),
    })
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
