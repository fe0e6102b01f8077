//! Conditions: one operator with one key, and whether it holds for a request.
//!
//! The families of operators stand in files of their own and know only how one value of the request compares with
//! the values of the policy; what absence, sets and negation mean is decided here, once for all of them.

mod address;
mod date;
mod numeric;
mod text;

use base64::Engine as _;

use self::address::Network;
use self::date::Instant;
use self::numeric::Decimal;
use self::text::{BoolValue, TextComparison};
use super::arn_match::{arn_equals, never_an_arn};
use super::context::{ContextValue, Key};
use super::pattern::{Scope, Syntax, Template};

/// `ForAllValues:` or `ForAnyValue:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    All,
    Any,
}

/// How numbers and instants are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordering {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Ordering {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A family of operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Text(TextComparison),
    Numeric(Ordering),
    Date(Ordering),
    Bool,
    Binary,
    IpAddress,
    Arn,
    Null,
}

/// An operator's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    family: Family,
    negated: bool,
    pub(super) quantifier: Option<Quantifier>,
    if_exists: bool,
}

impl Operator {
    /// Reads an operator's name, which is exact in every letter; `None` when there is no such operator.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (quantifier, rest) = if let Some(rest) = name.strip_prefix("ForAllValues:") {
            (Some(Quantifier::All), rest)
        } else if let Some(rest) = name.strip_prefix("ForAnyValue:") {
            (Some(Quantifier::Any), rest)
        } else {
            (None, name)
        };
        let (rest, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |rest| (rest, true));
        let (family, negated) = family(rest)?;
        // `Null` asks for presence itself, so neither a set nor IfExists makes sense with it.
        (family != Family::Null || (quantifier.is_none() && !if_exists)).then_some(Self {
            family,
            negated,
            quantifier,
            if_exists,
        })
    }

    /// Tells whether `${…}` in a value is a variable.
    fn knows_variables(self) -> bool {
        matches!(self.family, Family::Text(_) | Family::Arn | Family::Bool)
    }

    pub(super) fn is_null(self) -> bool {
        self.family == Family::Null
    }
}

fn family(name: &str) -> Option<(Family, bool)> {
    let text = |comparison, negated| (Family::Text(comparison), negated);
    Some(match name {
        "StringEquals" => text(TextComparison::Exact, false),
        "StringNotEquals" => text(TextComparison::Exact, true),
        "StringEqualsIgnoreCase" => text(TextComparison::Folded, false),
        "StringNotEqualsIgnoreCase" => text(TextComparison::Folded, true),
        "StringLike" => text(TextComparison::Like, false),
        "StringNotLike" => text(TextComparison::Like, true),
        "Bool" => (Family::Bool, false),
        "BinaryEquals" => (Family::Binary, false),
        "IpAddress" => (Family::IpAddress, false),
        "NotIpAddress" => (Family::IpAddress, true),
        "ArnEquals" | "ArnLike" => (Family::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Family::Arn, true),
        "Null" => (Family::Null, false),
        _ => {
            let (family, comparison): (fn(Ordering) -> Family, _) = if let Some(rest) = name.strip_prefix("Numeric") {
                (Family::Numeric, rest)
            } else {
                (Family::Date, name.strip_prefix("Date")?)
            };
            let (ordering, negated) = match comparison {
                "Equals" => (Ordering::Equal, false),
                "NotEquals" => (Ordering::Equal, true),
                "LessThan" => (Ordering::Less, false),
                "LessThanEquals" => (Ordering::LessOrEqual, false),
                "GreaterThan" => (Ordering::Greater, false),
                "GreaterThanEquals" => (Ordering::GreaterOrEqual, false),
                _ => return None,
            };
            (family(ordering), negated)
        }
    })
}

/// The values of the policy, compiled.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    Text(TextComparison, Box<[Template]>),
    Arn(Box<[Template]>),
    Numeric(Ordering, Box<[Decimal]>),
    Date(Ordering, Box<[Instant]>),
    Bool(Box<[BoolValue]>),
    Binary(Box<[Vec<u8>]>),
    IpAddress(Box<[Network]>),
    Null(Box<[bool]>),
}

