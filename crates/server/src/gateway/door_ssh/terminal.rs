//! A client's terminal: from SSH's words to ours.

use munjigi_core::session::{TerminalSize, environment_allowed};
use munjigi_core::terminal_modes::TerminalModes;
use munjigi_core::wire::message::Pty;
use russh::Pty as Mode;

/// What a program gets that cannot be told what its terminal is.
const UNKNOWN_TERM: &str = "dumb";
/// Size of a terminal whose client says 0, which means that it does not know (RFC 4254 section 6.2).
const UNKNOWN_SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 };

/// A terminal that a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Value of `TERM`, checked (T-78).
    pub(super) term: String,
    /// Its size, one that a terminal can have.
    pub(super) size: TerminalSize,
    /// What keys mean, what is echoed and the like.
    modes: TerminalModes,
}

impl Terminal {
    /// Takes what a client said of its terminal. `dimensions` are columns, rows, and both in pixels.
    pub(super) fn new(term: &str, dimensions: [u32; 4], modes: &[(Mode, u32)]) -> Self {
        let term = if environment_allowed("TERM", term) { term } else { UNKNOWN_TERM };
        let modes = TerminalModes::new(modes.iter().map(|(mode, argument)| (*mode as u8, *argument)));
        Self { term: term.to_owned(), size: size(dimensions), modes }
    }

    /// Returns it as the node gets it.
    pub(super) fn to_pty(&self) -> Pty {
        Pty {
            term: self.term.clone(),
            rows: self.size.rows.into(),
            columns: self.size.columns.into(),
            width_pixels: self.size.width_pixels.into(),
            height_pixels: self.size.height_pixels.into(),
            modes: self.modes.encode().into(),
        }
    }
}

/// Reads columns, rows, and both in pixels. What no terminal can have becomes the nearest that one can.
pub(super) fn size([columns, rows, width, height]: [u32; 4]) -> TerminalSize {
    let side = |cells: u32, unknown: u16| match u16::try_from(cells).unwrap_or(u16::MAX) {
        0 => unknown,
        cells => cells.min(TerminalSize::MAX),
    };
    TerminalSize {
        rows: side(rows, UNKNOWN_SIZE.rows),
        columns: side(columns, UNKNOWN_SIZE.columns),
        width_pixels: u16::try_from(width).unwrap_or(0),
        height_pixels: u16::try_from(height).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_becomes_one_that_a_terminal_can_have() {
        for (said, rows, columns) in [
            ([80, 24, 0, 0], 24, 80),
            ([0, 0, 0, 0], 24, 80),
            ([u32::MAX, 70_000, 1, 1], 4096, 4096),
            ([1, 1, 9, 9], 1, 1),
        ] {
            let size = size(said);
            assert_eq!((size.rows, size.columns), (rows, columns), "{said:?}");
            assert!(size.checked().is_some());
        }
    }

    #[test]
    fn modes_travel_as_they_came() {
        let terminal =
            Terminal::new("xterm", [80, 24, 0, 0], &[(Mode::VERASE, 35), (Mode::TTY_OP_END, 0), (Mode::ECHO, 1)]);
        assert_eq!(terminal.to_pty().modes, [3, 0, 0, 0, 35, 53, 0, 0, 0, 1, 0][..]);
    }

    #[test]
    fn a_term_that_is_none_is_dumb() {
        for (said, term) in [("xterm-256color", "xterm-256color"), ("", "dumb"), ("x;reboot", "dumb"), ("한", "dumb")]
        {
            assert_eq!(Terminal::new(said, [80, 24, 0, 0], &[]).to_pty().term, term);
        }
    }
}
