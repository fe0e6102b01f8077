//! What decisions carry, how they read, and the corners of precedence, principals and resources.

use std::sync::Arc;

use serde_json::{Value, json};

use super::generate::{ACCOUNT, OTHER_ACCOUNT, principal};
use crate::policy::{
    Decision, Effect, Layer, NamedPolicy, Outcome, Policy, PolicyKind, PolicyList, PolicySet, Position, PrincipalKind,
    Request, allow_demands_true, cases, evaluate,
};

const NODE: &str = "arn:aws:ssm:ap-northeast-2:123456789012:managed-instance/mi-1";

fn list(id: &str, kind: PolicyKind, statements: Value) -> Arc<PolicyList> {
    let document = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let policy = Policy::parse(&document, kind).unwrap_or_else(|error| panic!("{error}: {document}"));
    Arc::new(PolicyList::new([NamedPolicy::new(id, Arc::new(policy))]))
}

fn identity(statements: Value) -> PolicySet {
    PolicySet { identity: list("own", PolicyKind::Identity, statements), ..PolicySet::default() }
}

fn start_session(kind: PrincipalKind) -> Request {
    Request::new(principal(kind), "ssm:StartSession", NODE)
}

fn allow_all() -> Value {
    json!({"Effect": "Allow", "Action": "*", "Resource": "*"})
}

fn deny_all() -> Value {
    json!({"Sid": "Stop", "Effect": "Deny", "Action": "*", "Resource": "*"})
}

fn reason(decision: &Decision) -> String {
    decision.reason("arn:aws:iam::123456789012:user/alice", "ssm:StartSession", NODE)
}

