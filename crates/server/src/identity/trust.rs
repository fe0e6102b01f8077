//! The names in trust policies: on storing, users and roles are looked up and remembered by their unique ids, so that
//! somebody who is made later under an old name inherits nothing (iam-policy section 6).

use std::collections::BTreeMap;

use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use serde_json::Value;

use crate::store::Trust;

/// Looks up the users and roles of this account that a trust policy names. The error is the first name that nobody has.
pub(crate) fn resolve(
    document: &str,
    account: &str,
    id_of: impl Fn(&str) -> Option<UniqueId>,
) -> Result<Trust, String> {
    let mut ids = BTreeMap::new();
    let mut unknown = None;
    let mut json: Value = serde_json::from_str(document).unwrap_or_default();
    each_name(&mut json, &mut |name| {
        if names_entity_of(name, account) {
            match id_of(name) {
                Some(id) => drop(ids.insert(name.clone(), id)),
                None => drop(unknown.get_or_insert_with(|| name.clone())),
            }
        }
    });
    match unknown {
        Some(name) => Err(name),
        None => Ok(Trust { document: document.to_owned(), ids }),
    }
}

/// Returns the text that is evaluated: with ids in the place of names.
pub(crate) fn evaluated(trust: &Trust) -> String {
    replaced(trust, |_, id| Some(id.to_string()))
}

/// Returns the text that is shown: as it was given while every name still means whom it meant, otherwise with the names
/// of today, and the bare ids of who is gone.
pub(crate) fn shown(trust: &Trust, arn_of: impl Fn(&UniqueId) -> Option<Arn>) -> String {
    let current = |id: &UniqueId| arn_of(id).map_or_else(|| id.to_string(), |arn| arn.to_string());
    if trust.ids.iter().all(|(name, id)| current(id) == *name) {
        return trust.document.clone();
    }
    replaced(trust, |_, id| Some(current(id)))
}

fn replaced(trust: &Trust, with: impl Fn(&str, &UniqueId) -> Option<String>) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(&trust.document) else { return trust.document.clone() };
    each_name(&mut json, &mut |name| {
        if let Some(id) = trust.ids.get(name.as_str())
            && let Some(new) = with(name, id)
        {
            *name = new;
        }
    });
    json.to_string()
}

/// Calls `visit` with each name of kind `AWS` in `Principal` and `NotPrincipal`.
fn each_name(document: &mut Value, visit: &mut impl FnMut(&mut String)) {
    let Some(statements) = document.get_mut("Statement") else { return };
    for statement in one_or_many(statements) {
        for element in ["Principal", "NotPrincipal"] {
            let names = statement.get_mut(element).and_then(|principal| principal.get_mut("AWS"));
            for name in names.map(one_or_many).unwrap_or_default() {
                if let Value::String(name) = name {
                    visit(name);
                }
            }
        }
    }
}

fn one_or_many(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        other => vec![other],
    }
}

/// Tells whether a name is the ARN of a user or role of the account.
fn names_entity_of(name: &str, account: &str) -> bool {
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "iam", "", of, resource] => {
            *of == account && (resource.starts_with("user/") || resource.starts_with("role/"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
        "Principal": { "AWS": ["arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:root"] },
        "Action": "sts:AssumeRole" }] }"#;

    fn id(text: &str) -> UniqueId {
        UniqueId::parse(text).unwrap()
    }

    #[test]
    fn names_are_kept_as_ids_and_shown_as_given_while_they_mean_the_same() {
        let alice = id("AIDAAAAAAAAAAAAAAAAAA");
        let trust = resolve(DOCUMENT, "123456789012", |_| Some(alice.clone())).unwrap();
        assert_eq!(trust.ids.len(), 1, "an account is nobody in particular");
        assert!(evaluated(&trust).contains("\"AIDAAAAAAAAAAAAAAAAAA\"") && !evaluated(&trust).contains("user/alice"));

        let arn = |text: &str| Arn::parse(text).ok();
        assert_eq!(shown(&trust, |_| arn("arn:aws:iam::123456789012:user/alice")), DOCUMENT);
        assert!(shown(&trust, |_| arn("arn:aws:iam::123456789012:user/alicia")).contains("user/alicia"));
        assert!(shown(&trust, |_| None).contains("\"AIDAAAAAAAAAAAAAAAAAA\""), "gone: the id is shown");
    }

    #[test]
    fn a_name_that_nobody_has_is_refused_and_other_accounts_are_not_asked() {
        assert_eq!(resolve(DOCUMENT, "123456789012", |_| None).unwrap_err(), "arn:aws:iam::123456789012:user/alice");
        assert!(resolve(DOCUMENT, "999999999999", |_| None).unwrap().ids.is_empty());
    }

    #[test]
    fn every_form_of_the_element_is_looked_through() {
        let one = |principal: &str| {
            let text = format!(r#"{{"Statement":{{"Effect":"Deny",{principal},"Action":"sts:AssumeRole"}}}}"#);
            resolve(&text, "1", |_| Some(id("AROAAAAAAAAAAAAAAAAAA"))).unwrap().ids.len()
        };
        assert_eq!(one(r#""Principal":"*""#), 0);
        assert_eq!(one(r#""Principal":{"AWS":"*"}"#), 0);
        assert_eq!(one(r#""Principal":{"Service":"arn:aws:iam::1:role/a"}"#), 0);
        assert_eq!(one(r#""Principal":{"AWS":"arn:aws:iam::1:role/a"}"#), 1);
        assert_eq!(one(r#""NotPrincipal":{"AWS":["arn:aws:iam::1:role/a","arn:aws:iam::1:user/p/b"]}"#), 2);
        assert_eq!(one(r#""Principal":{"AWS":"arn:aws:sts::1:assumed-role/a/b"}"#), 0);
    }
}
