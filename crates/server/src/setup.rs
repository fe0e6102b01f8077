//! The start of a server: its directory, master key, database, keys, certificate, first administrator and listener.
//!
//! The first start makes everything, later ones reuse it. Each obstacle is one error that says what to do.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, bail};
use aws_lc_rs::rand;
use munjigi_core::arn::Deployment;
use munjigi_core::id::AccountId;
use munjigi_core::secret::{MasterKey, MasterKeys, Secret};
use munjigi_core::time::Timestamp;
use munjigi_link::BulkThreads;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::replay::Replays;
use crate::config::Config;
use crate::door::failures::Failures;
use crate::gateway::Gateway;
use crate::identity::mfa::Tries;
use crate::identity::session_token::SessionTokens;
use crate::identity::ssh::LoginFailures;
use crate::identity::ssh::Pushes;
use crate::identity::ssh::approval::Approvals;
use crate::identity::{Authenticator, Identities, Providers};
use crate::keys::Keys;
use crate::pace::Pace;
use crate::recording::Recordings;
use crate::running::Running;
use crate::sessions::Book;
use crate::ssh_authority::SshAuthority;
use crate::store::Store;
use crate::tls::{self, Tls};
use crate::{Server, accounts, clock, forwarding, revoke, sessions, ssh_authority, witness};

/// Where the server listens when nothing says otherwise: this machine only, on a port that is picked once.
const DEFAULT_LISTEN: &str = "127.0.0.1:0";
/// Setting that holds the port that was picked, as text.
const PORT: &str = "port";
/// Setting that is `1` once the administrator's credentials were written.
const ADMINISTRATOR: &str = "administrator-made";
/// Version of the only master key there is; a rotation will add another.
const MASTER_KEY_VERSION: u32 = 1;

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Where everything lies; made at the first start.
    pub data_dir: PathBuf,
    /// `HOST:PORT` in place of the settings file's.
    pub listen: Option<String>,
    /// The settings file.
    pub config: Option<PathBuf>,
}

impl Server {
    /// Starts a server. It serves when this returns.
    pub async fn start(options: ServerOptions) -> anyhow::Result<Running> {
        let now = clock::now();
        raise_descriptor_limit();
        let config = match &options.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        let directory = options.data_dir.as_path();
        let lock = open_directory(directory)?;
        let (store, master) = open_store(directory, &config, now).await?;
        let result = Self::start_on(&options, config, lock, store.clone(), master, now).await;
        if result.is_err() {
            store.close().await;
        }
        result
    }

    async fn start_on(
        options: &ServerOptions,
        config: Config,
        lock: Flock<File>,
        store: Store,
        master: Arc<MasterKeys>,
        now: Timestamp,
    ) -> anyhow::Result<Running> {
        let directory = options.data_dir.as_path();
        let deployment = Deployment { account: store.account().clone(), region: config.region.as_str().into() };
        let keys = Keys::open(&store, now).await?;
        let ssh_authority = SshAuthority::open(&store, now).await?;
        let identities = Identities::new(deployment.clone());
        let session_tokens = SessionTokens::open(&store).await.context("failed to open the key of session tokens")?;
        let listen = options.listen.as_deref().or(config.listen.as_deref()).unwrap_or(DEFAULT_LISTEN);
        let (listener, address, host) = listen_on(&store, listen).await?;
        let ssh_listener = match &config.ssh.listen {
            Some(listen) => {
                let (host, port) = host_and_port(listen)?;
                Some(bind(host, port, address_of(listen, host, port).await?).await?)
            }
            None => None,
        };
        let names = own_names(&config, &host, address.ip());
        let Tls { config: tls, authority_pem } = tls::open(&store, &names, now).await?;
        make_administrator(directory, &store, &config, now).await?;
        identities.reload(&store).await.context("failed to load the identities")?;
        let trail = directory.join("audit");
        let (audit, witness) = witness::open_trail(&trail, &store, &keys).await?;

        let recordings =
            Recordings::open(&directory.join("recordings"), master).context("failed to open the recordings")?;
        let (book, changes) = Book::new();
        let (connection_trail, connections) = forwarding::Trail::new();

        let endpoint = format!("https://{}:{}", url_host(&config, &host, address.ip()), address.port());
        write_whole(&directory.join("ca.pem"), authority_pem.as_bytes(), 0o600)?;
        write_whole(&directory.join("endpoint"), format!("{endpoint}\n").as_bytes(), 0o600)?;

        let oidc = Providers::new(config.oidc_ca_file.as_deref())?;
        let server = Arc::new(Self {
            config,
            deployment,
            store,
            identities,
            session_tokens,
            oidc,
            mfa_tries: Tries::default(),
            ssh_pushes: Pushes::default(),
            ssh_approvals: Approvals::default(),
            ssh_failures: LoginFailures::default(),
            endpoint: endpoint.clone(),
            audit,
            recordings,
            gateway: Gateway::default(),
            pace: Pace::default(),
            bulk: BulkThreads::new(Handle::current().metrics().num_workers(), || {}),
            book,
            accounts: accounts::Accounts::default(),
            nodes_changed: watch::Sender::new(0),
            known_nodes: forwarding::KnownNodes::default(),
            connection_trail,
            preferences: crate::api::ssm::preferences::PreferencesInForce::default(),
            keys,
            ssh_authority,
            names,
            authenticator: Authenticator::new()?,
            replays: Replays::default(),
            failures: Failures::default(),
            panics: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        server.tasks.spawn(sessions::keep(server.clone(), changes));
        server.tasks.spawn(forwarding::keep(server.clone(), connections));
        // Before anybody can connect: a node that comes back with a session must find it.
        let taken_back = sessions::take_back(&server).await.context("failed to take back the running sessions")?;
        if taken_back > 0 {
            tracing::info!(sessions = taken_back, "running sessions were taken back; they wait for their nodes");
        }
        server.tasks.spawn(revoke::watch(server.clone()));
        server.tasks.spawn(accounts::watch(server.clone()));
        server.tasks.spawn(ssh_authority::watch::watch(server.clone()));
        Ok(Running::new(server, (listener, ssh_listener), tls, endpoint, lock, witness))
    }
}

/// Lets the process open as many files as the system allows: each link is one.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(cause) = raised {
        tracing::warn!(%cause, "the limit of open files stays as it is");
    }
}

