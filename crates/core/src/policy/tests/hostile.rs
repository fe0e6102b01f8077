//! Hostile input: mutated documents, mutated values, patterns built to take forever. Nothing panics, work is bounded.

use std::sync::Arc;

use serde_json::json;

use super::{Random, generate};
use crate::policy::json as reader;
use crate::policy::pattern::{Piece, Scope, Steps, Syntax, Template, matches};
use crate::policy::{
    Context, NamedPolicy, Outcome, Policy, PolicyKind, PolicyList, PolicySet, PrincipalKind, Request, evaluate,
};

/// How many mutated inputs each parser gets.
const INPUTS: u64 = 1 << 18;

const FRAGMENTS: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u",
    "\\ud83d",
    "${",
    "${aws:username}",
    "${*}",
    "'",
    "*",
    "?",
    "\n",
    "null",
    "true",
    "1e9",
    "-",
    "\"Statement\"",
    "\"Effect\"",
    "\"Deny\"",
    "\"Action\"",
    "\"NotAction\"",
    "\"Principal\"",
    "\"Condition\"",
    "ForAllValues:",
    "IfExists",
    "\u{d55c}",
    "\u{0}",
    "arn:aws:",
    "000",
];

/// Replaces, inserts, removes or doubles some parts of a text, at character boundaries.
fn mutate(random: &mut Random, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..random.below(4) + 1 {
        let at = random.below(chars.len() + 1);
        let end = (at + random.below(6)).min(chars.len());
        match random.below(4) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..at, random.pick(&FRAGMENTS).chars())),
            2 => drop(chars.splice(at..end, random.pick(&FRAGMENTS).chars())),
            _ => {
                let copy: Vec<char> = chars[at..end].to_vec();
                let to = random.below(chars.len() + 1);
                drop(chars.splice(to..to, copy));
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn mutated_documents_are_read_or_refused() {
    let kinds = [PolicyKind::Identity, PolicyKind::Resource, PolicyKind::Trust];
    let mut random = Random::new(1);
    let seeds: Vec<(String, bool)> =
        (0..256).map(|number| (generate::policy(&mut random, number % 2 == 0).to_string(), number % 2 == 0)).collect();
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    for _ in 0..INPUTS {
        let (seed, for_resource) = random.pick(&seeds);
        let text = mutate(&mut random, seed);
        let kind = if *for_resource { kinds[1 + random.below(2)] } else { kinds[0] };
        match Policy::parse(&text, kind) {
            Ok(policy) => {
                accepted += 1;
                assert!(policy.statement_count() > 0);
                assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "accepted what is no JSON: {text}");
            }
            Err(error) => {
                refused += 1;
                assert!(!error.message.is_empty() && error.position.line >= 1 && error.position.column >= 1);
            }
        }
    }
    assert!(accepted > 1_000 && refused > 100_000, "the mutations are lopsided: {accepted} {refused}");
}

#[test]
fn the_reader_agrees_with_another_one_on_what_json_is() {
    fn repeats_a_key(error: &str) -> bool {
        error.contains("stands twice") || error.contains("nest deeper")
    }
    let mut random = Random::new(2);
    let seed = generate::policy(&mut random, true).to_string();
    for _ in 0..INPUTS {
        let text = mutate(&mut random, &seed);
        let other = serde_json::from_str::<serde_json::Value>(&text);
        match reader::read(&text) {
            Ok(_) => assert!(other.is_ok(), "only ours accepts {text}"),
            Err(fault) => {
                assert!(other.is_err() || repeats_a_key(&fault.message), "only ours refuses {text}: {}", fault.message);
            }
        }
    }
}

#[test]
fn mutated_values_never_hurt_conditions_or_patterns() {
    let seeds = [
        "2026-11-21T12:00:00.5+09:00",
        "1795262400",
        "-12.5e-3",
        "203.0.113.0/24",
        "2001:db8::/32",
        "QmluYXJ5",
        "true",
        "arn:aws:iam::123456789012:role/Ops*",
        "a*b?c*",
        "${aws:username, 'x'}*",
        "*:*:*:*:*:*",
    ];
    let operators = [
        "StringLike",
        "StringEqualsIgnoreCase",
        "NumericLessThan",
        "DateGreaterThan",
        "IpAddress",
        "BinaryEquals",
        "Bool",
        "ArnLike",
        "Null",
    ];
    let mut random = Random::new(3);
    let caller = generate::principal(PrincipalKind::User);
    for _ in 0..INPUTS {
        let (wanted, have) = (*random.pick(&seeds), *random.pick(&seeds));
        let (wanted, have) = (mutate(&mut random, wanted), mutate(&mut random, have));
        let operator = *random.pick(&operators);
        let document = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {"munjigi:k": wanted}}}});
        let Ok(policy) = Policy::parse(&document.to_string(), PolicyKind::Identity) else { continue };
        let identity = Arc::new(PolicyList::new([NamedPolicy::new("p", Arc::new(policy))]));
        let mut request = Request::new(caller.clone(), "ssm:StartSession", "*");
        request.context.set("munjigi:k", have);
        let decision = evaluate(&PolicySet { identity, ..PolicySet::default() }, &request);
        assert_ne!(decision.outcome, Outcome::EvaluationTooExpensive);
    }
}

