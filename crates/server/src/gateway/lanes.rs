//! Streams that wait for a lane: who may dial one, for which stream, once.
//!
//! A stream's token goes to the end that may dial, and stands here by its digest until the stream is gone. It is good
//! for the principal or node that it was made for and for one lane; the lane that replaces a worn one has the next
//! token. What a lane carries is not known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use munjigi_core::id::{NodeId, UniqueId};
use munjigi_link::{Berth, LaneToken, MovingStream, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::door_link::Peer;
use crate::identity::Principal;
use crate::lock;

/// Most lanes of a server. A stream has one at most, and a session and a node have their own limits of streams.
const MAX_LANES: usize = 4096;

/// Who may dial a stream's lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LaneOwner {
    /// The principal at the client's end.
    Client(String, Option<UniqueId>),
    /// The node.
    Node(NodeId),
}

impl LaneOwner {
    /// Names a principal.
    pub(crate) fn client(principal: &Principal) -> Self {
        Self::Client(principal.arn.to_string(), principal.unique_id.clone())
    }

    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Client(caller) => Self::client(caller.principal()),
            Peer::Node(node, _) => Self::Node(node.clone()),
        }
    }
}

/// The streams that wait.
pub(crate) struct Lanes {
    waiting: Mutex<HashMap<[u8; 32], Arc<Waiting>>>,
    places: Arc<Semaphore>,
}

struct Waiting {
    owner: LaneOwner,
    berth: Arc<Berth>,
    /// The digest under which it stands in the table; changed only while that is locked.
    key: Mutex<[u8; 32]>,
    /// A lane is just being brought.
    claimed: AtomicBool,
}

/// Takes a stream out of the table when it is gone.
struct Registration {
    lanes: Arc<Lanes>,
    waiting: Arc<Waiting>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = lock(&self.lanes.waiting);
        let key = *lock(&self.waiting.key);
        table.remove(&key);
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self { waiting: Mutex::default(), places: Arc::new(Semaphore::new(MAX_LANES)) }
    }
}

impl Lanes {
    /// Lets `owner` dial a lane for this stream with the token that is returned. `None`: it stays where it is.
    pub(crate) fn expect(self: &Arc<Self>, stream: Stream, owner: LaneOwner) -> (MovingStream, Option<LaneToken>) {
        let Some(token) = LaneToken::random() else { return (MovingStream::staying(stream), None) };
        let berth = Arc::new(Berth::default());
        let registration = self.register(&token, owner, berth.clone());
        (MovingStream::accepting(stream, berth, registration), Some(token))
    }

    fn register(self: &Arc<Self>, token: &LaneToken, owner: LaneOwner, berth: Arc<Berth>) -> Registration {
        let key = Mutex::new(token.digest());
        let waiting = Arc::new(Waiting { owner, berth, key, claimed: AtomicBool::new(false) });
        lock(&self.waiting).insert(token.digest(), waiting.clone());
        Registration { lanes: self.clone(), waiting }
    }

    /// Gives whoever proved to be `peer` the place of this token's stream, if it is theirs and free.
    pub(super) fn claim(self: &Arc<Self>, token: LaneToken, peer: &Peer) -> Result<Claim, NoLane> {
        self.claim_as(token, &LaneOwner::of(peer))
    }

    fn claim_as(self: &Arc<Self>, token: LaneToken, owner: &LaneOwner) -> Result<Claim, NoLane> {
        let waiting = lock(&self.waiting).get(&token.digest()).cloned();
        let waiting = waiting.filter(|waiting| waiting.owner == *owner).ok_or(NoLane::Unknown)?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| NoLane::Full)?;
        if waiting.claimed.swap(true, Ordering::AcqRel) {
            return Err(NoLane::Unknown);
        }
        Ok(Claim { lanes: self.clone(), waiting, token, place: Some(place) })
    }
}

/// Why there is no lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLane {
    /// No stream of this peer waits under this token.
    Unknown,
    /// There are as many lanes as there may be.
    Full,
}

