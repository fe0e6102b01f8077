//! What the client asks for.

use std::sync::Arc;

use super::super::frame::Message;
use super::super::names::Name;
use super::bind::{Bind, string};
use super::{Asked, KEPT_TEXT, KEPT_TEXTS, Nameless, Pending, Prepared, Skipping, State, Violation};
use crate::recording::{EventKind, Statement, StatementKind, StatementOutcome};

impl State {
    /// Takes a message of the client.
    pub(super) fn asked(
        &mut self,
        message: &Message<'_>,
        now: u64,
        events: &mut Vec<EventKind>,
    ) -> Result<(), Violation> {
        match message.kind {
            b'd' | b'c' | b'f' => self.copied(),
            b'S' => self.sync(now, events),
            b'H' => self.record_nameless(events),
            b'X' => {
                self.record_nameless(events);
                self.is_over = true;
            }
            _ if self.skipping.is_some() => self.passed_over(message, events)?,
            b'Q' => self.query(message, now, events),
            b'P' => self.parse(message, now, events)?,
            b'B' => self.bind(message, now)?,
            b'E' => self.execute(message, now, events)?,
            b'C' => self.close(message, now)?,
            b'F' => self.call(message, now, events),
            // `D`: the rules let nothing else through.
            _ => self.ask(Asked::Describe, now),
        }
        Ok(())
    }

    fn ask(&mut self, asked: Asked, sent: u64) {
        self.pending.push_back(Pending { asked, sent });
    }

    /// Data of a COPY came. A `Sync` that the client sent before it knew of the COPY is swallowed by it.
    fn copied(&mut self) {
        while self.copying_in && self.pending.back().is_some_and(|last| matches!(last.asked, Asked::Sync)) {
            self.pending.pop_back();
        }
    }

    fn sync(&mut self, now: u64, events: &mut Vec<EventKind>) {
        self.record_nameless(events);
        self.skipping = None;
        self.ask(Asked::Sync, now);
    }

    fn query_statement(&mut self, message: &Message<'_>) -> Statement {
        let text = message.body.strip_suffix(b"\0").filter(|_| message.is_whole()).unwrap_or(message.body);
        let number = self.next_number();
        self.statement(number, StatementKind::Query, text, message.length.saturating_sub(1))
    }

    fn query(&mut self, message: &Message<'_>, now: u64, events: &mut Vec<EventKind>) {
        self.record_nameless(events);
        let statement = self.query_statement(message);
        self.may_redefine(message.body);
        self.ask(Asked::Query { number: statement.number }, now);
        events.push(EventKind::Statement(Box::new(statement)));
    }

    fn call_statement(&mut self, message: &Message<'_>) -> Statement {
        let function = <[u8; 4]>::try_from(message.body).map(u32::from_be_bytes).unwrap_or_default();
        let number = self.next_number();
        Statement::new(self.connection, number, StatementKind::Call, &format!("function {function}"))
    }

    fn call(&mut self, message: &Message<'_>, now: u64, events: &mut Vec<EventKind>) {
        self.record_nameless(events);
        let statement = self.call_statement(message);
        self.ask(Asked::Call { number: statement.number }, now);
        events.push(EventKind::Statement(Box::new(statement)));
    }

    fn parse_statement(&mut self, message: &Message<'_>) -> Result<(Name, Statement), Violation> {
        let mut body = message.body;
        let name_bytes = string(&mut body, "name of a statement")?;
        let end = body.iter().position(|byte| *byte == 0);
        // A text that is cut has its zero byte and the number of types behind it.
        let whole = end.unwrap_or_else(|| message.length.saturating_sub(name_bytes.len() + 4));
        if end.is_none() && message.is_whole() {
            return Err(Violation::Malformed { from: "client", what: "text of a statement" });
        }
        let text = body.get(..end.unwrap_or(body.len())).unwrap_or_default();
        let number = self.next_number();
        Ok((Name::new(name_bytes), self.statement(number, StatementKind::Prepare, text, whole)))
    }

    fn parse(&mut self, message: &Message<'_>, now: u64, events: &mut Vec<EventKind>) -> Result<(), Violation> {
        self.record_nameless(events);
        let (name, statement) = self.parse_statement(message)?;
        self.may_redefine(statement.text.as_bytes());
        let made = Arc::new(self.prepared(&name, &statement));
        let before = self.statements.insert(name.clone(), made.clone());
        let (number, recorded) = (statement.number, !name.is_empty());
        self.ask(Asked::Parse { number, name, made, before, recorded }, now);
        if recorded {
            events.push(EventKind::Statement(Box::new(statement)));
        } else {
            self.nameless = Some(Nameless { statement, taken: false });
        }
        Ok(())
    }

