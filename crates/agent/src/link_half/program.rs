//! A program's descriptors as the link half uses them: without ever blocking.

use std::io;
use std::os::fd::OwnedFd;

use munjigi_core::session::{OutputStream, TerminalSize};
use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ring::{MAX_CHUNK, Ring};
use crate::sys;

/// Where output comes from.
#[derive(Debug)]
struct Output {
    fd: AsyncFd<OwnedFd>,
    stream: OutputStream,
    /// Whether more may come.
    open: bool,
}

/// Where input goes.
#[derive(Debug)]
enum Input {
    /// It has always taken what there was. It is not watched: a terminal tells whoever watches it of every byte that its
    /// program reads, which would be one more wake-up for each key.
    Unwatched(OwnedFd),
    /// It did not once, and tells when it takes more.
    Watched(AsyncFd<OwnedFd>),
}

impl Input {
    fn get_ref(&self) -> &OwnedFd {
        match self {
            Self::Unwatched(fd) => fd,
            Self::Watched(fd) => fd.get_ref(),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let write = |fd: &OwnedFd| nix::unistd::write(fd, bytes).map_err(io::Error::from);
        match self {
            Self::Unwatched(fd) => write(fd),
            Self::Watched(fd) => fd.try_io(Interest::WRITABLE, write),
        }
    }

    /// Watches it from now on. What became possible in between is told at once.
    fn watch(self) -> io::Result<Self> {
        match self {
            Self::Unwatched(fd) => sys::watched(fd, Interest::WRITABLE).map(Self::Watched),
            watched @ Self::Watched(_) => Ok(watched),
        }
    }
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes, now in the ring.
    Some,
    /// Nothing at present.
    NothingNow,
    /// Nothing any more.
    Ended,
    /// The ring is full; nothing was read.
    NoRoom,
}

/// The descriptors of one program.
#[derive(Debug)]
pub(crate) struct Program {
    terminal: bool,
    input: Option<Input>,
    outputs: Vec<Output>,
    /// Whether the last input byte written ended a line.
    at_line_start: bool,
}

impl Program {
    /// Takes the descriptors over: a terminal's master, or input (unless it has ended), output and error.
    pub(crate) fn new(terminal: bool, input_open: bool, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut program = Self { terminal, input: None, outputs: Vec::new(), at_line_start: true };
        let mut next = || descriptors.next().ok_or(io::ErrorKind::UnexpectedEof);
        if terminal {
            let master = next()?;
            program.input = Some(Input::Unwatched(master.try_clone()?));
            program.add(master, OutputStream::Stdout)?;
        } else {
            if input_open {
                program.input = Some(Input::Unwatched(next()?));
            }
            program.add(next()?, OutputStream::Stdout)?;
            program.add(next()?, OutputStream::Stderr)?;
        }
        Ok(program)
    }

    /// Stands for a program that never ran.
    pub(crate) fn none() -> Self {
        Self { terminal: false, input: None, outputs: Vec::new(), at_line_start: true }
    }

    fn add(&mut self, fd: OwnedFd, stream: OutputStream) -> io::Result<()> {
        let fd = sys::watched(fd, Interest::READABLE)?;
        self.outputs.push(Output { fd, stream, open: true });
        Ok(())
    }

    /// Waits for output; returns which one to read. Never completes when none can come.
    pub(crate) async fn output_ready(&self) -> usize {
        let mut open = self.outputs.iter().enumerate().filter(|(_, output)| output.open);
        match (open.next(), open.next()) {
            (Some((at, one)), None) => {
                drop(one.fd.readable().await);
                at
            }
            (Some((first, one)), Some((second, other))) => tokio::select! {
                _ = one.fd.readable() => first,
                _ = other.fd.readable() => second,
            },
            (None, _) => std::future::pending().await,
        }
    }

