//! Tables for every operator family: values that hold and values that do not, absence, sets, variables.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::policy::{
    Context, NamedPolicy, Policy, PolicyKind, PolicyList, PolicySet, PrincipalKind, Request, evaluate,
};

/// Tells whether an Allow under this condition lets a request with this context through.
#[track_caller]
fn holds(condition: &Value, context: &Value) -> bool {
    let statement = json!({"Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*", "Condition": condition});
    let document = json!({"Version": "2012-10-17", "Statement": statement}).to_string();
    let policy = Policy::parse(&document, PolicyKind::Identity).unwrap();
    let identity = Arc::new(PolicyList::new([NamedPolicy::new("p", Arc::new(policy))]));
    let caller = super::generate::principal(PrincipalKind::User);
    let mut request = Request::new(caller, "ssm:StartSession", "*");
    request.context = context_of(context);
    evaluate(&PolicySet { identity, ..PolicySet::default() }, &request).is_allowed()
}

fn context_of(keys: &Value) -> Context {
    let mut context = Context::new();
    for (key, value) in keys.as_object().unwrap() {
        match value {
            Value::String(text) => context.set(key, text.clone()),
            Value::Array(items) => context.set_many(key, items.iter().map(|item| item.as_str().unwrap())),
            other => panic!("{other}"),
        };
    }
    context
}

/// Checks one operator with one pair of values, and that its negation says the opposite.
#[track_caller]
fn check(operator: &str, negation: Option<&str>, wanted: &Value, have: &str, expected: bool) {
    let context = json!({"munjigi:k": have});
    assert_eq!(holds(&json!({operator: {"munjigi:k": wanted}}), &context), expected, "{have:?} {operator} {wanted}");
    if let Some(negation) = negation {
        let opposite = holds(&json!({negation: {"munjigi:k": wanted}}), &context);
        assert_eq!(opposite, !expected, "{have:?} {negation} {wanted}");
    }
}

#[test]
fn texts() {
    for (wanted, have, equals, folded, like) in [
        ("alice", "alice", true, true, true),
        ("Alice", "alice", false, true, false),
        ("al*", "alice", false, false, true),
        ("al*", "al*", true, true, true),
        ("a?ice", "alice", false, false, true),
        ("?", "", false, false, false),
        ("*", "", false, false, true),
        ("", "", true, true, true),
        ("a*b", "a\nb", false, false, true),
        ("a?b", "a\u{d55c}b", false, false, true),
        ("STRASSE", "strasse", false, true, false),
        ("\u{c4}pfel", "\u{e4}pfel", false, true, false),
        ("a*c*e", "abcde", false, false, true),
        ("a*c*e", "abdce!", false, false, false),
        ("${*}x", "*x", true, true, true),
        ("${*}x", "ax", false, false, false),
        ("${?}${$}", "?$", true, true, true),
        ("$${$}", "$$", true, true, true),
        ("$x{", "$x{", true, true, true),
    ] {
        let wanted = json!(wanted);
        check("StringEquals", Some("StringNotEquals"), &wanted, have, equals);
        check("StringEqualsIgnoreCase", Some("StringNotEqualsIgnoreCase"), &wanted, have, folded);
        check("StringLike", Some("StringNotLike"), &wanted, have, like);
    }
}

#[test]
fn numbers() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    for (have, wanted, order) in [
        ("22", json!("22"), Some(Equal)),
        ("22", json!(22), Some(Equal)),
        ("22.0", json!("2.2e1"), Some(Equal)),
        ("022", json!("22"), Some(Equal)),
        ("+1", json!("1"), Some(Equal)),
        ("-0", json!(0), Some(Equal)),
        ("0.1", json!("0.10"), Some(Equal)),
        ("9", json!("10"), Some(Less)),
        ("-9", json!("-10"), Some(Greater)),
        ("-1", json!("1"), Some(Less)),
        ("0", json!("-0.001"), Some(Greater)),
        ("9223372036854775807", json!("9223372036854775808"), Some(Less)),
        ("9007199254740993", json!("9007199254740992"), Some(Greater)),
        ("0.30000000000000004", json!("0.3"), Some(Greater)),
        ("1e400", json!("1e399"), Some(Greater)),
        ("1e-400", json!("0"), Some(Greater)),
        ("ten", json!("10"), None),
        ("", json!("0"), None),
        ("1.", json!("1"), None),
        (".5", json!("0.5"), None),
        (" 1", json!("1"), None),
        ("1e9999999", json!("1"), None),
        ("0x10", json!("16"), None),
        ("NaN", json!("0"), None),
        ("inf", json!("0"), None),
    ] {
        check("NumericEquals", Some("NumericNotEquals"), &wanted, have, order == Some(Equal));
        check("NumericLessThan", None, &wanted, have, order == Some(Less));
        check("NumericLessThanEquals", None, &wanted, have, matches!(order, Some(Less | Equal)));
        check("NumericGreaterThan", None, &wanted, have, order == Some(Greater));
        check("NumericGreaterThanEquals", None, &wanted, have, matches!(order, Some(Greater | Equal)));
    }
}

