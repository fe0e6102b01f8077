//! Repeated calls that change something: the same signature, or the same invocation by the same key, gets the first
//! answer again and never a second effect (T-49).
//!
//! A signature says when to the second, so two calls that say the same within one second have one signature: a script
//! that makes two activations, or two sessions on one node at once. The invocation id, which SDKs make anew for each call,
//! tells them apart; but nobody signs it. So a second call under another id is believed only where no stranger can have
//! read the first: on the same TLS session, or from the same address, directly, within a moment
//! (docs/decisions/0011). Everything else is a repetition.
//!
//! Bounded in number and bytes. Answers are dropped oldest first when the bytes run out; what remains of them is that
//! they were given, so a repetition then gets an error. When the number runs out new changes wait: forgetting early
//! would reopen the window.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::StatusCode;
use munjigi_core::time::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

/// How long a call is remembered: a signature dated five minutes ahead is good for ten, and a minute is added (T-49).
const WINDOW: Duration = Duration::from_secs(660);
/// How far apart two calls of one second may arrive and still both be new: signing, connecting and waiting on a machine
/// that is busy take their time.
const MOMENT: Duration = Duration::from_secs(5);
/// Most keys remembered; two a call, so some 200 changes a second all the time.
const MAX_KEYS: usize = 262_144;
/// Most bytes of answers kept.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Names a call: a hash over what makes two calls the same.
pub(crate) type ReplayKey = [u8; 32];

/// What a call is known by.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Its signature.
    pub(crate) signature: ReplayKey,
    /// Its invocation, which an SDK keeps when it repeats a call.
    pub(crate) invocation: Option<ReplayKey>,
    /// How it came; `None` where others may speak on the same connection, behind a proxy.
    pub(crate) connection: Option<Connection>,
}

/// A connection on which nobody but its client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The TLS session, by its exported binding.
    pub(crate) session: [u8; 32],
    /// The client's address.
    pub(crate) address: IpAddr,
}

/// Hashes the parts that name a call; each part's length goes in, so that no two lists of parts are alike.
pub(crate) fn key(parts: &[&[u8]]) -> ReplayKey {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    key
}

/// An answer as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    pub(crate) request_id: Uuid,
}

/// How far a remembered call is.
#[derive(Debug, Clone)]
enum Progress {
    Running,
    Answered(Answer),
    /// It was answered; the answer is no longer kept.
    Dropped,
    /// It failed by a fault of ours and may be tried again.
    Failed,
}

/// What to do with a call.
pub(crate) enum Begin {
    /// It is new: run it and tell the guard.
    First(Running),
    /// It runs already or was answered.
    Again(Earlier),
    /// Too many calls are remembered.
    Full,
}

/// The calls remembered.
#[derive(Clone, Default)]
pub(crate) struct Replays {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    calls: HashMap<ReplayKey, Call>,
    /// Keys in the order of their expiry.
    expiry: VecDeque<(Timestamp, ReplayKey)>,
    /// Senders of calls whose answers are kept, oldest first, with the answer's bytes.
    answers: VecDeque<(Timestamp, usize, watch::Sender<Progress>)>,
    bytes: usize,
}

/// A call that is remembered.
#[derive(Clone)]
struct Call {
    progress: watch::Receiver<Progress>,
    connection: Option<Connection>,
    begun: Timestamp,
}

impl Call {
    /// Tells whether an equal call under another invocation id is one of its own: nobody else can have sent it.
    fn is_apart_from(&self, connection: Option<Connection>, now: Timestamp) -> bool {
        self.connection.zip(connection).is_some_and(|(first, second)| {
            first.session == second.session || (first.address == second.address && now <= self.begun.plus(MOMENT))
        })
    }
}