/// One operator with one key and its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    key: Key,
    values: Values,
}

impl Condition {
    /// Compiles the values; the error is the index of the value at fault and a sentence about it.
    pub(super) fn compile(
        operator: Operator,
        key: &str,
        values: &[String],
        variables: bool,
    ) -> Result<Self, (usize, String)> {
        let template = |text: &str| {
            let wildcards = matches!(operator.family, Family::Text(TextComparison::Like) | Family::Arn);
            Template::parse(text, Syntax { wildcards, variables: variables && operator.knows_variables() })
        };
        let compiled = match operator.family {
            Family::Text(comparison) => Values::Text(comparison, each(values, template)?),
            Family::Arn => Values::Arn(each(values, template)?),
            Family::Bool => Values::Bool(each(values, |text| BoolValue::parse(text, template(text)?))?),
            Family::Numeric(ordering) => {
                Values::Numeric(ordering, each(values, |text| Decimal::parse(text).ok_or(unreadable(text, "number")))?)
            }
            Family::Date(ordering) => {
                let parse = |text: &str| {
                    Instant::parse(text).ok_or(unreadable(text, "date such as 2026-11-21T12:00:00Z or epoch seconds"))
                };
                Values::Date(ordering, each(values, parse)?)
            }
            Family::Binary => Values::Binary(each(values, |text| decode(text).ok_or(unreadable(text, "base64 text")))?),
            Family::IpAddress => Values::IpAddress(each(values, |text| {
                Network::parse(text).ok_or(unreadable(text, "address or network such as 203.0.113.0/24"))
            })?),
            Family::Null => Values::Null(each(values, |text| {
                text::parse_bool(text).ok_or(unreadable(text, "`true` (the key is absent) or `false` (it is present)"))
            })?),
        };
        Ok(Self { operator, key: Key::new(key), values: compiled })
    }

