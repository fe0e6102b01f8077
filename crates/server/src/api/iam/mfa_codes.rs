//! Codes of MFA devices in operations of IAM, and the form in which a seed is shown.

use http::StatusCode;
use munjigi_core::arn::Arn;
use munjigi_core::time::Timestamp;

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::identity::mfa;

/// Returns the step of the second of two codes in a row of a device.
pub(super) async fn proven_step(
    server: &Server,
    serial: &Arn,
    (first, second): (&str, &str),
    now: Timestamp,
) -> Result<u64, ApiError> {
    let device = server.store.mfa_device(serial).await.map_err(refused)?;
    let seed = server.store.open_seed(&device).map_err(refused)?;
    mfa::two_in_a_row(seed.expose(), first, second, now).ok_or_else(|| {
        ApiError::refused(
            "InvalidAuthenticationCode",
            StatusCode::FORBIDDEN,
            "Authentication code for device is not valid",
        )
    })
}

/// Encodes in base 32 (RFC 4648, section 6), without padding.
pub(super) fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            let at = usize::try_from((held >> bits) & 31).unwrap_or_default();
            text.extend(ALPHABET.get(at).map(|c| char::from(*c)));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        let at = usize::try_from((held << (5 - bits)) & 31).unwrap_or_default();
        text.extend(ALPHABET.get(at).map(|c| char::from(*c)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }
}
