//! Certificates with which the gateway stands for targets towards their clients: short-lived, of the deployment's own
//! authority, in memory only.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::target::{TargetKind, TargetName};
use munjigi_core::time::Timestamp;
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};

use crate::{Server, clock, lock};

/// Life of a certificate: nothing can revoke it, and its key never leaves this process.
const LIFE: Duration = Duration::from_secs(7 * 86_400);
/// With less than this left it is made anew.
const RENEW_BELOW: Duration = Duration::from_secs(86_400);
/// Certificates kept at once; with more targets in use than that they are made again.
const MOST: usize = 512;

/// A configuration, and until when its certificate is good.
type Kept = (Timestamp, Arc<ServerConfig>);

/// The certificates in use, by target.
#[derive(Default)]
pub(crate) struct Certificates {
    kept: Mutex<HashMap<(TargetName, TargetKind), Kept>>,
}

impl Certificates {
    /// Returns the configuration with a target's certificate. It is for the target's name, where that can be a host's,
    /// and for this machine's own: a client connects to a port on its own machine.
    pub(crate) async fn of(
        &self,
        server: &Server,
        target: &TargetName,
        kind: TargetKind,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let (now, key) = (clock::now(), (target.clone(), kind));
        if let Some((expires, config)) = lock(&self.kept).get(&key)
            && *expires > now.plus(RENEW_BELOW)
        {
            return Ok(config.clone());
        }
        let config = Arc::new(make(server, target, kind, now).await?);
        let mut kept = lock(&self.kept);
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(key, (now.plus(LIFE), config.clone()));
        Ok(config)
    }
}

async fn make(server: &Server, target: &TargetName, kind: TargetKind, now: Timestamp) -> anyhow::Result<ServerConfig> {
    let is_host = target.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names: BTreeSet<String> = own.into_iter().chain(is_host.then(|| target.to_string())).collect();
    let (chain, key) = crate::tls::issue(&server.store, &names, LIFE, now)
        .await
        .with_context(|| format!("failed to make a certificate for the target {target}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    if kind == TargetKind::Postgres {
        // Clients that begin with TLS at once insist on it (PostgreSQL 17, `sslnegotiation=direct`).
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}
