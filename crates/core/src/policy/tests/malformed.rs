//! Documents that are refused, each with the place and the sentence that says why.

use crate::policy::{Policy, PolicyKind, Position, size};

const OK: &str = r#""Effect":"Allow","Action":"ssm:StartSession","Resource":"*""#;

/// Wraps statement members in a document.
fn document(statement: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{{{statement}}}]}}"#)
}

#[track_caller]
fn refused(kind: PolicyKind, text: &str, expected: &str) {
    let shown: String = text.chars().take(300).collect();
    match Policy::parse(text, kind) {
        Ok(_) => panic!("accepted: {shown}"),
        Err(error) => assert!(error.message.contains(expected), "{shown}\n  said: {error}\n  expected: {expected}"),
    }
}

#[test]
fn the_smallest_documents_are_accepted() {
    for (kind, statement) in [
        (PolicyKind::Identity, OK.to_owned()),
        (PolicyKind::Boundary, OK.to_owned()),
        (PolicyKind::Session, OK.to_owned()),
        (PolicyKind::Organization, OK.to_owned()),
        (PolicyKind::Resource, format!(r#"{OK},"Principal":"*""#)),
        (PolicyKind::Trust, r#""Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"123456789012"}"#.into()),
    ] {
        Policy::parse(&document(&statement), kind).unwrap();
    }
}

#[test]
fn text_that_is_no_json_is_refused() {
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let very_deep = "[".repeat(100_000);
    for (text, expected) in [
        ("", "ends where a value should stand"),
        ("   ", "ends where a value should stand"),
        ("{", "`\"name\": value` pairs"),
        ("{\"Version\"", "followed by `:`"),
        ("{\"Version\":", "ends where a value should stand"),
        ("{\"Version\":\"2012-10-17\"", "goes on with `,` or ends with `}`"),
        ("{\"Version\":\"2012-10-17\",}", "`\"name\": value` pairs"),
        ("{'Version':'2012-10-17'}", "`\"name\": value` pairs"),
        ("{\"Statement\":[1,]}", "no JSON value"),
        ("{\"Statement\":[1 2]}", "a list goes on with"),
        ("{\"Statement\":\"abc", "no closing quote"),
        ("{\"Statement\":\"a\u{1}\"}", "control characters"),
        ("{\"Statement\":\"a\nb\"}", "control characters"),
        ("{\"Statement\":\"\\x\"}", "escape does not exist"),
        ("{\"Statement\":\"\\u12\"}", "four hexadecimal digits"),
        ("{\"Statement\":\"\\ud800\"}", "surrogate"),
        ("{\"Statement\":\"\\ud800\\u0041\"}", "surrogate"),
        ("{\"Statement\":01}", "superfluous zero"),
        ("{\"Statement\":1.}", "digit is missing"),
        ("{\"Statement\":-}", "digit is missing"),
        ("{\"Statement\":1e}", "digit is missing"),
        ("{\"Statement\":NaN}", "no JSON value"),
        ("{} {}", "goes on behind its end"),
        ("\u{feff}{}", "no JSON value"),
        (deep.as_str(), "nest deeper than 32"),
        (very_deep.as_str(), "nest deeper than 32"),
    ] {
        refused(PolicyKind::Identity, text, expected);
    }
}

#[test]
fn documents_of_the_wrong_shape_are_refused() {
    for (text, expected) in [
        ("[]", "is an object, not a list"),
        ("null", "is an object, not null"),
        ("\"policy\"", "is an object, not text"),
        ("{}", "no `Statement`"),
        (r#"{"Version":"2012-10-17"}"#, "no `Statement`"),
        (r#"{"Version":"2012-10-17","Statement":[]}"#, "`Statement` is an empty list"),
        (r#"{"Version":"2012-10-17","Statement":"*"}"#, "a statement is an object, not text"),
        (r#"{"Version":"2012-10-17","Statement":[null]}"#, "a statement is an object, not null"),
        (r#"{"Version":"2012-10-17","Statement":[[{}]]}"#, "a statement is an object, not a list"),
        (r#"{"Version":"2012-10-18","Statement":[{}]}"#, "Version `2012-10-18` does not exist"),
        (r#"{"Version":20121017,"Statement":[{}]}"#, "`Version` holds text, not a number"),
        (r#"{"version":"2012-10-17","Statement":[{}]}"#, "`version` is no element of a policy document"),
        (r#"{"Id":7,"Statement":[{}]}"#, "`Id` holds text"),
        (r#"{"Statement":[{}],"Statement":[{}]}"#, "`Statement` stands twice"),
        (r#"{"Statement":[{}],"St\u0061tement":[{}]}"#, "`Statement` stands twice"),
        (r#"{"Statement":[{}],"Comment":"x"}"#, "`Comment` is no element"),
    ] {
        refused(PolicyKind::Identity, text, expected);
    }
}

#[test]
fn malformed_statements_are_refused() {
    let with = |more: &str| document(&format!("{OK},{more}"));
    for (text, expected) in [
        (document(""), "no `Effect`"),
        (document(r#""Effect":"Allow","Resource":"*""#), "no `Action`"),
        (document(r#""Effect":"Allow","Action":"ssm:*""#), "no `Resource`"),
        (document(r#""Effect":"allow","Action":"*","Resource":"*""#), "Effect `allow` is neither"),
        (document(r#""Effect":true,"Action":"*","Resource":"*""#), "`Effect` holds text, not a boolean"),
        (document(r#""effect":"Allow","Action":"*","Resource":"*""#), "`effect` is no element of a statement"),
        (with(r#""Effect":"Deny""#), "`Effect` stands twice"),
        (with(r#""Conditions":{}"#), "`Conditions` is no element"),
        (with(r#""NotAction":"iam:*""#), "`Action` and `NotAction` exclude each other"),
        (with(r#""NotResource":"*""#), "`Resource` and `NotResource` exclude each other"),
        (with(r#""Principal":"*""#), "`Principal` stands only in resource and trust policies"),
        (with(r#""NotPrincipal":"*""#), "`NotPrincipal` stands only in resource and trust policies"),
        (with(r#""Sid":"a b""#), "Sid `a b` has other characters"),
        (with(r#""Sid":"앨리스""#), "has other characters"),
        (with(r#""Sid":["a"]"#), "`Sid` holds text, not a list"),
        (format!(r#"{{"Statement":[{{"Sid":"A",{OK}}},{{"Sid":"A",{OK}}}]}}"#), "Sid `A` stands at two statements"),
    ] {
        refused(PolicyKind::Identity, &text, expected);
    }
}

#[test]
fn malformed_actions_and_resources_are_refused() {
    for (action, expected) in [
        ("[]", "`Action` is an empty list"),
        ("[[\"ssm:*\"]]", "`Action` holds text, not a list"),
        ("[\"ssm:*\",null]", "`Action` holds text, not null"),
        ("{}", "`Action` holds text, not an object"),
        ("\"\"", "has no `service:` in front"),
        ("\"StartSession\"", "has no `service:` in front"),
        ("\"*:*\"", "service prefix"),
        ("\"s*:StartSession\"", "service prefix"),
        ("\":StartSession\"", "service prefix"),
        ("\"ssm:\"", "has a name of other characters"),
        ("\"ssm: StartSession\"", "has a name of other characters"),
        ("\"ssm:Start:Session\"", "has a name of other characters"),
        ("\"ssm:${aws:username}\"", "has a name of other characters"),
        ("\"**\"", "has no `service:` in front"),
    ] {
        let text = document(&format!(r#""Effect":"Allow","Action":{action},"Resource":"*""#));
        refused(PolicyKind::Identity, &text, expected);
    }
    for (resource, expected) in [
        ("[]", "`Resource` is an empty list"),
        ("7", "`Resource` holds text, not a number"),
        ("\"\"", "neither `*` nor an ARN"),
        ("\"**\"", "neither `*` nor an ARN"),
        ("\"i-0123\"", "neither `*` nor an ARN"),
        ("\"arn:aws:ssm:*:*\"", "neither `*` nor an ARN"),
        ("\"arn:aws:ssm:*:${aws:a:b}\"", "neither `*` nor an ARN"),
        ("\"arn:aws:ssm:*:*:session/${aws:username\"", "no `}` ends"),
        ("\"arn:aws:ssm:*:*:session/${aws:username, 'x'\"", "no `}` ends"),
        ("\"arn:aws:ssm:*:*:session/${aws:username, 'x\"", "single quotes"),
        ("\"arn:aws:ssm:*:*:session/${aws:username, x}\"", "single quotes"),
        ("\"arn:aws:ssm:*:*:session/${}\"", "names no condition key"),
        ("\"arn:aws:ssm:*:*:session/${ aws:username}\"", "names no condition key"),
        ("\"arn:aws:ssm:*:*:session/${${aws:username}}\"", "names no condition key"),
    ] {
        let text = document(&format!(r#""Effect":"Allow","Action":"ssm:*","Resource":{resource}"#));
        refused(PolicyKind::Identity, &text, expected);
    }
}

#[test]
fn malformed_conditions_are_refused() {
    for (condition, expected) in [
        ("[]", "`Condition` is an object, not a list"),
        ("\"\"", "`Condition` is an object, not text"),
        (r#"{"StringMatches":{"aws:username":"a"}}"#, "operator `StringMatches` does not exist"),
        (r#"{"stringEquals":{"aws:username":"a"}}"#, "operator `stringEquals` does not exist"),
        (r#"{"StringEqualsifExists":{"aws:username":"a"}}"#, "does not exist"),
        (r#"{"StringEqualsIfExistsIfExists":{"aws:username":"a"}}"#, "does not exist"),
        (r#"{"forAllValues:StringEquals":{"aws:username":"a"}}"#, "does not exist"),
        (r#"{"ForAllValues:ForAnyValue:StringEquals":{"aws:username":"a"}}"#, "does not exist"),
        (r#"{"ForAnyValue:Null":{"aws:username":"true"}}"#, "`ForAnyValue:Null` does not exist"),
        (r#"{"NullIfExists":{"aws:username":"true"}}"#, "`NullIfExists` does not exist"),
        (r#"{"BinaryNotEquals":{"a:b":"QQ=="}}"#, "does not exist"),
        (r#"{"NumericLike":{"a:b":"1"}}"#, "does not exist"),
        (r#"{"":{"a:b":"1"}}"#, "operator `` does not exist"),
        (r#"{"StringEquals":"a"}"#, "operator `StringEquals` is an object"),
        (r#"{"StringEquals":{"aws:username":null}}"#, "not null"),
        (r#"{"StringEquals":{"aws:username":{"a":"b"}}}"#, "not an object"),
        (r#"{"StringEquals":{"aws:username":[["a"]]}}"#, "not a list"),
        (r#"{"StringEquals":{"":"a"}}"#, "a condition key is a plain name"),
        (r#"{"StringEquals":{"aws:ResourceTag/${aws:username}":"a"}}"#, "a condition key is a plain name"),
        (r#"{"StringEquals":{"aws:username":"a","aws:username":"b"}}"#, "`aws:username` stands twice"),
        (r#"{"StringEquals":{"a:b":"c"},"StringEquals":{"d:e":"f"}}"#, "`StringEquals` stands twice"),
        (r#"{"StringEquals":{"aws:username":"${aws:userid"}}"#, "no `}` ends"),
        (r#"{"NumericEquals":{"a:b":"many"}}"#, "`many` is no number"),
        (r#"{"NumericEquals":{"a:b":"1,5"}}"#, "is no number"),
        (r#"{"NumericEquals":{"a:b":["1",true]}}"#, "`true` is no number"),
        (r#"{"NumericEquals":{"a:b":"${aws:x}"}}"#, "variables stand only in String, Arn and Bool"),
        (r#"{"DateLessThan":{"aws:CurrentTime":"21.11.2026"}}"#, "is no date"),
        (r#"{"DateLessThan":{"aws:CurrentTime":"2026-02-30"}}"#, "is no date"),
        (r#"{"IpAddress":{"aws:SourceIp":"203.0.113.0/33"}}"#, "is no address"),
        (r#"{"IpAddress":{"aws:SourceIp":"203.0.113.*"}}"#, "is no address"),
        (r#"{"Bool":{"aws:SecureTransport":"yes"}}"#, "neither `true` nor `false`"),
        (r#"{"Bool":{"aws:SecureTransport":1}}"#, "neither `true` nor `false`"),
        (r#"{"Null":{"aws:TokenIssueTime":"absent"}}"#, "is no `true`"),
        (r#"{"BinaryEquals":{"a:b":"no base64!"}}"#, "is no base64 text"),
    ] {
        refused(PolicyKind::Identity, &document(&format!(r#"{OK},"Condition":{condition}"#)), expected);
    }
}

#[test]
fn malformed_principals_are_refused() {
    for (principal, expected) in [
        ("", "no `Principal`"),
        (r#","Principal":"123456789012""#, "stands without its kind"),
        (r#","Principal":["*"]"#, "`Principal` is an object, not a list"),
        (r#","Principal":{}"#, "names nobody"),
        (r#","Principal":{"AWS":[]}"#, "`AWS` is an empty list"),
        (r#","Principal":{"AWS":7}"#, "`AWS` holds text"),
        (r#","Principal":{"aws":"*"}"#, "is empty or holds a wildcard"),
        (r#","Principal":{"User":"alice"}"#, "kind `User` does not exist"),
        (r#","Principal":{"AWS":"alice"}"#, "is no account, user"),
        (r#","Principal":{"AWS":"1234"}"#, "is no account, user"),
        (r#","Principal":{"AWS":"arn:aws:iam::123456789012:user/*"}"#, "holds a wildcard"),
        (r#","Principal":{"AWS":"arn:aws:iam::123456789012:group/ops"}"#, "is no account, user"),
        (r#","Principal":{"AWS":"arn:aws:iam::12:user/alice"}"#, "is no account, user"),
        (r#","Principal":{"AWS":"arn:aws:iam::123456789012:user/"}"#, "is no account, user"),
        (r#","Principal":{"AWS":"arn:aws:sts::123456789012:assumed-role/Ops"}"#, "is no account, user"),
        (r#","Principal":{"AWS":"arn:aws:s3:::bucket"}"#, "is no account, user"),
        (r#","Principal":{"Service":"*"}"#, "holds a wildcard"),
        (r#","Principal":{"Federated":""}"#, "is empty"),
        (r#","NotPrincipal":{"AWS":"123456789012"}"#, "`NotPrincipal` with `Allow`"),
        (r#","Principal":"*","NotPrincipal":"*""#, "`Principal` and `NotPrincipal` exclude each other"),
    ] {
        refused(PolicyKind::Resource, &document(&format!("{OK}{principal}")), expected);
    }
    let trust = document(&format!(r#"{OK},"Principal":"*""#));
    refused(PolicyKind::Trust, &trust, "a trust policy has no `Resource`");
}

#[test]
fn documents_beyond_the_limit_are_refused() {
    let blanks = " ".repeat(size::SIMULATED_DOCUMENT);
    refused(PolicyKind::Identity, &format!("{}{blanks}", document(OK)), "longer than 131072 characters");
    let short = document(OK);
    let fits = format!("{short}{}", " ".repeat(size::SIMULATED_DOCUMENT - short.len()));
    Policy::parse(&fits, PolicyKind::Identity).unwrap();
}

#[test]
fn an_error_points_at_the_element() {
    let text = "{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [{\n    \"Effect\": \"Allow\",\n    \
                \"Action\": [\"한글\", \"ssm:*\"],\n    \"Resource\": \"*\"\n  }]\n}";
    let error = Policy::parse(text, PolicyKind::Identity).unwrap_err();
    assert_eq!(error.position, Position { line: 5, column: 16 });
    assert_eq!(error.code(), "MalformedPolicyDocument");
    assert!(error.to_string().starts_with("line 5, column 16: action `한글` has no `service:`"), "{error}");
    let behind_hangul = "{\"한글\": 1, \"Id\": 2}";
    assert_eq!(
        Policy::parse(behind_hangul, PolicyKind::Identity).unwrap_err().position,
        Position { line: 1, column: 2 }
    );
    let second = "{\"Id\": \"한글\", \"Id\": 2}";
    assert_eq!(Policy::parse(second, PolicyKind::Identity).unwrap_err().position, Position { line: 1, column: 14 });
}

#[test]
fn what_is_legal_but_surprising_is_remarked_on() {
    let cases: &[(PolicyKind, &str, Option<&str>)] = &[
        (PolicyKind::Identity, OK, None),
        (
            PolicyKind::Identity,
            r#""Effect":"Allow","NotAction":"iam:*","Resource":"*""#,
            Some("`NotAction` with `Allow`"),
        ),
        (PolicyKind::Boundary, r#""Effect":"Allow","NotAction":"iam:*","Resource":"*""#, None),
        (
            PolicyKind::Identity,
            r#""Effect":"Deny","Action":"*","NotResource":"arn:aws:ssm:*:*:session/${aws:username}-*""#,
            Some("excludes nothing"),
        ),
        (
            PolicyKind::Identity,
            r#""Effect":"Deny","Action":"*","NotResource":"arn:aws:ssm:*:*:session/${aws:username, 'x'}-*""#,
            None,
        ),
    ];
    for (kind, statement, expected) in cases {
        check_remarks(*kind, statement, *expected);
    }
    for (condition, expected) in [
        (r#"{"ForAllValues:StringEquals":{"aws:TagKeys":"a"}}"#, Some("also holds when `aws:TagKeys` is absent")),
        (r#"{"ForAllValues:StringEquals":{"aws:TagKeys":"a"},"Null":{"AWS:tagkeys":"false"}}"#, None),
        (r#"{"StringEquals":{"aws:TagKeys":"a"}}"#, Some("holds a set")),
        (r#"{"ForAnyValue:StringEquals":{"aws:TagKeys":"a"}}"#, None),
        (r#"{"Null":{"aws:TagKeys":"false"}}"#, None),
        (r#"{"StringEquals":{"aws:username":[]}}"#, Some("is empty")),
        (r#"{"StringEquals":{"username":"a"}}"#, Some("has no prefix")),
        (r#"{"ArnLike":{"aws:PrincipalArn":"alice"}}"#, Some("no ARN of six parts")),
        (r#"{"ArnLike":{"aws:PrincipalArn":"${munjigi:arn}"}}"#, None),
    ] {
        check_remarks(PolicyKind::Identity, &format!(r#"{OK},"Condition":{condition}"#), expected);
    }
    let older = format!(r#"{{"Statement":{{{OK},"Condition":{{"StringEquals":{{"a:b":"${{aws:username}}"}}}}}}}}"#);
    let policy = Policy::parse(&older, PolicyKind::Identity).unwrap();
    assert!(policy.warnings()[0].message.contains("no variable but plain text"), "{:?}", policy.warnings());
}

#[track_caller]
fn check_remarks(kind: PolicyKind, statement: &str, expected: Option<&str>) {
    let policy = Policy::parse(&document(statement), kind).unwrap();
    match (policy.warnings(), expected) {
        ([], None) => {}
        ([warning], Some(expected)) => assert!(warning.message.contains(expected), "{statement}: {warning}"),
        (warnings, _) => panic!("{statement}: {warnings:?}, expected {expected:?}"),
    }
}
