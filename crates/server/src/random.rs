//! The only place of the server that draws random bytes.

/// Returns bytes of the operating system's generator (T-41).
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    rand::random()
}
