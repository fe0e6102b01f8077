//! The near end of a forward: what is done through it, and how long that took.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::target::{course, take};
use super::{BIN, MAX_BINS, Result, Settings, pour, report, wish};

/// How long a course may go on after its sender has stopped: what lies in buffers on the way.
const DRAIN: Duration = Duration::from_secs(20);

/// Moves `bytes` in all over `streams` connections at a time, `up`, `down` or `both` (so many each way).
pub(super) fn move_bytes(address: SocketAddr, settings: &Settings) -> Result<()> {
    let streams: u64 = settings.number("streams", 1)?;
    let share = settings.number("bytes", 64 << 20)? / streams.max(1);
    let kind = match settings.text("way", "down") {
        "down" => wish::SEND,
        "up" => wish::TAKE,
        "both" => wish::BOTH,
        other => return Err(format!("`way={other}` is neither up nor down nor both").into()),
    };
    let begun = Instant::now();
    together(streams, |_| one_transfer(address, kind, share))?;
    let seconds = begun.elapsed().as_secs_f64();
    report(&format!(r#"{{"seconds": {seconds}, "mib_per_second": {}}}"#, mib(share * streams) / seconds))
}

fn one_transfer(address: SocketAddr, kind: u8, count: u64) -> io::Result<()> {
    let mut stream = connect(address, kind, count)?;
    match kind {
        wish::SEND => take(&stream, count),
        wish::TAKE => {
            pour(&stream, Some(count))?;
            stream.read_exact(&mut [0])
        }
        _ => thread::scope(|scope| {
            let sending = scope.spawn(|| pour(&stream, Some(count)));
            take(&stream, count)?;
            sending.join().unwrap_or_else(|_| Err(io::Error::other("the sending thread panicked")))?;
            // The target ends its direction after all was sent, and takes all: both are over.
            Ok(())
        }),
    }
}

/// Lets bytes flow for `seconds` and tells how many arrived: in all, and per second in the second half of the time.
pub(super) fn flow(address: SocketAddr, settings: &Settings) -> Result<()> {
    let streams: u64 = settings.number("streams", 1)?;
    let time = Duration::from_secs_f64(settings.number("seconds", 5.0)?);
    let (down, up) = match settings.text("way", "down") {
        "down" => (streams, 0),
        "up" => (0, streams),
        "both" => (streams, streams),
        other => return Err(format!("`way={other}` is neither up nor down nor both").into()),
    };
    let courses =
        together(down + up, |index| if index < down { flow_down(address, time) } else { flow_up(address, time) })?;
    let mut bins = vec![0_u64; courses.iter().map(Vec::len).max().unwrap_or_default()];
    for course in &courses {
        bins.iter_mut().zip(course).for_each(|(sum, bytes)| *sum += bytes);
    }
    // The last tenth of a second is only begun.
    let whole = usize::try_from(time.as_millis() / BIN.as_millis())?.min(bins.len());
    let second_half = bins.get(whole / 2..whole).unwrap_or_default();
    let steady = mib(second_half.iter().sum()) / (second_half.len().max(1) as f64 * BIN.as_secs_f64());
    let mean = mib(bins.iter().sum()) / (bins.len().max(1) as f64 * BIN.as_secs_f64());
    report(&format!(r#"{{"mib_per_second": {mean}, "steady_mib_per_second": {steady}, "bins": {bins:?}}}"#))
}

fn flow_down(address: SocketAddr, time: Duration) -> io::Result<Vec<u64>> {
    let stream = connect(address, wish::POUR, 0)?;
    course(&stream, Some(Instant::now() + time))
}

fn flow_up(address: SocketAddr, time: Duration) -> io::Result<Vec<u64>> {
    let mut stream = connect(address, wish::COUNT, 0)?;
    thread::scope(|scope| {
        scope.spawn(|| pour(&stream, None));
        thread::sleep(time);
        // The writer sees an error and stops; what it has written is still delivered.
        stream.shutdown(Shutdown::Write)
    })?;
    stream.set_read_timeout(Some(DRAIN))?;
    let mut count = [0; 4];
    stream.read_exact(&mut count)?;
    let count = usize::try_from(u32::from_le_bytes(count)).unwrap_or(MAX_BINS).min(MAX_BINS);
    let mut bin = [0; 8];
    (0..count).map(|_| stream.read_exact(&mut bin).map(|()| u64::from_le_bytes(bin))).collect()
}

/// One byte there and back, `count` times on one connection.
pub(super) fn ping(address: SocketAddr, settings: &Settings) -> Result<()> {
    let mut stream = connect(address, wish::ECHO, 0)?;
    let mut byte = [b'x'];
    for _ in 0..20 {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    let mut times = Vec::new();
    for _ in 0..settings.number("count", 500)? {
        let begun = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(begun.elapsed());
    }
    summary(times)
}

/// From the call of `connect` to the first byte of the target, `count` connections one after another.
pub(super) fn open(address: SocketAddr, settings: &Settings) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..settings.number("count", 100)? {
        let begun = Instant::now();
        let mut stream = connect(address, wish::TAKE, 0)?;
        stream.read_exact(&mut [0])?;
        times.push(begun.elapsed());
    }
    summary(times)
}

/// `streams` connections together: one is never read here, one never at the target, and the others move `bytes` both
/// ways, each. Stays until standard input ends when `stay=1`, with the two unread ones.
pub(super) fn crowd(address: SocketAddr, settings: &Settings) -> Result<()> {
    let streams: u64 = settings.number("streams", 200)?;
    let bytes: u64 = settings.number("bytes", 1 << 20)?;
    let unread = connect(address, wish::POUR, 0)?;
    let deaf = connect(address, wish::DEAF, 0)?;
    let writing = deaf.try_clone()?;
    thread::spawn(move || pour(&writing, None));
    // Both fill what there is to fill on the way before the others come.
    thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    together(streams.saturating_sub(2).max(1), |_| one_transfer(address, wish::BOTH, bytes))?;
    let seconds = begun.elapsed().as_secs_f64();
    let moved = mib(bytes * streams.saturating_sub(2).max(1));
    report(&format!(r#"{{"seconds": {seconds}, "mib_per_second": {}}}"#, moved / seconds))?;
    if settings.number("stay", 0)? == 1 {
        io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    }
    drop((unread, deaf));
    Ok(())
}

fn connect(address: SocketAddr, kind: u8, count: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut asked = vec![kind];
    asked.extend(count.to_le_bytes());
    stream.write_all(&asked)?;
    Ok(stream)
}

/// Does the same on so many threads at once; the first error is the result.
fn together<T: Send>(count: u64, work: impl Fn(u64) -> io::Result<T> + Sync) -> Result<Vec<T>> {
    let (mut results, mut failed, mut why) = (Vec::new(), 0, None);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|index| {
                scope.spawn({
                    let work = &work;
                    move || work(index)
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(Ok(result)) => results.push(result),
                Ok(Err(error)) => {
                    failed += 1;
                    why = Some(error.to_string());
                }
                Err(_) => failed += 1,
            }
        }
    });
    match why {
        _ if failed == 0 => Ok(results),
        why => Err(format!("{failed} of {count} connections failed: {}", why.unwrap_or_default()).into()),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn summary(mut times: Vec<Duration>) -> Result<()> {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    report(&format!(
        r#"{{"p50_us": {}, "p95_us": {}, "p99_us": {}, "max_us": {}}}"#,
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    ))
}