    /// Keeps of a statement what its executions are to tell.
    fn prepared(&mut self, name: &Name, statement: &Statement) -> Prepared {
        let text = &statement.text;
        let end = (0..=KEPT_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        if self.kept_texts + end > KEPT_TEXTS {
            self.kept_texts = self.statements.values_mut().map(|prepared| prepared.text.len()).sum();
        }
        let fits = self.kept_texts + end <= KEPT_TEXTS;
        let kept = if fits { text.get(..end).unwrap_or_default().to_owned() } else { name.shown() };
        self.kept_texts += kept.len();
        Prepared {
            number: statement.number,
            cut: statement.cut || kept.len() < text.len(),
            text: kept,
            masked: statement.masked,
            bytes: statement.bytes,
        }
    }

    /// SQL can give a name another meaning too (`PREPARE`): after a text that may do so no name is known any more.
    fn may_redefine(&mut self, text: &[u8]) {
        const WORD: &[u8] = b"prepare";
        if self.statements.len() > 0 && text.windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD)) {
            for (name, prepared) in self.statements.iter_mut().filter(|(name, _)| !name.is_empty()) {
                *prepared = Arc::new(Prepared::unknown(name));
            }
        }
    }

    fn bind(&mut self, message: &Message<'_>, now: u64) -> Result<(), Violation> {
        let bind = Bind::read(message.body)?;
        let known = self.statements.get(&bind.statement).cloned();
        let bound = known.unwrap_or_else(|| Arc::new(Prepared::unknown(&bind.statement)));
        self.values = self.record_parameters.then(|| (bound.clone(), bind.values()));
        let before = self.portals.insert(bind.portal.clone(), bound.clone());
        self.ask(Asked::Bind { portal: bind.portal, bound, before }, now);
        Ok(())
    }

    fn execute(&mut self, message: &Message<'_>, now: u64, events: &mut Vec<EventKind>) -> Result<(), Violation> {
        let portal = Name::new(string(&mut &*message.body, "name of a portal")?);
        let known = self.portals.get(&portal).cloned();
        let of = known.unwrap_or_else(|| Arc::new(Prepared::unknown(&portal)));
        let own = self.nameless.take_if(|nameless| nameless.statement.number == of.number);
        let mut statement = match own {
            Some(Nameless { statement, .. }) => Statement { kind: StatementKind::Query, ..statement },
            None => {
                let number = self.next_number();
                self.execution(number, &of)
            }
        };
        statement.parameters =
            self.values.as_ref().filter(|(bound, _)| Arc::ptr_eq(bound, &of)).map(|(_, values)| values.clone());
        self.ask(Asked::Execute { number: statement.number, portal, of }, now);
        events.push(EventKind::Statement(Box::new(statement)));
        Ok(())
    }

    /// Makes the statement of an execution.
    pub(super) fn execution(&self, number: u64, of: &Prepared) -> Statement {
        Statement {
            cut: of.cut,
            masked: of.masked,
            bytes: of.bytes,
            prepared: of.number,
            ..Statement::new(self.connection, number, StatementKind::Execute, &of.text)
        }
    }

    fn close(&mut self, message: &Message<'_>, now: u64) -> Result<(), Violation> {
        let malformed = Violation::Malformed { from: "client", what: "message to close a name" };
        let (kind, mut rest) = message.body.split_first().ok_or(malformed)?;
        let (is_portal, name) = (*kind == b'P', Name::new(string(&mut rest, "name to close")?));
        let before = if is_portal { self.portals.remove(&name) } else { self.statements.remove(&name) };
        self.ask(Asked::Close { is_portal, name, before }, now);
        Ok(())
    }

    /// Records what the server passes over because something before has failed.
    fn passed_over(&mut self, message: &Message<'_>, events: &mut Vec<EventKind>) -> Result<(), Violation> {
        let statement = match message.kind {
            b'Q' => self.query_statement(message),
            b'P' => self.parse_statement(message)?.1,
            b'F' => self.call_statement(message),
            b'E' => return self.execution_passed_over(message, events),
            _ => return Ok(()),
        };
        let number = statement.number;
        events.push(EventKind::Statement(Box::new(statement)));
        events.push(self.ended(number, StatementOutcome::Skipped, None, String::new(), String::new(), 0));
        Ok(())
    }

    /// The first execution behind a portal that could not be made is what failed.
    fn execution_passed_over(&mut self, message: &Message<'_>, events: &mut Vec<EventKind>) -> Result<(), Violation> {
        let portal = Name::new(string(&mut &*message.body, "name of a portal")?);
        let failed = self.skipping.replace(Skipping { code: None, of: None });
        let Skipping { code, of } = failed.unwrap_or(Skipping { code: None, of: None });
        let of = of.unwrap_or_else(|| Arc::new(Prepared::unknown(&portal)));
        let number = self.next_number();
        events.push(EventKind::Statement(Box::new(self.execution(number, &of))));
        let outcome = if code.is_some() { StatementOutcome::Failed } else { StatementOutcome::Skipped };
        events.push(self.ended(number, outcome, None, String::new(), code.unwrap_or_default(), 0));
        Ok(())
    }
}

impl Prepared {
    /// What a name stands for of which nothing is known.
    pub(super) fn unknown(name: &Name) -> Self {
        let text = name.shown();
        Self { number: 0, bytes: text.len() as u64, text, cut: false, masked: false }
    }
}
