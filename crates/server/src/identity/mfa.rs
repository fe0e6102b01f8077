//! The second factor of a user: a code of one of its devices, good once, and few wrong ones (T-41).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::StatusCode;
use munjigi_core::arn::Arn;
use munjigi_core::policy::PrincipalKind;
use munjigi_core::time::Timestamp;
use munjigi_core::totp;

use super::Caller;
use crate::Server;
use crate::api::error::{ApiError, Denial};
use crate::store::StoreError;

/// Wrong codes of one device within [`WINDOW`] after which none is tried any more.
const MAX_WRONG: u32 = 5;
/// See [`MAX_WRONG`].
const WINDOW: Duration = Duration::from_secs(300);
/// Most devices counted at once; a device whose window is over is forgotten.
const MAX_COUNTED: usize = 4096;

/// Wrong codes of late, by device.
#[derive(Default)]
pub(crate) struct Tries(Mutex<HashMap<Arn, (Timestamp, u32)>>);

impl Tries {
    /// Tells whether a device may be tried.
    fn may_try(&self, serial: &Arn, now: Timestamp) -> bool {
        let mut tries = crate::lock(&self.0);
        if tries.len() >= MAX_COUNTED {
            tries.retain(|_, (since, _)| now < since.plus(WINDOW));
        }
        match tries.get(serial) {
            Some((since, wrong)) if now < since.plus(WINDOW) => *wrong < MAX_WRONG,
            _ => tries.len() < MAX_COUNTED,
        }
    }

    fn was_wrong(&self, serial: &Arn, now: Timestamp) {
        let mut tries = crate::lock(&self.0);
        let counted = tries.entry(serial.clone()).or_insert((now, 0));
        if now >= counted.0.plus(WINDOW) {
            *counted = (now, 0);
        }
        counted.1 = counted.1.saturating_add(1);
    }

    fn was_right(&self, serial: &Arn) {
        crate::lock(&self.0).remove(serial);
    }
}

/// Verifies a code of a device that is the calling user's own, and uses it up.
pub(crate) async fn verify(
    server: &Server,
    caller: &Caller,
    serial: &str,
    code: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    let principal = caller.principal();
    let invalid = || {
        let message = "MultiFactorAuthentication failed with invalid MFA one time pass code.".to_owned();
        ApiError::Denied(Denial { reason: "SecondFactor", message })
    };
    let (Ok(serial), PrincipalKind::User) = (Arn::parse(serial), principal.kind) else { return Err(invalid()) };
    let device = match server.store.mfa_device(&serial).await {
        Ok(device) => device,
        Err(StoreError::NotFound { .. }) => return Err(invalid()),
        Err(error) => return Err(ApiError::internal(error)),
    };
    // Another's device and one that does not exist are refused alike, before anything is counted against its owner.
    if device.assigned.as_ref().map(|(user, _)| user) != principal.unique_id.as_ref() {
        return Err(invalid());
    }
    if !server.mfa_tries.may_try(&serial, now) {
        let message = "too many wrong codes; wait five minutes";
        return Err(ApiError::refused("Throttling", StatusCode::BAD_REQUEST, message));
    }
    let seed = server.store.open_seed(&device).map_err(ApiError::internal)?;
    let step = totp::matching_step(seed.expose(), code, now, device.last_step);
    let good = match step {
        Some(step) => server.store.use_mfa_step(&serial, step).await.map_err(ApiError::internal)?,
        None => false,
    };
    if good {
        server.mfa_tries.was_right(&serial);
        Ok(())
    } else {
        server.mfa_tries.was_wrong(&serial, now);
        Err(invalid())
    }
}

/// Returns the step of the second of two codes in a row, with which a device is proved when a user gets it. The first
/// may be up to two steps old.
pub(crate) fn two_in_a_row(seed: &[u8], first: &str, second: &str, now: Timestamp) -> Option<u64> {
    let earlier = totp::matching_step(seed, first, Timestamp(now.0.saturating_sub(STEP_MICROS)), 0)
        .or_else(|| totp::matching_step(seed, first, now, 0))?;
    let next = earlier.checked_add(1)?;
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(totp::code(seed, next).as_bytes(), second.as_bytes());
    same.is_ok().then_some(next)
}

/// One step in microseconds.
const STEP_MICROS: i64 = 30_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_wrong_codes_close_a_device_for_five_minutes() {
        let tries = Tries::default();
        let serial = Arn::parse("arn:aws:iam::123456789012:mfa/a").unwrap();
        let other = Arn::parse("arn:aws:iam::123456789012:mfa/b").unwrap();
        for second in 0..5 {
            assert!(tries.may_try(&serial, Timestamp::from_secs(second)));
            tries.was_wrong(&serial, Timestamp::from_secs(second));
        }
        assert!(!tries.may_try(&serial, Timestamp::from_secs(299)));
        assert!(tries.may_try(&other, Timestamp::from_secs(299)));
        assert!(tries.may_try(&serial, Timestamp::from_secs(300)));
        tries.was_wrong(&serial, Timestamp::from_secs(300));
        tries.was_right(&serial);
        assert!(tries.may_try(&serial, Timestamp::from_secs(301)));
    }

    #[test]
    fn a_device_is_proved_by_two_codes_in_a_row() {
        let seed = b"12345678901234567890";
        let now = Timestamp::from_secs(1_111_111_111);
        let step = 1_111_111_111 / totp::STEP_SECONDS;
        let code = |step| totp::code(seed, step);
        assert_eq!(two_in_a_row(seed, &code(step - 1), &code(step), now), Some(step));
        assert_eq!(two_in_a_row(seed, &code(step), &code(step + 1), now), Some(step + 1), "ahead by a step");
        assert_eq!(two_in_a_row(seed, &code(step - 2), &code(step - 1), now), Some(step - 1));
        for (first, second) in [(step, step), (step, step - 1), (step - 9, step - 8), (step - 1, step + 1)] {
            assert_eq!(two_in_a_row(seed, &code(first), &code(second), now), None);
        }
    }
}
