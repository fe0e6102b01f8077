//! What the server answers.

use super::super::frame::Message;
use super::super::reply::error_code;
use super::{Answer, Asked, MAX_TAG, Pending, State, Violation, micros};
use crate::recording::{EventKind, StatementOutcome};

impl State {
    /// Takes a message of the server.
    pub(super) fn answered(
        &mut self,
        message: &Message<'_>,
        now: u64,
        events: &mut Vec<EventKind>,
    ) -> Result<(), Violation> {
        match message.kind {
            b'D' => self.answer.rows += 1,
            b'C' => self.complete(message.body, now, events),
            b'1' => self.prepared_now(now, events),
            b'2' => drop(self.take(|asked| matches!(asked, Asked::Bind { .. }), now, events)),
            b'3' => drop(self.take(|asked| matches!(asked, Asked::Close { .. }), now, events)),
            b'T' | b'n' if self.first_is(|asked| matches!(asked, Asked::Describe)) => drop(self.pending.pop_front()),
            b'I' => self.executed(StatementOutcome::Done, now, events),
            b's' => self.executed(StatementOutcome::Suspended, now, events),
            b'E' => self.error(error_code(message.body), now, events),
            b'Z' => self.ready(now, events),
            b'G' | b'W' => self.copying_in = true,
            // What describes rows, holds data, or is said without being asked.
            _ => {}
        }
        Ok(())
    }

    fn first_is(&self, fits: impl Fn(&Asked) -> bool) -> bool {
        self.pending.front().is_some_and(|first| fits(&first.asked))
    }

    /// Takes the first request that an answer fits to, no further than to where the server would say that it is ready. A
    /// server that answers something else than was asked ends what it has left out; no answer is waited for twice.
    fn take(&mut self, fits: impl Fn(&Asked) -> bool, now: u64, events: &mut Vec<EventKind>) -> Option<Pending> {
        let barrier = |asked: &Asked| matches!(asked, Asked::Sync | Asked::Query { .. } | Asked::Call { .. });
        let at = self.pending.iter().position(|pending| fits(&pending.asked) || barrier(&pending.asked))?;
        if !self.pending.get(at).is_some_and(|pending| fits(&pending.asked)) {
            return None;
        }
        for left_out in self.pending.drain(..at).collect::<Vec<_>>() {
            if let Some(number) = left_out.number() {
                let (tag, code) = (String::new(), String::new());
                events.push(self.ended(number, StatementOutcome::Lost, None, tag, code, micros(now, &left_out)));
            }
        }
        self.pending.pop_front()
    }

    /// The server has taken a text to prepare.
    fn prepared_now(&mut self, now: u64, events: &mut Vec<EventKind>) {
        let Some(pending) = self.take(|asked| matches!(asked, Asked::Parse { .. }), now, events) else { return };
        if let Some(number) = pending.number() {
            let (tag, code) = (String::new(), String::new());
            events.push(self.ended(number, StatementOutcome::Done, None, tag, code, micros(now, &pending)));
        } else if let (Asked::Parse { number, .. }, Some(nameless)) = (&pending.asked, &mut self.nameless) {
            nameless.taken |= nameless.statement.number == *number;
        }
    }

    /// The server has done one statement.
    fn complete(&mut self, tag: &[u8], now: u64, events: &mut Vec<EventKind>) {
        self.copying_in = false;
        let tag = String::from_utf8_lossy(tag.split(|byte| *byte == 0).next().unwrap_or_default());
        let counted = tag.rsplit(' ').next().and_then(|word| word.parse().ok());
        let rows = counted.or((self.answer.rows > 0).then_some(self.answer.rows));
        self.answer.rows = 0;
        self.answer.counted = match (self.answer.counted, rows) {
            (Some(before), Some(rows)) => Some(u64::saturating_add(before, rows)),
            (before, rows) => before.or(rows),
        };
        if self.answer.tag.len() + tag.len() + 2 <= MAX_TAG {
            if !self.answer.tag.is_empty() {
                self.answer.tag.push_str("; ");
            }
            self.answer.tag.push_str(&tag);
        }
        if !self.first_is(|asked| matches!(asked, Asked::Query { .. })) {
            self.executed(StatementOutcome::Done, now, events);
        }
    }

    /// The execution of a portal has come to its end or to a stop.
    fn executed(&mut self, outcome: StatementOutcome, now: u64, events: &mut Vec<EventKind>) {
        if let Some(pending) = self.take(|asked| matches!(asked, Asked::Execute { .. }), now, events) {
            self.end_of(&pending, outcome, None, now, events);
        }
    }

    /// Ends the statement of a request with what the answers said.
    fn end_of(
        &mut self,
        pending: &Pending,
        outcome: StatementOutcome,
        code: Option<String>,
        now: u64,
        events: &mut Vec<EventKind>,
    ) {
        let Answer { rows, counted, tag, .. } = std::mem::take(&mut self.answer);
        if let Some(number) = pending.number() {
            let rows = counted.or((rows > 0).then_some(rows));
            events.push(self.ended(number, outcome, rows, tag, code.unwrap_or_default(), micros(now, pending)));
        }
    }

    fn error(&mut self, code: String, now: u64, events: &mut Vec<EventKind>) {
        self.copying_in = false;
        match self.pending.front().map(|first| &first.asked) {
            // Nothing was asked: the server ends the connection. Or the end of a transaction failed, which is not the
            // last statement's doing.
            None | Some(Asked::Sync) => {}
            Some(Asked::Query { .. } | Asked::Call { .. }) => {
                self.answer.code.get_or_insert(code);
            }
            Some(_) => self.fail(code, now, events),
        }
    }

    /// The server is ready for more: whatever led here is done.
    fn ready(&mut self, now: u64, events: &mut Vec<EventKind>) {
        self.copying_in = false;
        let last = |asked: &Asked| matches!(asked, Asked::Sync | Asked::Query { .. } | Asked::Call { .. });
        let Some(pending) = self.take(last, now, events) else { return };
        let code = self.answer.code.take();
        let outcome = if code.is_some() { StatementOutcome::Failed } else { StatementOutcome::Done };
        self.end_of(&pending, outcome, code, now, events);
    }
}
