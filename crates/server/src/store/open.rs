//! Creating and opening the database file: its mode, its check, its schema. Never makes a new database in the place of
//! one that is missing or damaged (T-18).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};

use munjigi_core::id::AccountId;
use munjigi_core::secret::MasterKeys;
use munjigi_core::time::Timestamp;

use super::error::{OpenError, StoreError};
use super::page::PageTokens;
use super::{Inner, Store, builtin, settings};

/// The migrations, in the binary.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
/// `PRAGMA application_id` of our files, "MJGI".
const APPLICATION_ID: i64 = 0x4d4a_4749;
/// How long a statement waits for another process that holds the file's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits for a connection of a pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that read; a read takes well under a millisecond.
const READERS: u32 = 4;

impl Store {
    /// Makes a new database for an account, with the built-in policies in it, and opens it.
    ///
    /// It is made beside `path` and moved there when it is whole, so that a crash leaves no half database. Fails if
    /// there is a file already.
    pub async fn create(
        path: &Path,
        master: Arc<MasterKeys>,
        account: &AccountId,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        if path.try_exists().map_err(|source| io(path, source))? {
            return Err(OpenError::Exists(path.to_owned()));
        }
        let draft = beside(path);
        for old in [draft.clone(), with_suffix(&draft, "-journal")] {
            match std::fs::remove_file(&old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(&old, error)),
                _ => {}
            }
        }
        make_private(&draft)?;
        let options = SqliteConnectOptions::new()
            .filename(&draft)
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Full);
        let wrong = |source| OpenError::from_sqlx(path, source);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(wrong)?;
        migrate(path, &mut connection).await?;
        let prepare = |source| OpenError::Prepare { path: path.to_owned(), source };
        settings::found(&mut connection, &master, account, now).await.map_err(prepare)?;
        connection.close().await.map_err(wrong)?;
        std::fs::rename(&draft, path).map_err(|source| io(path, source))?;
        if let Some(directory) = path.parent() {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| io(path, source))?;
        }
        Self::open(path, master, now).await
    }

    /// Opens an existing database: checks that it is ours and whole, brings its schema and the built-in policies up to
    /// date, and proves that `master` is the key its secrets are sealed with.
    pub async fn open(path: &Path, master: Arc<MasterKeys>, now: Timestamp) -> Result<Self, OpenError> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(OpenError::Missing(path.to_owned()));
            }
            Err(error) => return Err(io(path, error)),
            Ok(file) if !file.is_file() || file.len() == 0 => return Err(OpenError::NotOurs(path.to_owned())),
            Ok(_) => {}
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        check(path, &options, Access::Write).await?;
        let writer = pool(&options, 1).await.map_err(|source| OpenError::from_sqlx(path, source))?;
        match Self::prepare(path, &options, writer.clone(), master, now).await {
            Ok(store) => Ok(store),
            Err(error) => {
                writer.close().await;
                Err(error)
            }
        }
    }

    /// Opens an existing database for reading alone, also while a server has it open. Schema and content stay as they
    /// are; whatever would write fails.
    pub async fn open_read_only(path: &Path, master: Arc<MasterKeys>) -> Result<Self, OpenError> {
        if !path.try_exists().map_err(|source| io(path, source))? {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).read_only(true);
        check(path, &options, Access::Read).await?;
        let wrong = |source| OpenError::from_sqlx(path, source);
        let readers = pool(&options, 1).await.map_err(wrong)?;
        let mut connection = readers.acquire().await.map_err(wrong)?;
        let proved = settings::prove(&mut connection, &master).await;
        drop(connection);
        let account = match proved {
            Ok(Some(account)) => account,
            Ok(None) => return Err(OpenError::OtherMasterKey(path.to_owned())),
            Err(StoreError::Database(source)) => return Err(OpenError::from_sqlx(path, source)),
            Err(source) => return Err(OpenError::Prepare { path: path.to_owned(), source }),
        };
        let pages = PageTokens::new(master.clone());
        let writer = readers.clone();
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), writer, readers, master, account, pages }) })
    }

    async fn prepare(
        path: &Path,
        options: &SqliteConnectOptions,
        writer: SqlitePool,
        master: Arc<MasterKeys>,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let wrong = |source| OpenError::from_sqlx(path, source);
        {
            let mut connection = writer.acquire().await.map_err(wrong)?;
            migrate(path, &mut connection).await?;
        }
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(wrong)?;
        let prepared = async {
            let account = settings::prove(&mut transaction, &master).await?;
            if account.is_some() {
                builtin::refresh(&mut transaction, now).await?;
            }
            Ok(account)
        };
        let account = prepared.await.map_err(|source| match source {
            StoreError::Database(source) => OpenError::from_sqlx(path, source),
            source => OpenError::Prepare { path: path.to_owned(), source },
        })?;
        let Some(account) = account else { return Err(OpenError::OtherMasterKey(path.to_owned())) };
        transaction.commit().await.map_err(wrong)?;
        let readers = pool(&options.clone().read_only(true), READERS).await.map_err(wrong)?;
        let pages = PageTokens::new(master.clone());
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), writer, readers, master, account, pages }) })
    }
}

/// What a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Looks at the file before anything is written to it.
async fn check(path: &Path, options: &SqliteConnectOptions, access: Access) -> Result<(), OpenError> {
    let wrong = |source| OpenError::from_sqlx(path, source);
    let options = SqliteConnectOptions::new()
        .filename(options.get_filename())
        .busy_timeout(BUSY_TIMEOUT)
        .read_only(access == Access::Read);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(wrong)?;
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await.map_err(wrong)?;
    if id != APPLICATION_ID {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(wrong)?;
    if found != "ok" {
        return Err(OpenError::Damaged { path: path.to_owned(), found });
    }
    connection.close().await.map_err(wrong)
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    MIGRATIONS.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            OpenError::Newer { path: path.to_owned(), found }
        }
        MigrateError::VersionMismatch(found) | MigrateError::Dirty(found) => {
            OpenError::OtherBuild { path: path.to_owned(), found }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => OpenError::from_sqlx(path, source),
        other => OpenError::Database { path: path.to_owned(), source: sqlx::Error::Migrate(Box::new(other)) },
    })
}

async fn pool(options: &SqliteConnectOptions, connections: u32) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Whoever waited in vain says so; a line for each that waited long would be a flood's own flood.
        .acquire_slow_threshold(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await
}

/// Makes the empty file with its final mode (T-73); SQLite gives its log the same one.
fn make_private(path: &Path) -> Result<(), OpenError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| match source.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::ReadOnly(path.to_owned())
        }
        std::io::ErrorKind::StorageFull => OpenError::Full(path.to_owned()),
        _ => io(path, source),
    })
}

fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}
