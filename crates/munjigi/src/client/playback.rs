//! The replay of a recording as a machine without a clock: time goes in, output comes out. Pause, speed, seek and the
//! shortening of idle times are here; keys and the terminal are elsewhere.

use std::time::Duration;

use bytes::Bytes;
use munjigi_core::recording::{Event, EventKind};

/// Slowest and fastest replay.
pub(crate) const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=100.0;
/// What a terminal is told before it is shown the past again: reset, clear, home.
const CLEAR: &[u8] = b"\x1bc\x1b[2J\x1b[H";

/// A recording being replayed.
///
/// INVARIANT: everything before `next` was given out since the last clearing, nothing behind it.
#[derive(Debug)]
pub(crate) struct Playback {
    /// Output and its time in the replay, microseconds, ascending.
    pieces: Vec<(u64, Bytes)>,
    next: usize,
    /// The replay's time, microseconds.
    now: u64,
    end: u64,
    speed: f64,
    paused: bool,
}

impl Playback {
    /// Prepares a replay of the events' output. Times without output longer than `idle_limit` are shortened to it.
    pub(crate) fn new(events: Vec<Event>, speed: f64, idle_limit: Option<Duration>) -> Self {
        let limit = idle_limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        let (mut now, mut last) = (0_u64, 0_u64);
        let mut pieces = Vec::new();
        for event in events {
            // A clock that went back is no reason to go back.
            now = now.saturating_add(event.at.saturating_sub(last).min(limit));
            last = last.max(event.at);
            if let EventKind::Output { bytes, .. } = event.kind {
                pieces.push((now, bytes));
            }
        }
        Self { pieces, next: 0, now: 0, end: now, speed: clamped(speed), paused: false }
    }

    /// Returns how long to wait until there is something to show; `None` while paused or at the end.
    pub(crate) fn wait(&self) -> Option<Duration> {
        if self.paused {
            return None;
        }
        let at = match self.pieces.get(self.next) {
            Some((at, _)) => *at,
            None if self.now < self.end => self.end,
            None => return None,
        };
        Some(Duration::from_secs_f64(at.saturating_sub(self.now) as f64 / 1e6 / self.speed))
    }

    /// Lets real time pass and returns what is to be shown now.
    pub(crate) fn pass(&mut self, real: Duration) -> Vec<Bytes> {
        if self.paused {
            return Vec::new();
        }
        // Rounded up: whoever waited as long as `wait` said gets what he waited for.
        let passed = (real.as_secs_f64() * self.speed * 1e6).ceil() as u64;
        self.now = self.now.saturating_add(passed).min(self.end);
        self.take_due()
    }

    /// Jumps forward or back by so many seconds and returns what makes the screen as it was then.
    pub(crate) fn seek_by(&mut self, seconds: i64) -> Vec<Bytes> {
        let by = seconds.saturating_mul(1_000_000);
        self.seek_to(self.now.saturating_add_signed(by))
    }

    /// Jumps to a time in microseconds.
    pub(crate) fn seek_to(&mut self, micros: u64) -> Vec<Bytes> {
        let micros = micros.min(self.end);
        let back = micros < self.now;
        self.now = micros;
        if !back {
            return self.take_due();
        }
        self.next = 0;
        let mut out = vec![Bytes::from_static(CLEAR)];
        out.extend(self.take_due());
        out
    }

    /// Pauses, or goes on.
    pub(crate) fn toggle_pause(&mut self) {
        self.paused = !self.paused;
    }

    /// Makes it faster or slower by a factor.
    pub(crate) fn change_speed(&mut self, factor: f64) {
        self.speed = clamped(self.speed * factor);
    }

    /// Tells whether everything was shown.
    pub(crate) fn is_over(&self) -> bool {
        self.now >= self.end && self.next >= self.pieces.len()
    }

    fn take_due(&mut self) -> Vec<Bytes> {
        let from = self.next;
        self.next = self.pieces.partition_point(|(at, _)| *at <= self.now).max(from);
        self.pieces.get(from..self.next).unwrap_or_default().iter().map(|(_, bytes)| bytes.clone()).collect()
    }
}

fn clamped(speed: f64) -> f64 {
    if speed.is_finite() { speed.clamp(*SPEEDS.start(), *SPEEDS.end()) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use munjigi_core::session::OutputStream;

    use super::*;

    fn events(times: &[u64]) -> Vec<Event> {
        times
            .iter()
            .enumerate()
            .map(|(index, at)| Event {
                at: *at,
                kind: EventKind::Output {
                    stream: OutputStream::Stdout,
                    offset: index as u64,
                    bytes: vec![b'a' + index as u8].into(),
                },
            })
            .collect()
    }

    fn text(pieces: Vec<Bytes>) -> String {
        pieces.iter().map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    }

    #[test]
    fn output_appears_at_its_time_divided_by_the_speed() {
        let mut replay = Playback::new(events(&[0, 1_000_000, 3_000_000]), 2.0, None);
        assert_eq!(replay.wait(), Some(Duration::ZERO));
        assert_eq!(text(replay.pass(Duration::ZERO)), "a");
        assert_eq!(replay.wait(), Some(Duration::from_millis(500)));
        assert_eq!(text(replay.pass(Duration::from_millis(499))), "");
        assert_eq!(text(replay.pass(Duration::from_millis(1))), "b");
        assert_eq!(text(replay.pass(Duration::from_secs(9))), "c");
        assert!(replay.is_over() && replay.wait().is_none());
    }

    #[test]
    fn idle_times_are_shortened_and_a_clock_that_went_back_is_ignored() {
        let mut replay =
            Playback::new(events(&[0, 100_000_000, 50_000_000, 101_000_000]), 1.0, Some(Duration::from_secs(2)));
        assert_eq!(text(replay.pass(Duration::from_secs(2))), "abc");
        assert_eq!(replay.wait(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_pause_shows_nothing_and_a_seek_rebuilds_the_screen() {
        let mut replay = Playback::new(events(&[0, 10_000_000, 20_000_000]), 1.0, None);
        replay.toggle_pause();
        assert_eq!(text(replay.pass(Duration::from_secs(99))), "");
        assert_eq!(replay.wait(), None);
        assert_eq!(text(replay.seek_by(15)), "ab");
        let back = text(replay.seek_by(-10));
        assert!(back.starts_with('\x1b') && back.ends_with('a'), "{back:?}");
        assert_eq!(text(replay.seek_by(1000)), "bc");
        assert_eq!(text(replay.seek_by(-1000)).chars().last(), Some('a'));
    }

    #[test]
    fn speeds_stay_within_bounds() {
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            let replay = Playback::new(events(&[0, 1]), speed, None);
            assert!(SPEEDS.contains(&replay.speed), "{speed}");
        }
    }
}
