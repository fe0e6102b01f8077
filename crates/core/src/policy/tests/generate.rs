//! Random policies and requests from small vocabularies, so that they meet often.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Random;
use crate::policy::{
    Context, NamedPolicy, Policy, PolicyKind, PolicyList, PolicySet, Principal, PrincipalKind, Request,
};

pub(super) const ACCOUNT: &str = "123456789012";
pub(super) const OTHER_ACCOUNT: &str = "210987654321";
const USER: &str = "arn:aws:iam::123456789012:user/alice";
const ROLE: &str = "arn:aws:iam::123456789012:role/Ops";
const ROLE_SESSION: &str = "arn:aws:sts::123456789012:assumed-role/Ops/alice";
const FEDERATED: &str = "arn:aws:sts::123456789012:federated-user/bob";
const ROOT: &str = "arn:aws:iam::123456789012:root";

/// Policies as JSON, a request, and its context in plain form.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) identity: Vec<Value>,
    pub(super) boundary: Option<Value>,
    pub(super) session: Option<Vec<Value>>,
    pub(super) resource: Option<Value>,
    pub(super) organization: Vec<Vec<Value>>,
    pub(super) resource_control: Vec<Vec<Value>>,
    /// Name, whether it is a set, values.
    pub(super) context: Vec<(String, bool, Vec<String>)>,
    pub(super) request: Request,
}

impl Case {
    pub(super) fn policy_set(&self) -> PolicySet {
        let parse = |document: &Value, kind| {
            Policy::parse(&document.to_string(), kind).unwrap_or_else(|error| panic!("{error}: {document}"))
        };
        let list = |documents: &[Value], kind| {
            let named =
                documents.iter().enumerate().map(|(i, d)| NamedPolicy::new(i.to_string(), Arc::new(parse(d, kind))));
            Arc::new(PolicyList::new(named.collect::<Vec<_>>()))
        };
        let levels = |levels: &[Vec<Value>]| levels.iter().map(|l| list(l, PolicyKind::Organization)).collect();
        PolicySet {
            identity: list(&self.identity, PolicyKind::Identity),
            boundary: self.boundary.as_ref().map(|d| list(std::slice::from_ref(d), PolicyKind::Boundary)),
            session: self.session.as_ref().map(|d| list(d, PolicyKind::Session)),
            resource: self.resource.as_ref().map(|d| list(std::slice::from_ref(d), PolicyKind::Resource)),
            organization: levels(&self.organization),
            resource_control: levels(&self.resource_control),
        }
    }
}

const ACTIONS: [&str; 5] =
    ["ssm:StartSession", "ssm:SendCommand", "ec2-instance-connect:OpenTunnel", "iam:CreateUser", "SSM:startsession"];
const ACTION_PATTERNS: [&str; 12] = [
    "*",
    "ssm:*",
    "ssm:Start*",
    "ssm:StartSession",
    "SSM:s*session",
    "ssm:?endCommand",
    "ec2:*",
    "iam:*",
    "ec2-instance-connect:Open*",
    "ssm:*S*",
    "ssm:Start???????",
    "iam:CreateUser",
];
const RESOURCES: [&str; 7] = [
    "*",
    "arn:aws:ec2:ap-northeast-2:123456789012:instance/i-1",
    "arn:aws:ssm:ap-northeast-2:123456789012:managed-instance/mi-1",
    "arn:aws:ssm:ap-northeast-2:123456789012:session/alice-1",
    "arn:aws:ssm:us-east-1::document/AWS-Shell",
    "arn:aws:logs:us-east-1:123456789012:log-group:alpha:beta",
    "arn:aws:ssm:ap-northeast-2:123456789012:session/a*c",
];
const RESOURCE_PATTERNS: [&str; 24] = [
    // These two cover the log group only if a wildcard crosses a colon, which it may not.
    "arn:aws:l*-1:*:*:*",
    "arn:aws:logs?us-east-1:*:*:*",
    "*",
    "*",
    "arn:aws:ec2:*:*:instance/*",
    "arn:aws:ssm:*:123456789012:managed-instance/mi-?",
    "arn:aws:ssm:*:*:session/${aws:username}-*",
    "arn:aws:ssm:*:*:session/${aws:PrincipalTag/team, 'alice'}*",
    "arn:aws:ssm:*:*:session/a${*}c",
    "arn:aws:ssm:*:*:session/${munjigi:star}",
    "arn:aws:*:*:*:*",
    "arn:aws:s*m:*:*:*",
    "arn:aws:ssm:ap-*-2:*:*",
    "arn:aws:*west*:*:*:*:*",
    "arn:aws:logs:us-east-1:123456789012:log-group:*:b*a",
    "arn:*:*:*:*:*beta",
    "arn:aws:ssm:us-east-1:123456789012:document/*",
    "arn:aws:ssm:us-east-1::document/AWS-?????",
    "arn:aws:ssm:*:*:*/${aws:TagKeys}",
    "*:*:*:*:*:*1",
    "arn:a?s:ec2:*:12345678901?:instance/i-1",
    "arn:aws:e*2:**:123456789012:instance/i-?",
    "arn:aws:?:*:*:*",
    "arn:aws:ssm:${aws:RequestedRegion}:*:*",
];
const PRINCIPALS: [&str; 9] =
    [ACCOUNT, ROOT, USER, ROLE, ROLE_SESSION, FEDERATED, "*", "AIDAAAAAAAAAAAAAAAAAA", "AROAAAAAAAAAAAAAAAAAA"];
