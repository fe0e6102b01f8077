//! Standard input and output for an event loop, without changing them for whoever shares them.
//!
//! `O_NONBLOCK` belongs to the open file, which the parent shell and other programs of a pipeline share. So terminals
//! and pipes are opened anew through `/proc/self/fd`, which gives an open file of our own (tokio's pipe ends serve
//! terminals as well: both are read, written and polled in the same way); what cannot be opened anew
//! (sockets) gets a thread, and ordinary files are written directly since they never make anybody wait for long.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use bytes::{Buf as _, Bytes};
use munjigi_core::session::OutputStream;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::dup2_stdout;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Most bytes taken from standard input at once.
const READ_CHUNK: usize = 32 * 1024;
/// Chunks that wait between a thread of this file and the event loop.
const THREAD_CHUNKS: usize = 2;

/// Opens what a standard descriptor refers to a second time, without blocking.
fn reopened(number: i32, for_reading: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(for_reading)
        .write(!for_reading)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{number}"))
}

/// An own handle on a standard descriptor.
fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    descriptor.try_clone_to_owned().map(File::from)
}

/// Tells whether the descriptor is a pipe or a device, which may make one wait; files and directories do not.
fn may_wait(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_socket()
    })
}

/// Tells whether the same call may succeed next time.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Standard input.
pub(crate) struct Source {
    way: ReadWay,
    /// Read by the thread, not yet asked for.
    rest: Bytes,
}

enum ReadWay {
    Ready(pipe::Receiver),
    /// From the reading thread to the event loop.
    Thread(mpsc::Receiver<io::Result<Bytes>>),
}

impl Source {
    /// Takes standard input. Call it once, inside of a runtime.
    pub(crate) fn stdin() -> io::Result<Self> {
        let own = duplicate(io::stdin().as_fd())?;
        let ready = may_wait(&own)
            .then(|| reopened(0, true).and_then(pipe::Receiver::from_file_unchecked))
            .and_then(Result::ok);
        let way = match ready {
            Some(ready) => ReadWay::Ready(ready),
            None => ReadWay::Thread(reading_thread(own)?),
        };
        Ok(Self { way, rest: Bytes::new() })
    }

    /// Waits for input and returns at most `most` bytes; empty at its end. Safe to drop and call again.
    pub(crate) async fn read(&mut self, most: usize) -> io::Result<Bytes> {
        match &mut self.way {
            ReadWay::Ready(ready) => loop {
                ready.readable().await?;
                let mut buffer = vec![0; most.min(READ_CHUNK)];
                match ready.try_read(&mut buffer) {
                    Ok(count) => {
                        buffer.truncate(count);
                        return Ok(buffer.into());
                    }
                    // A terminal that is gone has no more input.
                    Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(Bytes::new()),
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                }
            },
            ReadWay::Thread(chunks) => {
                if self.rest.is_empty() {
                    self.rest = chunks.recv().await.unwrap_or(Ok(Bytes::new()))?;
                }
                Ok(self.rest.split_to(most.min(self.rest.len())))
            }
        }
    }
}

/// Reads a file to its end in a thread that lives until then; the process' end does not wait for it.
fn reading_thread(mut file: File) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (chunks_tx, chunks_rx) = mpsc::channel(THREAD_CHUNKS);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        loop {
            let mut buffer = vec![0; READ_CHUNK];
            let read = match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|count| {
                    buffer.truncate(count);
                    Bytes::from(buffer)
                }),
            };
            let last = read.as_ref().map_or(true, Bytes::is_empty);
            // Waiting here is the back-pressure on whoever writes into our standard input.
            if chunks_tx.blocking_send(read).is_err() || last {
                return;
            }
        }
    })?;
    Ok(chunks_rx)
}

/// Standard output and error: what was pushed goes out in its order, also across the two.
pub(crate) struct Screen {
    stdout: Sink,
    stderr: Sink,
    queue: VecDeque<(OutputStream, Bytes)>,
    pending: usize,
}

