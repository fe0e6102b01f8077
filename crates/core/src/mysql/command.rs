//! Commands of a client: which there are, how each is answered, and which are not let through.

use super::field::Fields;

/// How a command is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not at all.
    Nothing,
    /// By one packet, whatever it holds.
    OnePacket,
    /// By an OK, EOF or error packet.
    Single,
    /// By results, each an OK, an error or rows.
    Results,
    /// By columns and an end.
    Columns,
    /// By rows and an end.
    Rows,
    /// By the description of a prepared statement.
    Prepared,
}

/// What a command means for who reads along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Its payload behind the first byte is a statement.
    Query,
    /// So is it, to be executed later.
    Prepare,
    /// A prepared statement is executed.
    Execute,
    /// Rows of an executed statement are fetched.
    Fetch,
    /// A value for a prepared statement is sent ahead.
    Ahead,
    /// What was sent ahead is forgotten.
    Forget,
    /// Many rows of values for a prepared statement.
    Bulk,
    /// A prepared statement is forgotten.
    Close,
    /// A connection is ended.
    Kill,
    /// Everything of the session is forgotten.
    Reset,
    /// The client leaves.
    Quit,
    /// Something that stands in the recording by its own words.
    Other,
    /// Nothing that needs to be in the recording.
    Unrecorded,
}

/// A command that is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) meaning: Meaning,
    pub(super) answer: Answer,
}

impl Command {
    /// Looks a command up; `None` if it is unknown or not let through.
    pub(super) fn of(byte: u8) -> Option<Self> {
        use Answer as A;
        use Meaning as M;
        let (meaning, answer) = match byte {
            0x01 => (M::Quit, A::Nothing),
            0x02 => (M::Other, A::Single), // use a database
            0x03 => (M::Query, A::Results),
            0x04 => (M::Other, A::Columns),
            0x05 | 0x06 => (M::Other, A::Single), // make, drop a database
            0x07 => (M::Other, A::Single),        // flush
            0x08 => (M::Other, A::Single),        // shut down
            0x09 => (M::Unrecorded, A::OnePacket),
            0x0a => (M::Other, A::Results), // list of connections
            0x0c => (M::Kill, A::Single),
            0x0d => (M::Other, A::Single), // debug output
            0x0e => (M::Unrecorded, A::Single),
            0x16 => (M::Prepare, A::Prepared),
            0x17 => (M::Execute, A::Results),
            0x18 => (M::Ahead, A::Nothing),
            0x19 => (M::Close, A::Nothing),
            0x1a => (M::Forget, A::Single),     // closes the cursor, too
            0x1b => (M::Unrecorded, A::Single), // several statements on or off
            0x1c => (M::Fetch, A::Rows),
            0x1f => (M::Reset, A::Single),
            0xfa => (M::Bulk, A::Results),
            _ => return None,
        };
        Some(Self { meaning, answer })
    }
}

/// Names a command that is not let through.
pub(super) fn refused_name(byte: u8) -> String {
    match byte {
        0x11 => "changing the user (COM_CHANGE_USER)".to_owned(),
        0x12 | 0x13 | 0x15 | 0x1e => "replication".to_owned(),
        other => format!("the command {other:#04x}"),
    }
}

/// Says in words what a command of [`Meaning::Other`] does; `payload` is behind its first byte.
pub(super) fn words(byte: u8, payload: &[u8]) -> String {
    let name = || String::from_utf8_lossy(payload).chars().take(256).collect::<String>();
    match byte {
        0x02 => format!("USE {}", name()),
        0x04 => {
            let table = Fields::new(payload).until_nul_or_end();
            format!("SHOW COLUMNS FROM {}", String::from_utf8_lossy(table).chars().take(256).collect::<String>())
        }
        0x05 => format!("CREATE DATABASE {}", name()),
        0x06 => format!("DROP DATABASE {}", name()),
        0x07 => format!("FLUSH ({:#04x})", payload.first().copied().unwrap_or_default()),
        0x08 => "SHUTDOWN".to_owned(),
        0x0a => "SHOW PROCESSLIST".to_owned(),
        0x0c => format!("KILL {}", Fields::new(payload).u32().unwrap_or_default()),
        _ => "(debug information into the server's log)".to_owned(),
    }
}

/// Returns the server's number of the prepared statement that a command names.
pub(super) fn statement_id(payload: &[u8]) -> Option<u32> {
    Fields::new(payload).u32()
}
