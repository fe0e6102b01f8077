//! A second evaluator, written to be plainly right: no index, no compilation, recursive wildcards, JSON walked again
//! for every request. It shares no code with the engine and exists to disagree with it.

use std::net::IpAddr;

use serde_json::Value;

use super::generate::{BINARIES, Case, DATES};
use crate::policy::{Effect, PrincipalKind};

/// One character of a pattern after substitution.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Item {
    Char(char),
    Star,
    Question,
    /// A star or question mark that may not take a colon.
    StarInSegment,
    QuestionInSegment,
}

pub(super) fn decide(case: &Case) -> Effect {
    let kind = case.request.principal.kind;
    let has_identity = !matches!(kind, PrincipalKind::Service | PrincipalKind::WebIdentity | PrincipalKind::Anonymous);
    let no_organization = Vec::new();
    let organization = if has_identity { &case.organization } else { &no_organization };
    let control = if kind == PrincipalKind::Service { &no_organization } else { &case.resource_control };
    let identity = judge_all(&case.identity, case);
    let boundary = case.boundary.as_ref().map(|policy| judge(policy, case));
    let session = case.session.as_ref().map(|policies| judge_all(policies, case));
    let resource = case.resource.as_ref().map(|policy| judge(policy, case)).unwrap_or_default();
    let levels: Vec<Verdict> = organization.iter().chain(control).map(|level| judge_all(level, case)).collect();

    // 1. Explicit deny, anywhere.
    let everything = levels.iter().chain([&identity, &resource]).chain(&boundary).chain(&session);
    if everything.clone().any(|verdict| verdict.denied) {
        return Effect::ExplicitDeny;
    }
    let allow = |yes: bool| if yes { Effect::Allow } else { Effect::ImplicitDeny };
    // 2. Every level of the organization.
    if levels.iter().any(|level| level.allowed == 0) {
        return Effect::ImplicitDeny;
    }
    let ceilings = boundary.is_none_or(|b| b.allowed > 0) && session.is_none_or(|s| s.allowed > 0);
    let account = &case.request.principal.account;
    let cross = case.request.resource_account.as_ref().is_some_and(|owner| owner != account);
    if !has_identity {
        return allow(resource.allowed == 3);
    }
    let identity_path = (identity.allowed > 0 || kind == PrincipalKind::Root) && ceilings;
    if cross {
        return allow(identity_path && resource.allowed > 0);
    }
    if case.request.resource_policy_required && resource.allowed == 0 {
        return Effect::ImplicitDeny;
    }
    // 3. The resource policy names the caller (3), or its role or everybody (2).
    if resource.allowed == 3 || (resource.allowed == 2 && ceilings) {
        return Effect::Allow;
    }
    allow(identity_path)
}

/// What some policies say: whether one denies, and the strongest allow (0 none, 1 account, 2 role, 3 caller).
#[derive(Default, Clone, Copy)]
struct Verdict {
    denied: bool,
    allowed: u8,
}

fn judge_all(policies: &[Value], case: &Case) -> Verdict {
    policies.iter().fold(Verdict::default(), |sum, policy| {
        let verdict = judge(policy, case);
        Verdict { denied: sum.denied || verdict.denied, allowed: sum.allowed.max(verdict.allowed) }
    })
}

fn judge(policy: &Value, case: &Case) -> Verdict {
    let variables = policy["Version"] == "2012-10-17";
    let mut verdict = Verdict::default();
    for statement in list(&policy["Statement"]) {
        let strength = strength(statement, case);
        let applies = strength > 0
            && action_matches(statement, case)
            && resource_matches(statement, case, variables)
            && condition_holds(statement, case, variables);
        if applies && statement["Effect"] == "Deny" {
            verdict.denied = true;
        } else if applies {
            verdict.allowed = verdict.allowed.max(strength);
        }
    }
    verdict
}

fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().collect(),
        other => vec![other],
    }
}

fn texts(value: &Value) -> Vec<&str> {
    list(value).into_iter().map(|item| item.as_str().unwrap()).collect()
}