const KEYS: [&str; 6] =
    ["munjigi:a", "MUNJIGI:A", "aws:username", "aws:PrincipalTag/team", "aws:TagKeys", "munjigi:absent"];
const TEXTS: [&str; 10] = ["alice", "Alice", "al*", "a?ice", "team", "", "*", "li", "a\nb", "\u{d55c}\u{ae00}"];
const TEXT_PATTERNS: [&str; 14] = [
    "alice",
    "ALICE",
    "al*",
    "a?ice",
    "*",
    "",
    "*l*e",
    "${aws:username}",
    "${aws:username, 'alice'}",
    "${*}",
    "al${*}",
    "${munjigi:absent}",
    "${munjigi:absent, ''}*",
    "a?b",
];
const NUMBERS: [&str; 9] = ["0", "-0", "1", "1.0", "22", "-3.5", "2.2e1", "0.001", "x"];
const ADDRESSES: [&str; 6] =
    ["203.0.113.7", "203.0.113.200", "2001:db8::1", "::ffff:203.0.113.7", "10.0.0.1", "nowhere"];
const NETWORKS: [&str; 7] =
    ["203.0.113.0/24", "203.0.113.7", "203.0.113.9/25", "0.0.0.0/0", "2001:db8::/32", "::/0", "2001:db8::1"];
const ARNS: [&str; 6] = [
    ROLE,
    USER,
    "arn:aws:iam::210987654321:role/Ops",
    "arn:aws:logs:us-east-1:123456789012:log-group:alpha:beta",
    "not-an-arn",
    "arn:aws:iam:role/Ops",
];
const ARN_PATTERNS: [&str; 9] = [
    ROLE,
    "arn:aws:iam::*:role/*",
    "arn:aws:iam::123456789012:*",
    "arn:*:*:*:*:*",
    "arn:*:user/alice",
    "${munjigi:arn}",
    "arn:aws:iam::123456789012:user/${aws:username}",
    "arn:aws:logs:*:*:log-group:*:beta",
    "arn:aws:i?m::?????????012:role/O??",
];
/// Instants whose value the second evaluator knows by heart.
pub(super) const DATES: [(&str, Option<(i64, u32)>); 11] = [
    ("2026", Some((1_767_225_600, 0))),
    ("2026-11", Some((1_793_491_200, 0))),
    ("2026-11-21", Some((1_795_219_200, 0))),
    ("2026-11-21T00:00Z", Some((1_795_219_200, 0))),
    ("2026-11-21T12:00:00Z", Some((1_795_262_400, 0))),
    ("2026-11-21T21:00:00+09:00", Some((1_795_262_400, 0))),
    ("2026-11-21T12:00:00.5Z", Some((1_795_262_400, 500_000_000))),
    ("2026-11-21T12:00:00", Some((1_795_262_400, 0))),
    ("1795262400", Some((1_795_262_400, 0))),
    ("-1", Some((-1, 0))),
    ("yesterday", None),
];
/// Base64 texts and what they decode to.
pub(super) const BINARIES: [(&str, Option<&str>); 4] =
    [("QmluYXJ5", Some("Binary")), ("QQ==", Some("A")), ("", Some("")), ("no base64!", None)];

