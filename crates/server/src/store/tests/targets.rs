//! What every store does with targets.

use munjigi_core::secret::Secret;
use munjigi_core::target::{TargetKind, TargetName, TargetSettings, TargetTls};

use super::super::*;
use super::NOW;

fn name(text: &str) -> TargetName {
    TargetName::parse(text).unwrap()
}

fn settings(address: &str) -> TargetSettings {
    TargetSettings {
        address: address.parse().unwrap(),
        kind: TargetKind::Postgres,
        through: vec!["Role=bastion".parse().unwrap()],
        local_port: None,
        database: Some("orders".to_owned()),
        inspect: false,
        record_parameters: false,
        allow_load_local: false,
        tls: TargetTls::default(),
    }
}

fn tags(pairs: &[(&str, &str)]) -> Vec<Tag> {
    pairs.iter().map(|(key, value)| Tag { key: (*key).into(), value: (*value).into() }).collect()
}

pub(super) async fn a_target_is_put_twice_as_if_once_and_listed_by_name(store: &Store) {
    let put = async |text: &str, address: &str, tags: Option<&[Tag]>| {
        let (name, settings) = (name(text), settings(address));
        let put = PutTarget { name: &name, settings: &settings, credential: CredentialChange::Keep, tags };
        store.put_target(&put, NOW).await.unwrap()
    };
    let made = put("Orders", "db:5432", Some(&tags(&[("Env", "prod")]))).await;
    assert_eq!((made.name.as_str(), made.created, made.user_name.as_deref()), ("Orders", NOW, None));
    assert_eq!(made.settings, settings("db:5432"));
    assert_eq!(put("Orders", "db:5432", Some(&tags(&[("Env", "prod")]))).await, made);
    // Without tags those that are there stay, and the name is one without regard to case.
    let changed = put("orders", "db2:5432", None).await;
    assert_eq!((&changed.id, changed.tags.len()), (&made.id, 1));
    assert_eq!(put("orders", "db2:5432", Some(&[])).await.tags, []);
    assert_eq!(store.target(&name("ORDERS")).await.unwrap().settings, settings("db2:5432"));

    for other in ["cache", "Billing", "desk"] {
        put(other, "x:1", Some(&tags(&[("A", "b")]))).await;
    }
    let first = store.list_targets(None, 3).await.unwrap();
    let second = store.list_targets(first.next.as_deref(), 3).await.unwrap();
    let names: Vec<_> = first.items.iter().chain(&second.items).map(|target| target.name.as_str()).collect();
    assert_eq!((names, second.next), (vec!["Billing", "cache", "desk", "orders"], None));

    store.delete_target(&name("desk")).await.unwrap();
    for gone in [store.delete_target(&name("desk")).await, store.target(&name("desk")).await.map(|_| ())] {
        assert!(matches!(gone, Err(StoreError::NotFound { kind: Kind::Target, .. })), "{gone:?}");
    }
    assert_eq!(put("desk", "x:1", None).await.tags, [], "a namesake inherits nothing");
}

pub(super) async fn a_password_is_sealed_for_its_target_and_stays_where_it_was_given_for(store: &Store) {
    let orders = name("orders");
    let put = async |settings: &TargetSettings, credential: CredentialChange<'_>| {
        store.put_target(&PutTarget { name: &orders, settings, credential, tags: None }, NOW).await
    };
    let opened = |target: &StoredTarget| {
        let password = store.target_password(target).unwrap();
        password.map(|password| String::from_utf8(password.expose().clone()).unwrap())
    };
    let secret = Secret::new("hunter2-\u{ae38}".to_owned());
    let set = CredentialChange::Set { user_name: "app", password: Some(&secret) };
    let made = put(&settings("db:5432"), set).await.unwrap();
    assert_eq!((made.user_name.as_deref(), opened(&made).as_deref()), (Some("app"), Some("hunter2-\u{ae38}")));
    assert!(!format!("{made:?}").contains("hunter2"));
    let file = std::fs::read(store.path()).unwrap();
    let log = std::fs::read(store.path().with_extension("db-wal")).unwrap_or_default();
    assert!(![file, log].iter().any(|bytes| bytes.windows(7).any(|part| part == b"hunter2")));

    // What does not move the password may change; what would send it elsewhere may not.
    let mut other = TargetSettings { database: None, ..settings("db:5432") };
    assert_eq!(opened(&put(&other, CredentialChange::Keep).await.unwrap()), opened(&made));
    other.address = "thief:5432".parse().unwrap();
    assert!(matches!(put(&other, CredentialChange::Keep).await, Err(StoreError::Refused(_))));
    let through = TargetSettings { through: vec!["mine".parse().unwrap()], ..settings("db:5432") };
    assert!(matches!(put(&through, CredentialChange::Keep).await, Err(StoreError::Refused(_))));
    assert_eq!(opened(&store.target(&orders).await.unwrap()), opened(&made));
    assert_eq!(opened(&put(&other, set).await.unwrap()), opened(&made));

    let removed = put(&other, CredentialChange::Remove).await.unwrap();
    assert_eq!((removed.user_name.as_deref(), removed.has_password(), opened(&removed)), (None, false, None));
    let without = put(&other, CredentialChange::Set { user_name: "peer", password: None }).await.unwrap();
    assert_eq!((without.user_name.as_deref(), without.has_password()), (Some("peer"), false));
}
