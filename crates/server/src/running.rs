//! A server that runs: where it is, how it is stopped, and what it does beside answering.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::time::Timestamp;
use nix::fcntl::Flock;
use rustls::ServerConfig;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::door::failures;
use crate::{Server, clock, http};

/// How long requests and sessions may take to end when the server stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// A server that serves. Dropping it does not stop it; [`Running::shutdown`] does.
pub struct Running {
    server: Arc<Server>,
    endpoint: String,
    /// Stores the trail's checkpoints; ends with the trail.
    witness: JoinHandle<()>,
    /// Held until the end: one server a directory.
    _lock: Flock<File>,
}

impl Running {
    pub(crate) fn new(
        server: Arc<Server>,
        (listener, ssh_listener): (TcpListener, Option<TcpListener>),
        tls: Arc<ServerConfig>,
        endpoint: String,
        lock: Flock<File>,
        witness: JoinHandle<()>,
    ) -> Self {
        server.tasks.spawn(http::listen(server.clone(), listener, ssh_listener, tls));
        server.tasks.spawn(fold_failures(server.clone()));
        Self { server, endpoint, witness, _lock: lock }
    }

    /// Returns the server's URL, for example `https://127.0.0.1:8443`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the server's state.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Serves until SIGTERM or SIGINT, then drains. Calls `ready` with the URL once it listens to signals too, and tells
    /// systemd when it is ready and when it stops.
    pub async fn wait(self, ready: impl FnOnce(&str)) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("failed to wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for SIGINT")?;
        ready(&self.endpoint);
        notify(&[NotifyState::Ready]);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify(&[NotifyState::Stopping]);
        self.shutdown().await;
        Ok(())
    }

    /// Stops listening, lets requests end for at most 30 s and closes everything.
    pub async fn shutdown(self) {
        let server = &self.server;
        server.stop.cancel();
        server.tasks.close();
        if tokio::time::timeout(DRAIN_LIMIT, server.tasks.wait()).await.is_err() {
            tracing::warn!(left = server.tasks.len(), "not everything had ended in time");
        }
        server.recordings.shutdown().await;
        failures::flush(server, Timestamp(i64::MAX)).await;
        server.audit.shutdown().await;
        if let Err(error) = self.witness.await {
            tracing::error!(%error, "the last checkpoint of the audit trail may not be in the database");
        }
        server.store.close().await;
    }
}

/// Writes down once a minute what was folded.
async fn fold_failures(server: Arc<Server>) {
    while server.stop.run_until_cancelled(tokio::time::sleep(failures::WINDOW)).await.is_some() {
        failures::flush(&server, clock::now()).await;
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(cause) = sd_notify::notify(state) {
        tracing::debug!(%cause, "systemd was not told");
    }
}
