//! Rules as they are written, and what several of them give one person.

use super::*;

fn rule(text: &str) -> RuleSettings {
    serde_json::from_str(text).unwrap()
}

fn person(name: &str, groups: &[&str]) -> Person {
    Person {
        principal: format!("AIDA{name}"),
        arn: format!("arn:aws:iam::123456789012:user/{name}"),
        name: name.into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        tags: BTreeMap::from([("LocalName".to_owned(), "tagged".to_owned())]),
    }
}

#[test]
fn rules_are_read_and_written_alike_and_mistakes_are_named() {
    let text =
        r#"{"Who":["group:dev","user:kim","*"],"Nodes":["*","web-1","Role=web,Stage=prod"],"OsUser":"tag:LocalName"}"#;
    let read = rule(text);
    assert_eq!(serde_json::from_str::<RuleSettings>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
    assert_eq!((read.grace_days, read.shell.as_str(), read.lowercase), (7, "/bin/bash", true));
    assert_eq!(read.check(), Ok(()));
    for (text, word) in [
        (r#"{"Who":["dev"],"Nodes":["*"]}"#, "group:NAME"),
        (r#"{"Who":["*"],"Nodes":["a=b,c"]}"#, "Key=Value"),
        (r#"{"Who":["*"],"Nodes":["*"],"OsUser":"x"}"#, "local-part"),
        (r#"{"Who":["*"],"Nodes":["*"],"Sudoers":[]}"#, "Sudoers"),
    ] {
        let error = serde_json::from_str::<RuleSettings>(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    for wrong in [
        r#"{"Who":[],"Nodes":["*"]}"#,
        r#"{"Who":["*"],"Nodes":[]}"#,
        r#"{"Who":["*"],"Nodes":["*"],"Sudo":["ALL","/bin/id"]}"#,
        r#"{"Who":["*"],"Nodes":["*"],"Sudo":["/bin/*"]}"#,
        r#"{"Who":["*"],"Nodes":["*"],"Groups":["a b"]}"#,
        r#"{"Who":["*"],"Nodes":["*"],"Shell":"bash"}"#,
        r#"{"Who":["*"],"Nodes":["*"],"GraceDays":366}"#,
    ] {
        assert!(rule(wrong).check().is_err(), "{wrong}");
    }
}

#[test]
fn what_rules_give_adds_up() {
    let rules = [
        rule(
            r#"{"Who":["group:dev"],"Nodes":["*"],"Groups":["docker"],"Sudo":["/bin/id"],"GraceDays":3,"RemoveHome":true}"#,
        ),
        rule(
            r#"{"Who":["group:ops"],"Among":["group:dev"],"Nodes":["*"],"Mode":"synchronised","Groups":["adm","docker"],"Sudo":["/bin/ls"]}"#,
        ),
        rule(r#"{"Who":["user:KIM"],"Nodes":["*"],"Sudo":["ALL"]}"#),
    ];
    let rules: Vec<&RuleSettings> = rules.iter().collect();
    assert_eq!(entitle(&rules, &person("lee", &["other"])), None);
    // Among: not everybody of ops.
    assert_eq!(entitle(&rules, &person("lee", &["ops"])), None);
    let dev = entitle(&rules, &person("lee", &["dev"])).unwrap();
    assert_eq!((dev.mode, dev.remove_home), (AccountMode::JustInTime, true));
    let both = entitle(&rules, &person("lee", &["Dev", "ops"])).unwrap();
    assert_eq!(both.mode, AccountMode::Synchronised);
    assert_eq!(both.groups, ["adm", "docker"]);
    assert_eq!(both.sudo, Sudo::Commands(vec!["/bin/id".into(), "/bin/ls".into()]));
    assert_eq!((both.grace, both.remove_home), (days(7), false));
    assert_eq!(entitle(&rules, &person("kim", &["dev"])).unwrap().sudo, Sudo::All);
}

#[test]
fn rules_hold_on_the_nodes_they_name() {
    let rules = [rule(r#"{"Who":["*"],"Nodes":["web-1","Role=db"]}"#)];
    let count = |name: &str, tags: &[(&str, &str)]| holding(&rules, "mi-1", name, tags.iter().copied()).len();
    assert_eq!(count("WEB-1", &[]), 1);
    assert_eq!(count("web-2", &[("Role", "web")]), 0);
    assert_eq!(count("web-2", &[("Role", "db"), ("x", "y")]), 1);
}

#[test]
fn names_are_made_from_name_local_part_or_tag() {
    let from = |form: &str, who: &Person| {
        let rule = rule(&format!(r#"{{"Who":["*"],"Nodes":["*"],"OsUser":"{form}"}}"#));
        entitle(&[&rule], who).unwrap().name_of(who).map(str::to_owned)
    };
    let kim = person("kim@example.com", &[]);
    assert_eq!(from("name", &kim).as_deref(), Some("kim@example.com"));
    assert_eq!(from("local-part", &kim).as_deref(), Some("kim"));
    assert_eq!(from("tag:LocalName", &kim).as_deref(), Some("tagged"));
    assert_eq!(from("tag:Other", &kim), None);
}