/// Makes or checks the data directory and takes its lock: one server a directory.
fn open_directory(directory: &Path) -> anyhow::Result<Flock<File>> {
    let shown = directory.display();
    if !directory.exists() {
        make_private_directory(directory)?;
    }
    let metadata = std::fs::metadata(directory).with_context(|| format!("failed to look at {shown}"))?;
    if !metadata.is_dir() {
        bail!("{shown} is not a directory");
    }
    let own = nix::unistd::geteuid().as_raw();
    if metadata.uid() != own {
        bail!("the data directory {shown} belongs to user {}, but the server runs as user {own}", metadata.uid());
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))
            .with_context(|| format!("failed to close the data directory {shown} to others"))?;
    }
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("lock"))
        .with_context(|| format!("the data directory {shown} cannot be written; check its owner, mode and mount"))?;
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another munjigi server runs on {shown}; stop it, or choose another --data-dir")
        }
        Err((_, cause)) => Err(cause).with_context(|| format!("failed to lock {shown}")),
    }
}

async fn open_store(directory: &Path, config: &Config, now: Timestamp) -> anyhow::Result<(Store, Arc<MasterKeys>)> {
    let path = directory.join("munjigi.db");
    let is_new = !path.try_exists().with_context(|| format!("failed to look at {}", path.display()))?;
    let master = Arc::new(MasterKeys::new(master_key(directory, is_new)?, Vec::new()));
    let store = if is_new {
        let account = match &config.account {
            Some(account) => account.clone(),
            None => random_account()?,
        };
        Store::create(&path, master.clone(), &account, now).await?
    } else {
        Store::open(&path, master.clone(), now).await?
    };
    if let Some(wanted) = &config.account
        && wanted != store.account()
    {
        let has = store.account().clone();
        store.close().await;
        bail!("the settings say account {wanted}, but the database belongs to account {has}; remove `account`");
    }
    Ok((store, master))
}

/// Reads the master key; makes one only where there is no database yet that needs another.
pub(crate) fn master_key(directory: &Path, may_make: bool) -> anyhow::Result<MasterKey> {
    let path = directory.join("master.key");
    let shown = path.display();
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound && may_make => {
            let mut key = [0; 32];
            rand::fill(&mut key).context("the system has no randomness")?;
            let text = Secret::new(format!("{}\n", hex::encode(key)));
            write_whole(&path, text.expose().as_bytes(), 0o600)?;
            return Ok(MasterKey::new(MASTER_KEY_VERSION, key));
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            bail!(
                "the master key {shown} is missing; put it back from a backup: the database cannot be read without it"
            )
        }
        Err(cause) => return Err(cause).with_context(|| format!("failed to open the master key {shown}")),
    };
    let metadata = file.metadata().with_context(|| format!("failed to look at {shown}"))?;
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        bail!(
            "the master key {shown} is open to others (mode {mode:o}); run chmod 600 on it, and think about who read it"
        );
    }
    let mut content = String::new();
    let read = file.take(128).read_to_string(&mut content);
    let text = Secret::new(content);
    read.with_context(|| format!("failed to read {shown}"))?;
    let mut key = [0; 32];
    hex::decode_to_slice(text.expose().trim(), &mut key).map_err(|_| {
        anyhow::anyhow!("the master key {shown} is not 64 hexadecimal digits; put it back from a backup")
    })?;
    Ok(MasterKey::new(MASTER_KEY_VERSION, key))
}

fn random_account() -> anyhow::Result<AccountId> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).context("the system has no randomness")?;
    // Twelve digits that do not begin with zero.
    let number = 100_000_000_000 + u64::from_be_bytes(bytes) % 900_000_000_000;
    Ok(AccountId::parse(&number.to_string())?)
}

