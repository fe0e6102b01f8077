//! Buffers for bulk: taken when bytes are there, given back when none are, so that an idle connection holds none.
//!
//! Each thread keeps a few spare ones, without a lock; more than those go back to the system.

use std::cell::RefCell;

use crate::record::MAX_RECORD;

/// Size of every buffer in bytes: some full TLS records, so that one system call moves several of them.
pub(crate) const BUFFER_BYTES: usize = 8 * MAX_RECORD;
/// Spare buffers that a thread keeps.
const SPARE: usize = 8;

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in order: filled at one end, consumed at the other. Holds memory only while there are any, or
/// between [`Buffer::space`] and [`Buffer::release`].
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Returns the bytes.
    pub(crate) fn filled(&self) -> &[u8] {
        self.memory.as_ref().and_then(|memory| memory.get(self.start..self.end)).unwrap_or_default()
    }

    /// Tells whether there are no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns how many bytes can be added without [`Buffer::pack`].
    pub(crate) fn room(&self) -> usize {
        BUFFER_BYTES - self.end
    }

    /// Returns the free space behind the bytes.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let end = self.end;
        self.memory.get_or_insert_with(take).get_mut(end..).unwrap_or_default()
    }

    /// Takes note that `count` bytes were put into [`Buffer::space`].
    pub(crate) fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(BUFFER_BYTES);
    }

    /// Takes the first `count` bytes away.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Moves the bytes to the front, so that there is room behind them.
    pub(crate) fn pack(&mut self) {
        if self.start > 0
            && let Some(memory) = self.memory.as_mut()
        {
            memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Gives the memory back if there are no bytes.
    pub(crate) fn release(&mut self) {
        if self.is_empty()
            && let Some(memory) = self.memory.take()
        {
            give_back(memory);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            give_back(memory);
        }
    }
}

fn take() -> Box<[u8]> {
    let spare = SPARES.try_with(|spares| spares.borrow_mut().pop()).ok().flatten();
    spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
}

fn give_back(memory: Box<[u8]>) {
    // A thread that ends has no spares any more; then the memory is freed here.
    let _ended = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARE {
            spares.push(memory);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_an_empty_buffer_gives_its_memory_back() {
        let mut buffer = Buffer::default();
        buffer.space()[..6].copy_from_slice(b"abcdef");
        buffer.fill(6);
        buffer.consume(4);
        buffer.release();
        assert_eq!(buffer.filled(), b"ef");
        buffer.pack();
        assert_eq!((buffer.filled(), buffer.room()), (&b"ef"[..], BUFFER_BYTES - 2));
        buffer.consume(9);
        buffer.release();
        assert!(buffer.is_empty() && buffer.memory.is_none());
        buffer.fill(usize::MAX / 2);
        assert_eq!(buffer.room(), 0);
    }

    #[test]
    fn a_thread_keeps_a_few_spares() {
        for _ in 0..2 {
            let buffers: Vec<Buffer> = (0..20)
                .map(|_| {
                    let mut buffer = Buffer::default();
                    buffer.space()[0] = 1;
                    buffer
                })
                .collect();
            drop(buffers);
            SPARES.with(|spares| assert_eq!(spares.borrow().len(), SPARE));
        }
    }
}
