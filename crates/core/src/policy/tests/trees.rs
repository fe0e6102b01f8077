//! Questions about a path and everything below it: their answers must be those of every single path.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Random;
use super::generate::principal;
use crate::policy::{NamedPolicy, Policy, PolicyKind, PolicyList, PolicySet, PrincipalKind, Request, Tree, evaluate};

const KEY: &str = "munjigi:Path";

fn policies(statements: &[Value]) -> PolicySet {
    let document = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let policy = Policy::parse(&document, PolicyKind::Identity).unwrap();
    let list = PolicyList::new([NamedPolicy::new("own", Arc::new(policy))]);
    PolicySet { identity: Arc::new(list), ..PolicySet::default() }
}

fn asked() -> Request {
    let node = "arn:aws:ssm:ap-northeast-2:123456789012:managed-instance/mi-1";
    Request::new(principal(PrincipalKind::User), "munjigi:UploadFile", node)
}

fn tree(policies: &PolicySet, path: &str, tree: Tree) -> bool {
    let mut request = asked();
    request.context.set_tree(KEY, path, tree);
    evaluate(policies, &request).is_allowed()
}

fn single(policies: &PolicySet, path: &str) -> bool {
    let mut request = asked();
    request.context.set(KEY, path);
    evaluate(policies, &request).is_allowed()
}

fn statement(effect: &str, operator: &str, patterns: &[&str]) -> Value {
    json!({"Effect": effect, "Action": "munjigi:UploadFile", "Resource": "*", "Condition": {operator: {KEY: patterns}}})
}

#[test]
fn a_tree_is_allowed_if_everything_in_it_is() {
    let allow = |pattern: &str| statement("Allow", "StringLike", &[pattern]);
    let deny = |pattern: &str| statement("Deny", "StringLike", &[pattern]);
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    for (statements, path, every, some) in [
        (vec![all.clone()], "/", true, true),
        (vec![allow("*")], "/", true, true),
        (vec![allow("/srv/in*")], "/srv/in", true, true),
        (vec![allow("/srv/in*")], "/srv/in/deep", true, true),
        (vec![allow("/srv/in*")], "/srv", false, true),
        (vec![allow("/srv/in*")], "/srv/out", false, false),
        (vec![allow("/srv/in/*")], "/srv/in", false, true),
        (vec![allow("/srv/in/*.log")], "/srv/in", false, true),
        (vec![all.clone(), deny("/etc/*")], "/srv", true, true),
        (vec![all.clone(), deny("/etc/*")], "/", false, true),
        (vec![all.clone(), deny("*secret*")], "/srv", false, true),
        (vec![all.clone(), deny("/srv*")], "/srv/in", false, false),
        (vec![all.clone(), deny("/srvx")], "/srv", true, true),
        (vec![statement("Allow", "StringNotLike", &["/etc*"])], "/srv", true, true),
        (vec![statement("Allow", "StringNotLike", &["/etc*"])], "/etc", false, false),
        (vec![statement("Allow", "StringEquals", &["/srv"])], "/srv", false, true),
        (vec![], "/srv", false, false),
    ] {
        let policies = if statements.is_empty() { PolicySet::default() } else { policies(&statements) };
        assert_eq!(tree(&policies, path, Tree::All), every, "{statements:?} {path}");
        assert_eq!(tree(&policies, path, Tree::Some), some, "{statements:?} {path}");
    }
}

#[test]
fn no_single_path_says_otherwise_than_its_tree() {
    let mut random = Random::new(23);
    let parts = ["/", "a", "b", "/a", "/b", "*", "?", "/a/b", "A"];
    let operators = [
        "StringLike",
        "StringNotLike",
        "StringEquals",
        "StringNotEquals",
        "StringEqualsIgnoreCase",
        "StringLikeIfExists",
    ];
    let (mut yes, mut no) = (0, 0);
    for _ in 0..20_000 {
        let statements: Vec<_> = (0..=random.below(3))
            .map(|_| {
                let pattern: String = (0..=random.below(4)).map(|_| *random.pick(&parts)).collect();
                let effect = if random.chance(70) { "Allow" } else { "Deny" };
                statement(effect, operators[random.below(operators.len())], &[&pattern])
            })
            .collect();
        let policies = policies(&statements);
        let path: String = (0..=random.below(2)).map(|_| *random.pick(&["/a", "/b", "/A"])).collect();
        let all = tree(&policies, &path, Tree::All);
        let some = tree(&policies, &path, Tree::Some);
        if all {
            yes += 1
        } else {
            no += 1
        }
        assert!(some || !all);
        for _ in 0..8 {
            let below: String = (0..random.below(4)).map(|_| *random.pick(&["/a", "/b", "/ab", "/A", "/aa"])).collect();
            let one = single(&policies, &format!("{path}{below}"));
            assert!(one || !all, "{statements:?}: all of {path}, but not {path}{below}");
            assert!(!one || some, "{statements:?}: nothing of {path}, but {path}{below}");
        }
    }
    assert!(yes > 500 && no > 500, "{yes} {no}");
}
