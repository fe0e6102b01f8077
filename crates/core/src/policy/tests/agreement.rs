//! Agreement with the second evaluator on random cases, and laws that hold for all of them.

use std::sync::Arc;

use serde_json::json;

use super::Random;
use super::generate::{self, Case};
use super::naive;
use crate::policy::{Effect, PolicyList, PrincipalKind, evaluate};

const CASES: u64 = 40_000;

/// Runs a check on many random cases, each with its own seed.
fn for_cases(count: u64, check: impl Fn(u64, Case)) {
    for seed in 0..count {
        check(seed, generate::case(&mut Random::new(seed)));
    }
}

#[test]
fn the_engine_agrees_with_a_naive_evaluator() {
    let mut seen = std::collections::HashMap::new();
    let mut outcomes = std::collections::HashMap::new();
    for seed in 0..CASES {
        let case = generate::case(&mut Random::new(seed));
        let decision = evaluate(&case.policy_set(), &case.request);
        assert_eq!(decision.effect, naive::decide(&case), "seed {seed}: {decision:#?}\n{case:#?}");
        *seen.entry(decision.effect).or_insert(0) += 1;
        *outcomes.entry(decision.outcome).or_insert(0) += 1;
    }
    for effect in [Effect::Allow, Effect::ExplicitDeny, Effect::ImplicitDeny] {
        assert!(seen[&effect] > 4_000, "the cases are lopsided: {seen:?}");
    }
    assert_eq!(outcomes.len(), 16, "every outcome but those of broken input should come up: {outcomes:?}");
}

#[test]
fn another_deny_never_allows_what_was_denied() {
    for_cases(4_000, |seed, mut case| {
        let before = evaluate(&case.policy_set(), &case.request).effect;
        let mut random = Random::new(seed ^ 0xD);
        let mut extra = generate::policy(&mut random, false);
        let statements =
            if extra["Statement"].is_array() { extra["Statement"].take() } else { json!([extra["Statement"]]) };
        let mut statements = statements;
        statements.as_array_mut().unwrap().iter_mut().for_each(|statement| statement["Effect"] = json!("Deny"));
        extra["Statement"] = statements;
        case.identity.push(extra);
        let after = evaluate(&case.policy_set(), &case.request).effect;
        assert!(before == after || after == Effect::ExplicitDeny, "seed {seed}: {before:?} became {after:?}");
    });
}

#[test]
fn another_allow_never_lifts_an_explicit_deny() {
    for_cases(4_000, |seed, mut case| {
        let before = evaluate(&case.policy_set(), &case.request).effect;
        case.identity.push(json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}));
        let after = evaluate(&case.policy_set(), &case.request).effect;
        if before == Effect::ExplicitDeny {
            assert_eq!(after, Effect::ExplicitDeny, "seed {seed}");
        } else if before == Effect::Allow {
            assert_eq!(after, Effect::Allow, "seed {seed}");
        }
    });
}

#[test]
fn the_order_of_policies_and_statements_is_irrelevant() {
    for_cases(4_000, |seed, mut case| {
        let before = evaluate(&case.policy_set(), &case.request).effect;
        case.identity.reverse();
        for policy in case.identity.iter_mut().chain(&mut case.resource).chain(&mut case.boundary) {
            if let Some(statements) = policy["Statement"].as_array_mut() {
                statements.reverse();
            }
        }
        assert_eq!(evaluate(&case.policy_set(), &case.request).effect, before, "seed {seed}");
    });
}

#[test]
fn a_passed_but_empty_list_of_session_policies_allows_nothing_identity_based() {
    for_cases(2_000, |seed, mut case| {
        case.resource = None;
        let mut policies = case.policy_set();
        policies.session = Some(Arc::new(PolicyList::default()));
        let decision = evaluate(&policies, &case.request);
        assert!(!decision.is_allowed(), "seed {seed}: {decision:?}");
    });
}

#[test]
fn a_ceiling_never_widens() {
    for_cases(4_000, |seed, case| {
        let with = case.policy_set();
        let mut without = with.clone();
        (without.boundary, without.session, without.organization) = (None, None, Vec::new());
        without.resource_control.clear();
        let (with, without) = (evaluate(&with, &case.request), evaluate(&without, &case.request));
        assert!(!with.is_allowed() || without.is_allowed(), "seed {seed}");
    });
}

#[test]
fn callers_without_identity_policies_need_a_resource_policy() {
    for_cases(4_000, |seed, mut case| {
        if matches!(
            case.request.principal.kind,
            PrincipalKind::Service | PrincipalKind::WebIdentity | PrincipalKind::Anonymous
        ) {
            case.resource = None;
            assert!(!evaluate(&case.policy_set(), &case.request).is_allowed(), "seed {seed}");
        }
    });
}

#[test]
fn statements_that_decided_are_reported_exactly_when_a_statement_decided() {
    for_cases(4_000, |seed, case| {
        let decision = evaluate(&case.policy_set(), &case.request);
        let decided = match decision.effect {
            Effect::ExplicitDeny => true,
            Effect::ImplicitDeny => false,
            Effect::Allow => decision.code() != "AllowedAsAccountRoot",
        };
        assert_eq!(!decision.statements.is_empty(), decided, "seed {seed}: {decision:?}");
    });
}