#[test]
fn refusals_read_as_aws_users_know_them() {
    let request = start_session(PrincipalKind::User);
    let open = || identity(allow_all());
    let silent = |kind| list("ceiling", kind, json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"}));
    let deny = |kind| list("ceiling", kind, json!([allow_all(), deny_all()]));
    let resource_deny = json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Principal": "*"});
    let mut required = request.clone();
    required.resource_policy_required = true;
    let table = [
        (
            &request,
            PolicySet::default(),
            "NoIdentityPolicyAllows",
            "because no identity-based policy allows the ssm:StartSession action",
        ),
        (
            &request,
            identity(json!([allow_all(), deny_all()])),
            "IdentityPolicyExplicitDeny",
            "with an explicit deny in an identity-based policy",
        ),
        (
            &request,
            PolicySet { boundary: Some(silent(PolicyKind::Boundary)), ..open() },
            "BoundaryDoesNotAllow",
            "because no permissions boundary allows the ssm:StartSession action",
        ),
        (
            &request,
            PolicySet { boundary: Some(deny(PolicyKind::Boundary)), ..open() },
            "BoundaryExplicitDeny",
            "with an explicit deny in a permissions boundary policy",
        ),
        (
            &request,
            PolicySet { session: Some(silent(PolicyKind::Session)), ..open() },
            "SessionPolicyDoesNotAllow",
            "because no session policy allows the ssm:StartSession action",
        ),
        (
            &request,
            PolicySet { session: Some(deny(PolicyKind::Session)), ..open() },
            "SessionPolicyExplicitDeny",
            "with an explicit deny in a session policy",
        ),
        (
            &request,
            PolicySet { organization: vec![silent(PolicyKind::Organization)], ..open() },
            "OrganizationPolicyDoesNotAllow",
            "because no service control policy allows the ssm:StartSession action",
        ),
        (
            &request,
            PolicySet { organization: vec![deny(PolicyKind::Organization)], ..open() },
            "OrganizationPolicyExplicitDeny",
            "with an explicit deny in a service control policy",
        ),
        (
            &request,
            PolicySet { resource_control: vec![silent(PolicyKind::Organization)], ..open() },
            "ResourceControlPolicyDoesNotAllow",
            "because no resource control policy allows the ssm:StartSession action",
        ),
        (
            &request,
            PolicySet { resource_control: vec![deny(PolicyKind::Organization)], ..open() },
            "ResourceControlPolicyExplicitDeny",
            "with an explicit deny in a resource control policy",
        ),
        (
            &request,
            PolicySet { resource: Some(list("key", PolicyKind::Resource, resource_deny)), ..open() },
            "ResourcePolicyExplicitDeny",
            "with an explicit deny in a resource-based policy",
        ),
        (
            &required,
            open(),
            "ResourcePolicyDoesNotAllow",
            "because no resource-based policy allows the ssm:StartSession action",
        ),
    ];
    for (request, policies, code, because) in table {
        let decision = evaluate(&policies, request);
        let expected = format!(
            "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: ssm:StartSession on resource: {NODE} {because}"
        );
        assert_eq!((decision.code(), reason(&decision)), (code, expected));
        assert!(!decision.is_allowed());
    }
}

#[test]
fn a_stored_policy_that_cannot_be_read_denies_everything_in_every_layer() {
    let broken = || Arc::new(PolicyList::new([NamedPolicy::broken("lost")]));
    let mixed = PolicyList::new([
        NamedPolicy::new(
            "open",
            Arc::new(Policy::parse(&json!({"Statement": allow_all()}).to_string(), PolicyKind::Identity).unwrap()),
        ),
        NamedPolicy::broken("lost"),
    ]);
    let sets = [
        PolicySet { identity: Arc::new(mixed), ..PolicySet::default() },
        PolicySet { boundary: Some(broken()), ..identity(allow_all()) },
        PolicySet { session: Some(broken()), ..identity(allow_all()) },
        PolicySet { resource: Some(broken()), ..identity(allow_all()) },
        PolicySet { organization: vec![broken()], ..identity(allow_all()) },
        PolicySet { resource_control: vec![broken()], ..identity(allow_all()) },
    ];
    for policies in sets {
        for kind in [PrincipalKind::User, PrincipalKind::Root, PrincipalKind::Service] {
            let decision = evaluate(&policies, &start_session(kind));
            assert_eq!((decision.effect, decision.layer), (Effect::ExplicitDeny, Layer::Engine));
            assert_eq!((decision.code(), decision.unreadable_policy.as_deref()), ("PolicyUnreadable", Some("lost")));
            assert!(reason(&decision).contains("the stored policy lost cannot be read"), "{}", reason(&decision));
        }
    }
}

#[test]
fn a_request_that_is_not_well_formed_is_denied() {
    let long = format!("arn:aws:ssm:r:a:{}", "x".repeat(2048));
    for (action, resource) in [
        ("", NODE),
        ("ssm", NODE),
        ("ssm:", NODE),
        (":StartSession", NODE),
        ("ssm:*", NODE),
        ("*", NODE),
        ("ssm:Start Session", NODE),
        ("ssm:StartSession", ""),
        ("ssm:StartSession", long.as_str()),
    ] {
        let request = Request::new(principal(PrincipalKind::Root), action, resource);
        let decision = evaluate(&identity(allow_all()), &request);
        assert_eq!(decision.outcome, Outcome::RequestMalformed, "{action} {resource:.40}");
        assert!(!decision.is_allowed());
    }
}

#[test]
fn a_decision_names_the_statements_with_their_places() {
    let text = "{\n \"Version\": \"2012-10-17\",\n \"Statement\": [\n  {\"Effect\": \"Allow\",\n   \"Action\": \"ssm:*\", \
                \"Resource\": \"*\"},\n  {\"Sid\": \"Stop\", \"Effect\": \"Deny\", \"Action\": \"ssm:SendCommand\", \
                \"Resource\": \"*\"}\n ]\n}";
    let policy = Arc::new(Policy::parse(text, PolicyKind::Identity).unwrap());
    let identity = Arc::new(PolicyList::new([NamedPolicy::new("arn:aws:iam::123456789012:policy/p", policy)]));
    let policies = PolicySet { identity, ..PolicySet::default() };
    let decide = |action: &str| evaluate(&policies, &Request::new(principal(PrincipalKind::User), action, "*"));
    let allowed = decide("ssm:StartSession");
    assert_eq!(allowed.statements.len(), 1);
    let statement = &allowed.statements[0];
    assert_eq!(
        (&*statement.policy_id, statement.index, &statement.sid),
        ("arn:aws:iam::123456789012:policy/p", 0, &None)
    );
    assert_eq!((statement.start, statement.end), (Position { line: 4, column: 3 }, Position { line: 5, column: 38 }));
    let denied = decide("ssm:SendCommand");
    assert_eq!(denied.statements.len(), 1);
    assert_eq!((denied.statements[0].sid.as_deref(), denied.statements[0].index), (Some("Stop"), 1));
    assert_eq!(denied.statements[0].start, Position { line: 6, column: 3 });
    let json = serde_json::to_value(&denied).unwrap();
    assert_eq!(json["effect"], "explicitDeny");
    assert_eq!(json["outcome"], "IdentityPolicyExplicitDeny");
    assert_eq!(json["statements"][0]["start"], json!({"line": 6, "column": 3}));
}

#[test]
fn outcomes_serialize_as_their_code() {
    for outcome in [Outcome::AllowedByIdentityPolicy, Outcome::EvaluationTooExpensive, Outcome::BoundaryDoesNotAllow] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), json!(outcome.code()));
    }
}

