//! A client's terminal, as the halves tell each other of it.

use munjigi_core::session::TerminalSize;
use munjigi_core::terminal_modes::{self, TerminalModes};
use munjigi_core::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// A terminal as the client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Value of `TERM`.
    pub(crate) term: String,
    /// Size.
    pub(crate) size: TerminalSize,
    /// What the client's differs in from the node's own.
    pub(crate) modes: TerminalModes,
}

/// Appends a terminal.
pub(super) fn put_terminal(out: &mut FieldWriter, terminal: Option<&Terminal>) {
    let Some(Terminal { term, size, modes }) = terminal else {
        out.u8(0);
        return;
    };
    out.u8(1).text(term);
    for side in [size.rows, size.columns, size.width_pixels, size.height_pixels] {
        out.u64(u64::from(side));
    }
    out.bytes(&modes.encode());
}

/// Reads one.
pub(super) fn get_terminal(fields: &mut FieldReader<'_>) -> Result<Option<Terminal>, FieldError> {
    if !super::get_flag(fields)? {
        return Ok(None);
    }
    let term = fields.text(64)?.to_owned();
    let mut side = || fields.u64().and_then(|side| u16::try_from(side).map_err(|_| FieldError::Unknown));
    let size = TerminalSize { rows: side()?, columns: side()?, width_pixels: side()?, height_pixels: side()? };
    let size = size.checked().ok_or(FieldError::Unknown)?;
    let encoded = fields.bytes(terminal_modes::MAX_BYTES)?;
    // What is said has one form here, although SSH allows more.
    let modes = TerminalModes::decode(encoded).filter(|modes| modes.encode() == encoded).ok_or(FieldError::Unknown)?;
    Ok(Some(Terminal { term, size, modes }))
}
