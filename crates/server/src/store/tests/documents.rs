//! What every store does with session documents.

use super::super::*;
use super::NOW;

fn new<'a>(name: &'a str, content: &'a str) -> NewDocument<'a> {
    let first = NewVersion { content, version_name: None, display_name: None };
    NewDocument { name, document_type: "Session", target_type: None, created_by: "arn:a", first, tags: &[] }
}

fn version<'a>(content: &'a str, version_name: Option<&'a str>) -> NewVersion<'a> {
    NewVersion { content, version_name, display_name: Some("Shown") }
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Kind {
    match result {
        Err(StoreError::NotFound { kind, .. } | StoreError::Exists { kind, .. } | StoreError::InUse { kind, .. }) => {
            kind
        }
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_documents_versions_count_up_and_its_default_is_chosen(store: &Store) {
    let made = store.create_document(&new("Shell", "{1}"), NOW).await.unwrap();
    assert_eq!((made.default_version, made.latest_version, made.created), (1, 1, NOW));
    assert_eq!(kind(store.create_document(&new("Shell", "{2}"), NOW).await), Kind::Document);
    store.create_document(&new("shell", "{2}"), NOW).await.unwrap();

    let (document, second) =
        store.add_document_version("Shell", None, &version("{2}", Some("two")), NOW).await.unwrap();
    assert_eq!((document.default_version, document.latest_version, second.version), (1, 2, 2));
    let same = store.add_document_version("Shell", Some(2), &version("{2}", None), NOW).await;
    assert_eq!(kind(same), Kind::DocumentContent);
    let named = store.add_document_version("Shell", Some(2), &version("{3}", Some("two")), NOW).await;
    assert_eq!(kind(named), Kind::DocumentVersion);
    let old = store.add_document_version("Shell", Some(1), &version("{3}", None), NOW).await;
    assert_eq!(kind(old), Kind::DocumentVersion);
    // Going back to an earlier text is a new version.
    store.add_document_version("Shell", Some(2), &version("{1}", None), NOW).await.unwrap();

    let content = async |wanted: VersionRef| store.document("Shell", &wanted).await.unwrap().1.content;
    assert_eq!(content(VersionRef::Default).await, "{1}");
    assert_eq!(content(VersionRef::Number(2)).await, "{2}");
    assert_eq!(content(VersionRef::Named("two".into())).await, "{2}");
    let (chosen, _) = store.set_default_document_version("Shell", 2).await.unwrap();
    assert_eq!((chosen.default_version, chosen.latest_version), (2, 3));
    assert_eq!(content(VersionRef::Default).await, "{2}");
    assert_eq!(kind(store.set_default_document_version("Shell", 4).await), Kind::DocumentVersion);
    for missing in [VersionRef::Number(0), VersionRef::Number(u64::MAX), VersionRef::Named("three".into())] {
        assert_eq!(kind(store.document("Shell", &missing).await), Kind::DocumentVersion);
    }
    assert_eq!(kind(store.document("SHELL", &VersionRef::Default).await), Kind::Document);

    let numbers = |page: &Page<DocumentVersion>| page.items.iter().map(|one| one.version).collect::<Vec<_>>();
    let (_, first) = store.list_document_versions("Shell", None, 2).await.unwrap();
    assert_eq!((numbers(&first), first.next.as_deref()), (vec![3, 2], Some("2")));
    let (_, rest) = store.list_document_versions("Shell", Some(2), 2).await.unwrap();
    assert_eq!((numbers(&rest), rest.next), (vec![1], None));
}

pub(super) async fn a_document_is_deleted_by_version_and_not_while_it_is_shared(store: &Store) {
    store.create_document(&new("Shell", "{1}"), NOW).await.unwrap();
    store.add_document_version("Shell", None, &version("{2}", None), NOW).await.unwrap();
    store.add_document_version("Shell", None, &version("{3}", None), NOW).await.unwrap();
    assert_eq!(kind(store.delete_document("Shell", Some(&VersionRef::Default)).await), Kind::DocumentVersion);
    store.delete_document("Shell", Some(&VersionRef::Latest)).await.unwrap();
    let (document, _) = store.add_document_version("Shell", None, &version("{4}", None), NOW).await.unwrap();
    assert_eq!(document.latest_version, 4, "a number is never used twice");

    let (all, one) = (["all".to_owned()], ["123456789012".to_owned()]);
    let share = Sharing { add: &all, version: "$DEFAULT", ..Sharing::default() };
    store.share_document("Shell", &share).await.unwrap();
    store.share_document("Shell", &Sharing { add: &one, version: "$LATEST", ..Sharing::default() }).await.unwrap();
    let shares = store.document_shares("Shell").await.unwrap();
    assert_eq!(shares, [("123456789012".into(), "$LATEST".into()), ("all".into(), "$DEFAULT".into())]);
    assert_eq!(kind(store.delete_document("Shell", None).await), Kind::Document);
    store.share_document("Shell", &Sharing { remove: &all, ..Sharing::default() }).await.unwrap();
    store.share_document("Shell", &Sharing { remove: &one, ..Sharing::default() }).await.unwrap();
    store.delete_document("Shell", None).await.unwrap();
    assert_eq!(kind(store.delete_document("Shell", None).await), Kind::Document);
    assert_eq!(kind(store.document_shares("Shell").await), Kind::Document);
    let again = store.create_document(&new("Shell", "{1}"), NOW).await.unwrap();
    assert_eq!(again.latest_version, 1);
    store.delete_document("Shell", Some(&VersionRef::Number(1))).await.unwrap();
}

pub(super) async fn documents_list_by_name_and_keep_their_tags(store: &Store) {
    let tags = [Tag { key: "Team".into(), value: "a".into() }];
    for name in ["c", "a", "B"] {
        store.create_document(&NewDocument { tags: &tags, ..new(name, "{}") }, NOW).await.unwrap();
    }
    let page = store.list_documents(None, 2).await.unwrap();
    let names: Vec<&str> = page.items.iter().map(|(document, _)| document.name.as_str()).collect();
    assert_eq!((names.as_slice(), page.next.as_deref()), (["B", "a"].as_slice(), Some("a")));
    assert_eq!(page.items[0].0.tags, tags);
    assert_eq!(store.list_documents(Some("a"), 2).await.unwrap().items.len(), 1);
    store.put_tags(Tagged::Document("a"), &[Tag { key: "team".into(), value: "b".into() }]).await.unwrap();
    assert_eq!(store.tags(Tagged::Document("a")).await.unwrap()[0].value, "b");
    store.delete_document("a", None).await.unwrap();
    store.create_document(&new("a", "{}"), NOW).await.unwrap();
    assert!(store.tags(Tagged::Document("a")).await.unwrap().is_empty(), "tags do not pass to a namesake");
    assert_eq!(kind(store.tags(Tagged::Document("A")).await), Kind::Document);
}
