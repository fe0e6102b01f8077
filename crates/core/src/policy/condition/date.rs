//! Instants for the `Date…` operators: the W3C profile of ISO 8601, or seconds since 1970.

/// An instant: whole seconds since 1970 in UTC, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant {
    seconds: i64,
    nanoseconds: u32,
}

impl Instant {
    /// Reads `2026`, `2026-11`, `2026-11-21`, `2026-11-21T12:00Z`, `2026-11-21T12:00:00.5+09:00` or epoch seconds. Four
    /// digits alone are a year. Without a time it is midnight, without a zone UTC.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 || !text.is_ascii() {
            return None;
        }
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.len() != 4 && (1..=12).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
            return Some(Self { seconds: text.parse().ok()?, nanoseconds: 0 });
        }
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let mut parts = date.split('-');
        let year = i16::try_from(number(parts.next()?, 4)?).ok()?;
        let (month, day) = (parts.next(), parts.next());
        if parts.next().is_some() || (time.is_some() && day.is_none()) {
            return None;
        }
        let month = month.map_or(Some(1), small)?;
        let day = day.map_or(Some(1), small)?;
        let clock = time.map_or(Some(Clock::default()), Clock::parse)?;
        // The calendar library knows which days exist; the count itself is arithmetic.
        jiff::civil::Date::new(year, month, day).ok()?;
        let seconds = days_since_1970(year.into(), month.into(), day.into()) * 86_400 + clock.seconds_of_day
            - clock.offset_seconds;
        Some(Self { seconds, nanoseconds: clock.nanoseconds })
    }
}

/// Counts days in the Gregorian calendar, with years that begin in March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[derive(Default)]
struct Clock {
    seconds_of_day: i64,
    nanoseconds: u32,
    offset_seconds: i64,
}

impl Clock {
    /// Reads `12:00`, `12:00:00` or `12:00:00.5`, with `Z`, `+09:00` or nothing behind.
    fn parse(text: &str) -> Option<Self> {
        let zone_at = text.find(['Z', '+', '-']).unwrap_or(text.len());
        let (time, zone) = text.split_at(zone_at);
        let (time, fraction) = match time.split_once('.') {
            Some((time, fraction)) => (time, Some(fraction)),
            None => (time, None),
        };
        let mut parts = time.split(':');
        let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next());
        if parts.next().is_some() || (fraction.is_some() && seconds.is_none()) {
            return None;
        }
        let of_day = clock_part(hours, 24)? * 3600 + clock_part(minutes, 60)? * 60;
        let seconds_of_day = of_day + seconds.map_or(Some(0), |seconds| clock_part(seconds, 60))?;
        let nanoseconds = fraction.map_or(Some(0), read_fraction)?;
        Some(Self { seconds_of_day, nanoseconds, offset_seconds: read_zone(zone)? })
    }
}

/// Reads one to nine digits behind the decimal point as nanoseconds.
fn read_fraction(text: &str) -> Option<u32> {
    let power = 9_u32.checked_sub(u32::try_from(text.len()).ok()?)?;
    Some(number(text, text.len())? * 10_u32.pow(power))
}

fn read_zone(text: &str) -> Option<i64> {
    if text.is_empty() || text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (clock_part(hours, 24)? * 3600 + clock_part(minutes, 60)? * 60))
}

fn clock_part(text: &str, limit: u32) -> Option<i64> {
    number(text, 2).filter(|value| *value < limit).map(i64::from)
}

fn small(text: &str) -> Option<i8> {
    i8::try_from(number(text, 2)?).ok()
}

/// Reads exactly `width` digits, at most nine.
fn number(text: &str, width: usize) -> Option<u32> {
    let digits = text.len() == width && (1..=9).contains(&width) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
