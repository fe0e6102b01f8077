//! The terminal this program stands in: raw mode that is always undone, size, type and locale.
//!
//! The saved settings are one per process, so that a panic or a signal anywhere restores them too.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use munjigi_core::session::{TerminalSize, environment_allowed};
use munjigi_core::wire::message::Pty;
use nix::sys::termios::{InputFlags, LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Settings to go back to while raw mode is on. Held for single calls only.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
/// Longest line that is read from standard input.
const MAX_LINE_BYTES: u64 = 8192;
/// Size given to a session with a terminal when this program has none (`-t` in a pipe).
const SIZE_WITHOUT_TERMINAL: TerminalSize = TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 };

/// Raw mode of standard input: every key goes to the program. Dropping it restores what was before.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Switches raw mode on. Fails when standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.input_flags.insert(InputFlags::IGNPAR);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        if let Err(error) = tcsetattr(&stdin, SetArg::TCSADRAIN, &raw) {
            restore();
            return Err(error.into());
        }
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal if raw mode is on; otherwise does nothing. Safe to call at any time from any thread.
pub(crate) fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = saved {
        // At once, not after draining: the terminal may be stopped. There is nobody left to tell of a failure.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
    }
}

/// Asks for a line on the terminal and does not show what is typed. Fails when standard input is no terminal.
pub(crate) fn ask_hidden(question: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    io::stderr().write_all(question.as_bytes())?;
    *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    let asked = tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).map_err(io::Error::from).and_then(|()| read_line());
    restore();
    // The newline was not shown either.
    io::stderr().write_all(b"\n")?;
    asked
}

/// Reads a line of standard input, without its end.
pub(crate) fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// Makes a panic restore the terminal before its message is printed.
pub(crate) fn restore_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        usual(panic);
    }));
}

/// Tells whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Tells whether standard input, output and error are all terminals.
pub(crate) fn everything_is_a_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Returns the terminal's size, from whichever of the three standard streams is one.
pub(crate) fn size() -> Option<TerminalSize> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let descriptors = [stdin.as_fd_number(), stdout.as_fd_number(), stderr.as_fd_number()];
    descriptors.into_iter().find_map(window_size)?.checked()
}

/// Returns the terminal for an open request: its type and real size.
pub(crate) fn pty() -> Pty {
    let size = size().unwrap_or(SIZE_WITHOUT_TERMINAL);
    let term = std::env::var("TERM").ok().filter(|term| environment_allowed("TERM", term));
    Pty {
        term: term.unwrap_or_else(|| "dumb".to_owned()),
        rows: size.rows.into(),
        columns: size.columns.into(),
        width_pixels: size.width_pixels.into(),
        height_pixels: size.height_pixels.into(),
        ..Pty::default()
    }
}

/// Returns the locale variables that a session takes along: `LANG`, `LC_*`, `COLORTERM` (T-78).
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| name != "TERM" && name != "TZ" && environment_allowed(name, value))
        .collect()
}

/// A descriptor's number, which the system call for the window's size wants.
trait DescriptorNumber {
    fn as_fd_number(&self) -> i32;
}

impl<T: std::os::fd::AsFd> DescriptorNumber for T {
    fn as_fd_number(&self) -> i32 {
        let descriptor: BorrowedFd<'_> = self.as_fd();
        descriptor.as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "no safe call for TIOCGWINSZ in nix; the argument is a local of the type it fills")]
fn window_size(descriptor: i32) -> Option<TerminalSize> {
    nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which is valid for it during the call.
    unsafe { get_window_size(descriptor, &raw mut size) }.ok()?;
    Some(TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
        width_pixels: size.ws_xpixel,
        height_pixels: size.ws_ypixel,
    })
}
