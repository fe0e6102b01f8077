//! What only the file can show: its mode, its faults, and that no secret stands in it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlx::{Connection as _, SqliteConnection};

use super::super::{ActivationRequest, OpenError, Store};
use super::{NOW, master, sqlite};

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(path, master(7), NOW).await
}

async fn tamper(path: &Path, sql: &'static str) {
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn the_file_is_private_and_opens_again_with_what_was_written() {
    let (_directory, store) = sqlite().await;
    let path = store.path().to_owned();
    store.create_user("alice", "/", None, &[], NOW).await.unwrap();
    for file in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    store.close().await;
    let again = open(&path).await.unwrap();
    assert_eq!(again.user("alice").await.unwrap().name, "alice");
    assert_eq!(again.account(), store.account());
    again.close().await;
}

#[tokio::test]
async fn no_secret_stands_in_the_files() {
    let (directory, store) = sqlite().await;
    let key = store.create_administrator(NOW).await.unwrap();
    let request = ActivationRequest {
        description: None,
        default_instance_name: None,
        iam_role: "nodes".into(),
        registration_limit: 1,
        expires: NOW,
        created_by: "admin".into(),
        tags: Vec::new(),
    };
    let activation = store.create_activation(&request, NOW).await.unwrap();
    store.set_secret_setting("s", b"a-marker-in-a-setting").await.unwrap();
    let mut found_id = false;
    let read_all =
        || std::fs::read_dir(directory.path()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    for bytes in read_all() {
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        found_id |= has(key.key.id.as_str().as_bytes());
        assert!(!has(key.secret.expose().as_bytes()));
        assert!(!has(activation.code.expose().as_bytes()));
        assert!(!has(b"a-marker-in-a-setting"));
    }
    assert!(found_id, "the search does find what is there");
    store.close().await;
}

#[tokio::test]
async fn each_fault_of_the_file_has_its_own_error_and_none_makes_a_new_database() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("munjigi.db");
    assert!(matches!(open(&missing).await, Err(OpenError::Missing(_))));
    assert!(!missing.exists());

    let empty = directory.path().join("empty.db");
    std::fs::write(&empty, b"").unwrap();
    assert!(matches!(open(&empty).await, Err(OpenError::NotOurs(_))));
    let text = directory.path().join("text.db");
    std::fs::write(&text, "not a database at all, but long enough to have a head of a hundred bytes ".repeat(9))
        .unwrap();
    assert!(matches!(open(&text).await, Err(OpenError::NotOurs(_))));
    let nowhere = directory.path().join("no/such/directory/munjigi.db");
    assert!(Store::create(&nowhere, master(7), sqlite().await.1.account(), NOW).await.is_err());

    let (_other, store) = sqlite().await;
    let path = store.path().to_owned();
    let again = Store::create(&path, master(7), store.account(), NOW).await;
    assert!(matches!(again, Err(OpenError::Exists(_))));
    store.close().await;
    assert!(matches!(Store::open(&path, master(8), NOW).await, Err(OpenError::OtherMasterKey(_))));

    let copy = |name: &str| {
        let to = directory.path().join(name);
        std::fs::copy(&path, &to).unwrap();
        to
    };
    let foreign = copy("foreign.db");
    tamper(&foreign, "PRAGMA application_id = 1").await;
    assert!(matches!(open(&foreign).await, Err(OpenError::NotOurs(_))));
    let newer = copy("newer.db");
    tamper(
        &newer,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .await;
    assert!(matches!(open(&newer).await, Err(OpenError::Newer { found: 9999, .. })));
    let other = copy("other.db");
    tamper(&other, "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    assert!(matches!(open(&other).await, Err(OpenError::OtherBuild { .. })));

    let damaged = copy("damaged.db");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0x5a);
    std::fs::write(&damaged, bytes).unwrap();
    assert!(matches!(open(&damaged).await, Err(OpenError::Damaged { .. })));
    let cut = copy("cut.db");
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(open(&cut).await, Err(OpenError::Damaged { .. } | OpenError::NotOurs(_))));
}

#[tokio::test]
async fn a_database_that_another_process_holds_is_reported_as_locked() {
    let (_directory, store) = sqlite().await;
    let path = store.path().to_owned();
    store.close().await;
    let url = format!("sqlite://{}", path.display());
    let mut holder = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("PRAGMA locking_mode = EXCLUSIVE").execute(&mut holder).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut holder).await.unwrap();
    let refused = open(&path).await;
    assert!(matches!(refused, Err(OpenError::Locked(_))), "{:?}", refused.err());
    holder.close().await.unwrap();
    open(&path).await.unwrap().close().await;
}

#[tokio::test]
async fn a_write_that_is_dropped_half_way_leaves_nothing_and_frees_the_writer() {
    let (_directory, store) = sqlite().await;
    for _ in 0..50 {
        let mut user = Box::pin(store.create_user("ghost", "/", None, &[], NOW));
        let waker = futures_util::task::noop_waker();
        let _ = user.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        drop(user);
    }
    store.create_user("real", "/", None, &[], NOW).await.unwrap();
    store.close().await;
}
