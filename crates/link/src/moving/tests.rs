//! Streams that move, over a link in memory and lanes over loopback that a test can cut at any byte.

use std::sync::atomic::AtomicUsize;

use munjigi_core::wire::hello::ServerHello;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::carrier::{Awaited, Carrier};
use crate::connection::{Connection, Limits};
use crate::error::EndReason;
use crate::{HELLO_HEADER, accept, driver};

/// Nothing here takes longer; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it should have happened by now")
}

/// Both ends of a link in memory.
async fn link() -> (Connection, Connection) {
    let (near, mut far) = duplex(64 * 1024);
    let limits = Limits::client();
    let (here, ends, shared) = Connection::new(&limits);
    let (tell, answer) = oneshot::channel();
    let carrier = {
        let (limits, shared) = (limits.clone(), Arc::clone(&shared));
        let awaited = Awaited { accept: "yes".to_owned(), limit: PATIENCE, tell };
        async move { Carrier::dialled(near, awaited, &limits, shared).await }
    };
    driver::spawn(carrier, yamux::Mode::Client, limits.clone(), ends, shared);
    let hello = ServerHello { version: 1, ping_interval_secs: 10, ..ServerHello::default() }.to_header().unwrap();
    let head =
        format!("HTTP/1.1 101 x\r\nupgrade: websocket\r\nsec-websocket-accept: yes\r\n{HELLO_HEADER}: {hello}\r\n\r\n");
    far.write_all(head.as_bytes()).await.unwrap();
    let there = accept::run(far, bytes::Bytes::new(), limits);
    within(answer).await.unwrap();
    (here, there)
}

/// Keys for one end of a lane, as a handshake would have given them.
fn secrets(dialled: bool) -> ExtractedSecrets {
    let one = |seed: u8| {
        let secrets =
            ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([seed; 32]), iv: Iv::from([seed ^ 0x55; 12]) };
        (3, secrets)
    };
    let (here, there) = if dialled { (1, 2) } else { (2, 1) };
    ExtractedSecrets { tx: one(here), rx: one(there) }
}

/// Where and when lanes break.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The dialling end gets no lane at all.
    Undialled,
    /// So many bytes towards the accepting end, then a reset.
    CutThere(usize),
    /// So many bytes towards the dialling end, then a reset.
    CutBack(usize),
}