#[test]
fn dates() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    for (have, wanted, order) in [
        ("2026-11-21T12:00:00Z", json!("2026-11-21T12:00Z"), Some(Equal)),
        ("2026-11-21T12:00:00Z", json!("2026-11-21T21:00:00+09:00"), Some(Equal)),
        ("2026-11-21T12:00:00Z", json!("2026-11-21T06:30-05:30"), Some(Equal)),
        ("2026-11-21T12:00:00Z", json!(1_795_262_400), Some(Equal)),
        ("2026-11-21T12:00:00", json!("1795262400"), Some(Equal)),
        ("2026-11-21", json!("2026-11-21T00:00:00.000Z"), Some(Equal)),
        ("2026", json!("2026-01-01"), Some(Equal)),
        ("2026-11", json!("2026-11-01"), Some(Equal)),
        ("1969-12-31T23:59:59Z", json!("-1"), Some(Equal)),
        ("2024-02-29", json!("1709164800"), Some(Equal)),
        ("2026-11-21T12:00:00.000000001Z", json!("2026-11-21T12:00:00Z"), Some(Greater)),
        ("2026-11-21T11:59:59.999Z", json!("2026-11-21T12:00:00Z"), Some(Less)),
        ("2025", json!("2026"), Some(Less)),
        ("2026-11-21T24:00:00Z", json!("2026"), None),
        ("2026-11-21T12:60:00Z", json!("2026"), None),
        ("2026-11-21T12:00:60Z", json!("2026"), None),
        ("2026-13-01", json!("2026"), None),
        ("2026-2-1", json!("2026"), None),
        ("2025-02-29", json!("2026"), None),
        ("2026-11-21T", json!("2026"), None),
        ("2026-11-21 12:00:00", json!("2026"), None),
        ("2026-11-21T12:00:00z", json!("2026"), None),
        ("2026-11-21T12:00:00+0900", json!("2026"), None),
        ("2026-11-21T12:00:00.Z", json!("2026"), None),
        ("2026-11T12:00Z", json!("2026"), None),
        ("tomorrow", json!("2026"), None),
        ("", json!("2026"), None),
    ] {
        check("DateEquals", Some("DateNotEquals"), &wanted, have, order == Some(Equal));
        check("DateLessThan", None, &wanted, have, order == Some(Less));
        check("DateLessThanEquals", None, &wanted, have, matches!(order, Some(Less | Equal)));
        check("DateGreaterThan", None, &wanted, have, order == Some(Greater));
        check("DateGreaterThanEquals", None, &wanted, have, matches!(order, Some(Greater | Equal)));
    }
}

