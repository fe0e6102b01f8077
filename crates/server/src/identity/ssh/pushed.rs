//! Keys that were pushed to a node with `SendSSHPublicKey`: each lets its pusher in at the SSH door too, on that node as
//! that OS user, for as long as on the node, and as often.
//!
//! They are in memory alone: a restarted server has forgotten them, and a push is repeated more easily than explained.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use munjigi_core::id::NodeId;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::time::Timestamp;

use super::{SshProof, SshProofKind, SshRefusal, SshWish, node_of};
use crate::identity::Caller;
use crate::{Server, clock, lock};

/// Most keys remembered at once; what is pushed beyond is good on its node alone.
const MAX_PUSHES: usize = 4096;
/// Most remembered for one key, so that looking one up stays cheap.
const MAX_OF_ONE_KEY: usize = 32;

/// A key that a node took.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// Who pushed it.
    pub(crate) by: Caller,
    /// The only node.
    pub(crate) node: NodeId,
    /// The only OS user.
    pub(crate) os_user: String,
    /// The request that brought it.
    pub(crate) request_id: String,
    /// Until when it is good.
    pub(crate) expires: Timestamp,
    /// Whether one login uses it up.
    pub(crate) single_use: bool,
}

/// The pushed keys that still let somebody in.
#[derive(Default)]
pub(crate) struct Pushes(Mutex<HashMap<Fingerprint, Vec<Push>>>);

impl Pushes {
    /// Remembers a push; tells whether there was room. One for the same login takes the place of the former.
    pub(crate) fn remember(&self, key: Fingerprint, push: Push, now: Timestamp) -> bool {
        let mut pushes = lock(&self.0);
        pushes.retain(|_, of_key| {
            of_key.retain(|push| now < push.expires);
            !of_key.is_empty()
        });
        if pushes.values().map(Vec::len).sum::<usize>() >= MAX_PUSHES {
            return false;
        }
        let of_key = pushes.entry(key).or_default();
        of_key.retain(|former| (&former.node, &former.os_user) != (&push.node, &push.os_user));
        let room = of_key.len() < MAX_OF_ONE_KEY;
        if room {
            of_key.push(push);
        }
        room
    }

    /// Tells whether a key lets anybody in anywhere.
    pub(super) fn know(&self, key: &Fingerprint, now: Timestamp) -> bool {
        lock(&self.0).get(key).is_some_and(|of_key| of_key.iter().any(|push| now < push.expires))
    }

    /// Finds the push of a key for a login, and forgets it if it is for single use. A login that names no OS user means
    /// the one that the key was pushed for, if there is one alone.
    fn take(
        &self,
        key: &Fingerprint,
        node: Option<&NodeId>,
        os_user: Option<&str>,
        now: Timestamp,
    ) -> Result<Push, SshRefusal> {
        let mut pushes = lock(&self.0);
        let of_key = pushes.get_mut(key).ok_or(SshRefusal::UnknownKey)?;
        of_key.retain(|push| now < push.expires);
        if of_key.is_empty() {
            pushes.remove(key);
            return Err(SshRefusal::UnknownKey);
        }
        let fits = |push: &Push| Some(&push.node) == node && os_user.is_none_or(|user| user == push.os_user);
        let mut fitting = of_key.iter().enumerate().filter(|(_, push)| fits(push));
        let (Some((place, push)), None) = (fitting.next(), fitting.next()) else {
            return Err(SshRefusal::PushedForOther);
        };
        let push = push.clone();
        if push.single_use {
            of_key.swap_remove(place);
        }
        Ok(push)
    }
}

/// Finds who pushed a key for this login, as they are now.
pub(super) async fn identify(server: &Server, key: &Fingerprint, wish: &SshWish) -> Result<Caller, SshRefusal> {
    if !server.ssh_pushes.know(key, clock::now()) {
        return Err(SshRefusal::UnknownKey);
    }
    let node = node_of(server, wish).await.map_err(|error| SshRefusal::Failed(error.to_string()))?;
    let node = node.map(|node| node.id);
    let push = server.ssh_pushes.take(key, node.as_ref(), wish.os_user.as_deref(), clock::now())?;
    let pusher = server.identities.present(&push.by).ok_or(SshRefusal::PrincipalGone)?;
    let kind = SshProofKind::Pushed { request_id: push.request_id };
    let proof = SshProof {
        os_users: Some(vec![push.os_user]),
        node: Some(push.node),
        access_key: pusher.access_key().cloned(),
        ..SshProof::new(kind, key.to_string())
    };
    Ok(Caller::of_ssh(pusher.principal().clone(), Arc::new(proof)))
}
