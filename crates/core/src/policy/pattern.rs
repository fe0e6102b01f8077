//! Patterns of policies: literal text, wildcards and variables, compiled once and matched without recursion.
//!
//! A variable stays a token until the match, where its value takes part as literal text: wildcard characters in a
//! value have no power. Work is counted in [`Steps`], so that no pattern can hold a decision up (T-56).

use std::cell::{Cell, RefCell};

use super::context::{Context, ContextValue, Key, Keys};

/// How many steps one decision may take; an ordinary one takes a few per statement. At some nanoseconds a step this
/// keeps the worst case near the 10 ms of T-56.
const STEPS_PER_DECISION: u32 = 1 << 21;

/// The work a decision may still do. When it is used up nothing matches any more and the decision is no.
#[derive(Debug)]
pub(super) struct Steps(Cell<u32>);

impl Steps {
    pub(super) fn new() -> Self {
        Self(Cell::new(STEPS_PER_DECISION))
    }

    /// Takes one step and another for every 16 bytes compared; false when nothing is left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let cost = u32::try_from(bytes / 16).unwrap_or(u32::MAX).saturating_add(1);
        self.0.set(self.0.get().saturating_sub(cost));
        self.0.get() > 0
    }

    pub(super) fn exhausted(&self) -> bool {
        self.0.get() == 0
    }
}

/// One element of a pattern at the moment of matching.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Piece<'a> {
    Literal(&'a str),
    /// `*`: any run of characters, also none.
    Run,
    /// `?`: exactly one character.
    One,
    /// `*` that does not cross a colon.
    SegmentRun,
    /// `?` that is no colon.
    SegmentOne,
}

/// One element of a compiled pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Literal(Box<str>),
    Run,
    One,
    SegmentRun,
    SegmentOne,
    /// The variable of this number.
    Variable(usize),
}

/// `${key}` or `${key, 'default'}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variable {
    pub(super) key: Key,
    pub(super) default: Option<Box<str>>,
}

/// Which characters of a text have power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    /// `*` and `?` are wildcards.
    pub(super) wildcards: bool,
    /// `${…}` is a variable (language version 2012-10-17).
    pub(super) variables: bool,
}

/// A compiled text: literal parts, wildcards, variables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    tokens: Box<[Token]>,
    variables: Box<[Variable]>,
}

impl Template {
    /// Compiles a text; the error is a sentence about the variable that cannot be read.
    pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut builder = Builder::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if syntax.variables && rest.starts_with("${") {
                rest = builder.variable(rest)?;
                continue;
            }
            match c {
                '*' if syntax.wildcards => builder.push(Token::Run),
                '?' if syntax.wildcards => builder.push(Token::One),
                _ => builder.literal.push(c),
            }
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
        builder.flush();
        Ok(Self { tokens: builder.tokens.into(), variables: builder.variables.into() })
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(super) fn tokens_mut(&mut self) -> &mut [Token] {
        &mut self.tokens
    }

