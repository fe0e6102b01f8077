//! The native end of `bench/`: what cannot be measured by starting programs. Each mode prints one JSON object a line.
//!
//! `probe MODE DATA_DIR [KEY=VALUE]…`, where `DATA_DIR` is the server's (endpoint, root and administrator's key come
//! from there, so no secret stands in argv). It reports times and counts; what they mean is `bench/run`'s business.

mod agents;
mod calls;
mod mix;
mod place;
mod sessions;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use place::Place;
use serde_json::{Value, json};

/// Whatever goes wrong ends the measurement with its message.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is closed only if nobody wants to know.
            let _ = writeln!(std::io::stderr(), "probe: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<()> {
    let [mode, data_dir, rest @ ..] = arguments else {
        return Err("usage: probe standing|starts|mix|hold|agents|call|calls DATA_DIR [KEY=VALUE]…".into());
    };
    let settings = Settings::parse(rest)?;
    let place = Place::read(Path::new(data_dir))?;
    match mode.as_str() {
        "standing" => sessions::standing(&place, &settings).await,
        "starts" => sessions::starts(&place, &settings).await,
        "mix" => mix::run(&place, &settings).await,
        "hold" => sessions::hold(&place, &settings).await,
        "agents" => agents::run(place, &settings).await,
        "call" => calls::once(&place, &settings).await,
        "calls" => calls::run(&place, &settings).await,
        other => Err(format!("there is no mode `{other}`").into()),
    }
}

/// `KEY=VALUE` arguments.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn parse(arguments: &[String]) -> Result<Self> {
        let pair = |text: &String| {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Self(arguments.iter().map(pair).collect::<Result<_>>()?))
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).ok_or_else(|| format!("{key}=… is missing").into())
    }

    fn number<T: FromStr>(&self, key: &str, usual: T) -> Result<T> {
        match self.0.get(key) {
            None => Ok(usual),
            Some(text) => text.parse().map_err(|_| format!("`{key}={text}` is no such number").into()),
        }
    }
}

/// Prints one result.
fn report(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Summarises times: count, p50, p99 and the longest, in milliseconds.
fn summary(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(index).map(|time| time.as_secs_f64() * 1e3)
    };
    json!({ "count": times.len(), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0) })
}
