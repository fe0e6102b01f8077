//! Lines out of bytes that come piece by piece.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Cuts bytes into lines of bounded length; longer ones are left out whole.
pub(super) struct Lines {
    buffer: Vec<u8>,
    longest: usize,
    /// Inside a line that is too long.
    skipping: bool,
}

impl Lines {
    /// Takes the most bytes that a line may have.
    pub(super) fn new(longest: usize) -> Self {
        Self { buffer: Vec::new(), longest, skipping: false }
    }

    /// Reads more; returns how many bytes came.
    pub(super) async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        let mut chunk = [0; 8192];
        let count = source.read(&mut chunk).await?;
        self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Returns the next whole line without its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                if self.buffer.len() > self.longest {
                    self.buffer.clear();
                    self.skipping = true;
                }
                return None;
            };
            let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
            line.pop();
            let whole = !std::mem::take(&mut self.skipping) && line.len() <= self.longest;
            if whole {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_left_out_and_the_next_is_whole() {
        let mut lines = Lines::new(8);
        let mut all = Vec::new();
        for piece in ["one\ntw", "o\n", "123456789012", "3456", "78\nthree\n", "123456789\nfour\n"] {
            lines.buffer.extend_from_slice(piece.as_bytes());
            while let Some(line) = lines.next() {
                all.push(String::from_utf8(line).unwrap());
            }
            assert!(lines.buffer.len() <= 16);
        }
        assert_eq!(all, ["one", "two", "three", "four"]);
    }
}