    /// Reads once from an output straight into the ring.
    pub(crate) fn read(&mut self, index: usize, ring: &mut Ring) -> Read {
        let most = self.most();
        let Some(output) = self.outputs.get_mut(index).filter(|output| output.open) else { return Read::Ended };
        let stream = output.stream;
        let result = output.fd.try_io(Interest::READABLE, |fd| {
            match ring.fill(stream, most, |place| nix::unistd::read(fd, place)) {
                None => Ok(Read::NoRoom),
                // EIO: the last process with the terminal open is gone (or it was hung up); that is its end of file.
                Some(Ok(0) | Err(Errno::EIO)) => Ok(Read::Ended),
                Some(Ok(_)) => Ok(Read::Some),
                Some(Err(Errno::EINTR)) => Ok(Read::NothingNow),
                Some(Err(errno)) => Err(errno.into()),
            }
        });
        match result {
            Ok(Read::Ended) => {
                output.open = false;
                Read::Ended
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::NothingNow,
            Err(_) => {
                output.open = false;
                Read::Ended
            }
        }
    }

    /// After the program's end: reads what can be read without waiting. Returns whether that was all.
    pub(crate) fn read_rest(&mut self, ring: &mut Ring) -> bool {
        let most = self.most();
        for index in 0..self.outputs.len() {
            while let Some(output) = self.outputs.get_mut(index).filter(|output| output.open) {
                let stream = output.stream;
                // Readiness may not have been told yet, so the descriptor itself is asked.
                match ring.fill(stream, most, |place| nix::unistd::read(output.fd.get_ref(), place)) {
                    None => return false,
                    Some(Ok(count)) if count > 0 => {}
                    Some(Err(Errno::EINTR)) => {}
                    Some(_) => output.open = false,
                }
            }
        }
        true
    }

    /// Waits until input can be written. Never completes when there is no input any more.
    pub(crate) async fn input_ready(&self) {
        match &self.input {
            Some(Input::Watched(input)) => drop(input.writable().await),
            // Watched as soon as a write says that there is something to wait for.
            Some(Input::Unwatched(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// Writes input; returns how many bytes the program's descriptor took, `None` when it takes none any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.input.as_ref()?.write(bytes) {
            Ok(count) => {
                if let Some(last) = count.checked_sub(1).and_then(|last| bytes.get(last)) {
                    self.at_line_start = matches!(last, b'\n' | b'\r');
                }
                Some(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Some(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // One that cannot be watched would never be written to again.
                self.input = self.input.take().and_then(|input| input.watch().ok());
                self.input.is_some().then_some(0)
            }
            // The reader is gone.
            Err(_) => {
                self.input = None;
                None
            }
        }
    }

    /// Tells the program that its input has ended. Pipes are closed; a terminal stays, and gets its end-of-file
    /// character, twice in the middle of a line because the first one then only ends that line (termios(3)).
    pub(crate) fn end_input(&mut self) {
        if !self.terminal {
            self.input = None;
            return;
        }
        let Some(input) = &self.input else { return };
        let Ok(modes) = tcgetattr(input.get_ref()) else { return };
        if !modes.local_flags.contains(LocalFlags::ICANON) {
            return;
        }
        let end = modes.control_chars.get(SpecialCharacterIndices::VEOF as usize).copied().unwrap_or(4);
        let twice = [end; 2];
        let bytes = if self.at_line_start { twice.get(..1) } else { twice.get(..) };
        // A terminal whose input is full does not take it; its program has other things to read first.
        let _ = nix::unistd::write(input.get_ref(), bytes.unwrap_or_default());
    }

    /// Gives the terminal a new size.
    pub(crate) fn resize(&self, size: TerminalSize) {
        if let Some(input) = self.input.as_ref().filter(|_| self.terminal) {
            // The terminal may just have been hung up.
            let _ = sys::set_terminal_size(input.get_ref(), size);
        }
    }

    /// Most bytes of one read: a terminal never gives more than a page at once (n_tty's buffer).
    fn most(&self) -> usize {
        if self.terminal { 4096 } else { MAX_CHUNK }
    }

    /// Tells whether the program has a terminal.
    pub(crate) fn has_terminal(&self) -> bool {
        self.terminal
    }
}