impl Replays {
    /// Begins a call under all its names.
    pub(crate) fn begin(&self, names: &Names, now: Timestamp) -> Begin {
        let mut inner = self.lock();
        inner.expire(now);
        if let Some(call) = names.invocation.and_then(|invocation| inner.calls.get(&invocation)) {
            return Begin::Again(Earlier(call.progress.clone()));
        }
        let signed = inner.calls.get(&names.signature);
        let said_again =
            names.invocation.is_some() && signed.is_some_and(|call| call.is_apart_from(names.connection, now));
        if let Some(call) = signed.filter(|_| !said_again) {
            return Begin::Again(Earlier(call.progress.clone()));
        }
        let keys: Vec<ReplayKey> = names.invocation.into_iter().chain([names.signature]).collect();
        if inner.calls.len().saturating_add(keys.len()) > MAX_KEYS {
            return Begin::Full;
        }
        let (progress_tx, progress) = watch::channel(Progress::Running);
        for key in &keys {
            inner.calls.insert(*key, Call { progress: progress.clone(), connection: names.connection, begun: now });
            inner.expiry.push_back((now.plus(WINDOW), *key));
        }
        // A signature that had an effect before this call stays known, whatever becomes of this one.
        let forgettable = keys.into_iter().filter(|key| !said_again || *key != names.signature).collect();
        Begin::First(Running { replays: self.clone(), keys: forgettable, progress_tx: Some(progress_tx), begun: now })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn expire(&mut self, now: Timestamp) {
        while let Some((expires, key)) = self.expiry.front()
            && *expires < now
        {
            self.calls.remove(key);
            self.expiry.pop_front();
        }
        while let Some((begun, bytes, _)) = self.answers.front()
            && (begun.plus(WINDOW) < now || self.bytes > MAX_BYTES)
        {
            self.bytes = self.bytes.saturating_sub(*bytes);
            if let Some((_, _, progress_tx)) = self.answers.pop_front() {
                progress_tx.send_replace(Progress::Dropped);
            }
        }
    }
}

/// A call under way. Dropped without an answer (a panic), it is forgotten and may be tried again.
pub(crate) struct Running {
    replays: Replays,
    keys: Vec<ReplayKey>,
    /// Sent here once, received by repetitions of the call.
    progress_tx: Option<watch::Sender<Progress>>,
    begun: Timestamp,
}

impl Running {
    /// Remembers the answer. A fault of ours is not remembered: the caller's next try runs anew.
    pub(crate) fn answered(mut self, answer: &Answer) {
        if answer.status.is_server_error() {
            return;
        }
        let Some(progress_tx) = self.progress_tx.take() else { return };
        progress_tx.send_replace(Progress::Answered(answer.clone()));
        let mut inner = self.replays.lock();
        inner.bytes = inner.bytes.saturating_add(answer.body.len());
        inner.answers.push_back((self.begun, answer.body.len(), progress_tx));
        inner.expire(self.begun);
    }
}

impl Running {
    /// Remembers that the request was used, without an answer to repeat.
    pub(crate) fn used(mut self) {
        if let Some(progress_tx) = self.progress_tx.take() {
            progress_tx.send_replace(Progress::Dropped);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(progress_tx) = self.progress_tx.take() {
            let mut inner = self.replays.lock();
            for key in &self.keys {
                inner.calls.remove(key);
            }
            progress_tx.send_replace(Progress::Failed);
        }
    }
}

/// A call that was begun before.
pub(crate) struct Earlier(watch::Receiver<Progress>);

impl Earlier {
    /// Waits for the first call's answer; `None` if it is not kept or there was none.
    pub(crate) async fn answer(mut self) -> Option<Answer> {
        let progress = self.0.wait_for(|progress| !matches!(progress, Progress::Running)).await.ok()?;
        match &*progress {
            Progress::Answered(answer) => Some(answer.clone()),
            Progress::Running | Progress::Dropped | Progress::Failed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &[u8]) -> Answer {
        Answer {
            status: StatusCode::OK,
            content_type: "text/xml",
            body: Bytes::copy_from_slice(body),
            request_id: Uuid::nil(),
        }
    }

    fn by(signature: &[u8]) -> Names {
        Names { signature: key(&[signature]), invocation: None, connection: None }
    }

    fn first(begin: Begin) -> Running {
        match begin {
            Begin::First(running) => running,
            Begin::Again(_) => panic!("taken for a repetition"),
            Begin::Full => panic!("full"),
        }
    }

    fn again(begin: Begin) -> Earlier {
        match begin {
            Begin::Again(earlier) => earlier,
            _ => panic!("not taken for a repetition"),
        }
    }

    #[tokio::test]
    async fn a_repetition_by_either_key_gets_the_first_answer() {
        let replays = Replays::default();
        let now = Timestamp::from_secs(1000);
        let running = first(replays.begin(&Names { invocation: Some(key(&[b"i"])), ..by(b"s1") }, now));
        let waiting = again(replays.begin(&Names { invocation: Some(key(&[b"i"])), ..by(b"s2") }, now));
        let waiting = tokio::spawn(waiting.answer());
        running.answered(&answer(b"made"));
        assert_eq!(waiting.await.unwrap(), Some(answer(b"made")));
        assert_eq!(again(replays.begin(&by(b"s1"), now)).answer().await, Some(answer(b"made")));
        let _other = first(replays.begin(&by(b"s3"), now));
    }

    #[tokio::test]
    async fn what_one_client_says_twice_is_two_calls_and_from_anybody_else_a_repetition() {
        let replays = Replays::default();
        let now = Timestamp::from_secs(1000);
        let names = |invocation: Option<&[u8]>, connection: Option<(u8, u8)>| Names {
            invocation: invocation.map(|invocation| key(&[invocation])),
            connection: connection
                .map(|(session, host)| Connection { session: [session; 32], address: IpAddr::from([10, 0, 0, host]) }),
            ..by(b"s")
        };
        first(replays.begin(&names(Some(b"1"), Some((7, 1))), now)).answered(&answer(b"made"));
        let said = async |names: &Names, at: Timestamp| again(replays.begin(names, at)).answer().await;
        let late = now.plus(MOMENT).plus(Duration::from_secs(1));
        for (repeated, at) in [
            (names(Some(b"1"), Some((7, 1))), now),
            (names(None, Some((7, 1))), now),
            (names(None, Some((8, 1))), now),
            (names(Some(b"2"), Some((8, 2))), now),
            (names(Some(b"2"), Some((8, 1))), late),
            (names(Some(b"2"), None), now),
            (names(None, None), now),
        ] {
            assert_eq!(said(&repeated, at).await, Some(answer(b"made")), "{repeated:?}");
        }
        first(replays.begin(&names(Some(b"2"), Some((7, 1))), late)).answered(&answer(b"exists"));
        assert_eq!(said(&names(Some(b"1"), Some((7, 1))), late).await, Some(answer(b"made")), "each keeps its answer");
        assert_eq!(said(&names(Some(b"2"), Some((7, 1))), late).await, Some(answer(b"exists")));
        // What came to nothing is forgotten, and the signature that had an effect is not.
        drop(first(replays.begin(&names(Some(b"3"), Some((7, 1))), late)));
        assert_eq!(said(&names(None, Some((8, 1))), late).await, None);
        let _tried_again = first(replays.begin(&names(Some(b"3"), Some((7, 1))), late));
    }

    #[test]
    fn two_programs_of_one_machine_may_say_the_same_at_once() {
        let replays = Replays::default();
        let now = Timestamp::from_secs(1000);
        for number in 0..8u8 {
            let connection = Connection { session: [number; 32], address: IpAddr::from([10, 0, 0, 1]) };
            let names = Names { invocation: Some(key(&[&[number]])), connection: Some(connection), ..by(b"s") };
            first(replays.begin(&names, now)).answered(&answer(&[number]));
        }
    }

    #[tokio::test]
    async fn faults_and_panics_are_forgotten_and_time_forgets_the_rest() {
        let replays = Replays::default();
        let now = Timestamp::from_secs(1000);
        let names = by(b"k");
        let running = first(replays.begin(&names, now));
        running.answered(&Answer { status: StatusCode::INTERNAL_SERVER_ERROR, ..answer(b"") });
        let running = first(replays.begin(&names, now));
        let earlier = again(replays.begin(&names, now));
        drop(running);
        assert_eq!(earlier.answer().await, None);
        first(replays.begin(&names, now)).answered(&answer(b"x"));
        let later = now.plus(WINDOW);
        drop(again(replays.begin(&names, later)));
        let _anew = first(replays.begin(&names, later.plus(Duration::from_secs(1))));
    }

    #[tokio::test]
    async fn answers_are_bounded_in_bytes_and_what_was_answered_never_runs_again() {
        let replays = Replays::default();
        let now = Timestamp::from_secs(1000);
        let big = vec![b'x'; MAX_BYTES / 4];
        for n in 0..6u8 {
            first(replays.begin(&by(&[n]), now)).answered(&answer(&big));
        }
        assert!(replays.lock().bytes <= MAX_BYTES);
        assert_eq!(again(replays.begin(&by(&[0]), now)).answer().await, None);
        assert!(again(replays.begin(&by(&[5]), now)).answer().await.is_some());
    }

    #[test]
    fn the_number_of_calls_is_bounded() {
        let replays = Replays::default();
        let now = Timestamp::from_secs(1000);
        let mut running = Vec::new();
        for n in 0..MAX_KEYS as u64 {
            running.push(first(replays.begin(&by(&n.to_be_bytes()), now)));
        }
        assert!(matches!(replays.begin(&by(b"one more"), now), Begin::Full));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