pub(super) fn case(random: &mut Random) -> Case {
    let kind = *random.pick(&[
        PrincipalKind::User,
        PrincipalKind::User,
        PrincipalKind::AssumedRole,
        PrincipalKind::AssumedRole,
        PrincipalKind::FederatedUser,
        PrincipalKind::Root,
        PrincipalKind::Service,
        PrincipalKind::WebIdentity,
        PrincipalKind::Anonymous,
    ]);
    let (context, for_engine) = context(random);
    let mut request = Request::new(principal(kind), *random.pick(&ACTIONS), *random.pick(&RESOURCES));
    request.context = for_engine;
    if random.chance(10) {
        request.resource_aliases.push((*random.pick(&RESOURCES)).to_owned());
    }
    if random.chance(20) {
        request.resource_account = Some((*random.pick(&[ACCOUNT, OTHER_ACCOUNT, OTHER_ACCOUNT])).to_owned());
    }
    request.resource_policy_required = random.chance(15);
    let policies = |random: &mut Random, most: usize| -> Vec<Value> {
        (0..random.below(most + 1)).map(|_| policy(random, false)).collect()
    };
    let levels = |random: &mut Random| -> Vec<Vec<Value>> {
        let levels = if random.chance(25) { random.below(2) + 1 } else { 0 };
        (0..levels)
            .map(|_| {
                let mut level: Vec<Value> = (0..random.below(2)).map(|_| policy(random, false)).collect();
                if random.chance(80) {
                    level.push(json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}));
                }
                level
            })
            .collect()
    };
    Case {
        identity: policies(random, 3),
        boundary: random.chance(25).then(|| policy(random, false)),
        session: random.chance(25).then(|| policies(random, 2)),
        resource: random.chance(50).then(|| policy(random, true)),
        organization: levels(random),
        resource_control: levels(random),
        context,
        request,
    }
}

pub(super) fn principal(kind: PrincipalKind) -> Principal {
    let (arn, source_arn, unique_id) = match kind {
        PrincipalKind::User => (USER, None, Some("AIDAAAAAAAAAAAAAAAAAA")),
        PrincipalKind::AssumedRole => (ROLE_SESSION, Some(ROLE), Some("AROAAAAAAAAAAAAAAAAAA")),
        PrincipalKind::FederatedUser => (FEDERATED, Some(USER), Some("AIDAAAAAAAAAAAAAAAAAA")),
        PrincipalKind::Root => (ROOT, None, None),
        PrincipalKind::Service => ("ssm.amazonaws.com", None, None),
        PrincipalKind::WebIdentity => ("accounts.google.com", None, None),
        PrincipalKind::Anonymous => ("", None, None),
    };
    let account = if matches!(kind, PrincipalKind::WebIdentity | PrincipalKind::Anonymous) { "" } else { ACCOUNT };
    Principal {
        kind,
        arn: arn.to_owned(),
        account: account.to_owned(),
        source_arn: source_arn.map(str::to_owned),
        unique_id: unique_id.map(str::to_owned),
    }
}

fn context(random: &mut Random) -> (Vec<(String, bool, Vec<String>)>, Context) {
    let mut plain: Vec<(String, bool, Vec<String>)> = Vec::new();
    let mut single = |random: &mut Random, key: &str, percent: usize, values: &[&str]| {
        if random.chance(percent) {
            plain.push((key.to_owned(), false, vec![(*random.pick(values)).to_owned()]));
        }
    };
    single(random, "munjigi:A", 70, &TEXTS);
    single(random, "aws:username", 60, &["alice", "alice", "bob", "a*"]);
    single(random, "aws:principaltag/TEAM", 50, &["alice", "web", "al"]);
    single(random, "munjigi:star", 50, &["*", "alice-1"]);
    single(random, "munjigi:number", 80, &NUMBERS);
    single(random, "munjigi:date", 80, &DATES.map(|(text, _)| text));
    single(random, "munjigi:flag", 70, &["true", "FALSE", "True", "maybe"]);
    single(random, "munjigi:bytes", 70, &BINARIES.map(|(text, _)| text));
    single(random, "aws:SourceIp", 80, &ADDRESSES);
    single(random, "munjigi:arn", 80, &ARNS);
    single(random, "aws:RequestedRegion", 60, &["us-east-1", "ap-northeast-2"]);
    for (key, values) in [
        ("aws:TagKeys", &TEXTS[..]),
        ("munjigi:numbers", &NUMBERS[..]),
        ("munjigi:arns", &ARNS[..]),
        ("munjigi:addresses", &ADDRESSES[..]),
    ] {
        if random.chance(60) {
            let values = (0..random.below(4)).map(|_| (*random.pick(values)).to_owned()).collect();
            plain.push((key.to_owned(), true, values));
        }
    }
    let mut context = Context::new();
    for (key, set, values) in &plain {
        if *set {
            context.set_many(key, values.clone());
        } else {
            context.set(key, values[0].clone());
        }
    }
    (plain, context)
}

/// A policy of one to three statements; `for_resource` gives them principals.
pub(super) fn policy(random: &mut Random, for_resource: bool) -> Value {
    let newer = random.chance(85);
    let statements: Vec<Value> = (0..random.below(3) + 1).map(|_| statement(random, for_resource, newer)).collect();
    let mut policy = Map::new();
    if newer {
        policy.insert("Version".into(), "2012-10-17".into());
    } else if random.chance(50) {
        policy.insert("Version".into(), "2008-10-17".into());
    }
    let statement = if statements.len() == 1 && random.chance(50) { statements[0].clone() } else { statements.into() };
    policy.insert("Statement".into(), statement);
    policy.into()
}