#[test]
fn addresses() {
    for (network, have, expected) in [
        ("203.0.113.0/24", "203.0.113.77", true),
        ("203.0.113.77/24", "203.0.113.1", true),
        ("203.0.113.0/24", "203.0.114.1", false),
        ("203.0.113.7", "203.0.113.7", true),
        ("203.0.113.7", "203.0.113.8", false),
        ("0.0.0.0/0", "198.51.100.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "198.51.100.1", false),
        ("2001:db8::/32", "2001:db8:1::1", true),
        ("2001:db8::1", "2001:DB8:0:0:0:0:0:1", true),
        ("2001:db8::1", "2001:db8::2", false),
        ("203.0.113.0/24", "::ffff:203.0.113.7", true),
        ("203.0.113.0/24", "203.0.113.0/24", false),
        ("0.0.0.0/0", "203.0.113.07", false),
        ("0.0.0.0/0", "", false),
        ("0.0.0.0/0", "localhost", false),
    ] {
        check("IpAddress", Some("NotIpAddress"), &json!(network), have, expected);
    }
}

#[test]
fn arns() {
    for (wanted, have, expected) in [
        ("arn:aws:iam::123456789012:role/Ops", "arn:aws:iam::123456789012:role/Ops", true),
        ("arn:aws:iam::123456789012:role/ops", "arn:aws:iam::123456789012:role/Ops", false),
        ("arn:aws:iam::*:role/*", "arn:aws:iam::123456789012:role/eng/Ops", true),
        ("arn:aws:iam::*", "arn:aws:iam::123456789012:role/Ops", false),
        ("*", "arn:aws:iam::123456789012:role/Ops", false),
        ("arn:*:*:*:*:*", "arn:aws:logs:r:123456789012:log-group:a:b", true),
        ("arn:aws:logs:*:*:log-group:*", "arn:aws:logs:r:123456789012:log-group:a:b", true),
        ("arn:aws:logs:*:log-group:a:b", "arn:aws:logs:r:123456789012:log-group:a:b", false),
        ("arn:aws:iam:::role/?ps", "arn:aws:iam:::role/Ops", true),
        ("arn:aws:iam::*:role/Ops", "Ops", false),
        ("arn:aws:iam::*:*", "arn:aws:iam:123456789012", false),
    ] {
        let wanted = json!(wanted);
        check("ArnEquals", Some("ArnNotEquals"), &wanted, have, expected);
        check("ArnLike", Some("ArnNotLike"), &wanted, have, expected);
    }
}

#[test]
fn booleans_and_bytes() {
    for (wanted, have, expected) in [
        (json!("true"), "TRUE", true),
        (json!(true), "true", true),
        (json!(false), "true", false),
        (json!(["true", "false"]), "False", true),
        (json!("false"), "no", false),
        (json!("true"), "1", false),
    ] {
        check("Bool", None, &wanted, have, expected);
    }
    for (wanted, have, expected) in
        [("QQ==", "QQ==", true), ("QQ==", "Qg==", false), ("", "", true), ("QQ==", "QQ", false), ("", "*", false)]
    {
        check("BinaryEquals", None, &json!(wanted), have, expected);
    }
}

#[test]
fn several_values_are_alternatives_and_for_negations_none_may_match() {
    check("StringEquals", Some("StringNotEquals"), &json!(["a", "b"]), "b", true);
    check("StringEquals", Some("StringNotEquals"), &json!(["a", "b"]), "c", false);
    check("NumericLessThan", None, &json!([1, 10]), "5", true);
    check("StringEquals", Some("StringNotEquals"), &json!([]), "c", false);
}

#[test]
fn absent_keys() {
    for operator in ["StringEquals", "StringLike", "StringEqualsIgnoreCase", "ArnLike"] {
        absent(operator, json!("arn:aws:iam::1:x"), false);
        absent(&operator.replace("Equals", "NotEquals").replace("Like", "NotLike"), json!("x:x:x:x:x:x"), true);
    }
    for comparison in ["Equals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"] {
        absent(&format!("Numeric{comparison}"), json!(1), false);
        absent(&format!("Date{comparison}"), json!("2026"), false);
    }
    absent("NumericNotEquals", json!(1), true);
    absent("DateNotEquals", json!("2026"), true);
    absent("Bool", json!(false), false);
    absent("BinaryEquals", json!(""), false);
    absent("IpAddress", json!("0.0.0.0/0"), false);
    absent("NotIpAddress", json!("0.0.0.0/0"), true);
}

/// Checks an operator, its IfExists form and its set forms for a key that is absent, and for an empty set.
#[track_caller]
fn absent(operator: &str, wanted: Value, expected: bool) {
    for context in [json!({}), json!({"munjigi:k": []})] {
        for (form, expected) in [
            (operator.to_owned(), expected),
            (format!("{operator}IfExists"), true),
            (format!("ForAllValues:{operator}"), true),
            (format!("ForAnyValue:{operator}"), false),
            (format!("ForAllValues:{operator}IfExists"), true),
            (format!("ForAnyValue:{operator}IfExists"), true),
        ] {
            assert_eq!(holds(&json!({&form: {"munjigi:k": wanted}}), &context), expected, "{form} {context}");
        }
    }
}

#[test]
fn null_asks_for_presence() {
    for (wanted, context, expected) in [
        (json!("true"), json!({}), true),
        (json!("true"), json!({"munjigi:k": ""}), false),
        (json!("false"), json!({"munjigi:k": ""}), true),
        (json!(false), json!({"munjigi:k": []}), false),
        (json!(["true", "false"]), json!({}), true),
        (json!([]), json!({}), false),
    ] {
        assert_eq!(holds(&json!({"Null": {"munjigi:k": wanted}}), &context), expected, "{wanted} {context}");
    }
}

#[test]
fn sets() {
    for (operator, have, expected) in [
        ("ForAllValues:StringEquals", json!(["a", "b"]), true),
        ("ForAllValues:StringEquals", json!(["a", "x"]), false),
        ("ForAnyValue:StringEquals", json!(["x", "b"]), true),
        ("ForAnyValue:StringEquals", json!(["x", "y"]), false),
        ("ForAllValues:StringNotEquals", json!(["x", "y"]), true),
        ("ForAllValues:StringNotEquals", json!(["x", "a"]), false),
        ("ForAnyValue:StringNotEquals", json!(["a", "x"]), true),
        ("ForAnyValue:StringNotEquals", json!(["a", "b"]), false),
        ("StringEquals", json!(["x", "a"]), true),
        ("StringNotEquals", json!(["x", "a"]), false),
        ("StringNotEquals", json!(["x", "y"]), true),
        ("ForAllValues:StringEquals", json!("a"), true),
        ("ForAnyValue:StringNotEquals", json!("a"), false),
    ] {
        let context = json!({"aws:TagKeys": have});
        assert_eq!(holds(&json!({operator: {"aws:tagkeys": ["a", "b"]}}), &context), expected, "{operator} {have}");
    }
}

#[test]
fn a_set_of_a_thousand_values_is_judged() {
    let many: Vec<String> = (0..1000).map(|n| format!("value-{n}")).collect();
    let condition = json!({"ForAllValues:StringEquals": {"aws:TagKeys": many}});
    assert!(holds(&condition, &json!({"aws:TagKeys": many})));
    let mut more = many.clone();
    more.push("other".to_owned());
    assert!(!holds(&condition, &json!({"aws:TagKeys": more})));
}

#[test]
fn variables_are_literal_text() {
    for (operator, wanted, context, expected) in [
        ("StringEquals", "${aws:username}", json!({"aws:username": "a", "munjigi:k": "a"}), true),
        ("StringEquals", "${AWS:UserName}", json!({"aws:username": "a", "munjigi:k": "a"}), true),
        ("StringEquals", "x-${aws:username}-y", json!({"aws:username": "a", "munjigi:k": "x-a-y"}), true),
        // A value's wildcards and variables have no power.
        ("StringLike", "${aws:username}", json!({"aws:username": "*", "munjigi:k": "a"}), false),
        ("StringLike", "${aws:username}", json!({"aws:username": "*", "munjigi:k": "*"}), true),
        (
            "StringLike",
            "${aws:username}*",
            json!({"aws:username": "${aws:userid}", "munjigi:k": "${aws:userid}1"}),
            true,
        ),
        (
            "ArnLike",
            "arn:aws:iam::*:user/${aws:username}",
            json!({"aws:username": "*", "munjigi:k": "arn:aws:iam::1:user/x"}),
            false,
        ),
        ("ArnLike", "${munjigi:arn}", json!({"munjigi:arn": "a:b:c:d:e:f:g", "munjigi:k": "a:b:c:d:e:f:g"}), true),
        ("StringEqualsIgnoreCase", "${aws:username}", json!({"aws:username": "AB", "munjigi:k": "ab"}), true),
        ("Bool", "${munjigi:flag}", json!({"munjigi:flag": "True", "munjigi:k": "true"}), true),
        // Unresolved: the value fails, a negation holds.
        ("StringEquals", "${aws:username}", json!({"munjigi:k": ""}), false),
        ("StringNotEquals", "${aws:username}", json!({"munjigi:k": ""}), true),
        ("StringLike", "*${aws:username}", json!({"munjigi:k": "a"}), false),
        ("StringEquals", "${aws:TagKeys}", json!({"aws:TagKeys": ["a"], "munjigi:k": "a"}), false),
        ("StringEquals", "${aws:TagKeys, 'a'}", json!({"aws:TagKeys": ["b"], "munjigi:k": "a"}), false),
        // Defaults.
        ("StringEquals", "${aws:username, 'a'}", json!({"munjigi:k": "a"}), true),
        ("StringEquals", "${aws:username,'a'}", json!({"munjigi:k": "a"}), true),
        ("StringEquals", "${aws:username, ''}", json!({"munjigi:k": ""}), true),
        ("StringEquals", "${aws:TagKeys, 'a'}", json!({"aws:TagKeys": [], "munjigi:k": "a"}), true),
        ("StringLike", "${aws:username, '*'}", json!({"munjigi:k": "a"}), false),
        ("StringLike", "${aws:username, 'a}b'}", json!({"munjigi:k": "a}b"}), true),
    ] {
        assert_eq!(
            holds(&json!({operator: {"munjigi:k": wanted}}), &context),
            expected,
            "{operator} {wanted} {context}"
        );
    }
    let list = json!({"StringEquals": {"munjigi:k": ["${aws:username}", "b"]}});
    assert!(holds(&list, &json!({"munjigi:k": "b"})), "other values of the list still count");
}
