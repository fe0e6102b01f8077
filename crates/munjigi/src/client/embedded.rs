//! A server for the duration of one command: when the data directory is on this machine and no server runs on it,
//! looking at sessions, recordings and the trail starts one in this process.

use std::path::Path;

use anyhow::Context as _;
use munjigi_link::DialError;
use munjigi_link::dial::tls_connect;
use munjigi_server::{Running, Server, ServerOptions};
use url::Url;

use super::api::Api;
use super::context::Context;
use super::link::dial_options;

/// Calls to a server that somebody runs, or that this process runs for them.
pub(crate) struct Access {
    /// Makes the calls.
    pub(crate) api: Api,
    own: Option<Running>,
}

/// Prepares calls; starts a server in this process if the context's own one does not run.
pub(crate) async fn open(mut context: Context) -> anyhow::Result<Access> {
    let own = match &context.data_dir {
        Some(data_dir) if !is_running(&context).await? => Some(start(data_dir).await?),
        _ => None,
    };
    if let Some(running) = &own {
        context.endpoint = Url::parse(running.endpoint()).context("the server in this process has no usable URL")?;
    }
    Ok(Access { api: Api::new(context)?, own })
}

impl Access {
    /// Ends the connection, and the server if it is ours.
    pub(crate) async fn close(self) {
        drop(self.api);
        if let Some(running) = self.own {
            running.shutdown().await;
        }
    }
}

/// Tells whether the context's server answers: something listens there and proves by its certificate to be it.
pub(crate) async fn is_running(context: &Context) -> anyhow::Result<bool> {
    match tls_connect(&dial_options(context)?).await {
        Ok(_) => Ok(true),
        // Nobody there, or somebody else who took the port since.
        Err(
            DialError::ConnectionRefused { .. }
            | DialError::NotTls { .. }
            | DialError::CertificateNotTrusted { .. }
            | DialError::Tls { .. },
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn start(data_dir: &Path) -> anyhow::Result<Running> {
    let options = ServerOptions {
        data_dir: data_dir.to_owned(),
        listen: Some("127.0.0.1:0".to_owned()),
        ..ServerOptions::default()
    };
    Server::start(options)
        .await
        .with_context(|| format!("no server runs on {}, and none could be started to look at it", data_dir.display()))
}
