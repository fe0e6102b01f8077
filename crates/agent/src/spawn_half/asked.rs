//! What the link half asks for: each message led to who answers it, and those about keys for sshd, whom sshd may believe and
//! what to trust answered here. What the server has signed is verified (T-76); the link half's word alone does nothing.

use std::time::Instant;

use anyhow::Context as _;
use munjigi_core::grant::Action;
use munjigi_core::trust::TrustBundle;
use munjigi_core::wire::hello::node_link_message;

use super::key_socket::{KeySocket, Known};
use super::registered_keys::Registered;
use super::{Refusal, SpawnHalf, account};
use crate::clock;
use crate::halves::{ToLink, ToSpawn};

impl SpawnHalf {
    pub(super) fn take_messages(&mut self) {
        // A bound per round, so that a link half that talks without end does not keep signals waiting.
        for _ in 0..64 {
            let Some(link) = &self.link else { return };
            match link.receive() {
                Ok(Some(message)) => self.take_message(message),
                Ok(None) => return,
                Err(error) => return self.lose_link(&error),
            }
        }
    }

    fn take_message(&mut self, message: ToSpawn) {
        let now = clock::monotonic();
        match message {
            ToSpawn::Sign { request, binding, hello } => self.sign(request, &binding, &hello),
            ToSpawn::Start(start) => self.start(&start),
            ToSpawn::Key { request, grant } => self.take_key(request, &grant),
            ToSpawn::Accounts { request, recorded, total, piece } => {
                self.take_accounts(request, recorded, total, &piece);
            }
            ToSpawn::SshTrust { request, document } => self.take_ssh_trust(request, &document),
            ToSpawn::Reach { request, session, endpoint, grant } => self.reach(request, &session, &endpoint, &grant),
            ToSpawn::Signal { session, signal } => {
                if let Some(session) = self.sessions.get(&session) {
                    session.signal(signal);
                }
            }
            ToSpawn::InputEnd { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.end_input();
                }
            }
            ToSpawn::End { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.end("the server ended the session", now);
                }
            }
            ToSpawn::Forget { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.forget(now);
                }
            }
            ToSpawn::Online => self.online(),
            ToSpawn::Offline { why } => self.offline(&why),
            ToSpawn::Trust { bundle } => self.take_trust(&bundle),
        }
    }

    /// Signs a link request, and nothing else: the message is built here, from a hello and a TLS session (T-21).
    fn sign(&mut self, request: u64, binding: &[u8; 32], hello: &str) {
        let message = node_link_message(binding, hello);
        let Ok(signature) = self.key.sign(&message).as_ref().try_into() else { return };
        self.with_link(|link| link.send(&ToLink::Signature { request, signature }, &[]));
    }

    pub(super) fn take_key(&mut self, request: u64, grant: &[u8]) {
        let answer = match self.try_take_key(grant) {
            Ok(()) => ToLink::KeyTaken { request },
            Err(Refusal { code, reason, message }) => {
                tracing::warn!(reason, "a key was refused: {message}");
                ToLink::Refused { request, code: code.to_owned(), message, reason: reason.to_owned() }
            }
        };
        self.with_link(|link| link.send(&answer, &[]));
    }

    /// Has sshd's files say what the server has signed.
    pub(super) fn take_ssh_trust(&mut self, request: u64, document: &[u8]) {
        let taken = self.ssh_trust.take(document, self.judge.trusted(), &self.identity.node_id);
        let answer = match taken {
            Ok(()) => ToLink::KeyTaken { request },
            Err(error) => {
                let message = format!("{error:#}");
                tracing::warn!("what sshd may believe was not taken: {message}");
                let (code, reason) = ("InternalServerError".to_owned(), "SshTrustNotTaken".to_owned());
                ToLink::Refused { request, code, message, reason }
            }
        };
        self.with_link(|link| link.send(&answer, &[]));
    }

    /// Takes a key for sshd: the grant is verified here like every other, so that the link half alone can let nobody in.
    fn try_take_key(&mut self, grant: &[u8]) -> Result<(), Refusal> {
        let grant = self.judge.admit(grant, clock::now())?;
        let Action::AuthorizedKey(key) = grant.action else {
            return Err(Refusal::denied("GrantMalformed", "the grant starts something and is for no key".to_owned()));
        };
        if self.config.local_users.contains(&grant.os_user) {
            let message =
                format!("this node's owner says that `{}` is local: sshd asks nobody about it", grant.os_user);
            return Err(Refusal::denied("LocalUser", message));
        }
        let account = account::look_up(&grant.os_user, grant.privileged, self.config.allowed_users.as_deref())
            .map_err(|error| Refusal::denied(error.reason(), error.to_string()))?;
        self.listen_for_sshd()
            .map_err(|error| Refusal::failed("KeySocket", &format!("the node cannot hand keys to sshd: {error:#}")))?;
        let print = key.key.fingerprint();
        tracing::info!(user = account.name, %print, request = key.request_id, by = grant.subject, "a key was pushed");
        self.keys
            .take(account.name, key, grant.subject, clock::monotonic())
            .map_err(|error| Refusal::failed("TooManyKeys", &error.to_string()))
    }

    /// Listens for sshd's helper from the first key on, or from the start where AWS may push some.
    pub(super) fn listen_for_sshd(&mut self) -> anyhow::Result<()> {
        if self.key_socket.is_none() {
            let path = self.config.keys_socket_path(&self.data, &self.identity.node_id);
            self.key_socket = Some(KeySocket::listen(&path)?);
        }
        Ok(())
    }

    /// Answers sshd's helper, as far as it goes without waiting.
    pub(super) fn answer_sshd(&mut self, now: Instant) {
        let bundle = self.accounts.bundle();
        let book = self.manages_accounts().then(|| self.accounts.book());
        let registered = bundle.map(|bundle| Registered { bundle, book, config: &self.config, now: clock::now() });
        let mut unanswered = Vec::new();
        if let Some(socket) = &mut self.key_socket {
            let mut known = Known {
                keys: &mut self.keys,
                registered,
                local: &self.config.local_users,
                unanswered: self.config.instance_connect.aws.then_some(&mut unanswered),
            };
            socket.serve(&mut known, now);
        }
        self.ask_aws(unanswered, now);
    }

    /// Takes a newer trust bundle, signed by the root that was pinned at join (T-20).
    pub(super) fn take_trust(&mut self, signed: &[u8]) {
        use base64::Engine as _;
        let verified = self.identity.root().and_then(|root| {
            TrustBundle::verify(signed, &root, self.trust_version).context("the server's trust bundle is not good")
        });
        let bundle = match verified {
            Ok(bundle) if bundle.version > self.trust_version => bundle,
            Ok(_) => return,
            Err(error) => return tracing::warn!(error = format!("{error:#}"), "a trust bundle was refused"),
        };
        self.trust_version = bundle.version;
        self.judge.trust(bundle);
        self.identity.trust_bundle = base64::engine::general_purpose::STANDARD.encode(signed);
        if let Err(error) = self.data.store(&self.identity) {
            // It holds for this run; the server sends it again at the next.
            tracing::warn!(error = format!("{error:#}"), "the new trust bundle could not be stored");
        }
    }
}
