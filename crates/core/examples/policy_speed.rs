//! How long one policy decision over a thousand statements takes, for the mixes that matter (G22). Prints JSON.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock; the rules of `core` do not")]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use munjigi_core::policy::{
    NamedPolicy, Policy, PolicyKind, PolicyList, PolicySet, Principal, PrincipalKind, Request, evaluate,
};
use serde_json::{Value, json};

/// Statements of one principal.
const STATEMENTS: usize = 1000;
/// Statements in each of its policies.
const OF_A_POLICY: usize = 20;
/// Decisions measured for each mix, after a tenth as many to warm up.
const DECISIONS: usize = 20_000;
const ACTION: &str = "ssm:StartSession";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let node = |index: usize| format!("arn:aws:ssm:local-1:123456789012:managed-instance/mi-{index:017x}");
    // Each mix: its name, and the statement at an index. The last statement alone allows the request.
    type Mix<'m> = (&'m str, &'m dyn Fn(usize) -> (String, String));
    let mixes: [Mix<'_>; 4] = [
        ("other actions (index miss)", &|index| (format!("ec2:Describe{index}"), "*".to_owned())),
        ("same action, exact resources", &|index| (ACTION.to_owned(), node(index))),
        ("wildcard actions, exact resources", &|index| ("ssm:Start*".to_owned(), node(index))),
        ("same action, wildcard resources", &|index| {
            (ACTION.to_owned(), format!("arn:aws:ssm:*:*:*/mi-{index:05x}*f"))
        }),
    ];
    for (name, statement) in mixes {
        let mut statements: Vec<Value> = (1..STATEMENTS)
            .map(|index| {
                let (action, resource) = statement(index);
                json!({ "Effect": "Allow", "Action": action, "Resource": resource })
            })
            .collect();
        statements.push(json!({
            "Effect": "Allow", "Action": ACTION, "Resource": node(0),
            "Condition": {
                "StringEquals": { "ssm:resourceTag/Team": "web" }, "IpAddress": { "aws:SourceIp": "10.0.0.0/8" },
            },
        }));
        let times = measure(&policies(&statements)?, &request(node(0)))?;
        let at = |share: f64| {
            let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
            times.get(index).map(|time| time.as_secs_f64() * 1e6)
        };
        let line = json!({ "mix": name, "statements": STATEMENTS, "p50_us": at(0.5), "p99_us": at(0.99) });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

fn policies(statements: &[Value]) -> Result<PolicySet> {
    let mut named = Vec::new();
    for (index, chunk) in statements.chunks(OF_A_POLICY).enumerate() {
        let text = json!({ "Version": "2012-10-17", "Statement": chunk }).to_string();
        named.push(NamedPolicy::new(format!("policy-{index}"), Arc::new(Policy::parse(&text, PolicyKind::Identity)?)));
    }
    Ok(PolicySet { identity: Arc::new(PolicyList::new(named)), ..PolicySet::default() })
}

fn request(resource: String) -> Request {
    let principal = Principal {
        kind: PrincipalKind::User,
        arn: "arn:aws:iam::123456789012:user/alice".to_owned(),
        account: "123456789012".to_owned(),
        source_arn: None,
        unique_id: Some("AIDAEXAMPLE".to_owned()),
    };
    let mut request = Request::new(principal, ACTION, resource);
    request.context.set("ssm:resourceTag/Team", "web").set("aws:SourceIp", "10.1.2.3").set("aws:username", "alice");
    request
}

fn measure(policies: &PolicySet, request: &Request) -> Result<Vec<Duration>> {
    let decide = || evaluate(black_box(policies), black_box(request));
    if !decide().is_allowed() {
        return Err("the request should be allowed".into());
    }
    for _ in 0..DECISIONS / 10 {
        black_box(decide());
    }
    let mut times: Vec<Duration> = (0..DECISIONS)
        .map(|_| {
            let begun = Instant::now();
            black_box(decide());
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    Ok(times)
}
