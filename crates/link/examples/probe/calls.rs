//! Calls of the API: one (`call`), or many (`calls`) of a cheap operation, decided by policy and audited durably before its answer, over kept-alive connections.

use std::time::Instant;

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use super::place::{Api, Place};
use super::{Result, Settings, report, summary};

/// Makes the one call named by `operation`, with its input as JSON on standard input; prints the answer.
pub(super) async fn once(place: &Place, settings: &Settings) -> Result<()> {
    let mut input = String::new();
    tokio::io::stdin().read_to_string(&mut input).await?;
    let input = serde_json::from_str(&input)?;
    report(&Api::connect(place).await?.call(settings.text("operation")?, &input, true).await?)
}

/// Calls `GetConnectionStatus` (answered from memory) `count` times on each of `workers` connections.
pub(super) async fn run(place: &Place, settings: &Settings) -> Result<()> {
    let (count, workers): (usize, usize) = (settings.number("count", 500)?, settings.number("workers", 1)?);
    let input = json!({ "Target": settings.text("target")? });
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..workers {
        let mut api = Api::connect(place).await?;
        let input = input.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let begun = Instant::now();
                api.call("AmazonSSM.GetConnectionStatus", &input, true).await?;
                times.push(begun.elapsed());
            }
            Result::Ok(times)
        });
    }
    let times: Vec<Vec<_>> = tasks.join_all().await.into_iter().collect::<Result<_>>()?;
    let times = times.concat();
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    report(&json!({ "workers": workers, "per_second": per_second, "times": summary(times) }))
}