    pub(super) fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Returns the text when nothing in it depends on the request or has power.
    pub(super) fn as_literal(&self) -> Option<&str> {
        match self.tokens.as_ref() {
            [] => Some(""),
            [Token::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Tells whether the last element is a run of any characters.
    pub(super) fn ends_in_run(&self) -> bool {
        self.tokens.last() == Some(&Token::Run)
    }

    /// Tells whether an element fits more than one text.
    pub(super) fn has_wildcards(&self) -> bool {
        self.tokens.iter().any(|token| !matches!(token, Token::Literal(_) | Token::Variable(_)))
    }

    /// Returns the text before the first wildcard; `None` when a variable has no value, which fits nothing.
    pub(super) fn literal_head(&self, scope: &Scope<'_>) -> Option<String> {
        let values = self.resolve(scope)?;
        let pieces = (0..self.tokens.len()).map(|index| self.piece(index, &values));
        let literals = pieces.map_while(|piece| if let Some(Piece::Literal(text)) = piece { Some(text) } else { None });
        Some(literals.collect())
    }

    /// Finds the variables' values; `None` when one of them has none, which makes the whole element match nothing.
    pub(super) fn resolve<'a>(&'a self, scope: &Scope<'a>) -> Option<Vec<&'a str>> {
        let mut values = Vec::with_capacity(self.variables.len());
        for variable in &self.variables {
            if !scope.steps.take(0) {
                return None;
            }
            // No return at the first failure: every missing key belongs in the decision's record.
            values.extend(scope.value(variable));
        }
        (values.len() == self.variables.len()).then_some(values)
    }

    /// Returns the element at `index`, with `values` from [`Template::resolve`].
    pub(super) fn piece<'a>(&'a self, index: usize, values: &[&'a str]) -> Option<Piece<'a>> {
        self.tokens.get(index).map(|token| match token {
            Token::Literal(text) => Piece::Literal(text),
            Token::Run => Piece::Run,
            Token::One => Piece::One,
            Token::SegmentRun => Piece::SegmentRun,
            Token::SegmentOne => Piece::SegmentOne,
            Token::Variable(number) => Piece::Literal(values.get(*number).copied().unwrap_or_default()),
        })
    }

    /// Tells whether the pattern covers the whole text.
    pub(super) fn matches(&self, text: &str, scope: &Scope<'_>) -> bool {
        if let Some(literal) = self.as_literal() {
            return scope.steps.take(literal.len()) && literal == text;
        }
        // Most patterns that do not match differ in their literal ends.
        let ends_fit = match (self.tokens.first(), self.tokens.last()) {
            (Some(Token::Literal(head)), _) if !text.starts_with(&**head) => false,
            (_, Some(Token::Literal(tail))) => scope.steps.take(tail.len()) && text.ends_with(&**tail),
            _ => true,
        };
        ends_fit
            && self.resolve(scope).is_some_and(|values| matches(|index| self.piece(index, &values), text, &scope.steps))
    }
}

#[derive(Default)]
struct Builder {
    literal: String,
    tokens: Vec<Token>,
    variables: Vec<Variable>,
}

impl Builder {
    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.tokens.push(Token::Literal(std::mem::take(&mut self.literal).into()));
        }
    }

    fn push(&mut self, token: Token) {
        self.flush();
        // Neighbouring stars mean what one means, and cost more.
        if token != Token::Run || self.tokens.last() != Some(&Token::Run) {
            self.tokens.push(token);
        }
    }

    /// Reads a variable at the head of `text` and returns what follows it.
    fn variable<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        let inner = text.strip_prefix("${").unwrap_or_default();
        for escaped in ["*", "?", "$"] {
            if let Some(rest) = inner.strip_prefix(escaped).and_then(|rest| rest.strip_prefix('}')) {
                self.literal.push_str(escaped);
                return Ok(rest);
            }
        }
        let end = inner.find([',', '}']).ok_or("`${` begins a variable that no `}` ends")?;
        let (name, rest) = inner.split_at(end);
        if name.is_empty() || name.trim() != name || name.contains(['$', '{', '\'', '*', '?']) {
            return Err(format!("`${{{}}}` names no condition key", super::error::shown(name)));
        }
        let (default, rest) = match rest.strip_prefix(',') {
            Some(default) => read_default(default).map(|(default, rest)| (Some(default.into()), rest))?,
            None => (None, rest.strip_prefix('}').unwrap_or_default()),
        };
        self.push(Token::Variable(self.variables.len()));
        self.variables.push(Variable { key: Key::new(name), default });
        Ok(rest)
    }
}

/// Reads ` 'default'}` and returns the default and what follows.
fn read_default(text: &str) -> Result<(&str, &str), String> {
    let quoted = text.trim_start_matches(' ').strip_prefix('\'');
    let (default, rest) = quoted
        .and_then(|quoted| quoted.split_once('\''))
        .ok_or("the default of a variable stands in single quotes, `${key, 'default'}`")?;
    let rest = rest.trim_start_matches(' ').strip_prefix('}');
    Ok((default, rest.ok_or("`${` begins a variable that no `}` ends")?))
}

/// What patterns and conditions may look at while one request is judged, and what they leave behind.
pub(super) struct Scope<'r> {
    pub(super) context: &'r Context,
    pub(super) steps: Steps,
    /// Keys that were asked for and are absent.
    missing: RefCell<Keys>,
}