#[test]
fn keys_that_were_asked_for_and_absent_are_reported_once() {
    let policies = identity(json!([
        {"Effect": "Allow", "Action": "ssm:StartSession", "Resource": "arn:aws:ssm:*:*:session/${aws:username}-*"},
        {"Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
         "Condition": {"StringEquals": {"aws:ResourceTag/Env": "${AWS:UserName}"}}},
        {"Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*", "Condition": {"Bool": {"AWS:resourceTag/env": "true"}}},
        {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "*", "Condition": {"Bool": {"aws:never": "true"}}},
    ]));
    let decision = evaluate(&policies, &start_session(PrincipalKind::User));
    assert_eq!(decision.missing_context_keys, ["aws:ResourceTag/Env", "aws:username"]);
    let StoredKeys(keys) = StoredKeys::of(&policies);
    assert_eq!(keys, ["aws:never", "aws:ResourceTag/Env", "aws:username"]);
}

#[test]
fn a_condition_on_an_open_key_holds_in_an_allow_and_not_in_a_deny_and_is_reported() {
    const KEY: &str = "munjigi:DestinationAddress";
    let open = |statements: Value| {
        let mut request = start_session(PrincipalKind::User);
        request.context.set(KEY, "192.0.2.1").leave_open(KEY);
        evaluate(&identity(statements), &request)
    };
    let on = |effect: &str, operator: &str| json!({"Effect": effect, "Action": "*", "Resource": "*", "Condition": {operator: {KEY: "10.0.0.0/8"}}});
    for operator in ["IpAddress", "NotIpAddress", "IpAddressIfExists"] {
        let allowed = open(json!([on("Allow", operator)]));
        assert!(allowed.is_allowed(), "{operator}");
        assert_eq!(allowed.missing_context_keys, [KEY], "{operator}");
        let not_denied = open(json!([allow_all(), on("Deny", operator)]));
        assert!(not_denied.is_allowed(), "{operator}");
        assert_eq!(not_denied.missing_context_keys, [KEY], "{operator}");
    }
    // What does not hang on it is decided as ever, and the key is then not asked for.
    assert!(!open(json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})).is_allowed());
    assert!(!open(json!([on("Allow", "IpAddress"), deny_all()])).is_allowed());
    let plain = open(allow_all());
    assert!(plain.is_allowed() && plain.missing_context_keys.is_empty());
    // Once it is known the same policies say what they say.
    let mut known = start_session(PrincipalKind::User);
    known.context.set(KEY, "192.0.2.1");
    assert!(!evaluate(&identity(json!([on("Allow", "IpAddress")])), &known).is_allowed());
    assert!(evaluate(&identity(json!([on("Allow", "NotIpAddress")])), &known).is_allowed());
    assert!(identity(json!([on("Deny", "IpAddress")])).asks_for("MUNJIGI:destinationaddress"));
    assert!(!identity(allow_all()).asks_for(KEY));
}

struct StoredKeys(Vec<String>);

impl StoredKeys {
    fn of(policies: &PolicySet) -> Self {
        let crate::policy::StoredPolicy::Readable(policy) = &policies.identity.policies()[0].policy else { panic!() };
        Self(policy.context_keys())
    }
}

