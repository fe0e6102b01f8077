//! `munjigi server`: the control plane and gateway.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::thread::available_parallelism;

use anyhow::Context as _;
use clap::Args;
use munjigi_server::{Server, ServerOptions};

use super::Finish;
use crate::client::children::Upbringing;

/// Run the control plane and gateway
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi server --data-dir /var/lib/munjigi --listen 0.0.0.0:8443\n\n\
    The first start makes DIR/ca.pem, DIR/admin.credentials and DIR/endpoint. When it serves it prints `ready URL`.\n\
    SIGTERM lets requests end and stops it with status 0.")]
pub(crate) struct Arguments {
    /// Where everything lies; made at the first start
    #[arg(long, value_name = "DIR", env = "MUNJIGI_DATA_DIR")]
    data_dir: PathBuf,
    /// Address to listen on; port 0 picks one and keeps it [default: 127.0.0.1:0]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads that serve connections, 1 to 1024; disk and database have others [default: all cores but one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    upbringing: Upbringing,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    arguments.upbringing.apply()?;
    let options = ServerOptions { data_dir: arguments.data_dir, listen: arguments.listen, config: arguments.config };
    let threads =
        arguments.threads.map_or_else(|| threads(available_parallelism().map_or(1, usize::from)), usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start")?;
    // With its type erased, or the runtime would hold three copies of the server's start.
    let work: Pin<Box<dyn Future<Output = anyhow::Result<()>>>> = Box::pin(async {
        let running = Server::start(options).await.context("the server cannot start")?;
        running.wait(|endpoint| announce(&format!("ready {endpoint}"))).await
    });
    runtime.block_on(work)?;
    Ok(Finish::Done)
}

/// Returns how many threads serve connections on a machine with so many cores: one is left to those that write
/// recordings, trail and database (decision 0028).
fn threads(cores: usize) -> usize {
    cores.saturating_sub(1).max(1)
}

/// Says on standard output that it serves. Whoever started us may have stopped listening; that is no reason to end.
fn announce(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_left_to_the_disk_where_there_are_two() {
        assert_eq!([1, 2, 3, 8].map(threads), [1, 1, 2, 7]);
    }
}
