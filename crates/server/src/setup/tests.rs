//! First and later starts, and every obstacle that a start can meet.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::{Server, ServerOptions};

fn options(data_dir: &Path) -> ServerOptions {
    ServerOptions { data_dir: data_dir.to_owned(), ..ServerOptions::default() }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn refused(options: ServerOptions) -> String {
    match Server::start(options).await {
        Ok(running) => {
            running.shutdown().await;
            panic!("it started")
        }
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn a_first_start_makes_everything_and_a_later_one_reuses_it() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
    let names = ["ca.pem", "admin.credentials", "endpoint", "master.key"];

    let first = Server::start(options(&directory)).await.unwrap();
    let endpoint = first.endpoint().to_owned();
    let (account, root) = (first.server().deployment.account.clone(), *first.server().keys.root_public());
    let trail_key = first.server().keys.checkpoint().0;
    first.shutdown().await;
    let made: Vec<Vec<u8>> = names.iter().map(|name| read(name)).collect();
    assert_eq!(String::from_utf8(read("endpoint")).unwrap(), format!("{endpoint}\n"));
    assert_eq!(mode(&directory), 0o700);
    for name in names.iter().chain(&["munjigi.db"]) {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }

    let second = Server::start(options(&directory)).await.unwrap();
    assert_eq!(second.endpoint(), endpoint, "the port that was picked stays");
    assert_eq!((&second.server().deployment.account, second.server().keys.root_public()), (&account, &root));
    assert_eq!(second.server().keys.checkpoint().0, trail_key);
    second.shutdown().await;
    assert_eq!(names.iter().map(|name| read(name)).collect::<Vec<_>>(), made);
}

#[tokio::test]
async fn a_start_that_was_cut_before_the_credentials_were_written_is_made_good() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("d");
    let running = Server::start(options(&directory)).await.unwrap();
    running.shutdown().await;
    let lost = std::fs::read_to_string(directory.join("admin.credentials")).unwrap();
    std::fs::remove_file(directory.join("admin.credentials")).unwrap();
    {
        let master = std::sync::Arc::new(munjigi_core::secret::MasterKeys::new(
            super::master_key(&directory, false).unwrap(),
            Vec::new(),
        ));
        let path = directory.join("munjigi.db");
        let store = crate::store::Store::open(&path, master, crate::clock::now()).await.unwrap();
        store.set_setting(super::ADMINISTRATOR, b"").await.unwrap();
        store.close().await;
    }
    let running = Server::start(options(&directory)).await.unwrap();
    let made = std::fs::read_to_string(directory.join("admin.credentials")).unwrap();
    assert_ne!(made, lost);
    assert_eq!(running.server().store.list_access_keys("admin").await.unwrap().len(), 1);
    running.shutdown().await;
}

#[tokio::test]
async fn each_obstacle_is_one_error_that_says_what_to_do() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("d");
    let running = Server::start(options(&directory)).await.unwrap();
    assert!(refused(options(&directory)).await.contains("another munjigi server runs"));

    let other = parent.path().join("other");
    let taken = running.endpoint().strip_prefix("https://").unwrap().to_owned();
    let listen = |listen: &str| ServerOptions { listen: Some(listen.to_owned()), ..options(&other) };
    assert!(refused(listen(&taken)).await.contains("is taken"));
    assert!(refused(listen("192.0.2.1:0")).await.contains("not an address of this machine"));
    for bad in ["", "localhost", ":80", "127.0.0.1:70000", "no.such.host.invalid:1"] {
        assert!(refused(listen(bad)).await.contains("cannot listen on"), "{bad}");
    }
    running.shutdown().await;

    let config = parent.path().join("c.toml");
    let with_config = |text: &str| {
        std::fs::write(&config, text).unwrap();
        ServerOptions { config: Some(config.clone()), ..options(&directory) }
    };
    assert!(refused(with_config("\nlisten = 1")).await.contains("line 2"));
    assert!(refused(with_config("account = \"000000000001\"")).await.contains("remove `account`"));

    let key = directory.join("master.key");
    let good = std::fs::read(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(options(&directory)).await.contains("run chmod 600"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&key, "short").unwrap();
    assert!(refused(options(&directory)).await.contains("64 hexadecimal digits"));
    std::fs::write(&key, "0".repeat(64)).unwrap();
    assert!(refused(options(&directory)).await.contains("does not fit the database"));
    std::fs::remove_file(&key).unwrap();
    assert!(refused(options(&directory)).await.contains("is missing"));
    std::fs::write(&key, good).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(refused(options(&file)).await.contains("is not a directory"));
    assert!(refused(options(&file.join("below"))).await.contains("failed to"));
    let running = Server::start(options(&directory)).await.unwrap();
    running.shutdown().await;
}