#[test]
fn resource_policies_reach_callers_by_the_way_they_are_named() {
    use PrincipalKind as K;
    let user = "arn:aws:iam::123456789012:user/alice";
    let role = "arn:aws:iam::123456789012:role/Ops";
    let session = "arn:aws:sts::123456789012:assumed-role/Ops/alice";
    let federated = "arn:aws:sts::123456789012:federated-user/bob";
    // Whether the resource policy alone allows, and whether it does so past a silent boundary.
    for (kind, named, alone, past_boundary) in [
        (K::User, json!({"AWS": user}), true, true),
        (K::User, json!({"AWS": "AIDAAAAAAAAAAAAAAAAAA"}), true, true),
        (K::User, json!("*"), true, true),
        (K::User, json!({"AWS": ACCOUNT}), false, false),
        (K::User, json!({"AWS": "arn:aws:iam::123456789012:root"}), false, false),
        (K::User, json!({"AWS": role}), false, false),
        (K::AssumedRole, json!({"AWS": session}), true, true),
        (K::AssumedRole, json!({"AWS": role}), true, false),
        (K::AssumedRole, json!({"AWS": "AROAAAAAAAAAAAAAAAAAA"}), true, false),
        (K::AssumedRole, json!({"AWS": [role, session]}), true, true),
        (K::AssumedRole, json!("*"), true, false),
        (K::AssumedRole, json!({"AWS": user}), false, false),
        (K::FederatedUser, json!({"AWS": federated}), true, true),
        (K::FederatedUser, json!({"AWS": user}), true, false),
        (K::Service, json!({"Service": "ssm.amazonaws.com"}), true, true),
        (K::Service, json!({"Service": "ec2.amazonaws.com"}), false, false),
        (K::Service, json!({"AWS": ACCOUNT}), false, false),
        (K::WebIdentity, json!({"Federated": "accounts.google.com"}), true, true),
        (K::WebIdentity, json!({"Federated": "example.com"}), false, false),
        (K::Anonymous, json!("*"), true, true),
        (K::Anonymous, json!({"AWS": "*"}), true, true),
        (K::Anonymous, json!({"AWS": ACCOUNT}), false, false),
        (K::User, json!({"CanonicalUser": user}), false, false),
    ] {
        let statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": named});
        let resource = Some(list("key", PolicyKind::Resource, statement));
        let mut policies = PolicySet { resource, ..PolicySet::default() };
        assert_eq!(evaluate(&policies, &start_session(kind)).is_allowed(), alone, "{kind:?} {named}");
        let silent = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
        policies.boundary = Some(list("ceiling", PolicyKind::Boundary, silent));
        assert_eq!(
            evaluate(&policies, &start_session(kind)).is_allowed(),
            past_boundary,
            "{kind:?} {named} + boundary"
        );
    }
}

#[test]
fn not_principal_spares_only_whoever_is_listed_in_full() {
    use PrincipalKind as K;
    let user = "arn:aws:iam::123456789012:user/alice";
    let role = "arn:aws:iam::123456789012:role/Ops";
    let session = "arn:aws:sts::123456789012:assumed-role/Ops/alice";
    for (kind, listed, spared) in [
        (K::User, json!([user, ACCOUNT]), true),
        (K::User, json!([user, "arn:aws:iam::123456789012:root"]), true),
        (K::User, json!([user]), false),
        (K::User, json!([ACCOUNT]), false),
        (K::User, json!([user, OTHER_ACCOUNT]), false),
        (K::AssumedRole, json!([session, role, ACCOUNT]), true),
        (K::AssumedRole, json!([session, ACCOUNT]), false),
        (K::AssumedRole, json!([role, ACCOUNT]), false),
        (K::Root, json!([ACCOUNT]), true),
        (K::Root, json!([user]), false),
    ] {
        let statement = json!({"Effect": "Deny", "Action": "*", "Resource": "*", "NotPrincipal": {"AWS": listed}});
        let resource = Some(list("key", PolicyKind::Resource, statement));
        let decision = evaluate(&PolicySet { resource, ..identity(allow_all()) }, &start_session(kind));
        assert_eq!(decision.is_allowed(), spared, "{kind:?} {listed}");
    }
}

#[test]
fn another_account_has_to_agree_from_both_sides() {
    let statement =
        |named: &str| json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": {"AWS": named}});
    for (own, named, kind, expected) in [
        (true, ACCOUNT, PrincipalKind::User, "AllowedByIdentityAndResourcePolicy"),
        (true, "*", PrincipalKind::User, "AllowedByIdentityAndResourcePolicy"),
        (true, OTHER_ACCOUNT, PrincipalKind::User, "ResourcePolicyDoesNotAllow"),
        (false, ACCOUNT, PrincipalKind::User, "NoIdentityPolicyAllows"),
        (false, ACCOUNT, PrincipalKind::Root, "AllowedByResourcePolicy"),
        (false, OTHER_ACCOUNT, PrincipalKind::Root, "ResourcePolicyDoesNotAllow"),
    ] {
        let mut request = start_session(kind);
        request.resource_account = Some(OTHER_ACCOUNT.to_owned());
        let base = if own { identity(allow_all()) } else { PolicySet::default() };
        let resource = Some(list("key", PolicyKind::Resource, statement(named)));
        assert_eq!(evaluate(&PolicySet { resource, ..base }, &request).code(), expected, "{own} {named} {kind:?}");
    }
}