#[test]
fn patterns_agree_with_recursive_matching_on_random_texts() {
    fn recursive(pattern: &[Piece<'_>], text: &str) -> bool {
        let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
        let splits = || text.char_indices().map(|(at, _)| at).chain([text.len()]);
        let one = |limited: bool| {
            text.chars().next().is_some_and(|c| (!limited || c != ':') && recursive(rest, &text[c.len_utf8()..]))
        };
        match first {
            Piece::Literal(literal) => text.strip_prefix(literal).is_some_and(|left| recursive(rest, left)),
            Piece::One => one(false),
            Piece::SegmentOne => one(true),
            Piece::Run => splits().any(|at| recursive(rest, &text[at..])),
            Piece::SegmentRun => {
                splits().take_while(|at| !text[..*at].contains(':')).any(|at| recursive(rest, &text[at..]))
            }
        }
    }
    let mut random = Random::new(4);
    let mut matched = 0;
    for _ in 0..INPUTS {
        // As compiled from a resource pattern: limited wildcards in the first segments, unlimited ones at their ends.
        let mut pattern = Vec::new();
        for _ in 0..random.below(3) {
            for _ in 0..random.below(4) {
                pattern.push(*random.pick(&[
                    Piece::Literal("a"),
                    Piece::Literal("ab"),
                    Piece::Literal("\u{d55c}"),
                    Piece::SegmentRun,
                    Piece::SegmentOne,
                ]));
            }
            if random.chance(40) {
                pattern.push(Piece::Run);
            }
            pattern.push(Piece::Literal(":"));
        }
        for _ in 0..random.below(5) {
            pattern.push(*random.pick(&[
                Piece::Literal("a"),
                Piece::Literal("b:"),
                Piece::Literal(""),
                Piece::Run,
                Piece::One,
            ]));
        }
        let text: String = (0..random.below(12)).map(|_| *random.pick(&['a', 'b', ':', 'a', '\u{d55c}'])).collect();
        let found = matches(|index| pattern.get(index).copied(), &text, &Steps::new());
        assert_eq!(found, recursive(&pattern, &text), "{pattern:?} {text:?}");
        matched += u32::from(found);
    }
    assert!(matched > 10_000, "only {matched} patterns matched");
}

#[test]
fn patterns_built_to_backtrack_take_bounded_work() {
    let context = Context::new();
    let text = "a".repeat(2048);
    for pattern in [
        "*a*a*a*a*a*a*a*a*a*a*a*a*b".to_owned(),
        "*a".repeat(1000) + "b",
        "*?a".repeat(700) + "b",
        "?*".repeat(1000) + "b",
        "*".repeat(5000) + "b",
    ] {
        let template = Template::parse(&pattern, Syntax { wildcards: true, variables: true }).unwrap();
        let scope = Scope::new(&context);
        assert!(!template.matches(&text, &scope));
        assert!(!scope.steps.exhausted(), "one pattern may not use up a decision: {pattern:.20}");
    }
}

#[test]
fn policies_that_take_too_much_work_deny() {
    let resources: Vec<String> = (0..50)
        .map(|n| format!("arn:aws:ssm:r:123456789012:{}b{n}?", "*?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a".repeat(10)))
        .collect();
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": resources},
        {"Effect": "Allow", "Action": "ssm:*", "NotResource": resources},
    ]});
    let policy = Arc::new(Policy::parse(&document.to_string(), PolicyKind::Identity).unwrap());
    let identity = Arc::new(PolicyList::new((0..20).map(|n| NamedPolicy::new(n.to_string(), policy.clone()))));
    let resource = format!("arn:aws:ssm:r:123456789012:{}", "a".repeat(2000));
    let request = Request::new(generate::principal(PrincipalKind::User), "ssm:StartSession", resource);
    let decision = evaluate(&PolicySet { identity, ..PolicySet::default() }, &request);
    assert_eq!(decision.outcome, Outcome::EvaluationTooExpensive);
    assert!(!decision.is_allowed());
}