/// The right to bring one lane to a stream.
pub(super) struct Claim {
    lanes: Arc<Lanes>,
    waiting: Arc<Waiting>,
    token: LaneToken,
    place: Option<OwnedSemaphorePermit>,
}

impl Claim {
    /// Returns where to bring it.
    pub(super) fn berth(&self) -> &Berth {
        &self.waiting.berth
    }

    /// Takes the place among all lanes, to be kept as long as the lane lives.
    pub(super) fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.place.take()
    }

    /// The lane was brought: the token is used up, and the next one takes its place.
    pub(super) fn used(self) {
        let mut table = lock(&self.lanes.waiting);
        let mut key = lock(&self.waiting.key);
        // A stream that is gone stays out of the table.
        if let Some(waiting) = table.remove(&*key) {
            *key = self.token.next().digest();
            table.insert(*key, waiting);
        }
        drop(key);
        drop(table);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.waiting.claimed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> LaneOwner {
        LaneOwner::Node(NodeId::parse(text).unwrap())
    }

    #[test]
    fn a_token_is_good_for_its_owner_once_and_as_long_as_its_stream_lives() {
        let lanes = Arc::new(Lanes::default());
        let (owner, other) = (node("mi-0123456789abcdef0"), node("mi-0123456789abcdef1"));
        let token = LaneToken::random().unwrap();
        let registration = lanes.register(&token, owner.clone(), Arc::default());
        let claim = |token: &LaneToken, owner: &LaneOwner| lanes.claim_as(token.clone(), owner);
        assert_eq!(claim(&token, &other).err(), Some(NoLane::Unknown));
        assert_eq!(claim(&LaneToken::random().unwrap(), &owner).err(), Some(NoLane::Unknown));
        let client = LaneOwner::Client("mi-0123456789abcdef0".to_owned(), None);
        assert_eq!(claim(&token, &client).err(), Some(NoLane::Unknown));

        let first = claim(&token, &owner).unwrap();
        assert_eq!(claim(&token, &owner).err(), Some(NoLane::Unknown), "one is being brought");
        drop(first);
        let second = claim(&token, &owner).unwrap();
        second.used();
        assert_eq!(claim(&token, &owner).err(), Some(NoLane::Unknown), "it is used up");
        let next = token.next();
        claim(&next, &owner).unwrap().used();
        drop(registration);
        assert_eq!(claim(&next.next(), &owner).err(), Some(NoLane::Unknown), "its stream is gone");
        assert!(lock(&lanes.waiting).is_empty());
    }

    #[test]
    fn a_stream_that_goes_while_its_lane_comes_leaves_nothing_behind() {
        let lanes = Arc::new(Lanes::default());
        let owner = node("mi-0123456789abcdef0");
        let token = LaneToken::random().unwrap();
        let registration = lanes.register(&token, owner.clone(), Arc::default());
        let claim = lanes.claim_as(token, &owner).unwrap();
        drop(registration);
        claim.used();
        assert!(lock(&lanes.waiting).is_empty());
        assert_eq!(lanes.places.available_permits(), MAX_LANES);
    }

    #[test]
    fn there_are_no_more_lanes_than_there_may_be() {
        let lanes = Arc::new(Lanes::default());
        let owner = node("mi-0123456789abcdef0");
        let token = LaneToken::random().unwrap();
        let _registration = lanes.register(&token, owner.clone(), Arc::default());
        let taken = lanes.places.clone().try_acquire_many_owned(u32::try_from(MAX_LANES).unwrap()).unwrap();
        assert_eq!(lanes.claim_as(token.clone(), &owner).err(), Some(NoLane::Full));
        drop(taken);
        let mut claim = lanes.claim_as(token, &owner).unwrap();
        let place = claim.place();
        claim.used();
        assert_eq!(lanes.places.available_permits(), MAX_LANES - 1, "the lane keeps its place");
        drop(place);
        assert_eq!(lanes.places.available_permits(), MAX_LANES);
    }
}
