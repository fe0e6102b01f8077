//! The published decision cases.

use crate::policy::cases;

#[test]
fn every_published_case_gets_its_expected_answer() {
    let outcomes = cases::run(include_str!("../../../tests/vectors/iam-decisions.json")).unwrap();
    assert_eq!(outcomes.len(), 99);
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed())
        .map(|outcome| format!("{}: {} ({:?})", outcome.name, outcome.reason, outcome.expected))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
