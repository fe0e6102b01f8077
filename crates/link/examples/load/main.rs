//! What `bench/run` sends through forwarded ports, and where they lead. Each mode prints one JSON object a line.
//!
//! `load serve [listen=ADDRESS]` is the target; it ends with its standard input. The others take the near end of a
//! forward: `load move|flow|ping|open|crowd ADDRESS [KEY=VALUE]…`. It knows no forward and none of our protocols, and
//! needs nothing but the standard library: threads that block cost the same for every system it is held against.
//! What was asked of it ends within `limit` seconds, with a message if by force.

mod near;
mod target;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Whatever goes wrong ends the measurement with its message.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is read or written at once: what a fast program asks of its kernel.
const PIECE: usize = 256 << 10;
/// The width of one figure of a flow's course.
const BIN: Duration = Duration::from_millis(100);
/// The most figures of one course: ten minutes.
const MAX_BINS: usize = 6000;

/// What the near end asks of the target; the first byte of a connection, before eight of a count.
mod wish {
    /// Send so many bytes, then end this direction.
    pub(crate) const SEND: u8 = b'd';
    /// Take so many bytes, then answer with one.
    pub(crate) const TAKE: u8 = b'u';
    /// Send and take so many bytes at once.
    pub(crate) const BOTH: u8 = b'b';
    /// Give back what comes.
    pub(crate) const ECHO: u8 = b'e';
    /// Send until the connection ends.
    pub(crate) const POUR: u8 = b'p';
    /// Take until the end of the direction, then tell its course.
    pub(crate) const COUNT: u8 = b'c';
    /// Never read and never end.
    pub(crate) const DEAF: u8 = b'w';
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(message: &str) -> ExitCode {
    // Standard error is closed only if nobody wants to know.
    let _ = writeln!(io::stderr(), "load: {message}");
    ExitCode::FAILURE
}

fn run(arguments: &[String]) -> Result<()> {
    const USAGE: &str = "usage: load serve [listen=ADDRESS] | load move|flow|ping|open|crowd ADDRESS [KEY=VALUE]…";
    let [mode, rest @ ..] = arguments else { return Err(USAGE.into()) };
    if mode == "serve" {
        return target::serve(&Settings::parse(rest)?);
    }
    let [address, rest @ ..] = rest else { return Err(USAGE.into()) };
    let address: SocketAddr = address.parse().map_err(|_| format!("`{address}` is not ADDRESS:PORT"))?;
    let settings = Settings::parse(rest)?;
    end_after(Duration::from_secs(settings.number("limit", 60)?));
    match mode.as_str() {
        "move" => near::move_bytes(address, &settings),
        "flow" => near::flow(address, &settings),
        "ping" => near::ping(address, &settings),
        "open" => near::open(address, &settings),
        "crowd" => near::crowd(address, &settings),
        other => Err(format!("there is no mode `{other}`: {USAGE}").into()),
    }
}

/// Ends this process when the time is over: a system that stalls must not stall the measurement.
fn end_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        complain(&format!("not over after {} s: it stalled", limit.as_secs()));
        std::process::exit(3);
    });
}

/// `KEY=VALUE` arguments.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn parse(arguments: &[String]) -> Result<Self> {
        let pair = |text: &String| {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Self(arguments.iter().map(pair).collect::<Result<_>>()?))
    }

    fn text<'a>(&'a self, key: &str, usual: &'a str) -> &'a str {
        self.0.get(key).map_or(usual, String::as_str)
    }

    fn number<T: FromStr>(&self, key: &str, usual: T) -> Result<T> {
        match self.0.get(key) {
            None => Ok(usual),
            Some(text) => text.parse().map_err(|_| format!("`{key}={text}` is no such number").into()),
        }
    }
}

/// Prints one result.
fn report(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Writes so many bytes of no meaning; returns how many when `count` is none and the other end has had enough.
fn pour(mut stream: &TcpStream, count: Option<u64>) -> io::Result<u64> {
    // Something that no system could shorten, should one try.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let piece: Vec<u8> = (0..PIECE)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    let mut done = 0;
    while count.is_none_or(|count| done < count) {
        let room = count.map_or(PIECE as u64, |count| (count - done).min(PIECE as u64));
        let room = piece.get(..usize::try_from(room).unwrap_or(PIECE)).unwrap_or(&piece);
        match stream.write(room) {
            Ok(written) => done += written as u64,
            Err(_) if count.is_none() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