fn strength(statement: &Value, case: &Case) -> u8 {
    let caller = &case.request.principal;
    let person = matches!(
        caller.kind,
        PrincipalKind::User | PrincipalKind::AssumedRole | PrincipalKind::FederatedUser | PrincipalKind::Root
    );
    let session = matches!(caller.kind, PrincipalKind::AssumedRole | PrincipalKind::FederatedUser);
    let root = format!("arn:aws:iam::{}:root", caller.account);
    let of = |element: &Value| -> u8 {
        let everybody = if session { 2 } else { 3 };
        if element == "*" {
            return everybody;
        }
        let mut best = 0;
        for name in texts(&element["AWS"]) {
            let is_account = name == caller.account || name == root;
            best = best.max(match name {
                "*" => everybody,
                _ if is_account => u8::from(person),
                _ if !person => 0,
                _ if name == caller.arn => 3,
                _ if Some(name) == caller.source_arn.as_deref() => 2,
                _ if Some(name) == caller.unique_id.as_deref() => everybody,
                _ => 0,
            });
        }
        let service =
            caller.kind == PrincipalKind::Service && texts(&element["Service"]).contains(&caller.arn.as_str());
        let federated =
            caller.kind == PrincipalKind::WebIdentity && texts(&element["Federated"]).contains(&caller.arn.as_str());
        if service || federated { 3 } else { best }
    };
    if let Some(element) = statement.get("Principal") {
        return of(element);
    }
    let Some(element) = statement.get("NotPrincipal") else { return 3 };
    let names = texts(&element["AWS"]);
    if element == "*" || names.contains(&"*") {
        return 0;
    }
    let listed = |text: &str| !text.is_empty() && names.contains(&text);
    let account = listed(&caller.account) || listed(&root);
    let unique = caller.unique_id.as_deref().is_some_and(listed);
    let own = listed(&caller.arn);
    let role = caller.source_arn.as_deref().is_some_and(listed) || unique;
    let spared = match caller.kind {
        PrincipalKind::User => account && (own || unique),
        PrincipalKind::AssumedRole => account && own && role,
        PrincipalKind::FederatedUser => account && own,
        PrincipalKind::Root => account,
        PrincipalKind::Service => texts(&element["Service"]).contains(&caller.arn.as_str()),
        PrincipalKind::WebIdentity => texts(&element["Federated"]).contains(&caller.arn.as_str()),
        PrincipalKind::Anonymous => false,
    };
    if spared { 0 } else { 3 }
}

fn action_matches(statement: &Value, case: &Case) -> bool {
    let action = case.request.action.to_lowercase();
    let any = |element: &Value| {
        texts(element).iter().any(|pattern| {
            let pattern = pattern.to_lowercase();
            if pattern == "*" {
                return true;
            }
            let (service, name) = pattern.split_once(':').unwrap();
            let (wanted_service, wanted) = action.split_once(':').unwrap();
            service == wanted_service && matches(&wildcard_items(name), &chars(wanted))
        })
    };
    match statement.get("NotAction") {
        Some(element) => !any(element),
        None => any(&statement["Action"]),
    }
}

