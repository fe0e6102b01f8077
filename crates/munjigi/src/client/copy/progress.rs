//! One line on standard error that says how far a copy is.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use munjigi_copy::Snapshot;

use crate::client::text::{bytes, duration};

/// Weight of the newest measurement in the rate that is shown.
const NEWEST: f64 = 0.3;

/// The line; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Display {
    shown: bool,
    last: Option<(Instant, u64)>,
    /// Bytes per second, smoothed.
    rate: f64,
}

impl Display {
    /// Begins; nothing is shown before the first [`Self::show`].
    pub(crate) fn new() -> Self {
        Self { shown: false, last: None, rate: 0.0 }
    }

    /// Shows the counters.
    pub(crate) fn show(&mut self, now: Instant, at: Snapshot) {
        let line = self.line(now, at);
        self.shown = true;
        // Progress that cannot be shown is none.
        let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
    }

    /// Makes room for another line.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn line(&mut self, now: Instant, at: Snapshot) -> String {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_duration_since(then).as_secs_f64().max(0.001);
            let current = at.bytes.saturating_sub(before) as f64 / seconds;
            self.rate = if self.rate > 0.0 { self.rate + NEWEST * (current - self.rate) } else { current };
        }
        self.last = Some((now, at.bytes));
        let there = at.bytes + at.skipped_bytes;
        let mut line = format!("{} files  {}", at.files, bytes(there));
        if at.total_bytes > 0 {
            let percent = (there as f64 / at.total_bytes as f64 * 100.0).min(100.0);
            line = format!(
                "{}/{} files  {}/{}  {percent:.0} %",
                at.files,
                at.total_files,
                bytes(there),
                bytes(at.total_bytes)
            );
        }
        if self.rate >= 1.0 {
            line.push_str(&format!("  {}/s", bytes(self.rate as u64)));
            let left = at.total_bytes.saturating_sub(there) as f64 / self.rate;
            if left > 0.0 && left.is_finite() {
                line.push_str(&format!("  {} left", duration(Duration::from_secs(left.ceil() as u64))));
            }
        }
        line
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_how_fast_and_how_long_still() {
        let mut display = Display::new();
        let begun = Instant::now();
        let at = |mib: u64| Snapshot {
            files: 1,
            bytes: mib << 20,
            total_files: 2,
            total_bytes: 100 << 20,
            ..Snapshot::default()
        };
        assert_eq!(display.line(begun, at(0)), "1/2 files  0 B/100.0 MiB  0 %");
        let line = display.line(begun + Duration::from_secs(1), at(50));
        assert!(line.contains("50 %") && line.contains("50.0 MiB/s") && line.ends_with("1 s left"), "{line}");
        let unknown = Snapshot { files: 3, bytes: 2048, ..Snapshot::default() };
        assert!(Display::new().line(begun, unknown).starts_with("3 files  2.0 KiB"));
    }
}
