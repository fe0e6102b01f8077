//! Connections whose protocol the gateway reads: it ends the client's side, logs in at the target with the stored
//! credential, and every statement is in the recording before or as it goes on.
//!
//! This is the ground that all protocols stand on: what a connection needs to know ([`Context`]) and TLS on both sides. A
//! protocol is a folder below. Nothing here decides who may reach a target.

mod certificates;
mod mysql;
mod postgres;
mod tls;

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::secret::Secret;
use munjigi_core::target::{TargetKind, TargetName, TargetSettings, TlsMode};
use rustls::ServerConfig;

pub(crate) use certificates::Certificates;
pub(crate) use postgres::CancelKeys;
pub use tls::TlsError;

use super::nodes::NodeStream;
use super::ports::{Journal, PortSession, PortStream};
use crate::Server;
use crate::targets::{self, TargetFacts};

/// What one connection to a target with eyes needs.
pub struct Context {
    /// The session.
    pub session: SessionId,
    /// Where its statements are noted.
    pub journal: Journal,
    /// The target.
    pub target: TargetName,
    /// What the target is, as it is stored now.
    pub settings: TargetSettings,
    /// Whom to log in as there.
    pub user_name: String,
    /// That user's password there, if it has one; wiped with the context.
    pub password: Option<Secret<Vec<u8>>>,
    /// ARN of the person.
    pub principal: String,
    certificate: Arc<ServerConfig>,
}

/// Why a connection to a target with eyes cannot be served. The texts are for the person who asked.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The target is gone, or another one by its name.
    #[error("the target {0} was deleted or replaced since the session began; start it again")]
    Gone(TargetName),
    /// There is nobody to log in as.
    #[error("the target {0} has no credential, and its statements are to be recorded: store one, or turn that off")]
    NoCredential(TargetName),
    /// Something of ours failed; the cause is in the log.
    #[error("the target {0} cannot be served because of a fault of this server; its log knows more")]
    Internal(TargetName),
}

impl ContextError {
    /// Returns the word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Gone(_) => "DoesNotExistException",
            Self::NoCredential(_) => "ValidationException",
            Self::Internal(_) => "InternalServerError",
        }
    }
}

/// Serves a connection to a target with eyes until its end.
pub async fn serve(server: &Arc<Server>, context: Context, client: NodeStream, connection: PortStream) {
    match context.settings.kind {
        TargetKind::Mysql => mysql::serve(context, client, Box::new(connection)).await,
        TargetKind::Postgres => postgres::serve(server, context, client, Box::new(connection)).await,
        // The settings let no other kind be inspected.
        _ => tracing::error!(target_name = %context.target, "a target of this kind cannot be read along"),
    }
}

impl Context {
    /// Looks up what a new connection of a session with a target needs. The credential is the one that is stored now, so
    /// that a changed one is used from the next connection on.
    pub async fn of(
        server: &Server,
        session: &PortSession,
        connection: &PortStream,
        facts: &TargetFacts,
    ) -> Result<Self, ContextError> {
        let internal = |cause: String| {
            tracing::error!(target_name = %facts.name, cause, "a target cannot be served");
            ContextError::Internal(facts.name.clone())
        };
        let found = targets::present(server, facts).await.map_err(|error| internal(error.to_string()))?;
        let target = found.ok_or_else(|| ContextError::Gone(facts.name.clone()))?;
        let password = server.store.target_password(&target).map_err(|error| internal(error.to_string()))?;
        let certificate = server.gateway.certificates.of(server, &target.name, target.settings.kind).await;
        Ok(Self {
            session: session.handle().facts.id.clone(),
            journal: session.journal(connection),
            certificate: certificate.map_err(|error| internal(format!("{error:#}")))?,
            user_name: target.user_name.ok_or_else(|| ContextError::NoCredential(facts.name.clone()))?,
            password,
            principal: session.handle().facts.owner.clone(),
            target: target.name,
            settings: target.settings,
        })
    }

    /// Tells whether the target is to be spoken to over TLS.
    pub fn wants_tls(&self) -> bool {
        self.settings.tls.mode != TlsMode::Off
    }

    /// Begins TLS as the server that the client takes this for, with a certificate of the deployment's own authority.
    pub async fn accept_tls(&self, client: NodeStream) -> Result<NodeStream, TlsError> {
        tls::accept(self.certificate.clone(), client).await
    }

    /// Begins TLS as the target's client, as its settings say.
    pub async fn connect_tls(&self, target: NodeStream) -> Result<NodeStream, TlsError> {
        tls::connect(&self.settings, target).await
    }
}
