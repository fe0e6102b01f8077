//! The ledger of a port session's connections: who has one, what they carried, and what the hub must still record.
//!
//! Connections write, the hub reads. What waits for the hub is bounded: a connection keeps its place until its end was
//! taken, and a statement its room.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use munjigi_core::endpoint::Endpoint;
use munjigi_core::recording::{Connection, Event, EventKind, NO_HASH};
use munjigi_core::time::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rate::{Bucket, Paced};
use super::{Granted, PortError};
use crate::{clock, lock};

/// Memory that statements may take until the hub has them, bytes in a session (T-95).
const STATEMENT_ROOM: u32 = 512 * 1024;

/// One direction of a connection, as far as it was carried.
pub(super) struct Carried {
    bytes: u64,
    /// `None` where each file has a hash of its own, and the bytes are but packets between gateway and node.
    hash: Option<Context>,
}

impl Carried {
    fn new(endpoint: &Endpoint) -> Self {
        let is_of_files = matches!(endpoint, Endpoint::Files(_) | Endpoint::Rsync(_));
        Self { bytes: 0, hash: (!is_of_files).then(|| Context::new(&SHA256)) }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    fn result(&self) -> (u64, [u8; 32]) {
        let mut hash = NO_HASH;
        if let Some(made) = &self.hash {
            hash.copy_from_slice(made.clone().finish().as_ref());
        }
        (self.bytes, hash)
    }
}

/// An open connection.
pub(super) struct Live {
    pub(super) number: u64,
    endpoint: Endpoint,
    /// What the node connected to, if it is an address.
    address: Option<IpAddr>,
    /// Cancelled when the connection is cut, by itself or with the session.
    cut: CancellationToken,
    /// From the client to the destination.
    inward: Mutex<Carried>,
    /// From the destination to the client.
    outward: Mutex<Carried>,
}

impl Live {
    /// Returns what the connection goes to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns what is cancelled when the connection is cut.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    fn bytes(&self) -> u64 {
        lock(&self.inward).bytes + lock(&self.outward).bytes
    }
}

/// An open connection as policy is asked about it.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Its number.
    pub number: u64,
    /// What it goes to.
    pub endpoint: Endpoint,
    /// The address that the node connected to, if it is one.
    pub address: Option<IpAddr>,
}

/// A connection that is being made, or its end that the hub has not taken yet: its place among the session's.
pub(super) struct Attempt {
    number: u64,
    place: OwnedSemaphorePermit,
}

impl Attempt {
    /// Returns the connection's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

#[derive(Default)]
struct Book {
    last_number: u64,
    live: BTreeMap<u64, (Arc<Live>, OwnedSemaphorePermit)>,
    /// For the hub; the place of a connection is free again when its last event was taken, the room of a statement too.
    events: Vec<(Timestamp, EventKind, Option<OwnedSemaphorePermit>)>,
    /// How many events of statements were noted in all.
    statements: u64,
    ended: bool,
    /// Bytes of connections that have ended, both ways.
    carried: u64,
}

/// What the hub is to record.
pub(in crate::gateway) struct Taken {
    /// What happened and when, in order.
    pub(in crate::gateway) events: Vec<(Timestamp, EventKind)>,
    /// How many events of statements were noted up to here, for [`Ledger::statements_stored`].
    pub(in crate::gateway) statements: u64,
    /// The rate in bytes a second, if a connection was held up by it for the first time.
    pub(in crate::gateway) held_up_at: Option<NonZeroU64>,
}

/// The connections of one session.
pub struct Ledger {
    granted: Granted,
    /// Whether somebody watches the bytes.
    watched: AtomicBool,
    places: Arc<Semaphore>,
    over: CancellationToken,
    book: Mutex<Book>,
    /// Wakes the hub.
    changed: Notify,
    room: Arc<Semaphore>,
    /// How many events of statements are in the recording for good; told by the hub, waited for by connections.
    stored: watch::Sender<u64>,
    /// Whether bytes to the client count as activity.
    outward_counts: bool,
    /// How fast its connections carry, if that is limited.
    bucket: Option<Arc<Bucket>>,
    /// That limit has held a connection up, and the hub has not taken it yet.
    held_up: AtomicBool,
    begun: Instant,
    /// Milliseconds since `begun` of the newest activity.
    active: AtomicU64,
    has_activity: AtomicBool,
}

impl Ledger {
    /// Most connections of a session at once.
    pub const MAX_CONNECTIONS: usize = 256;

