//! What every store does, as functions over one.

use std::collections::HashSet;
use std::time::Duration;

use munjigi_core::arn::{Arn, Deployment};
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::secret::Secret;
use munjigi_core::session::{EndReason, ExitStatus, SessionKind, SessionLimits, SessionStatus};
use munjigi_core::ssh::PublicKey;
use munjigi_core::time::Timestamp;

use super::super::*;
use super::NOW;

const DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:*","Resource":"*"}}"#;

fn tag(key: &str, value: &str) -> Tag {
    Tag { key: key.into(), value: value.into() }
}

fn not_found<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Kind {
    match result {
        Err(StoreError::NotFound { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

fn limit<T: std::fmt::Debug>(result: Result<T, StoreError>) -> u64 {
    match result {
        Err(StoreError::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    }
}

fn new_policy<'a>(arn: &'a Arn, name: &'a str) -> NewPolicy<'a> {
    NewPolicy { arn, name, path: "/", description: None, document: DOCUMENT, tags: &[] }
}

async fn own_policy(store: &Store, name: &str) -> Arn {
    let here = Deployment { account: store.account().clone(), region: "local-1".into() };
    let arn = here.policy("/", name);
    store.create_policy(&new_policy(&arn, name), NOW).await.unwrap();
    arn
}

pub(super) async fn users_are_unique_without_regard_to_case_and_page_by_name(store: &Store) {
    for name in ["dora", "Alice", "bob", "Carol"] {
        store.create_user(name, "/eng/", None, &[tag("team", "a")], NOW).await.unwrap();
    }
    assert!(matches!(
        store.create_user("ALICE", "/", None, &[], NOW).await,
        Err(StoreError::Exists { kind: Kind::User, .. })
    ));
    assert_eq!(store.user("alice").await.unwrap().name, "Alice");
    assert_eq!(not_found(store.user("eve").await), Kind::User);

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_users("/", after.as_deref(), 3).await.unwrap();
        seen.extend(page.items.into_iter().map(|user| user.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["Alice", "bob", "Carol", "dora"]);
    assert!(store.list_users("/ops/", None, 10).await.unwrap().items.is_empty());

    let moved = store.update_user("bob", Some("Bobby"), Some("/ops/")).await.unwrap();
    assert_eq!(store.user("bobby").await.unwrap(), moved);
    assert!(matches!(store.update_user("dora", Some("carol"), None).await, Err(StoreError::Exists { .. })));
    assert_eq!(store.list_users("/ops/", None, 10).await.unwrap().items, [moved]);
}

pub(super) async fn a_user_with_leftovers_is_not_deleted(store: &Store) {
    let left = async || match store.delete_user("alice").await {
        Err(StoreError::InUse { left, .. }) => left,
        other => panic!("{other:?}"),
    };
    store.create_user("alice", "/", None, &[tag("a", "b")], NOW).await.unwrap();
    store.create_group("eng", "/", NOW).await.unwrap();
    store.add_user_to_group("eng", "alice").await.unwrap();
    store.add_user_to_group("ENG", "Alice").await.unwrap();
    assert_eq!(left().await, "group memberships");
    assert!(matches!(store.delete_group("eng").await, Err(StoreError::InUse { left: "users", .. })));
    store.remove_user_from_group("eng", "alice").await.unwrap();
    assert_eq!(not_found(store.remove_user_from_group("eng", "alice").await), Kind::User);
    let key = store.create_access_key("alice", NOW).await.unwrap();
    assert_eq!(left().await, "access keys");
    store.delete_access_key("alice", &key.key.id).await.unwrap();
    assert_eq!(not_found(store.delete_access_key("alice", &key.key.id).await), Kind::AccessKey);
    let registered = store.register_ssh_key("alice", &ssh_key(1), NOW).await.unwrap();
    assert_eq!(left().await, "SSH public keys");
    store.delete_ssh_key("alice", &registered.id).await.unwrap();
    assert_eq!(not_found(store.delete_ssh_key("alice", &registered.id).await), Kind::SshKey);
    store.put_inline_policy(Owner::User("alice"), "p", DOCUMENT, |_| Ok(())).await.unwrap();
    assert_eq!(left().await, "inline policies");
    store.delete_inline_policy(Owner::User("alice"), "P").await.unwrap();
    store.delete_user("alice").await.unwrap();
    store.delete_group("eng").await.unwrap();
    assert_eq!(not_found(store.delete_user("alice").await), Kind::User);
    store.create_user("alice", "/", None, &[], NOW).await.unwrap();
    assert!(store.tags(Tagged::User("alice")).await.unwrap().is_empty(), "tags do not pass to a namesake");
}

fn ssh_key(number: u8) -> PublicKey {
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0 ".to_vec();
    blob.extend([number; 32]);
    PublicKey::from_parts("ssh-ed25519", &blob).unwrap()
}

pub(super) async fn an_ssh_key_is_one_users_alone(store: &Store) {
    for name in ["alice", "bob"] {
        store.create_user(name, "/", None, &[], NOW).await.unwrap();
    }
    let commented = PublicKey::parse(&format!("{} a key", ssh_key(1).line())).unwrap();
    let key = store.register_ssh_key("Alice", &commented, NOW).await.unwrap();
    assert_eq!((key.user_name.as_str(), key.active), ("alice", true));
    for name in ["alice", "bob"] {
        let again = store.register_ssh_key(name, &ssh_key(1), NOW).await;
        assert!(matches!(again, Err(StoreError::Exists { kind: Kind::SshKey, .. })), "{again:?}");
    }
    assert_eq!(not_found(store.set_ssh_key_active("bob", &key.id, false).await), Kind::SshKey, "another's");
    store.set_ssh_key_active("alice", &key.id, false).await.unwrap();
    let listed = store.list_ssh_keys("alice").await.unwrap();
    assert_eq!(listed, [SshPublicKey { active: false, ..key.clone() }]);
    assert_eq!(listed[0].key.comment(), "a key");
    assert_eq!(store.ssh_key("alice", &key.id).await.unwrap(), listed[0]);
    assert_eq!(not_found(store.ssh_key("bob", &key.id).await), Kind::SshKey);
    let alice = store.user("alice").await.unwrap().id;
    let loaded = store.load_identities().await.unwrap().ssh_keys;
    assert_eq!(loaded, [RegisteredKey { id: key.id.clone(), owner: alice, active: false, key: commented }]);
    store.delete_ssh_key("alice", &key.id).await.unwrap();
    store.register_ssh_key("bob", &ssh_key(1), NOW).await.unwrap();
}

pub(super) async fn quotas_hold(store: &Store) {
    store.create_user("alice", "/", None, &[], NOW).await.unwrap();
    for number in 0..5 {
        store.register_ssh_key("alice", &ssh_key(number), NOW).await.unwrap();
    }
    assert_eq!(limit(store.register_ssh_key("alice", &ssh_key(9), NOW).await), 5);
    for _ in 0..quota::ACCESS_KEYS_PER_USER {
        store.create_access_key("alice", NOW).await.unwrap();
    }
    assert_eq!(limit(store.create_access_key("alice", NOW).await), 2);
    for group in 0..=quota::GROUPS_PER_USER {
        store.create_group(&format!("g{group}"), "/", NOW).await.unwrap();
    }
    for group in 0..quota::GROUPS_PER_USER {
        store.add_user_to_group(&format!("g{group}"), "alice").await.unwrap();
    }
    assert_eq!(limit(store.add_user_to_group("g10", "alice").await), 10);
    store.add_user_to_group("g3", "alice").await.unwrap();

    let mut policies = Vec::new();
    for number in 0..=quota::ATTACHED_POLICIES {
        policies.push(own_policy(store, &format!("p{number}")).await);
    }
    let (last, attached) = policies.split_last().unwrap();
    for policy in attached {
        store.attach_policy(Owner::User("alice"), policy, NOW).await.unwrap();
    }
    assert_eq!(limit(store.attach_policy(Owner::User("alice"), last, NOW).await), 10);
    store.attach_policy(Owner::User("alice"), &attached[0], NOW).await.unwrap();

    let tags: Vec<Tag> = (0..50).map(|number| tag(&format!("k{number}"), "v")).collect();
    store.put_tags(Tagged::User("alice"), &tags).await.unwrap();
    assert_eq!(limit(store.put_tags(Tagged::User("alice"), &[tag("one-more", "")]).await), 50);
    store.put_tags(Tagged::User("alice"), &[tag("K7", "new")]).await.unwrap();
}

pub(super) async fn policies_version_attach_and_refuse_deletion_while_used(store: &Store) {
    let arn = own_policy(store, "Own").await;
    assert!(matches!(store.create_policy(&new_policy(&arn, "OWN"), NOW).await, Err(StoreError::Exists { .. })));
    for version in 2..=quota::VERSIONS_PER_POLICY {
        let made = store.create_policy_version(&arn, DOCUMENT, version == 3, NOW).await.unwrap();
        assert_eq!(made.version, version);
    }
    assert_eq!(limit(store.create_policy_version(&arn, DOCUMENT, false, NOW).await), 5);
    assert_eq!(store.policy(&arn).await.unwrap().default_version, 3);
    assert!(matches!(store.delete_policy_version(&arn, 3).await, Err(StoreError::InUse { .. })));
    assert_eq!(not_found(store.delete_policy_version(&arn, 9).await), Kind::PolicyVersion);
    assert_eq!(not_found(store.set_default_policy_version(&arn, 9, NOW).await), Kind::PolicyVersion);
    store.set_default_policy_version(&arn, 1, NOW).await.unwrap();
    let versions = store.list_policy_versions(&arn).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    assert_eq!(versions.iter().filter(|version| version.is_default).count(), 1);

    store.create_user("alice", "/", Some(&arn), &[], NOW).await.unwrap();
    store.create_group("eng", "/", NOW).await.unwrap();
    store.attach_policy(Owner::Group("eng"), &arn, NOW).await.unwrap();
    let policy = store.policy(&arn).await.unwrap();
    assert_eq!((policy.attachments, policy.bounds), (1, 1));
    let used = store.policy_entities(&arn).await.unwrap();
    assert_eq!((used.groups[0].name.as_str(), used.users.len(), used.bounded[0].name.as_str()), ("eng", 0, "alice"));
    assert_eq!(store.attached_policies(Owner::Group("eng"), "/").await.unwrap(), [policy]);
    assert!(matches!(store.delete_policy(&arn).await, Err(StoreError::InUse { .. })));
    store.detach_policy(Owner::Group("eng"), &arn).await.unwrap();
    assert_eq!(not_found(store.detach_policy(Owner::Group("eng"), &arn).await), Kind::Policy);
    assert!(matches!(store.delete_policy(&arn).await, Err(StoreError::InUse { .. })), "it still bounds alice");
    store.set_boundary("alice", None).await.unwrap();
    assert_eq!(not_found(store.set_boundary("alice", None).await), Kind::Boundary);
    for version in 2..=5 {
        store.delete_policy_version(&arn, version).await.unwrap();
    }
    store.delete_policy(&arn).await.unwrap();

    let builtin = Arn::parse(ADMINISTRATOR_ACCESS).unwrap();
    assert!(matches!(store.delete_policy(&builtin).await, Err(StoreError::Refused(_))));
    assert!(matches!(store.create_policy_version(&builtin, DOCUMENT, true, NOW).await, Err(StoreError::Refused(_))));
    let listed = async |filter: PolicyFilter| store.list_policies(filter, "/", None, 100).await.unwrap().items.len();
    let any = PolicyFilter::default;
    assert_eq!(listed(PolicyFilter { scope: PolicyScope::Builtin, ..any() }).await, 4);
    assert_eq!(listed(PolicyFilter { scope: PolicyScope::Own, ..any() }).await, 0);
    assert_eq!(listed(PolicyFilter { attached: true, ..any() }).await, 0);
    assert_eq!(listed(PolicyFilter { bounding: true, ..any() }).await, 0);
}

pub(super) async fn inline_policies_are_judged_together_before_they_are_stored(store: &Store) {
    store.create_group("eng", "/", NOW).await.unwrap();
    let eng = Owner::Group("eng");
    store.put_inline_policy(eng, "one", DOCUMENT, |_| Ok(())).await.unwrap();
    let refused = store
        .put_inline_policy(eng, "two", DOCUMENT, |all| {
            assert_eq!(all.len(), 2);
            Err(StoreError::Limit { what: "characters", limit: 1 })
        })
        .await;
    assert_eq!(limit(refused), 1);
    assert_eq!(not_found(store.inline_policy(eng, "two").await), Kind::Policy);
    let replaces = |all: &[InlinePolicy]| {
        assert_eq!(all.len(), 1);
        Ok(())
    };
    store.put_inline_policy(eng, "ONE", "{}", replaces).await.unwrap();
    let all = store.inline_policies(eng).await.unwrap();
    assert_eq!(all, [InlinePolicy { name: "ONE".into(), document: "{}".into() }]);
    assert_eq!(not_found(store.inline_policies(Owner::User("eng")).await), Kind::User);
}

pub(super) async fn tags_fold_their_keys(store: &Store) {
    store.create_user("alice", "/", None, &[tag("Team", "a"), tag("이름", "가")], NOW).await.unwrap();
    store.put_tags(Tagged::User("alice"), &[tag("TEAM", "b")]).await.unwrap();
    assert_eq!(store.tags(Tagged::User("alice")).await.unwrap(), [tag("TEAM", "b"), tag("이름", "가")]);
    store.remove_tags(Tagged::User("alice"), &["team".into(), "absent".into()]).await.unwrap();
    assert_eq!(store.load_identities().await.unwrap().owner_tags.values().next().unwrap(), &[tag("이름", "가")]);
    let nobody = NodeId::from_public_key(&[0; 32]);
    assert_eq!(not_found(store.tags(Tagged::Node(&nobody)).await), Kind::Node);
}

pub(super) async fn a_loaded_key_opens_to_the_secret_that_was_shown(store: &Store) {
    store.create_user("alice", "/", None, &[], NOW).await.unwrap();
    store.create_user("bob", "/", None, &[], NOW).await.unwrap();
    let one = store.create_access_key("alice", NOW).await.unwrap();
    let two = store.create_access_key("bob", NOW).await.unwrap();
    assert_eq!(one.secret.expose().len(), 40);
    let loaded = store.load_identities().await.unwrap();
    let sealed = |id| loaded.access_keys.iter().find(|key| &key.id == id).unwrap();
    let (first, second) = (sealed(&one.key.id), sealed(&two.key.id));
    assert_eq!(store.open_key_secret(&first.id, &first.sealed_secret).unwrap().expose(), one.secret.expose());
    assert!(store.open_key_secret(&first.id, &second.sealed_secret).is_err(), "sealed secrets cannot be swapped");

    store.set_access_key_active("alice", &one.key.id, false).await.unwrap();
    assert_eq!(not_found(store.set_access_key_active("bob", &one.key.id, true).await), Kind::AccessKey);
    let used = LastUsed { time: NOW, service: "ssm".into(), region: "local-1".into() };
    store.record_key_use(&one.key.id, &used).await.unwrap();
    let key = store.access_key(&one.key.id).await.unwrap();
    assert_eq!((key.active, key.last_used, key.user_name.as_str()), (false, Some(used), "alice"));
}

pub(super) async fn the_administrator_is_complete(store: &Store) {
    let key = store.create_administrator(NOW).await.unwrap();
    assert!(matches!(store.create_administrator(NOW).await, Err(StoreError::Exists { .. })));
    let loaded = store.load_identities().await.unwrap();
    let admin = loaded.users.iter().find(|user| user.name == "admin").unwrap();
    assert_eq!(loaded.attachments[&admin.id], [Arn::parse(ADMINISTRATOR_ACCESS).unwrap()]);
    assert_eq!((&loaded.access_keys[0].id, &loaded.access_keys[0].owner), (&key.key.id, &admin.id));
    assert!(loaded.policies.iter().any(|policy| policy.arn.as_str() == ADMINISTRATOR_ACCESS && policy.builtin));
}

fn activation(limit: u64) -> ActivationRequest {
    ActivationRequest {
        description: None,
        default_instance_name: Some("web".into()),
        iam_role: "nodes".into(),
        registration_limit: limit,
        expires: NOW.plus(Duration::from_secs(3600)),
        created_by: "arn:aws:iam::123456789012:user/admin".into(),
        tags: vec![tag("env", "prod"), tag("site", "a")],
    }
}

fn new_node(number: u8, name: Option<NodeName>) -> NewNode {
    NewNode {
        agent: AgentKind::Munjigi,
        public_key: vec![number; 32],
        fingerprint: None,
        name,
        facts: NodeFacts { hostname: format!("host{number}"), ..NodeFacts::default() },
        ip_address: Some("192.0.2.1".into()),
        tags: vec![tag("Env", "test")],
    }
}

pub(super) async fn twenty_nodes_racing_for_one_use_of_an_activation_yield_one(store: &Store) {
    let made = store.create_activation(&activation(1), NOW).await.unwrap();
    let tasks = (0..20_u8).map(|number| {
        let (store, id, code) = (store.clone(), made.id, made.code.clone());
        tokio::spawn(async move { store.register_node(&id, &code, &new_node(number, None), NOW).await })
    });
    let mut winners = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(node) => {
                winners += 1;
                assert_eq!(node.name, "web");
                assert_eq!(node.tags, [tag("Env", "test"), tag("site", "a")]);
            }
            Err(RegisterError::Activation) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(store.list_activations(None, 10).await.unwrap().items[0].registrations, 1);
    assert_eq!(store.list_nodes(None, 100).await.unwrap().items.len(), 1);
}

pub(super) async fn a_registration_repeats_after_a_lost_answer_but_not_with_another_code(store: &Store) {
    let made = store.create_activation(&activation(1), NOW).await.unwrap();
    let node = store.register_node(&made.id, &made.code, &new_node(1, None), NOW).await.unwrap();
    let again = store.register_node(&made.id, &made.code, &new_node(1, None), NOW).await.unwrap();
    assert_eq!(node, again);
    for (id, code) in [(made.id, Secret::new("wrong".to_owned())), (uuid::Uuid::nil(), made.code.clone())] {
        let refused = store.register_node(&id, &code, &new_node(1, None), NOW).await;
        assert!(matches!(refused, Err(RegisterError::Activation)));
    }
    let late = store.create_activation(&activation(1), NOW).await.unwrap();
    let refused = store.register_node(&late.id, &late.code, &new_node(2, None), activation(1).expires).await;
    assert!(matches!(refused, Err(RegisterError::Activation)));
    store.delete_activation(&late.id).await.unwrap();
    assert_eq!(not_found(store.delete_activation(&late.id).await), Kind::Activation);

    store.deregister_node(&node.id).await.unwrap();
    assert_eq!(not_found(store.node(&node.id).await), Kind::Node);
    assert_eq!(not_found(store.deregister_node(&node.id).await), Kind::Node);
}

pub(super) async fn a_refused_name_uses_nothing_up(store: &Store) {
    let made = store.create_activation(&activation(3), NOW).await.unwrap();
    let register = async |number, name: Option<NodeName>| {
        store.register_node(&made.id, &made.code, &new_node(number, name), NOW).await
    };
    register(1, Some(NodeName::Exact("웹-1".into()))).await.unwrap();
    let taken = register(2, Some(NodeName::Exact("웹-1".into()))).await;
    assert!(matches!(taken, Err(RegisterError::NameTaken(name)) if name == "웹-1"));
    assert_eq!(store.list_activations(None, 10).await.unwrap().items[0].registrations, 1);
    assert_eq!(register(2, Some(NodeName::Suggested("웹-1".into()))).await.unwrap().name, "웹-1-2");
    assert_eq!(register(3, Some(NodeName::Suggested("WEB".into()))).await.unwrap().name, "WEB");
    assert_eq!(store.node_by_name("web").await.unwrap().public_key, [3; 32]);

    let node = store.node_by_name("웹-1").await.unwrap();
    let facts = NodeFacts { platform_name: "Debian GNU/Linux".into(), ..node.facts };
    let later = NOW.plus(Duration::from_secs(5));
    store.node_seen(&node.id, &facts, Some("2001:db8::1"), later).await.unwrap();
    let later_still = later.plus(Duration::from_secs(5));
    store.nodes_alive(std::slice::from_ref(&node.id), later_still).await.unwrap();
    let seen = store.node(&node.id).await.unwrap();
    assert_eq!((seen.facts, seen.last_seen, seen.registered), (facts, later_still, NOW));
    let first = store.list_nodes(None, 2).await.unwrap();
    let rest = store.list_nodes(first.next.as_deref(), 2).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (2, 1, None));
}

pub(super) async fn a_node_with_the_agent_of_aws_changes_its_key_and_its_first_name_once(store: &Store) {
    let made = store.create_activation(&activation(2), NOW).await.unwrap();
    let new = NewNode {
        agent: AgentKind::Aws,
        fingerprint: Some("0f".into()),
        ..new_node(9, Some(NodeName::Suggested("node-1".into())))
    };
    let node = store.register_node(&made.id, &made.code, &new, NOW).await.unwrap();
    assert_eq!((node.agent, node.fingerprint.as_deref()), (AgentKind::Aws, Some("0f")));
    let other = store.register_node(&made.id, &made.code, &new_node(8, None), NOW).await.unwrap();
    assert_eq!((other.agent, other.fingerprint), (AgentKind::Munjigi, None));

    assert!(!store.replace_node_key(&node.id, &[1], &[2]).await.unwrap(), "another key than it has");
    assert!(store.replace_node_key(&node.id, &node.public_key, &[2]).await.unwrap());
    store.name_node(&node.id, "node-1", &other.name).await.unwrap();
    store.name_node(&node.id, "node-1", "again").await.unwrap();
    let changed = store.node(&node.id).await.unwrap();
    assert_eq!((changed.public_key, changed.name), (vec![2], format!("{}-2", other.name)));
}

fn session(number: u8, owner: &str, start: Timestamp) -> SessionRow {
    SessionRow {
        id: SessionId::new(owner, [number; 9]),
        owner_arn: format!("arn:aws:iam::123456789012:user/{owner}"),
        owner_id: "AIDA".into(),
        node: NodeId::from_public_key(&[number % 2; 32]),
        node_name: "web".into(),
        os_user: "app".into(),
        kind: SessionKind::Command,
        document: "SSM-SessionManagerRunShell".into(),
        reason: Some("비상".into()),
        command: Some(vec!["sh".into(), "-c".into(), "exit 7".into()]),
        status: SessionStatus::Connecting,
        started: start,
        end: None,
        recording: "2026/11/21/x.mjr".into(),
        source_ip: "192.0.2.1".into(),
        access_key: None,
        limits: SessionLimits {
            idle: Some(Duration::from_secs(60)),
            idle_counts_output: false,
            maximum: None,
            resume_window: Duration::from_secs(600),
            strict_recording: true,
        },
        decision: serde_json::json!({ "action": "ssm:StartSession", "context": { "aws:SourceIp": "192.0.2.1" } }),
    }
}

fn end(reason: EndReason) -> SessionEnd {
    SessionEnd {
        time: NOW.plus(Duration::from_secs(9)),
        reason,
        exit: Some(ExitStatus::Code(7)),
        recording_hash: Some("ab".into()),
        bytes_in: 1,
        bytes_out: u64::from(u32::MAX) + 1,
    }
}

pub(super) async fn sessions_move_only_forward_and_end_once(store: &Store) {
    let made = session(1, "alice", NOW);
    store.insert_session(&made).await.unwrap();
    assert!(matches!(store.insert_session(&made).await, Err(StoreError::Exists { kind: Kind::Session, .. })));
    assert_eq!(store.session(&made.id).await.unwrap(), made);
    assert!(store.set_session_status(&made.id, SessionStatus::Connected).await.unwrap());
    assert!(!store.set_session_status(&made.id, SessionStatus::Connecting).await.unwrap());
    assert_eq!(store.unfinished_sessions().await.unwrap().len(), 1);
    assert!(store.finish_session(&made.id, &end(EndReason::Exited)).await.unwrap());
    assert!(!store.finish_session(&made.id, &end(EndReason::Revoked)).await.unwrap());
    assert!(!store.set_session_status(&made.id, SessionStatus::Connected).await.unwrap());
    let over = store.session(&made.id).await.unwrap();
    assert_eq!((over.status, over.end), (SessionStatus::Terminated, Some(end(EndReason::Exited))));
    assert!(store.unfinished_sessions().await.unwrap().is_empty());

    let never = session(2, "alice", NOW);
    store.insert_session(&never).await.unwrap();
    store.finish_session(&never.id, &end(EndReason::StartFailed)).await.unwrap();
    assert_eq!(store.session(&never.id).await.unwrap().status, SessionStatus::Failed);
    assert_eq!(not_found(store.session(&SessionId::new("eve", [0; 9])).await), Kind::Session);
}

pub(super) async fn sessions_list_newest_first_by_filter_and_page(store: &Store) {
    for number in 0..10_u8 {
        // Two sessions share each instant, so that the order inside one is put to the test too.
        let start = NOW.plus(Duration::from_secs(u64::from(number / 2)));
        let owner = if number < 5 { "alice" } else { "bob" };
        store.insert_session(&session(number, owner, start)).await.unwrap();
    }
    let over = SessionId::new("alice", [3; 9]);
    store.finish_session(&over, &end(EndReason::Terminated)).await.unwrap();

    let mut seen = Vec::new();
    let mut after: Option<SessionCursor> = None;
    loop {
        let page = store.list_sessions(&SessionFilter::default(), after.as_ref(), 3).await.unwrap();
        seen.extend(page.items);
        match page.next {
            Some(next) => after = SessionCursor::parse(&next.to_text()),
            None => break,
        }
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted_by(|newer, older| newer.started >= older.started));
    assert_eq!(seen.iter().map(|session| &session.id).collect::<HashSet<_>>().len(), 10);

    let count = async |filter: SessionFilter| store.list_sessions(&filter, None, 100).await.unwrap().items.len();
    let any = SessionFilter::default;
    assert_eq!(count(SessionFilter { active: Some(true), ..any() }).await, 9);
    assert_eq!(count(SessionFilter { active: Some(false), ..any() }).await, 1);
    assert_eq!(count(SessionFilter { status: Some(SessionStatus::Terminated), ..any() }).await, 1);
    assert_eq!(count(SessionFilter { id: Some(over), ..any() }).await, 1);
    let owner = Some("arn:aws:iam::123456789012:user/bob".to_owned());
    assert_eq!(count(SessionFilter { owner: owner.clone(), ..any() }).await, 5);
    let node = Some(NodeId::from_public_key(&[1; 32]));
    assert_eq!(count(SessionFilter { owner, node, ..any() }).await, 3);
    let third = Some(NOW.plus(Duration::from_secs(2)));
    assert_eq!(count(SessionFilter { invoked_after: third, ..any() }).await, 6);
    assert_eq!(count(SessionFilter { invoked_after: third, invoked_before: third, ..any() }).await, 2);
    assert_eq!(store.sessions_by_prefix("bob-0505", 10).await.unwrap().len(), 1);
    assert!(store.sessions_by_prefix("%", 10).await.unwrap().is_empty());
}

pub(super) async fn page_tokens_serve_one_binding_for_an_hour(store: &Store) {
    let pages = store.pages();
    let longest = "x".repeat(128);
    let token = pages.issue("ListUsers/alice", &longest, NOW).unwrap();
    assert!(token.len() <= 320, "IAM allows a marker 320 characters");
    assert_eq!(pages.read("ListUsers/alice", &token, NOW).unwrap(), longest);
    assert_eq!(pages.read("ListUsers/bob", &token, NOW), Err(InvalidToken));
    assert_eq!(pages.read("ListUsers/alice", &token, NOW.plus(Duration::from_secs(3601))), Err(InvalidToken));

    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = token.as_bytes();
    for _ in 0..1 << 18 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut changed = bytes.to_vec();
        let place = usize::try_from(state % bytes.len() as u64).unwrap();
        changed[place] = (state >> 32) as u8;
        changed.truncate(bytes.len() - usize::try_from((state >> 40) % 4).unwrap());
        if changed != bytes {
            assert_eq!(pages.read("ListUsers/alice", &String::from_utf8_lossy(&changed), NOW), Err(InvalidToken));
        }
    }
}

pub(super) async fn settings_keep_secrets_sealed(store: &Store) {
    assert!(store.secret_setting("grant-key").await.unwrap().is_none());
    store.set_secret_setting("grant-key", b"first").await.unwrap();
    store.set_secret_setting("grant-key", b"second").await.unwrap();
    assert_eq!(store.secret_setting("grant-key").await.unwrap().unwrap().expose(), b"second");
    let sealed = store.setting("grant-key").await.unwrap().unwrap();
    assert!(!sealed.windows(6).any(|window| window == b"second"));
    store.set_setting("other", &sealed).await.unwrap();
    assert!(store.secret_setting("other").await.is_err(), "a sealed value does not open in another place");
}

pub(super) async fn addresses_of_nodes_are_unique_and_stay(store: &Store) {
    let node = |n: u32| NodeId::parse(&format!("mi-{n:08x}000000000")).unwrap();
    // All begin their search at the same place.
    let nodes: Vec<NodeId> = (1..20).map(|n| node(n << 22)).collect();
    let first = store.node_addresses(&nodes[..5]).await.unwrap();
    let all = store.node_addresses(&nodes).await.unwrap();
    assert_eq!(all.len(), nodes.len());
    assert!(first.iter().all(|(node, address)| all.get(node) == Some(address)));
    let different: std::collections::HashSet<_> = all.values().collect();
    assert_eq!(different.len(), nodes.len());
    for (node, address) in &all {
        assert!(address.octets()[0] == 100 && (64..128).contains(&address.octets()[1]), "{address}");
        assert_eq!(store.node_by_address(*address).await.unwrap().as_ref(), Some(node));
    }
    for nobody in ["100.127.255.254", "100.63.255.255", "100.128.0.0", "0.0.0.0", "255.255.255.255"] {
        assert_eq!(store.node_by_address(nobody.parse().unwrap()).await.unwrap(), None, "{nobody}");
    }
}

pub(super) async fn pushed_keys_are_found_by_node_user_and_fingerprint(store: &Store) {
    let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
    let at = |seconds| Timestamp(NOW.0 + seconds * 1_000_000);
    let push = |id: &str, pushed: i64| crate::store::PushedKey {
        node: node.clone(),
        os_user: "alice".into(),
        fingerprint: "SHA256:a".into(),
        request_id: id.into(),
        principal_arn: "arn:aws:iam::123456789012:user/kim".into(),
        pushed: at(pushed),
        expires: at(pushed + 60),
    };
    for (id, pushed) in [("one", 0), ("two", 30), ("later", 1000)] {
        store.remember_pushed_key(&push(id, pushed)).await.unwrap();
    }
    let find = async |user: &str, print: &str, seconds| {
        let found = store.pushed_key(&node, user, print, at(seconds), std::time::Duration::from_secs(5)).await;
        found.unwrap().map(|key| key.request_id)
    };
    assert_eq!(find("alice", "SHA256:a", 10).await.as_deref(), Some("one"));
    assert_eq!(find("alice", "SHA256:a", 40).await.as_deref(), Some("two"));
    assert_eq!(find("alice", "SHA256:a", 94).await.as_deref(), Some("two"));
    assert_eq!(find("alice", "SHA256:a", 96).await, None);
    assert_eq!(find("alice", "SHA256:b", 10).await, None);
    assert_eq!(find("bob", "SHA256:a", 10).await, None);
    store.remember_pushed_key(&push("much later", 40 * 24 * 3600)).await.unwrap();
    assert_eq!(find("alice", "SHA256:a", 10).await, None);
}
