//! Time-based one-time codes as authenticator apps make them: RFC 6238 with SHA-1, 30 seconds and six digits.

use aws_lc_rs::{constant_time, hmac};

use crate::time::Timestamp;

/// How long one code lasts, in seconds.
pub const STEP_SECONDS: u64 = 30;
/// Digits of a code.
pub const DIGITS: usize = 6;
/// How many steps a device's clock may be off, either way (RFC 6238, section 5.2).
const DRIFT: u64 = 1;

/// Returns the code of a step.
pub fn code(seed: &[u8], step: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, seed);
    let mac = hmac::sign(&key, &step.to_be_bytes());
    let mac = mac.as_ref();
    // Dynamic truncation (RFC 4226, section 5.3).
    let offset = usize::from(mac.last().copied().unwrap_or_default() & 15);
    let word = mac.get(offset..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    let number = u32::from_be_bytes(word) & 0x7fff_ffff;
    format!("{:0width$}", number % 1_000_000, width = DIGITS)
}

/// Returns the step whose code this is, if it is one around now and later than `used`: a code works once (T-41).
/// Compares in constant time.
pub fn matching_step(seed: &[u8], candidate: &str, now: Timestamp, used: u64) -> Option<u64> {
    let current = u64::try_from(now.as_secs()).ok()? / STEP_SECONDS;
    let steps = current.saturating_sub(DRIFT)..=current.saturating_add(DRIFT);
    let mut found = None;
    for step in steps.filter(|step| *step > used) {
        let same = constant_time::verify_slices_are_equal(code(seed, step).as_bytes(), candidate.as_bytes());
        if same.is_ok() {
            found.get_or_insert(step);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &[u8] = b"12345678901234567890";

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238, appendix B, the last six digits.
        for (seconds, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(SEED, seconds / STEP_SECONDS), expected, "{seconds}");
        }
    }

    #[test]
    fn a_code_is_good_one_step_early_or_late_and_once() {
        let at = |seconds: i64| matching_step(SEED, "050471", Timestamp::from_secs(seconds), 0);
        let step = 1_111_111_111 / STEP_SECONDS;
        let begins = i64::try_from(step * STEP_SECONDS).unwrap();
        for (offset, good) in [(-31, false), (-30, true), (0, true), (29, true), (59, true), (60, false)] {
            assert_eq!(at(begins + offset).is_some(), good, "{offset}");
        }
        assert_eq!(matching_step(SEED, "050471", Timestamp::from_secs(begins), step), None, "it was used");
        assert_eq!(matching_step(SEED, "050471", Timestamp::from_secs(begins), step - 1), Some(step));
        for wrong in ["", "05047", "0504711", "050472", "\u{0665}50471"] {
            assert_eq!(matching_step(SEED, wrong, Timestamp::from_secs(begins), 0), None, "{wrong:?}");
        }
        assert_eq!(matching_step(SEED, "050471", Timestamp(-1), 0), None);
    }
}