impl Screen {
    /// Takes standard output and error. Call it once, inside of a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            stdout: Sink::new(duplicate(io::stdout().as_fd())?, 1)?,
            stderr: Sink::new(duplicate(io::stderr().as_fd())?, 2)?,
            queue: VecDeque::new(),
            pending: 0,
        })
    }

    /// Queues bytes. The caller bounds what it pushes by [`Self::pending`].
    pub(crate) fn push(&mut self, stream: OutputStream, bytes: Bytes) {
        self.pending += bytes.len();
        self.queue.push_back((stream, bytes));
    }

    /// Returns the count of bytes pushed and not yet written.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Writes everything pushed; waits as long as the reader of standard output does not read. Safe to drop and call
    /// again.
    pub(crate) async fn drain(&mut self) -> Result<(), ScreenError> {
        while let Some((stream, bytes)) = self.queue.front_mut() {
            let stream = *stream;
            let sink = match stream {
                OutputStream::Stdout => &mut self.stdout,
                OutputStream::Stderr => &mut self.stderr,
            };
            let written = sink.write(bytes).await.map_err(|error| ScreenError { stream, error })?;
            bytes.advance(written);
            self.pending -= written;
            if bytes.is_empty() {
                self.queue.pop_front();
            }
        }
        Ok(())
    }

    /// Writes everything pushed and waits until a thread that writes has done so too.
    pub(crate) async fn finish(mut self) -> Result<(), ScreenError> {
        self.drain().await?;
        self.stdout.finish().await;
        self.stderr.finish().await;
        Ok(())
    }
}

/// Closes standard output for good, so that its reader sees an end: nothing of ours may be waiting for it. What is
/// written there later goes nowhere.
pub(crate) fn close_output() {
    let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") else { return };
    // A socket may be standard input as well, which would keep it open. Anything else cannot be shut down.
    let _ = shutdown(io::stdout().as_raw_fd(), Shutdown::Write);
    // Fails only if the process may have no descriptor: then it ends soon.
    let _ = dup2_stdout(nowhere);
}

/// Why output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard {}: {error}", if *.stream == OutputStream::Stdout { "output" } else { "error" })]
pub(crate) struct ScreenError {
    /// Which of the two.
    pub(crate) stream: OutputStream,
    /// The system's answer.
    pub(crate) error: io::Error,
}

impl ScreenError {
    /// Tells whether the reader of a pipe has gone, the ordinary end of `… | head`.
    pub(crate) fn reader_is_gone(&self) -> bool {
        self.error.kind() == io::ErrorKind::BrokenPipe
    }
}

enum Sink {
    Ready(pipe::Sender),
    Direct(File),
    /// To the writing thread; the second is closed when it has written everything.
    Thread(Option<mpsc::Sender<Bytes>>, mpsc::Receiver<io::Error>),
}

impl Sink {
    fn new(own: File, number: i32) -> io::Result<Self> {
        if !may_wait(&own) {
            return Ok(Self::Direct(own));
        }
        match reopened(number, false).and_then(pipe::Sender::from_file_unchecked) {
            Ok(ready) => Ok(Self::Ready(ready)),
            // Devices such as /dev/null cannot be polled, and need not be.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(Self::Direct(own)),
            Err(_) => writing_thread(own),
        }
    }

    /// Writes some of the bytes and returns how many.
    async fn write(&mut self, bytes: &Bytes) -> io::Result<usize> {
        match self {
            Self::Direct(file) => loop {
                match file.write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    written => return written,
                }
            },
            Self::Ready(ready) => loop {
                // Straight away first: a keystroke's echo does not wait for a turn of the event loop.
                match ready.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.writable().await?,
                    Err(error) if is_passing(&error) => {}
                    written => return written,
                }
            },
            Self::Thread(chunks, errors) => {
                let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
                let chunk = bytes.slice(..bytes.len().min(READ_CHUNK));
                let permit = chunks.as_ref().ok_or_else(gone)?.reserve().await;
                let Ok(permit) = permit else { return Err(errors.recv().await.unwrap_or_else(gone)) };
                let count = chunk.len();
                permit.send(chunk);
                Ok(count)
            }
        }
    }

    async fn finish(&mut self) {
        if let Self::Thread(chunks, errors) = self {
            *chunks = None;
            // Closed without an error when the thread is done; an error at the very end has nobody to go to.
            let _ = errors.recv().await;
        }
    }
}

fn writing_thread(mut file: File) -> io::Result<Sink> {
    let (chunks_tx, mut chunks_rx) = mpsc::channel::<Bytes>(THREAD_CHUNKS);
    let (errors_tx, errors_rx) = mpsc::channel(1);
    std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        while let Some(chunk) = chunks_rx.blocking_recv() {
            if let Err(error) = file.write_all(&chunk) {
                // Room for one, and this is the only one; if the loop is gone nobody wants it.
                let _ = errors_tx.try_send(error);
                return;
            }
        }
    })?;
    Ok(Sink::Thread(Some(chunks_tx), errors_rx))
}