    /// Begins; connections are counted on from `last_number`.
    pub(in crate::gateway) fn new(last_number: u64, outward_counts: bool, granted: Granted) -> Self {
        Self {
            bucket: None,
            held_up: AtomicBool::new(false),
            granted,
            watched: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(Self::MAX_CONNECTIONS)),
            over: CancellationToken::new(),
            book: Mutex::new(Book { last_number, ..Book::default() }),
            changed: Notify::new(),
            room: Arc::new(Semaphore::new(STATEMENT_ROOM as usize)),
            stored: watch::Sender::new(0),
            outward_counts,
            begun: Instant::now(),
            active: AtomicU64::new(0),
            has_activity: AtomicBool::new(false),
        }
    }

    /// Limits how fast its connections carry, in bytes a second (T-92).
    pub(in crate::gateway) fn with_rate(mut self, rate: Option<NonZeroU64>) -> Self {
        self.bucket = rate.map(|rate| Arc::new(Bucket::new(rate)));
        self
    }

    /// Returns what limits a connection to this endpoint. Files have no limit: they are no forward.
    pub(super) fn paced(&self, endpoint: &Endpoint) -> Option<Paced> {
        let is_forward = match endpoint {
            Endpoint::Tcp(_) | Endpoint::Unix(_) | Endpoint::Listen(_) | Endpoint::ListenUnix(_) => true,
            Endpoint::Agent | Endpoint::Upload(_) | Endpoint::Download(_) | Endpoint::Files(_) | Endpoint::Rsync(_) => {
                false
            }
        };
        self.bucket.clone().filter(|_| is_forward).map(Paced::of)
    }

    /// Takes note, for the hub, that the limit holds a connection up.
    pub(super) fn held_up(&self) {
        self.held_up.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Returns what is cancelled when the session is over or being ended.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Takes a place and a number for a connection.
    pub(super) fn attempt(&self) -> Result<Attempt, PortError> {
        let mut book = lock(&self.book);
        if book.ended {
            return Err(PortError::Ended);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PortError::TooMany)?;
        book.last_number += 1;
        Ok(Attempt { number: book.last_number, place })
    }

    /// Notes that the attempt failed.
    pub(super) fn refused(&self, attempt: Attempt, destination: &str, why: &str) {
        let Attempt { number, place } = attempt;
        let event = Connection::Refused { number, destination: destination.to_owned(), why: why.to_owned() };
        self.note(&mut lock(&self.book), event, Some(place));
    }

    /// Notes that the attempt succeeded.
    pub(super) fn opened(&self, attempt: Attempt, endpoint: &Endpoint, address: &str) -> Result<Arc<Live>, PortError> {
        let Attempt { number, place } = attempt;
        let live = Arc::new(Live {
            number,
            endpoint: endpoint.clone(),
            address: address.parse::<SocketAddr>().ok().map(|address| address.ip()),
            cut: self.over.child_token(),
            inward: Mutex::new(Carried::new(endpoint)),
            outward: Mutex::new(Carried::new(endpoint)),
        });
        let event = Connection::Opened { number, destination: endpoint.to_string(), address: address.to_owned() };
        let mut book = lock(&self.book);
        if book.ended {
            return Err(PortError::Ended);
        }
        book.live.insert(number, (live.clone(), place));
        self.note(&mut book, event, None);
        drop(book);
        self.touch();
        Ok(live)
    }

    pub(super) fn carried_in(&self, live: &Live, bytes: &[u8]) {
        lock(&live.inward).add(bytes);
        self.touch();
    }

    pub(super) fn carried_out(&self, live: &Live, bytes: &[u8]) {
        lock(&live.outward).add(bytes);
        if self.outward_counts {
            self.touch();
        }
    }

    /// Notes a connection's end, once.
    pub(super) fn closed(&self, live: &Live, why: &str) {
        let mut book = lock(&self.book);
        if let Some((live, place)) = book.live.remove(&live.number) {
            book.carried += live.bytes();
            self.note(&mut book, end_of(&live, why), Some(place));
        }
    }

    /// Cuts a connection.
    pub(crate) fn cut(&self, number: u64, why: &str) {
        let live = lock(&self.book).live.get(&number).map(|(live, _)| live.clone());
        if let Some(live) = live {
            self.closed(&live, why);
            live.cut.cancel();
        }
    }

    /// Returns the open connections.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let book = lock(&self.book);
        let reached =
            |live: &Live| Reached { number: live.number, endpoint: live.endpoint.clone(), address: live.address };
        book.live.values().map(|(live, _)| reached(live)).collect()
    }