fn resource_matches(statement: &Value, case: &Case, variables: bool) -> bool {
    let mut names = vec![case.request.resource.clone()];
    names.extend(case.request.resource_aliases.clone());
    for name in names.clone() {
        let parts: Vec<&str> = name.splitn(6, ':').collect();
        let account = &case.request.principal.account;
        if parts.len() == 6 && parts[2] == "ssm" && parts[4].is_empty() && parts[5].starts_with("document/") {
            let account = if account.is_empty() { "" } else { account };
            names.push(format!("arn:{}:ssm:{}:{account}:{}", parts[1], parts[3], parts[5]));
        }
    }
    let any = |element: &Value| {
        texts(element).iter().any(|pattern| {
            *pattern == "*"
                || names.iter().any(|name| {
                    substitute(pattern, case, variables, true)
                        .is_some_and(|items| matches(&segmented(items), &chars(name)))
                })
        })
    };
    match statement.get("NotResource") {
        Some(element) => !any(element),
        None => any(&statement["Resource"]),
    }
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

fn wildcard_items(text: &str) -> Vec<Item> {
    text.chars()
        .map(|c| {
            if c == '*' {
                Item::Star
            } else if c == '?' {
                Item::Question
            } else {
                Item::Char(c)
            }
        })
        .collect()
}

/// Items of a pattern and whether each comes from the pattern's own text.
fn substitute(pattern: &str, case: &Case, variables: bool, wildcards: bool) -> Option<Vec<(Item, bool)>> {
    let mut items = Vec::new();
    let text = chars(pattern);
    let mut at = 0;
    while at < text.len() {
        if variables && text[at] == '$' && text.get(at + 1) == Some(&'{') {
            let end = at + text[at..].iter().position(|c| *c == '}').unwrap();
            let inner: String = text[at + 2..end].iter().collect();
            let value = if ["*", "?", "$"].contains(&inner.as_str()) {
                inner
            } else {
                let (key, default) = match inner.split_once(',') {
                    Some((key, default)) => (key.to_owned(), Some(default.trim().trim_matches('\'').to_owned())),
                    None => (inner.clone(), None),
                };
                match find(case, &key) {
                    Some((false, values)) => values[0].clone(),
                    Some((true, _)) => return None,
                    None => default?,
                }
            };
            items.extend(value.chars().map(|c| (Item::Char(c), false)));
            at = end + 1;
            continue;
        }
        items.push(match text[at] {
            '*' if wildcards => (Item::Star, true),
            '?' if wildcards => (Item::Question, true),
            c => (Item::Char(c), true),
        });
        at += 1;
    }
    Some(items)
}

/// Limits the wildcards of the first five segments of a resource pattern.
fn segmented(items: Vec<(Item, bool)>) -> Vec<Item> {
    let mut colons = 0;
    let mut out = Vec::new();
    for (at, (item, own)) in items.iter().enumerate() {
        if *item == Item::Char(':') && *own {
            colons += 1;
        }
        let after = items[at + 1..].iter().find(|(item, _)| *item != Item::Star);
        let ends_segment = after == Some(&(Item::Char(':'), true));
        out.push(match item {
            Item::Star if colons < 5 && !ends_segment => Item::StarInSegment,
            Item::Question if colons < 5 => Item::QuestionInSegment,
            other => *other,
        });
    }
    out
}

fn matches(items: &[Item], text: &[char]) -> bool {
    let Some((first, rest)) = items.split_first() else { return text.is_empty() };
    let one = |wanted: &dyn Fn(char) -> bool| text.first().is_some_and(|c| wanted(*c)) && matches(rest, &text[1..]);
    match first {
        Item::Char(wanted) => one(&|c| c == *wanted),
        Item::Question => one(&|_| true),
        Item::QuestionInSegment => one(&|c| c != ':'),
        Item::Star => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
        Item::StarInSegment => {
            (0..=text.len()).take_while(|n| !text[..*n].contains(&':')).any(|taken| matches(rest, &text[taken..]))
        }
    }
}

fn find<'c>(case: &'c Case, key: &str) -> Option<(bool, &'c Vec<String>)> {
    let wanted = key.to_lowercase();
    let entry = case.context.iter().rev().find(|(name, _, _)| name.to_lowercase() == wanted)?;
    (!entry.2.is_empty()).then_some((entry.1, &entry.2))
}

fn condition_holds(statement: &Value, case: &Case, variables: bool) -> bool {
    let Some(Value::Object(blocks)) = statement.get("Condition") else { return true };
    blocks.iter().all(|(operator, keys)| {
        keys.as_object().unwrap().iter().all(|(key, values)| holds(operator, key, &texts(values), case, variables))
    })
}

fn holds(operator: &str, key: &str, values: &[&str], case: &Case, variables: bool) -> bool {
    let found = find(case, key);
    if operator == "Null" {
        return values.iter().any(|value| value.eq_ignore_ascii_case("true") == found.is_none());
    }
    let (prefix, rest) = operator.split_once(':').unwrap_or(("", operator));
    let base = rest.trim_end_matches("IfExists");
    let negated = base.contains("Not");
    let positive = base.replacen("Not", "", 1);
    let Some((_, have)) = found else {
        return rest.ends_with("IfExists") || prefix == "ForAllValues" || (prefix.is_empty() && negated);
    };
    let one = |value: &String| values.iter().any(|wanted| compare(&positive, value, wanted, case, variables));
    match prefix {
        "ForAllValues" => have.iter().all(|value| one(value) != negated),
        "ForAnyValue" => have.iter().any(|value| one(value) != negated),
        _ => have.iter().any(one) != negated,
    }
}

