//! Capabilities: what both ends of a connection agree to speak, as bits.
//!
//! The low 32 bits are MySQL's, the high 32 those that MariaDB added. A bit that is not in [`PASSED`] is never agreed on,
//! so every form of packet that can come is known here.

/// MySQL's own: the lack of it in a greeting says that the server is MariaDB.
pub const MYSQL: u64 = 1;
/// The affected rows of an update are those found.
pub const FOUND_ROWS: u64 = 1 << 1;
/// Long column flags.
pub const LONG_FLAG: u64 = 1 << 2;
/// The login names a database.
pub const CONNECT_WITH_DB: u64 = 1 << 3;
/// `database.table.column` is no column name.
pub const NO_SCHEMA: u64 = 1 << 4;
/// The client is ODBC.
pub const ODBC: u64 = 1 << 6;
/// The client may be asked for files (`LOAD DATA LOCAL`).
pub const LOCAL_FILES: u64 = 1 << 7;
/// Spaces before brackets do not matter.
pub const IGNORE_SPACE: u64 = 1 << 8;
/// The protocol since MySQL 4.1.
pub const PROTOCOL_41: u64 = 1 << 9;
/// The longer time limit for idle connections of people.
pub const INTERACTIVE: u64 = 1 << 10;
/// TLS begins before the login.
pub const SSL: u64 = 1 << 11;
/// Answers carry the state of transactions.
pub const TRANSACTIONS: u64 = 1 << 13;
/// Passwords are proved as since MySQL 4.1 (bit 15; bit 14 is an older name that programs set as well).
pub const SECURE_CONNECTION: u64 = 1 << 15;
const RESERVED: u64 = 1 << 14;
/// Several statements in one query.
pub const MULTI_STATEMENTS: u64 = 1 << 16;
/// Several results to one query.
pub const MULTI_RESULTS: u64 = 1 << 17;
/// Several results to one prepared statement.
pub const PS_MULTI_RESULTS: u64 = 1 << 18;
/// The ways to prove a password have names.
pub const PLUGIN_AUTH: u64 = 1 << 19;
/// The login carries attributes of the client.
pub const CONNECT_ATTRS: u64 = 1 << 20;
/// The proof in the login stands behind a length-encoded length.
pub const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
/// Answers carry changes of the session's state.
pub const SESSION_TRACK: u64 = 1 << 23;
/// Results end with an OK packet and have nothing between columns and rows.
pub const DEPRECATE_EOF: u64 = 1 << 24;

/// MariaDB: the server reports progress in error packets of their own code.
pub const PROGRESS: u64 = 1 << 32;
/// MariaDB: many rows of parameters in one command.
pub const BULK: u64 = 1 << 34;
/// MariaDB: columns say more about their type.
pub const EXTENDED_METADATA: u64 = 1 << 35;

/// What both ends may agree on while packets pass unchanged.
const DURING: u64 = FOUND_ROWS
    | LONG_FLAG
    | NO_SCHEMA
    | ODBC
    | IGNORE_SPACE
    | INTERACTIVE
    | TRANSACTIONS
    | RESERVED
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | SESSION_TRACK
    | DEPRECATE_EOF
    | PROGRESS
    | BULK
    | EXTENDED_METADATA;

/// What a login needs, whoever writes it.
pub(super) const LOGIN: u64 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;

/// What may be agreed on at all; [`LOCAL_FILES`] only where files of the client may be loaded.
pub(super) const PASSED: u64 =
    DURING | LOGIN | MYSQL | LOCAL_FILES | CONNECT_WITH_DB | CONNECT_ATTRS | PLUGIN_AUTH_LENENC;

/// Returns the bits of the login to the server: what was agreed with the client for afterwards, and what the login
/// itself says.
pub(super) fn towards_server(agreed: u64, offered: u64) -> u64 {
    (agreed & (DURING | MYSQL | LOCAL_FILES)) | LOGIN | (offered & PLUGIN_AUTH_LENENC)
}
