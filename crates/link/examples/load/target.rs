//! Where the measured forwards lead: does what the first nine bytes of each connection ask for.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::{BIN, MAX_BINS, PIECE, Result, Settings, pour, report, wish};

/// Serves until standard input ends. Says its port first.
pub(super) fn serve(settings: &Settings) -> Result<()> {
    let listener = TcpListener::bind(settings.text("listen", "127.0.0.1:0"))?;
    report(&format!(r#"{{"port": {}}}"#, listener.local_addr()?.port()))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who only looks whether the port is there says nothing; who breaks off is counted at the near end.
            thread::spawn(move || serve_one(stream));
        }
    });
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut kind, mut count) = ([0_u8; 1], [0_u8; 8]);
    stream.read_exact(&mut kind)?;
    stream.read_exact(&mut count)?;
    let [kind] = kind;
    let count = u64::from_le_bytes(count);
    match kind {
        wish::SEND => send(&stream, Some(count)),
        wish::POUR => send(&stream, None),
        wish::TAKE => {
            take(&stream, count)?;
            stream.write_all(b"!")
        }
        wish::BOTH => thread::scope(|scope| {
            let sending = scope.spawn(|| send(&stream, Some(count)));
            take(&stream, count)?;
            sending.join().unwrap_or_else(|_| Err(io::Error::other("the sending thread panicked")))
        }),
        wish::ECHO => echo(stream),
        wish::COUNT => {
            let course = course(&stream, None)?;
            stream.write_all(&(course.len() as u32).to_le_bytes())?;
            course.iter().try_for_each(|bytes| stream.write_all(&bytes.to_le_bytes()))
        }
        wish::DEAF => loop {
            thread::park();
        },
        _ => Ok(()),
    }
}

fn send(stream: &TcpStream, count: Option<u64>) -> io::Result<()> {
    pour(stream, count)?;
    stream.shutdown(Shutdown::Write)
}

/// Reads exactly so many bytes; an earlier end is an error.
pub(super) fn take(mut stream: &TcpStream, mut count: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    while count > 0 {
        let room = usize::try_from(count).unwrap_or(PIECE).min(PIECE);
        match stream.read(piece.get_mut(..room).unwrap_or_default())? {
            0 => return Err(io::Error::other(format!("the connection ended {count} bytes early"))),
            got => count -= got as u64,
        }
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            got => stream.write_all(piece.get(..got).unwrap_or_default())?,
        }
    }
}

/// Reads to the end of the direction, or until an instant; returns how many bytes came in each tenth of a second.
pub(super) fn course(mut stream: &TcpStream, until: Option<Instant>) -> io::Result<Vec<u64>> {
    let mut piece = vec![0; PIECE];
    let (mut bins, begun) = (vec![0_u64], Instant::now());
    while until.is_none_or(|until| Instant::now() < until) {
        let got = stream.read(&mut piece)?;
        if got == 0 {
            break;
        }
        let at = usize::try_from(begun.elapsed().as_millis() / BIN.as_millis()).unwrap_or(MAX_BINS);
        if at >= MAX_BINS {
            break;
        }
        bins.resize(bins.len().max(at + 1), 0);
        if let Some(bin) = bins.get_mut(at) {
            *bin += got as u64;
        }
    }
    Ok(bins)
}