/// Makes a dialler whose lanes come to the berth, as far as the fault lets them. Counts the lanes that came.
async fn dialer(berth: Arc<Berth>, fault: Fault, came: Arc<AtomicUsize>) -> LaneDialer {
    Arc::new(move |_| {
        let (berth, came) = (Arc::clone(&berth), Arc::clone(&came));
        Box::pin(async move {
            if matches!(fault, Fault::Undialled) {
                return Err(DialError::BadRequest("not today".to_owned()));
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (near_cut, _) = listener.accept().await.unwrap();
            let far_cut = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            tokio::spawn(cut(near_cut, far_cut, fault));
            tokio::spawn(async move {
                let lane = Lane::new(accepted, secrets(false)).unwrap();
                if berth.bring(lane, LaneSide::Accepted).await.is_ok() {
                    came.fetch_add(1, Ordering::Relaxed);
                }
            });
            Ok(Lane::new(dialled, secrets(true)).unwrap())
        })
    })
}

/// Carries bytes until the fault happens.
async fn cut(near: TcpStream, far: TcpStream, fault: Fault) {
    let (there, back) = match fault {
        Fault::CutThere(bytes) => (bytes, usize::MAX),
        Fault::CutBack(bytes) => (usize::MAX, bytes),
        Fault::None | Fault::Undialled => (usize::MAX, usize::MAX),
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let there = pass(&mut near_read, &mut far_write, there);
    let back = pass(&mut far_read, &mut near_write, back);
    // `Err`: the fault; both sockets are dropped with what is unread in them.
    let _ = tokio::try_join!(there, back);
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut most: usize,
) -> Result<(), ()> {
    let mut buffer = vec![0; 8192];
    loop {
        let room = buffer.len().min(most);
        if room == 0 {
            return Err(());
        }
        match from.read(&mut buffer[..room]).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            Ok(count) => {
                most -= count;
                to.write_all(&buffer[..count]).await.map_err(|_| ())?;
            }
            Err(_) => return Err(()),
        }
    }
}

struct Pair {
    here: MovingStream,
    there: MovingStream,
    came: Arc<AtomicUsize>,
    links: (Connection, Connection),
}

async fn pair(fault: Fault) -> Pair {
    let (near, mut far) = link().await;
    let mut stream = within(near.opener().open()).await.unwrap();
    stream.write_all(b"!").await.unwrap();
    stream.flush().await.unwrap();
    let mut accepted = within(far.accept()).await.unwrap();
    assert_eq!(within(accepted.read_u8()).await.unwrap(), b'!');
    let (berth, came) = (Arc::new(Berth::default()), Arc::new(AtomicUsize::new(0)));
    let dial = dialer(Arc::clone(&berth), fault, Arc::clone(&came)).await;
    let here = MovingStream::dialing(stream, LaneToken::random().unwrap(), dial);
    let there = MovingStream::accepting(accepted, berth, ());
    Pair { here, there, came, links: (near, far) }
}

/// The byte at a place: any shift, loss or doubling shows.
fn byte_at(place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// What one end does: writes so many bytes, ends or leaves, and reads to the end.
struct Script {
    bytes: u64,
    seed: u64,
    /// Ends its direction in good order; else it drops the stream.
    ends: bool,
}

/// How reading ended: at which byte, and whether in good order.
type Heard = (u64, bool);

async fn play(mut stream: MovingStream, script: &Script) -> Heard {
    let mut random = Random(script.seed);
    let (mut written, mut heard, mut shut, mut clean) = (0, 0, false, None);
    let mut buffer = vec![0; 100_000];
    let mut chunk = Vec::new();
    let mut left = None;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if clean.is_none() {
                let room = random.below(buffer.len() as u64).max(1) as usize;
                let mut space = ReadBuf::new(&mut buffer[..room]);
                match Pin::new(&mut stream).poll_read(cx, &mut space) {
                    Poll::Ready(Ok(())) if space.filled().is_empty() => clean = Some(true),
                    Poll::Ready(Ok(())) => {
                        for byte in space.filled() {
                            assert_eq!(*byte, byte_at(heard), "byte {heard} differs");
                            heard += 1;
                        }
                        progress = true;
                    }
                    Poll::Ready(Err(_)) => clean = Some(false),
                    Poll::Pending => {}
                }
            }
            if written < script.bytes && left.is_none() {
                if chunk.is_empty() {
                    let length = random.below(70_000).max(1).min(script.bytes - written);
                    chunk.extend((written..written + length).map(byte_at));
                }
                match Pin::new(&mut stream).poll_write(cx, &chunk) {
                    Poll::Ready(Ok(count)) => {
                        chunk.drain(..count);
                        written += count as u64;
                        progress = true;
                    }
                    Poll::Ready(Err(_)) => left = Some(()),
                    Poll::Pending => {}
                }
                if !progress && Pin::new(&mut stream).poll_flush(cx).is_ready() {
                    // As whoever copies does before it waits.
                }
            } else if !shut && left.is_none() {
                if !script.ends {
                    return Poll::Ready(());
                }
                match Pin::new(&mut stream).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => shut = true,
                    Poll::Ready(Err(_)) => left = Some(()),
                    Poll::Pending => {}
                }
            }
            if clean == Some(false) || (clean.is_some() && (shut || left.is_some())) {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await;
    (heard, clean == Some(true))
}

use std::future::poll_fn;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Plays both scripts over a fault; what is heard is a beginning of what was said, and all of it if it ended well.
async fn check(fault: Fault, here: Script, there: Script) -> (Heard, Heard, usize) {
    let pair = pair(fault).await;
    let (near, far) = (pair.here, pair.there);
    let (heard_here, heard_there) = within(async { tokio::join!(play(near, &here), play(far, &there)) }).await;
    for (heard, said, what) in [(heard_here, &there, "here"), (heard_there, &here, "there")] {
        assert!(heard.0 <= said.bytes, "{what}: more than was said, {fault:?}");
        if heard.1 {
            assert!(said.ends, "{what}: an end that nobody made, {fault:?}");
            assert_eq!(heard.0, said.bytes, "{what}: an end before the end, {fault:?}");
        }
    }
    drop(pair.links);
    (heard_here, heard_there, pair.came.load(Ordering::Relaxed))
}

const BULK: u64 = 6 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_pushing_hard_move_without_losing_a_byte_and_worn_lanes_are_replaced() {
    let much = 8 * BULK;
    let script = |seed| Script { bytes: much, seed, ends: true };
    let (here, there, came) = check(Fault::None, script(1), script(2)).await;
    assert_eq!((here, there), ((much, true), (much, true)));
    assert!(came > 1, "{came} lanes: the first should have been worn by now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direction_that_ended_before_the_move_stays_ended_and_the_other_one_moves() {
    for (here, there) in [(0, BULK), (BULK, 0), (1, BULK), (700_000, BULK), (BULK, 700_000)] {
        let (here, there) = (Script { bytes: here, seed: 5, ends: true }, Script { bytes: there, seed: 6, ends: true });
        let expected = ((there.bytes, true), (here.bytes, true));
        let (heard_here, heard_there, came) = check(Fault::None, here, there).await;
        assert_eq!((heard_here, heard_there), expected);
        assert!(came > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_gets_no_lane_stays_and_one_that_carries_little_asks_for_none() {
    let script = |bytes| Script { bytes, seed: 9, ends: true };
    let (here, there, came) = check(Fault::Undialled, script(BULK), script(BULK)).await;
    assert_eq!((here, there, came), ((BULK, true), (BULK, true), 0));
    let (here, there, came) = check(Fault::None, script(200_000), script(200_000)).await;
    assert_eq!((here, there, came), ((200_000, true), (200_000, true), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_at_whatever_byte_no_end_is_invented_and_no_byte_is_lost_before_one() {
    let mut random = Random(0x6d75_6e6a_6967_6921);
    for round in 0..120 {
        // Near the beginning the lane's first words break, later what moves on it.
        let at = match round % 3 {
            0 => random.below(120),
            1 => random.below(40_000),
            _ => random.below(4 << 20),
        } as usize;
        let fault = if random.below(2) == 0 { Fault::CutThere(at) } else { Fault::CutBack(at) };
        let mut script = || Script {
            bytes: [0, 100, 900_000, 3 << 20][random.below(4) as usize],
            seed: random.next() | 1,
            ends: random.below(5) > 0,
        };
        let (here, there) = (script(), script());
        check(fault, here, there).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_in_the_middle_is_a_reset_to_the_other_end_wherever_it_travels() {
    for bytes in [10, 300_000, 5 << 20] {
        let leaves = Script { bytes, seed: 3, ends: false };
        let stays = Script { bytes: 0, seed: 4, ends: true };
        let (_, heard_there, _) = check(Fault::None, leaves, stays).await;
        assert!(!heard_there.1, "{bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_is_not_read_is_taken_from_without_bound() {
    let mut pair = pair(Fault::None).await;
    let mut taken = 0_u64;
    let chunk = vec![7; 64 * 1024];
    let push = async {
        loop {
            taken += pair.here.write(&chunk).await.unwrap() as u64;
            pair.here.flush().await.unwrap();
        }
    };
    // The window of the multiplexer is full at once: it does not even get so far as a lane.
    assert!(timeout(Duration::from_millis(300), push).await.is_err());
    assert!(taken <= 1 << 20, "{taken} bytes were taken that nobody reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_link_ends_its_streams_on_lanes_too() {
    let Pair { mut here, mut there, came, links } = pair(Fault::None).await;
    let chunk = vec![1; 256 * 1024];
    let mut heard = vec![0; chunk.len()];
    while came.load(Ordering::Relaxed) == 0 || !here.has_moved() || !there.has_moved() {
        let (written, read) = tokio::join!(
            within(async {
                here.write_all(&chunk).await?;
                here.flush().await
            }),
            within(there.read_exact(&mut heard))
        );
        written.unwrap();
        read.unwrap();
    }
    assert_eq!(links.1.close().await, EndReason::ClosedHere);
    let error = within(there.read(&mut heard)).await.unwrap_err();
    assert_eq!(LinkError::of(&error), Some(&LinkError::Ended(EndReason::ClosedHere)));
    let error = within(async {
        loop {
            if let Err(error) = here.read(&mut heard).await {
                return error;
            }
        }
    });
    assert_eq!(LinkError::of(&error.await), Some(&LinkError::Ended(EndReason::ClosedByPeer)));
}