fn statement(random: &mut Random, for_resource: bool, newer: bool) -> Value {
    let mut statement = Map::new();
    let allow = random.chance(75);
    statement.insert("Effect".into(), if allow { "Allow" } else { "Deny" }.into());
    let name = if random.chance(15) { "NotAction" } else { "Action" };
    statement.insert(name.into(), some_of(random, &ACTION_PATTERNS));
    let name = if random.chance(15) { "NotResource" } else { "Resource" };
    statement.insert(name.into(), some_of(random, &RESOURCE_PATTERNS));
    if for_resource {
        let name = if !allow && random.chance(40) { "NotPrincipal" } else { "Principal" };
        statement.insert(name.into(), principals(random));
    }
    if random.chance(if allow { 35 } else { 70 }) {
        statement.insert("Condition".into(), conditions(random, newer));
    }
    statement.into()
}

fn some_of(random: &mut Random, items: &[&str]) -> Value {
    let chosen: Vec<&str> = (0..random.below(3) + 1).map(|_| *random.pick(items)).collect();
    if chosen.len() == 1 { json!(chosen[0]) } else { json!(chosen) }
}

fn principals(random: &mut Random) -> Value {
    match random.below(10) {
        0 | 1 => json!("*"),
        2 => json!({"Service": ["ssm.amazonaws.com", "ec2.amazonaws.com"]}),
        3 => json!({"Federated": "accounts.google.com"}),
        4 => json!({"CanonicalUser": "79a59df900b949e55d96a1e698fbaced", "AWS": OTHER_ACCOUNT}),
        _ => json!({"AWS": (0..random.below(4) + 1).map(|_| *random.pick(&PRINCIPALS)).collect::<Vec<_>>()}),
    }
}

fn conditions(random: &mut Random, newer: bool) -> Value {
    let mut blocks = Map::new();
    for _ in 0..random.below(2) + 1 {
        let (operator, key, values) = condition(random, newer);
        let block = blocks.entry(operator).or_insert_with(|| json!({}));
        block[key] = values;
    }
    blocks.into()
}

fn condition(random: &mut Random, newer: bool) -> (String, String, Value) {
    let orders = ["Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"];
    let (base, keys, values): (String, &[&str], Vec<&str>) = match random.below(9) {
        0..=2 => {
            let names = [
                "StringEquals",
                "StringNotEquals",
                "StringEqualsIgnoreCase",
                "StringNotEqualsIgnoreCase",
                "StringLike",
                "StringNotLike",
            ];
            ((*random.pick(&names)).to_owned(), &KEYS, TEXT_PATTERNS.to_vec())
        }
        3 => {
            let numbers = NUMBERS.iter().copied().filter(|number| *number != "x").collect();
            (format!("Numeric{}", random.pick(&orders)), &["munjigi:number", "munjigi:numbers"], numbers)
        }
        4 => {
            let dates = DATES.iter().filter(|(_, value)| value.is_some()).map(|(text, _)| *text).collect();
            (format!("Date{}", random.pick(&orders)), &["munjigi:date", "munjigi:absent"], dates)
        }
        5 => {
            let values = vec!["true", "false", "TRUE", "${munjigi:flag}", "${munjigi:absent, 'false'}"];
            ("Bool".to_owned(), &["munjigi:flag"], values)
        }
        6 => {
            let names = ["IpAddress", "NotIpAddress"];
            let keys = &["aws:SourceIp", "munjigi:addresses"];
            ((*random.pick(&names)).to_owned(), keys, NETWORKS.to_vec())
        }
        7 => {
            let names = ["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"];
            ((*random.pick(&names)).to_owned(), &["munjigi:arn", "munjigi:arns"], ARN_PATTERNS.to_vec())
        }
        _ if random.chance(50) => {
            let values = vec!["true", "False"];
            return ("Null".to_owned(), (*random.pick(&KEYS)).to_owned(), some_of(random, &values));
        }
        _ => {
            let bytes = BINARIES.iter().filter(|(_, value)| value.is_some()).map(|(text, _)| *text).collect();
            ("BinaryEquals".to_owned(), &["munjigi:bytes"], bytes)
        }
    };
    // Variables of Bool need the newer language; the older one sees a malformed value.
    let values: Vec<&str> =
        values.into_iter().filter(|value| base != "Bool" || newer || !value.contains('$')).collect();
    let set = *random.pick(&["", "", "", "ForAllValues:", "ForAnyValue:"]);
    let suffix = if random.chance(20) { "IfExists" } else { "" };
    let values = if random.chance(3) { json!([]) } else { some_of(random, &values) };
    (format!("{set}{base}{suffix}"), (*random.pick(keys)).to_owned(), values)
}
