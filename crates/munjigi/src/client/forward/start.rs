//! What a session of connections is asked for, as people say it and as the server hears it.

use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{ForwardWish, OpenSession, open::Wish};
use uuid::Uuid;

/// What a session of connections is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForwardStart {
    /// Node by name, id, id prefix or tag, or a target by name.
    pub(crate) target: String,
    /// Where its connections go. None: to the target's only place, or wherever each connection says if it is dynamic.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether connections may go elsewhere, too.
    pub(crate) dynamic: bool,
    /// OS user for sockets and files; empty for the one that policy gives.
    pub(crate) os_user: String,
    /// Why, for the audit trail.
    pub(crate) reason: String,
    /// What it is for, a word of `[a-z]`: `forward`, `copy`, `db` …
    pub(crate) purpose: &'static str,
}

impl ForwardStart {
    /// Returns the wish; `token` makes a repeated one the same for the server.
    pub(super) fn wish(&self, token: Uuid) -> Wish {
        Wish::Session(OpenSession {
            target: self.target.clone(),
            reason: self.reason.clone(),
            client_token: token.to_string(),
            forward: Some(ForwardWish {
                endpoints: self.endpoints.iter().map(Into::into).collect(),
                dynamic: self.dynamic,
                os_user: self.os_user.clone(),
                purpose: self.purpose.to_owned(),
            }),
            ..OpenSession::default()
        })
    }
}