    /// Returns how many bytes the session has carried, both ways, since this server's start.
    pub(crate) fn carried(&self) -> u64 {
        let book = lock(&self.book);
        book.carried + book.live.values().map(|(live, _)| live.bytes()).sum::<u64>()
    }

    /// Tells the first who asks that nobody watches the bytes yet.
    pub(crate) fn begin_watching(&self) -> bool {
        !self.watched.swap(true, Ordering::Relaxed)
    }

    fn note(&self, book: &mut Book, event: Connection, place: Option<OwnedSemaphorePermit>) {
        if !book.ended {
            book.events.push((clock::now(), EventKind::Connection(Box::new(event)), place));
            self.changed.notify_one();
        }
    }

    /// Hands an event of a statement to the hub and returns its number among those of the session; waits while the hub
    /// is behind.
    pub(super) async fn note_statement(&self, event: EventKind) -> Result<u64, PortError> {
        let bytes = size_of::<Event>()
            + match &event {
                EventKind::Statement(statement) => size_of_val(&**statement) + statement.weight(),
                EventKind::StatementEnd(end) => size_of_val(&**end) + end.weight(),
                EventKind::File(file) => size_of_val(&**file) + file.weight(),
                EventKind::FileChange(change) => size_of_val(&**change) + change.weight(),
                _ => 0,
            };
        let room = u32::try_from(bytes).unwrap_or(u32::MAX).min(STATEMENT_ROOM);
        // This wait is the backpressure: whoever notes reads no further until there is room.
        let room = self.over.run_until_cancelled(Arc::clone(&self.room).acquire_many_owned(room)).await;
        let Some(Ok(room)) = room else { return Err(PortError::Ended) };
        let mut book = lock(&self.book);
        if book.ended {
            return Err(PortError::Ended);
        }
        book.statements += 1;
        book.events.push((clock::now(), event, Some(room)));
        self.changed.notify_one();
        Ok(book.statements)
    }

    /// Waits until so many events of statements are in the recording for good; only under strict recording that is told.
    pub(super) async fn statements_are_stored(&self, count: u64) -> Result<(), PortError> {
        let mut stored = self.stored.subscribe();
        match self.over.run_until_cancelled(stored.wait_for(|stored| *stored >= count)).await {
            Some(Ok(_)) => Ok(()),
            _ => Err(PortError::Ended),
        }
    }

    /// Tells that so many events of statements are in the recording for good.
    pub(in crate::gateway) fn statements_stored(&self, count: u64) {
        self.stored.send_if_modified(|stored| std::mem::replace(stored, count) != count);
    }

    fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.store(now, Ordering::Relaxed);
        self.has_activity.store(true, Ordering::Relaxed);
    }

    /// Returns when a connection last carried something that counts as activity.
    pub(in crate::gateway) fn active(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.active.load(Ordering::Relaxed));
        self.has_activity.load(Ordering::Relaxed).then(|| self.begun + since)
    }

    /// Waits until there is something to take.
    pub(in crate::gateway) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes what happened since the last time.
    pub(in crate::gateway) fn take(&self) -> Taken {
        let mut book = lock(&self.book);
        let (events, statements) = (std::mem::take(&mut book.events), book.statements);
        drop(book);
        let is_held_up = self.held_up.swap(false, Ordering::Relaxed);
        let held_up_at = self.bucket.as_ref().filter(|_| is_held_up).map(|bucket| bucket.rate());
        // Places and room become free here.
        Taken { events: events.into_iter().map(|(at, event, _)| (at, event)).collect(), statements, held_up_at }
    }

    /// Cuts all connections; no further one is made. What is left to record comes with [`Self::take`].
    pub(in crate::gateway) fn end(&self, why: &str) {
        let mut book = lock(&self.book);
        while let Some((_, (live, place))) = book.live.pop_first() {
            self.note(&mut book, end_of(&live, why), Some(place));
        }
        book.ended = true;
        drop(book);
        self.over.cancel();
    }
}

fn end_of(live: &Live, why: &str) -> Connection {
    let (bytes_in, hash_in) = lock(&live.inward).result();
    let (bytes_out, hash_out) = lock(&live.outward).result();
    Connection::Closed { number: live.number, bytes_in, bytes_out, hash_in, hash_out, why: why.to_owned() }
}