/// Makes the first administrator and writes its key where only the owner of the directory reads it.
async fn make_administrator(directory: &Path, store: &Store, config: &Config, now: Timestamp) -> anyhow::Result<()> {
    if store.setting(ADMINISTRATOR).await?.is_some_and(|made| made == b"1") {
        return Ok(());
    }
    let made = match store.user("admin").await {
        Ok(_) => {
            // A start was cut between the database and the file: the key that nobody has seen is replaced.
            for key in store.list_access_keys("admin").await? {
                store.delete_access_key("admin", &key.id).await?;
            }
            store.create_access_key("admin", now).await?
        }
        Err(_) => store.create_administrator(now).await.context("failed to make the administrator")?,
    };
    let text = Secret::new(format!(
        "[munjigi]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {}\n",
        made.key.id,
        made.secret.expose(),
        config.region,
    ));
    write_whole(&directory.join("admin.credentials"), text.expose().as_bytes(), 0o600)?;
    store.set_setting(ADMINISTRATOR, b"1").await?;
    Ok(())
}

/// Binds the listener. Port 0 takes the port of the last start if it is free.
async fn listen_on(store: &Store, listen: &str) -> anyhow::Result<(TcpListener, SocketAddr, String)> {
    let (host, port) = host_and_port(listen)?;
    let ip = address_of(listen, host, port).await?;
    let kept = match store.setting(PORT).await? {
        Some(text) if port == 0 => String::from_utf8_lossy(&text).parse().unwrap_or(0),
        _ => port,
    };
    let listener = match TcpListener::bind((ip, kept)).await {
        Err(cause) if cause.kind() == ErrorKind::AddrInUse && kept != port => bind(host, port, ip).await?,
        bound => bound.map_err(|cause| not_bound(host, port, &cause))?,
    };
    let address = listener.local_addr()?;
    if port == 0 {
        store.set_setting(PORT, address.port().to_string().as_bytes()).await?;
    }
    Ok((listener, address, host.to_owned()))
}

fn host_and_port(listen: &str) -> anyhow::Result<(&str, u16)> {
    listen
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse::<u16>().ok()?)))
        .filter(|(host, _)| !host.is_empty())
        .with_context(|| format!("cannot listen on {listen:?}: it must be HOST:PORT, for example 127.0.0.1:8443"))
}

async fn address_of(listen: &str, host: &str, port: u16) -> anyhow::Result<IpAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ip);
    }
    let no_address = || format!("cannot listen on {listen}: the name {host} has no address");
    let mut found = tokio::net::lookup_host((host, port)).await.with_context(no_address)?;
    Ok(found.next().with_context(no_address)?.ip())
}

async fn bind(host: &str, port: u16, ip: IpAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind((ip, port)).await.map_err(|cause| not_bound(host, port, &cause))
}

/// Says why there is no listener, and what to do.
fn not_bound(host: &str, port: u16, cause: &std::io::Error) -> anyhow::Error {
    match cause.kind() {
        ErrorKind::AddrInUse => {
            anyhow::anyhow!("port {port} of {host} is taken; stop the program that has it, or give another --listen")
        }
        ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{host} is not an address of this machine; give another --listen")
        }
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("user {} may not open port {port}; give a --listen above 1023", nix::unistd::geteuid())
        }
        _ => anyhow::anyhow!("cannot listen on {host}:{port}: {cause}"),
    }
}

/// Returns every name and address that the server is reached by: its certificate's names and accepted `Host`s (T-47).
fn own_names(config: &Config, host: &str, ip: IpAddr) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(config.names.iter().map(|name| name.to_ascii_lowercase()));
    if let Ok(own) = nix::unistd::gethostname()
        && let Some(own) = own.to_str().filter(|own| rustls::pki_types::DnsName::try_from(*own).is_ok())
    {
        names.insert(own.to_ascii_lowercase());
    }
    if ip.is_unspecified() {
        names.extend(outward_address(ip).map(|address| address.to_string()));
    } else {
        names.insert(ip.to_string());
        if rustls::pki_types::ServerName::try_from(host).is_ok() {
            names.insert(host.to_ascii_lowercase());
        }
    }
    names
}

/// Returns the address that this machine reaches others from. Connecting a datagram socket sends nothing.
fn outward_address(unspecified: IpAddr) -> Option<IpAddr> {
    // Addresses set aside for documentation (RFC 5737, RFC 3849): routed like any other, never answered.
    let far: SocketAddr = if unspecified.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" }.parse().ok()?;
    let socket = std::net::UdpSocket::bind((unspecified, 0)).ok()?;
    socket.connect(far).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// Returns the host of the endpoint's URL: a configured name, else what was listened on, else this machine's name.
fn url_host(config: &Config, host: &str, ip: IpAddr) -> String {
    let bare = match config.names.first() {
        Some(name) => name.clone(),
        None if !ip.is_unspecified() => host.to_owned(),
        None => outward_address(ip).map_or_else(|| "localhost".to_owned(), |address| address.to_string()),
    };
    if bare.contains(':') { format!("[{bare}]") } else { bare }
}

fn make_private_directory(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("failed to make the directory {}", path.display()))
}

/// Writes a file beside its place and moves it there when it is whole and durable.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&draft) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests;