    pub(super) fn operator(&self) -> Operator {
        self.operator
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the condition's templates that may hold variables.
    pub(super) fn templates(&self) -> Vec<&Template> {
        match &self.values {
            Values::Text(_, templates) | Values::Arn(templates) => templates.iter().collect(),
            Values::Bool(values) => values.iter().filter_map(BoolValue::template).collect(),
            _ => Vec::new(),
        }
    }

    /// Tells whether the condition demands that the key be `true` (`Bool` and `BoolIfExists`).
    pub(super) fn demands_true(&self) -> bool {
        matches!(&self.values, Values::Bool(values) if values.contains(&BoolValue::Known(true)))
    }

    /// Tells whether this is `"Null": {key: "false"}`: the key has to be present.
    pub(super) fn demands_presence(&self) -> bool {
        matches!(&self.values, Values::Null(values) if values.contains(&false) && !values.contains(&true))
    }

    /// Tells whether one of the values can equal no ARN at all.
    pub(super) fn has_value_that_is_no_arn(&self) -> bool {
        matches!(&self.values, Values::Arn(templates) if templates.iter().any(never_an_arn))
    }

    /// Tells whether the policy lists no value.
    pub(super) fn is_empty(&self) -> bool {
        match &self.values {
            Values::Text(_, values) | Values::Arn(values) => values.is_empty(),
            Values::Numeric(_, values) => values.is_empty(),
            Values::Date(_, values) => values.is_empty(),
            Values::Bool(values) => values.is_empty(),
            Values::Binary(values) => values.is_empty(),
            Values::IpAddress(values) => values.is_empty(),
            Values::Null(values) => values.is_empty(),
        }
    }

    /// Tells whether the condition is true for the request.
    pub(super) fn holds(&self, scope: &Scope<'_>) -> bool {
        let found = scope.look_up(&self.key);
        if let Values::Null(wanted) = &self.values {
            return wanted.contains(&found.is_none());
        }
        let Some(found) = found else {
            return self.operator.if_exists
                || match self.operator.quantifier {
                    Some(Quantifier::All) => true,
                    Some(Quantifier::Any) => false,
                    None => self.operator.negated,
                };
        };
        let negated = self.operator.negated;
        let mut values = found.values().iter();
        match (self.operator.quantifier, found) {
            (Some(Quantifier::All), _) => values.all(|value| self.equals_any(value, scope) != negated),
            (Some(Quantifier::Any), _) => values.any(|value| self.equals_any(value, scope) != negated),
            (None, ContextValue::Single(value)) => self.equals_any(value, scope) != negated,
            // A set under an operator for single values: any value that matches counts, also against a negation.
            (None, ContextValue::Multi(_)) => values.any(|value| self.equals_any(value, scope)) != negated,
        }
    }

    /// Tells whether the condition certainly is true for a path and everything below it.
    pub(super) fn holds_for_tree(&self, path: &str, scope: &Scope<'_>) -> bool {
        match &self.values {
            Values::Text(comparison, templates) if self.operator.negated => {
                !templates.iter().any(|template| comparison.may_hold_in_tree(template, path, scope))
            }
            Values::Text(comparison, templates) => {
                templates.iter().any(|template| comparison.holds_for_tree(template, path, scope))
            }
            Values::Null(wanted) => wanted.contains(&false),
            _ => false,
        }
    }

    /// Tells whether the condition may be true for a path or something below it.
    pub(super) fn may_hold_in_tree(&self, path: &str, scope: &Scope<'_>) -> bool {
        match &self.values {
            Values::Text(comparison, templates) if self.operator.negated => {
                !templates.iter().any(|template| comparison.holds_for_tree(template, path, scope))
            }
            Values::Text(comparison, templates) => {
                templates.iter().any(|template| comparison.may_hold_in_tree(template, path, scope))
            }
            Values::Null(wanted) => wanted.contains(&false),
            _ => true,
        }
    }

    /// Tells whether a value of the request compares well with at least one value of the policy, negation aside.
    fn equals_any(&self, value: &str, scope: &Scope<'_>) -> bool {
        // The conversion of the value is counted once, each comparison by itself.
        if !scope.steps.take(value.len()) {
            return false;
        }
        match &self.values {
            Values::Text(comparison, templates) => templates.iter().any(|t| comparison.holds(t, value, scope)),
            Values::Arn(templates) => templates.iter().any(|template| arn_equals(template, value, scope)),
            Values::Numeric(ordering, numbers) => {
                compare(Decimal::parse(value), numbers, scope, |have, want| ordering.holds(have.cmp(want)))
            }
            Values::Date(ordering, instants) => {
                compare(Instant::parse(value), instants, scope, |have, want| ordering.holds(have.cmp(want)))
            }
            Values::Bool(wanted) => {
                compare(text::parse_bool(value), wanted, scope, |have, want| want.value(scope) == Some(*have))
            }
            Values::Binary(wanted) => compare(decode(value), wanted, scope, |have, want| have == want),
            Values::IpAddress(networks) => {
                compare(address::parse_caller(value), networks, scope, |have, network| network.contains(*have))
            }
            Values::Null(_) => false,
        }
    }
}

/// Compares a converted value with those of the policy; a value that could not be converted equals none.
fn compare<V, W>(value: Option<V>, wanted: &[W], scope: &Scope<'_>, equal: impl Fn(&V, &W) -> bool) -> bool {
    value.is_some_and(|value| wanted.iter().any(|want| scope.steps.take(0) && equal(&value, want)))
}

fn each<T>(values: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Box<[T]>, (usize, String)> {
    let parsed = values.iter().enumerate().map(|(index, value)| parse(value).map_err(|message| (index, message)));
    parsed.collect()
}

fn unreadable(text: &str, expected: &str) -> String {
    let hint = if text.contains("${") { "; variables stand only in String, Arn and Bool operators" } else { "" };
    format!("condition value `{}` is no {expected}{hint}", super::error::shown(text))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