impl<'r> Scope<'r> {
    pub(super) fn new(context: &'r Context) -> Self {
        Self { context, steps: Steps::new(), missing: RefCell::default() }
    }

    /// Looks a key up and notes it when it is absent.
    pub(super) fn look_up(&self, key: &Key) -> Option<&'r ContextValue> {
        let found = self.context.get_folded(key.folded());
        if found.is_none() {
            self.missing.borrow_mut().insert(key);
        }
        found
    }

    /// Tells whether a key was left open, and notes that it was asked for.
    pub(super) fn is_open(&self, key: &Key) -> bool {
        let open = self.context.is_open(key.folded());
        if open {
            self.missing.borrow_mut().insert(key);
        }
        open
    }

    /// Returns the names of the absent keys, in order of their names.
    pub(super) fn into_missing(self) -> Vec<String> {
        let mut names = self.missing.into_inner().names();
        names.sort();
        names
    }

    fn value(&self, variable: &'r Variable) -> Option<&'r str> {
        match &variable.default {
            Some(default) if self.context.get_folded(variable.key.folded()).is_none() => Some(default),
            _ => match self.look_up(&variable.key)? {
                ContextValue::Single(value) => Some(value),
                // A set has no one text: the variable stays unresolved.
                ContextValue::Multi(_) => None,
            },
        }
    }
}

/// Tells whether the pieces cover the whole text.
///
/// Only the latest run of each kind can need another try: a later unlimited run covers whatever an earlier one could
/// have left to it, and runs within a segment end at the same colon wherever they began.
pub(super) fn matches<'a>(piece: impl Fn(usize) -> Option<Piece<'a>>, text: &str, steps: &Steps) -> bool {
    let (mut index, mut rest) = (0, text);
    let mut wide: Option<(usize, &str)> = None;
    let mut narrow: Option<(usize, &str)> = None;
    loop {
        let current = piece(index);
        let compared = if let Some(Piece::Literal(literal)) = current { literal.len() } else { 0 };
        if !steps.take(compared) {
            return false;
        }
        let advanced = match current {
            None if rest.is_empty() => return true,
            None => None,
            Some(Piece::Literal(literal)) => rest.strip_prefix(literal),
            Some(Piece::One) => skip(rest, |_| true),
            Some(Piece::SegmentOne) => skip(rest, |c| c != ':'),
            Some(Piece::Run) => {
                if piece(index + 1).is_none() {
                    return true;
                }
                (wide, narrow) = (Some((index + 1, rest)), None);
                Some(rest)
            }
            Some(Piece::SegmentRun) => {
                narrow = Some((index + 1, rest));
                Some(rest)
            }
        };
        if let Some(advanced) = advanced {
            (index, rest) = (index + 1, advanced);
            continue;
        }
        let longer = narrow.and_then(|(resume, from)| Some((resume, skip(from, |c| c != ':')?)));
        if let Some((resume, from)) = longer {
            (narrow, index, rest) = (longer, resume, from);
            continue;
        }
        narrow = None;
        let Some((resume, from)) = wide else { return false };
        let Some(mut from) = skip(from, |_| true) else { return false };
        if let Some(Piece::Literal(literal)) = piece(resume) {
            let Some(found) = find(from, literal, steps) else { return false };
            from = found;
        }
        (wide, index, rest) = (Some((resume, from)), resume, from);
    }
}

/// Returns the text from the first occurrence of `literal` on. Names are short: comparing wherever the first byte fits
/// is faster than preparing a search, and its worst case is counted.
fn find<'t>(text: &'t str, literal: &str, steps: &Steps) -> Option<&'t str> {
    let Some(first) = literal.bytes().next() else { return Some(text) };
    let mut rest = text;
    loop {
        let hit = rest.bytes().position(|byte| byte == first)?;
        if !steps.take(hit + literal.len()) {
            return None;
        }
        rest = rest.get(hit..)?;
        if rest.starts_with(literal) {
            return Some(rest);
        }
        rest = skip(rest, |_| true)?;
    }
}

/// Returns the text behind its first character, if that is a wanted one.
fn skip(text: &str, wanted: impl Fn(char) -> bool) -> Option<&str> {
    let mut chars = text.chars();
    chars.next().filter(|c| wanted(*c))?;
    Some(chars.as_str())
}