#[test]
fn organizations_bind_accounts_but_not_services() {
    let deny = || list("scp", PolicyKind::Organization, json!([allow_all(), deny_all()]));
    let trust =
        json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": {"Service": "ssm.amazonaws.com"}});
    let resource = Some(list("key", PolicyKind::Resource, trust));
    let policies =
        PolicySet { organization: vec![deny()], resource_control: vec![deny()], resource, ..identity(allow_all()) };
    assert!(evaluate(&policies, &start_session(PrincipalKind::Service)).is_allowed());
    for kind in [PrincipalKind::User, PrincipalKind::AssumedRole, PrincipalKind::Root] {
        let decision = evaluate(&policies, &start_session(kind));
        assert_eq!((decision.code(), decision.organization_allows), ("OrganizationPolicyExplicitDeny", Some(true)));
    }
}

#[test]
fn a_resource_is_covered_under_each_of_its_names() {
    let cloud = "arn:aws:ec2:ap-northeast-2:123456789012:instance/i-1";
    let mut request = start_session(PrincipalKind::User);
    request.resource_aliases.push(cloud.to_owned());
    let allow = |resource: &str| json!({"Effect": "Allow", "Action": "*", "Resource": resource});
    let deny = |resource: &str| json!({"Effect": "Deny", "Action": "*", "Resource": resource});
    for name in [NODE, cloud] {
        assert!(evaluate(&identity(allow(name)), &request).is_allowed(), "{name}");
        assert!(!evaluate(&identity(json!([allow_all(), deny(name)])), &request).is_allowed(), "{name}");
        let spares = json!({"Effect": "Deny", "Action": "*", "NotResource": name});
        assert!(evaluate(&identity(json!([allow_all(), spares])), &request).is_allowed(), "{name}");
    }
}

#[test]
fn built_in_documents_match_with_and_without_the_callers_account() {
    let document = "arn:aws:ssm:ap-northeast-2::document/AWS-StartSSHSession";
    let request = Request::new(principal(PrincipalKind::User), "ssm:StartSession", document);
    for (pattern, expected) in [
        ("arn:aws:ssm:*::document/AWS-*", true),
        ("arn:aws:ssm:*:*:document/AWS-StartSSHSession", true),
        ("arn:aws:ssm:*:123456789012:document/AWS-StartSSHSession", true),
        ("arn:aws:ssm:*:210987654321:document/AWS-StartSSHSession", false),
    ] {
        let policies = identity(json!({"Effect": "Allow", "Action": "*", "Resource": pattern}));
        assert_eq!(evaluate(&policies, &request).is_allowed(), expected, "{pattern}");
    }
}

#[test]
fn wildcards_of_resources_respect_segments() {
    for (pattern, resource, expected) in [
        ("arn:aws:ssm:ap-*-2:1:x", "arn:aws:ssm:ap-northeast-2:1:x", true),
        ("arn:aws:ssm:a*2:1:x", "arn:aws:ssm:a:2:1:x", false),
        ("arn:aws:ssm:a?2:1:x", "arn:aws:ssm:a:2:1:x", false),
        ("arn:aws:*:*:*:x*z", "arn:aws:s:r:a:xy:yz", true),
        ("arn:aws:*:*:*:x?z", "arn:aws:s:r:a:x:z", true),
        ("arn:aws:ssm:*:*:*", "arn:aws:ssm:r:a:b:c:d", true),
        ("arn:aws:*:x:y:z", "arn:aws:a:b:c:d:x:y:z", true),
        ("arn:aws:*b:x:y:z", "arn:aws:a:b:x:y:z", false),
        ("arn:aws:ssm:r:1:a", "arn:aws:ssm:r:1:ab", false),
        ("arn:aws:ssm:r:1:a*", "arn:aws:ssm:r:1:a", true),
        ("*:*:*:*:*:*", "*", false),
    ] {
        let policies = identity(json!({"Effect": "Allow", "Action": "*", "Resource": pattern}));
        let request = Request::new(principal(PrincipalKind::User), "ssm:StartSession", resource);
        assert_eq!(evaluate(&policies, &request).is_allowed(), expected, "{pattern} {resource}");
    }
}

