//! An error in the extended protocol: what failed, what is passed over, and what names do not mean after all.

use std::sync::Arc;

use super::super::names::Name;
use super::{Answer, Asked, Pending, Prepared, Skipping, State, micros};
use crate::recording::{EventKind, StatementOutcome};

impl State {
    /// The first request failed; the server passes over all others up to the next `Sync`.
    pub(super) fn fail(&mut self, code: String, now: u64, events: &mut Vec<EventKind>) {
        self.answer = Answer::default();
        if self.nameless.as_ref().is_some_and(|nameless| nameless.taken) {
            self.record_nameless(events);
        }
        let sync = self.pending.iter().position(|pending| matches!(pending.asked, Asked::Sync));
        let dropped: Vec<Pending> = self.pending.drain(..sync.unwrap_or(self.pending.len())).collect();
        // What failed is the first request, or the execution that it was made for.
        let mut code = Some(code);
        let is_statement = dropped.first().is_some_and(|first| first.number().is_some());
        for (index, pending) in dropped.iter().enumerate() {
            let own = match &pending.asked {
                // Nothing has run the nameless statement yet: it is recorded now, as one that was prepared.
                Asked::Parse { number, recorded: false, .. } => {
                    let own = self.nameless.take_if(|nameless| nameless.statement.number == *number);
                    own.map(|nameless| {
                        events.push(EventKind::Statement(Box::new(nameless.statement)));
                        *number
                    })
                }
                _ => pending.number(),
            };
            let Some(number) = own else { continue };
            let is_run = matches!(pending.asked, Asked::Execute { .. });
            let failed = if index == 0 || (is_run && !is_statement) { code.take() } else { None };
            let outcome = if failed.is_some() { StatementOutcome::Failed } else { StatementOutcome::Skipped };
            let micros = micros(now, pending);
            events.push(self.ended(number, outcome, None, String::new(), failed.unwrap_or_default(), micros));
        }
        if sync.is_none() {
            let of = dropped.iter().rev().find_map(|pending| match &pending.asked {
                Asked::Bind { bound, .. } => Some(bound.clone()),
                _ => None,
            });
            self.skipping = Some(Skipping { code, of });
        }
        for pending in dropped.into_iter().rev() {
            match pending.asked {
                Asked::Parse { name, made, before, .. } => self.unprepare(&name, &made, before, events),
                Asked::Bind { portal, bound, before } => self.unbind(&portal, &bound, before, events),
                Asked::Close { is_portal, name, before: Some(before) } => self.reopen(is_portal, name, before),
                _ => {}
            }
        }
    }

    /// A statement was not prepared: its name means what it meant before.
    fn unprepare(
        &mut self,
        name: &Name,
        made: &Arc<Prepared>,
        before: Option<Arc<Prepared>>,
        events: &mut Vec<EventKind>,
    ) {
        if self.statements.get(name).is_some_and(|present| Arc::ptr_eq(present, made)) {
            match &before {
                Some(before) => drop(self.statements.insert(name.clone(), before.clone())),
                None => drop(self.statements.remove(name)),
            }
        }
        let Some(before) = before else { return };
        // What was asked for behind the next `Sync` in the belief that the name has the new meaning.
        for bound in self.portals.values_mut().filter(|bound| Arc::ptr_eq(bound, made)) {
            *bound = before.clone();
        }
        let mut corrected = Vec::new();
        for pending in &mut self.pending {
            match &mut pending.asked {
                Asked::Parse { before: Some(theirs), .. } | Asked::Close { before: Some(theirs), .. }
                    if Arc::ptr_eq(theirs, made) =>
                {
                    *theirs = before.clone();
                }
                Asked::Bind { bound, before: theirs, .. } => {
                    for theirs in [Some(bound), theirs.as_mut()].into_iter().flatten() {
                        if Arc::ptr_eq(theirs, made) {
                            *theirs = before.clone();
                        }
                    }
                }
                Asked::Execute { number, of, .. } if Arc::ptr_eq(of, made) => {
                    *of = before.clone();
                    corrected.push(*number);
                }
                _ => {}
            }
        }
        for number in corrected {
            events.push(EventKind::Statement(Box::new(self.execution(number, &before))));
        }
    }

    /// A portal was not bound: its name means what it meant before.
    fn unbind(
        &mut self,
        portal: &Name,
        bound: &Arc<Prepared>,
        before: Option<Arc<Prepared>>,
        events: &mut Vec<EventKind>,
    ) {
        if self.portals.get(portal).is_some_and(|present| Arc::ptr_eq(present, bound)) {
            match &before {
                Some(before) => drop(self.portals.insert(portal.clone(), before.clone())),
                None => drop(self.portals.remove(portal)),
            }
        }
        let Some(before) = before else { return };
        let mut corrected = Vec::new();
        for pending in &mut self.pending {
            match &mut pending.asked {
                Asked::Execute { number, portal: own, of } if own == portal && Arc::ptr_eq(of, bound) => {
                    *of = before.clone();
                    corrected.push(*number);
                }
                Asked::Bind { portal: own, before: theirs, .. } if own == portal => {
                    *theirs = Some(before.clone());
                    break;
                }
                Asked::Close { is_portal: true, name, before: theirs } if name == portal => {
                    *theirs = Some(before.clone());
                    break;
                }
                _ => {}
            }
        }
        for number in corrected {
            events.push(EventKind::Statement(Box::new(self.execution(number, &before))));
        }
    }

    /// A name was not closed after all.
    fn reopen(&mut self, is_portal: bool, name: Name, before: Arc<Prepared>) {
        let names = if is_portal { &mut self.portals } else { &mut self.statements };
        if names.get(&name).is_none() {
            names.insert(name, before);
        }
    }
}
