//! `munjigi audit`: the trail, newest last, as a table or one CloudTrail record a line.

use clap::Args;
use munjigi_core::time::Timestamp;
use serde_json::Value;

use super::sessions::instant;
use super::{Finish, looking, print};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{AuditPage, ReadAudit};
use crate::client::table;
use crate::client::text::escaped;

/// Records asked for at once.
const PAGE: u32 = 500;
/// How long the server may wait for new records in one call, seconds.
const WAIT_SECS: u32 = 20;

/// Show the audit trail
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi audit\n  munjigi audit --follow --errors\n  \
    munjigi audit --name StartSession --user alice --since 7d --output json\n\n\
    With --output json each line is one CloudTrail record.")]
pub(crate) struct Arguments {
    /// Go on showing new records
    #[arg(long, short)]
    follow: bool,
    /// Only this event, e.g. StartSession
    #[arg(long, value_name = "EVENT")]
    name: Option<String>,
    /// Only by this user (name or ARN)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only since: 2026-11-21T12:00:00Z, or 30m, 24h, 7d ago
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    since: Option<Timestamp>,
    /// Only before: as --since
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    until: Option<Timestamp>,
    /// Only what was refused or failed
    #[arg(long)]
    errors: bool,
    /// The newest so many; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    looking(&arguments.place, async |api| {
        let mut request = ReadAudit {
            from_sequence: 0,
            max_records: if arguments.limit == 0 { PAGE } else { arguments.limit.min(PAGE) },
            event_name: arguments.name.clone(),
            username: arguments.user.clone(),
            since: arguments.since.map(Into::into),
            until: arguments.until.map(Into::into),
            errors_only: arguments.errors,
            newest: arguments.limit != 0,
            wait_seconds: 0,
        };
        let mut first = true;
        loop {
            let page = read(api, &request).await?;
            if !page.records.is_empty() || first {
                show(&page.records, arguments.output.output, first)?;
                first = false;
            }
            let at_end = page.at_end || request.newest || page.records.is_empty();
            if at_end && !arguments.follow {
                return Ok(Finish::Done);
            }
            request.newest = false;
            request.max_records = PAGE;
            request.from_sequence = page.next_sequence;
            request.wait_seconds = if at_end { WAIT_SECS } else { 0 };
        }
    })
    .await
}

async fn read(api: &mut Api, request: &ReadAudit) -> anyhow::Result<AuditPage> {
    api.munjigi("ReadAudit", request).await.doing(api.context(), "cannot read the audit trail")
}

fn show(records: &[Value], format: Format, with_header: bool) -> anyhow::Result<()> {
    match format {
        Format::Json => records.iter().try_for_each(|record| print(&(serde_json::to_string(record)? + "\n"))),
        Format::Table if with_header => print(&table::render(&HEADER, &records.iter().map(row).collect::<Vec<_>>())),
        // Following: each record is a line of its own as it comes.
        Format::Table => records.iter().try_for_each(|record| {
            print(&(row(record).iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join("  ") + "\n"))
        }),
    }
}

const HEADER: [&str; 6] = ["TIME", "WHO", "EVENT", "RESULT", "FROM", "ON"];

fn row(record: &Value) -> Vec<String> {
    let text = |path: &str| record.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let who = match text("/userIdentity/userName") {
        "" => text("/userIdentity/arn"),
        name => name,
    };
    let result = match text("/errorCode") {
        "" => "ok",
        code => code,
    };
    let on: Vec<&str> = record
        .get("resources")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|resource| resource.get("ARN").or_else(|| resource.get("arn")).and_then(Value::as_str))
        .map(|arn| arn.splitn(6, ':').nth(5).unwrap_or(arn))
        .collect();
    vec![
        text("/eventTime").replace('T', " ").trim_end_matches('Z').to_owned(),
        who.to_owned(),
        text("/eventName").to_owned(),
        result.to_owned(),
        text("/sourceIPAddress").to_owned(),
        on.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_row() {
        let record = serde_json::json!({
            "eventTime": "2026-11-21T12:00:00Z", "eventName": "StartSession", "errorCode": "AccessDenied",
            "sourceIPAddress": "10.0.0.1", "userIdentity": {"userName": "alice"},
            "resources": [{"ARN": "arn:aws:ssm:local-1:000000000000:managed-instance/mi-1"}]
        });
        let expected =
            ["2026-11-21 12:00:00", "alice", "StartSession", "AccessDenied", "10.0.0.1", "managed-instance/mi-1"];
        assert_eq!(row(&record), expected);
        assert_eq!(row(&Value::Null).len(), HEADER.len());
    }
}