/// Compares by a positive operator.
fn compare(operator: &str, have: &str, wanted: &str, case: &Case, variables: bool) -> bool {
    let plain = |wildcards| substitute(wanted, case, variables, wildcards);
    let bare = |items: Vec<(Item, bool)>| items.into_iter().map(|(item, _)| item).collect::<Vec<_>>();
    let text = |items: Vec<(Item, bool)>| -> String {
        items.iter().map(|(item, _)| if let Item::Char(c) = item { *c } else { panic!("{item:?}") }).collect()
    };
    match operator {
        "StringEquals" => plain(false).is_some_and(|items| text(items) == have),
        "StringEqualsIgnoreCase" => plain(false).is_some_and(|items| text(items).to_lowercase() == have.to_lowercase()),
        "StringLike" => plain(true).is_some_and(|items| matches(&bare(items), &chars(have))),
        "Bool" => plain(false).is_some_and(|items| {
            let wanted = text(items).to_lowercase();
            (wanted == "true" || wanted == "false") && have.to_lowercase() == wanted
        }),
        "ArnEquals" | "ArnLike" => plain(true).is_some_and(|items| arn_equals(&bare(items), have)),
        "BinaryEquals" => {
            let decode = |text: &str| BINARIES.iter().find(|(encoded, _)| *encoded == text).unwrap().1;
            decode(have).is_some() && decode(have) == decode(wanted)
        }
        "IpAddress" => in_network(have, wanted),
        _ => {
            let (family, order) = operator.split_at(if operator.starts_with("Date") { 4 } else { 7 });
            let order_of = if family == "Date" { dates(have, wanted) } else { numbers(have, wanted) };
            order_of.is_some_and(|found| match order {
                "Equals" => found.is_eq(),
                "LessThan" => found.is_lt(),
                "LessThanEquals" => found.is_le(),
                "GreaterThan" => found.is_gt(),
                "GreaterThanEquals" => found.is_ge(),
                other => panic!("{other}"),
            })
        }
    }
}

fn dates(have: &str, wanted: &str) -> Option<std::cmp::Ordering> {
    let value = |text: &str| DATES.iter().find(|(date, _)| *date == text).unwrap().1;
    Some(value(have)?.cmp(&value(wanted)?))
}

/// Numbers of the vocabulary are short enough for floating point to order them exactly.
fn numbers(have: &str, wanted: &str) -> Option<std::cmp::Ordering> {
    have.parse::<f64>().ok()?.partial_cmp(&wanted.parse::<f64>().ok()?)
}

fn arn_equals(pattern: &[Item], have: &str) -> bool {
    let mut parts: Vec<Vec<Item>> = vec![Vec::new()];
    for item in pattern {
        if *item == Item::Char(':') && parts.len() < 6 {
            parts.push(Vec::new());
        } else {
            parts.last_mut().unwrap().push(*item);
        }
    }
    let have: Vec<&str> = have.splitn(6, ':').collect();
    parts.len() == 6 && have.len() == 6 && parts.iter().zip(have).all(|(part, text)| matches(part, &chars(text)))
}

fn in_network(have: &str, network: &str) -> bool {
    let Ok(have) = have.parse::<IpAddr>() else { return false };
    let (address, length) =
        network.split_once('/').map_or((network, None), |(a, l)| (a, Some(l.parse::<u32>().unwrap())));
    let same = |a: u128, b: u128, width: u32| {
        let ignored = width - length.unwrap_or(width);
        ignored >= width || a >> ignored == b >> ignored
    };
    match (have.to_canonical(), address.parse::<IpAddr>().unwrap()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(u128::from(a), u128::from(b), 128),
        _ => false,
    }
}