#[test]
fn the_document_check_is_demanded_only_by_allows_that_cover_the_request() {
    let demand = json!({"BoolIfExists": {"ssm:sessiondocumentaccesscheck": "true"}});
    let policy = |effect: &str, resource: &str, condition: &Value| {
        let statement =
            json!({"Effect": effect, "Action": "ssm:StartSession", "Resource": resource, "Condition": condition});
        list("own", PolicyKind::Identity, statement)
    };
    let request = start_session(PrincipalKind::User);
    let opposite = json!({"Bool": {"ssm:SessionDocumentAccessCheck": "false"}});
    for (list, expected) in [
        (policy("Allow", "*", &demand), true),
        (policy("Allow", NODE, &demand), true),
        (policy("Allow", "arn:aws:ec2:*:*:instance/*", &demand), false),
        (policy("Deny", "*", &demand), false),
        (policy("Allow", "*", &opposite), false),
        (policy("Allow", "*", &json!({})), false),
    ] {
        assert_eq!(allow_demands_true(&list, &request, "ssm:SessionDocumentAccessCheck"), expected);
    }
}

#[test]
fn policies_that_cannot_match_are_not_looked_at() {
    let others = (0..2_000).map(|number| {
        let statement = json!({"Effect": "Deny", "Action": [format!("s{number}:*"), "ssm:Other"], "Resource": "*",
            "Condition": {"StringEquals": {format!("munjigi:k{number}"): "x"}}});
        let document = json!({"Statement": statement}).to_string();
        NamedPolicy::new(number.to_string(), Arc::new(Policy::parse(&document, PolicyKind::Identity).unwrap()))
    });
    let own = json!({"Statement": {"Effect": "Allow", "Action": ["ssm:*", "ssm:StartSession", "*"], "Resource": "*"}});
    let own = NamedPolicy::new("own", Arc::new(Policy::parse(&own.to_string(), PolicyKind::Identity).unwrap()));
    let policies = PolicySet { identity: Arc::new(others.chain([own]).collect()), ..PolicySet::default() };
    let decision = evaluate(&policies, &start_session(PrincipalKind::User));
    assert!(decision.is_allowed() && decision.missing_context_keys.is_empty());
    assert_eq!(decision.statements.len(), 1, "a statement that matches in three ways is reported once");
    assert_eq!((policies.identity.len(), policies.identity.is_empty()), (2_001, false));
}

#[test]
fn cases_say_what_failed_and_refuse_what_they_cannot_run() {
    let case = |policy: &str, context: &str, expect: &str| {
        format!(
            r#"{{"format":{{"version":1}},"cases":[{{"name":"one","policies":{{"identity":[{policy}]}},"request":{{"principal":
            {{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/alice","account":"123456789012"}},
            "action":"ssm:StartSession","resource":"*","context":{context}}},"expect":"{expect}"}}]}}"#
        )
    };
    let open = json!({"Statement": allow_all()}).to_string();
    let outcomes = cases::run(&case(&open, "{}", "implicitDeny")).unwrap();
    assert_eq!(outcomes.len(), 1);
    assert!(!outcomes[0].passed() && outcomes[0].reason.contains("is authorized to perform: ssm:StartSession"));
    assert_eq!(outcomes[0].expected, Effect::ImplicitDeny);
    assert!(cases::run(&case(&open, "{}", "allow")).unwrap()[0].passed());
    for (text, expected) in [
        (case(&open, "{}", "maybe"), "unknown variant"),
        (
            case(r#"{"Statement":[]}"#, "{}", "allow"),
            "case `one`: the identity policy is malformed at line 1, column 14",
        ),
        (case(r#"{"Statement":[],"Statement":[]}"#, "{}", "allow"), "`Statement` stands twice"),
        (case(&open, r#"{"aws:username":"a","AWS:username":"b"}"#, "allow"), "stands twice"),
        (r#"{"format":{"version":2},"cases":[]}"#.to_owned(), "format version 2"),
        ("[]".to_owned(), "cannot be read"),
        (case(&open, "{}", "allow").replace("\"name\"", "\"nam\""), "unknown field `nam`"),
    ] {
        let error = cases::run(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
