//! The prepared statements of a connection: what text stands behind the server's numbers.

use std::collections::HashMap;
use std::sync::Arc;

use super::parameters::Parameters;
use crate::recording::Statement;

/// Most statements that are known at once. MySQL allows 16,382 on a whole server by default; one more is refused.
pub(super) const MAX_STATEMENTS: usize = 1 << 16;
/// Most bytes of text kept; of statements beyond only the number of their preparation is known.
const MAX_TEXT_BYTES: usize = 2 << 20;

/// A statement's text as it was recorded when it was prepared.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// Number of its preparation in the recording.
    pub(super) number: u64,
    pub(super) text: Option<Arc<str>>,
    pub(super) bytes: u64,
    pub(super) is_cut: bool,
    pub(super) is_masked: bool,
    pub(super) parameters: Parameters,
}

impl Text {
    pub(super) fn of(statement: &Statement) -> Self {
        let &Statement { number, bytes, cut, masked, .. } = statement;
        Self {
            number,
            text: Some(Arc::from(&*statement.text)),
            bytes,
            is_cut: cut,
            is_masked: masked,
            parameters: Parameters::default(),
        }
    }

    fn memory(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.len()) + self.parameters.memory()
    }
}

#[derive(Default)]
pub(super) struct Prepared {
    by_id: HashMap<u32, Text>,
    bytes: usize,
    /// Of the newest preparation that was sent, for clients that execute before they know its number.
    newest: Option<Text>,
}

impl Prepared {
    pub(super) fn is_full(&self) -> bool {
        self.by_id.len() >= MAX_STATEMENTS
    }

    pub(super) fn sent(&mut self, text: Text) {
        self.newest = Some(text);
    }

    pub(super) fn insert(&mut self, id: u32, mut text: Text) {
        self.forget(id);
        if self.is_full() {
            return;
        }
        if self.bytes + text.memory() > MAX_TEXT_BYTES {
            text.text = None;
        }
        self.bytes += text.memory();
        self.by_id.insert(id, text);
    }

    /// Looks a statement up; MariaDB's clients say `u32::MAX` for the newest.
    pub(super) fn get(&self, id: u32) -> Option<&Text> {
        if id == u32::MAX { self.newest.as_ref() } else { self.by_id.get(&id) }
    }

    /// Has something done with what is known of a statement's parameters, if there is room for it.
    pub(super) fn parameters<T>(&mut self, id: u32, act: impl FnOnce(&mut Parameters) -> T) -> Option<T> {
        let text = self.by_id.get_mut(&id)?;
        let before = text.memory();
        let done = act(&mut text.parameters);
        self.bytes = self.bytes - before + text.memory();
        if self.bytes > MAX_TEXT_BYTES {
            let (before, count) = (text.memory(), text.parameters.count);
            text.parameters = Parameters::of(count);
            self.bytes = self.bytes - before + text.memory();
        }
        Some(done)
    }

    pub(super) fn forget(&mut self, id: u32) {
        if let Some(text) = self.by_id.remove(&id) {
            self.bytes -= text.memory();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
