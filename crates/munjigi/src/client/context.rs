//! Which server the command line talks to, and as whom: flags first, then the environment that `aws` uses, then the
//! context file that `munjigi up` writes.
//!
//! [`resolve`] is pure given a [`Surroundings`]; only [`Surroundings::of_process`] looks at the process.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::{Credentials, SecretKey};
use serde::{Deserialize, Serialize};
use url::Url;

use super::credentials;

/// Profile that a server writes into its `admin.credentials`.
pub(crate) const ADMIN_PROFILE: &str = "munjigi";
/// Region of a server that was not told another one.
pub(crate) const DEFAULT_REGION: &str = "local-1";
/// File names in a server's data directory; scripts rely on them.
pub(crate) const CA_FILE: &str = "ca.pem";
/// See [`CA_FILE`].
pub(crate) const CREDENTIALS_FILE: &str = "admin.credentials";
/// See [`CA_FILE`].
pub(crate) const ENDPOINT_FILE: &str = "endpoint";

/// What the flags say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// `--data-dir`: a server's data directory on this machine.
    pub(crate) data_dir: Option<PathBuf>,
    /// `--profile`.
    pub(crate) profile: Option<String>,
}

/// Everything outside the flags that decides: the environment and the context file's place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Environment variables.
    pub(crate) variables: HashMap<String, String>,
}

/// Where a value came from, for `doctor` and for error messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `--data-dir` (or `MUNJIGI_DATA_DIR`).
    DataDir,
    /// `AWS_ENDPOINT_URL`.
    Environment,
    /// The context file.
    ContextFile(PathBuf),
}

/// A resolved server and identity.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The server's URL, `https://host:port`.
    pub(crate) endpoint: Url,
    /// Region in the signature's scope.
    pub(crate) region: String,
    /// The pinned root certificates.
    pub(crate) ca_file: Option<PathBuf>,
    /// What to sign with.
    pub(crate) credentials: Credentials,
    /// The credentials file, if they came from one.
    pub(crate) credentials_file: Option<PathBuf>,
    /// Its profile.
    pub(crate) profile: String,
    /// The server's data directory, if it is on this machine and known.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where all this came from.
    pub(crate) source: Source,
}

/// The context file: `$XDG_CONFIG_HOME/munjigi/context.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    /// The server's data directory, when it runs on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The server's URL.
    pub(crate) endpoint: String,
    /// The server's root certificate.
    pub(crate) ca_file: PathBuf,
    /// The credentials file.
    pub(crate) credentials_file: PathBuf,
    /// The profile in it.
    pub(crate) profile: String,
    /// Region for signatures.
    pub(crate) region: String,
}

impl Surroundings {
    /// Reads the process' environment; variables that are no UTF-8 are none of ours.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables }
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn below_home(&self, variable: &str, fallback: &str, rest: &str) -> Option<PathBuf> {
        let base = match self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(base) => base,
            None => Path::new(self.variable("HOME")?).join(fallback),
        };
        Some(base.join(rest))
    }

    /// Returns the context file's place, unless there is no home.
    pub(crate) fn context_file(&self) -> Option<PathBuf> {
        self.below_home("XDG_CONFIG_HOME", ".config", "munjigi/context.json")
    }

    /// Returns where forwards in the background are written down.
    pub(crate) fn forwards_dir(&self) -> Option<PathBuf> {
        self.below_home("XDG_STATE_HOME", ".local/state", "munjigi-forwards")
    }

    /// Returns where ssh finds what it needs for our nodes.
    pub(crate) fn ssh_dir(&self) -> Option<PathBuf> {
        self.below_home("XDG_CONFIG_HOME", ".config", "munjigi/ssh")
    }

    /// Returns where `munjigi up` keeps its data unless told otherwise.
    pub(crate) fn default_data_dir(&self) -> Option<PathBuf> {
        self.below_home("XDG_STATE_HOME", ".local/state", "munjigi")
    }
}

/// Finds the server and the identity, or says what to do to have one.
pub(crate) fn resolve(wishes: &Wishes, around: &Surroundings) -> anyhow::Result<Context> {
    let data_dir = wishes.data_dir.clone().or_else(|| around.variable("MUNJIGI_DATA_DIR").map(PathBuf::from));
    if let Some(data_dir) = data_dir {
        return of_data_dir(&data_dir, wishes, around);
    }
    if let Some(endpoint) = around.variable("AWS_ENDPOINT_URL") {
        return of_environment(endpoint, wishes, around);
    }
    let Some(path) = around.context_file().filter(|path| path.exists()) else {
        bail!(
            "no server is known: `munjigi up` starts one here, or give --data-dir DIR of a server on this machine, or \
             set AWS_ENDPOINT_URL (see `munjigi env --help`)"
        );
    };
    let text = credentials::read_bounded(&path)?;
    let file: ContextFile = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; `munjigi up` writes it anew", path.display()))?;
    of_context_file(file, path, wishes)
}

fn of_data_dir(data_dir: &Path, wishes: &Wishes, around: &Surroundings) -> anyhow::Result<Context> {
    let endpoint_file = data_dir.join(ENDPOINT_FILE);
    if !endpoint_file.exists() {
        bail!(
            "{} is not the data directory of a server: it has no `{ENDPOINT_FILE}`; `munjigi server --data-dir {}` \
             makes one",
            data_dir.display(),
            data_dir.display()
        );
    }
    let endpoint = parse_endpoint(credentials::read_bounded(&endpoint_file)?.trim())?;
    let ca_file = Some(data_dir.join(CA_FILE));
    let data_dir_owned = Some(data_dir.to_owned());
    // Another profile is somebody else's: it stands where `aws` keeps profiles, not in the administrator's file.
    let other = wishes.profile.as_deref().filter(|profile| *profile != ADMIN_PROFILE);
    let (file, profile) = match other {
        Some(profile) => (shared_credentials_file(around)?, profile),
        None => (data_dir.join(CREDENTIALS_FILE), ADMIN_PROFILE),
    };
    let found = credentials::read(&file, profile)?;
    Ok(Context {
        endpoint,
        region: found.region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        ca_file,
        credentials: found.credentials,
        credentials_file: Some(file),
        profile: profile.to_owned(),
        data_dir: data_dir_owned,
        source: Source::DataDir,
    })
}

fn of_environment(endpoint: &str, wishes: &Wishes, around: &Surroundings) -> anyhow::Result<Context> {
    let endpoint = parse_endpoint(endpoint).context("AWS_ENDPOINT_URL is not usable")?;
    let ca_file = around.variable("AWS_CA_BUNDLE").or_else(|| around.variable("SSL_CERT_FILE")).map(PathBuf::from);
    let set_region = around.variable("AWS_REGION").or_else(|| around.variable("AWS_DEFAULT_REGION")).map(str::to_owned);
    let in_variables = around.variable("AWS_ACCESS_KEY_ID").zip(around.variable("AWS_SECRET_ACCESS_KEY"));
    let data_dir = ca_file.as_deref().and_then(|ca| data_dir_beside(ca, &endpoint));
    let source = Source::Environment;
    // As in the AWS tools: a profile asked for by flag wins over keys in variables, which win over files.
    if let (Some((key_id, secret)), None) = (in_variables, &wishes.profile) {
        let credentials = Credentials {
            access_key_id: key_id.to_owned(),
            secret: SecretKey::new(secret.to_owned()),
            session_token: around.variable("AWS_SESSION_TOKEN").map(|token| Secret::new(token.to_owned())),
        };
        let region = set_region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let (profile, credentials_file) = ("default".to_owned(), None);
        return Ok(Context { endpoint, region, ca_file, credentials, credentials_file, profile, data_dir, source });
    }
    let file = shared_credentials_file(around)?;
    let profile = wishes.profile.as_deref().or_else(|| around.variable("AWS_PROFILE")).unwrap_or("default");
    let found = credentials::read(&file, profile)?;
    Ok(Context {
        endpoint,
        region: set_region.or(found.region).unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        ca_file,
        credentials: found.credentials,
        credentials_file: Some(file),
        profile: profile.to_owned(),
        data_dir,
        source,
    })
}

fn of_context_file(file: ContextFile, path: PathBuf, wishes: &Wishes) -> anyhow::Result<Context> {
    let profile = wishes.profile.clone().unwrap_or(file.profile);
    // The server may have moved to another port since: its data directory knows.
    let current = file.data_dir.as_ref().and_then(|dir| credentials::read_bounded(&dir.join(ENDPOINT_FILE)).ok());
    let endpoint = parse_endpoint(current.as_deref().unwrap_or(&file.endpoint).trim())
        .with_context(|| format!("the endpoint in {} is not usable", path.display()))?;
    let found = credentials::read(&file.credentials_file, &profile)
        .with_context(|| format!("the server named in {} is gone; `munjigi up` starts one", path.display()))?;
    Ok(Context {
        endpoint,
        region: file.region,
        ca_file: Some(file.ca_file),
        credentials: found.credentials,
        credentials_file: Some(file.credentials_file),
        profile,
        data_dir: file.data_dir,
        source: Source::ContextFile(path),
    })
}

/// Recognises the variables of `munjigi env`: the root certificate lies in the data directory of this very endpoint.
fn data_dir_beside(ca_file: &Path, endpoint: &Url) -> Option<PathBuf> {
    let dir = ca_file.parent()?;
    let written = credentials::read_bounded(&dir.join(ENDPOINT_FILE)).ok()?;
    (parse_endpoint(written.trim()).ok()? == *endpoint).then(|| dir.to_owned())
}

fn shared_credentials_file(around: &Surroundings) -> anyhow::Result<PathBuf> {
    if let Some(file) = around.variable("AWS_SHARED_CREDENTIALS_FILE") {
        return Ok(PathBuf::from(file));
    }
    let home = around
        .variable("HOME")
        .ok_or_else(|| anyhow!("no credentials are known: set AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE, or HOME"))?;
    Ok(Path::new(home).join(".aws/credentials"))
}

/// Parses a server's URL. Plain HTTP is refused: credentials and keystrokes travel on it.
fn parse_endpoint(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).with_context(|| format!("`{}` is not a URL", super::text::escaped(text)))?;
    if url.scheme() != "https" || url.host_str().is_none() {
        bail!("`{}` is not an https URL such as https://gate.example.com:8443", super::text::escaped(text));
    }
    Ok(url)
}

impl Context {
    /// Returns what the context file should say to find this server again.
    pub(crate) fn to_file(&self) -> anyhow::Result<ContextFile> {
        let absolute = |path: &Path| std::path::absolute(path).context("cannot tell the working directory");
        let (Some(ca_file), Some(credentials_file)) = (&self.ca_file, &self.credentials_file) else {
            bail!("only a server with a certificate and a credentials file can be remembered");
        };
        Ok(ContextFile {
            data_dir: self.data_dir.as_deref().map(absolute).transpose()?,
            endpoint: self.endpoint.as_str().trim_end_matches('/').to_owned(),
            ca_file: absolute(ca_file)?,
            credentials_file: absolute(credentials_file)?,
            profile: self.profile.clone(),
            region: self.region.clone(),
        })
    }

    /// Returns the endpoint as it stands in `DIR/endpoint` and in variables, without a slash at the end.
    pub(crate) fn endpoint_text(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }
}

impl ContextFile {
    /// Writes the file whole or not at all, readable by its owner alone (T-88).
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let dir = path.parent().context("the context file has no directory")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let text = serde_json::to_string_pretty(self)?;
        let temporary = dir.join(format!(".context.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")))
            .and_then(|()| fs::rename(&temporary, path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(pairs: &[(&str, &str)]) -> Surroundings {
        Surroundings { variables: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect() }
    }

    fn profile(name: &str, key: &str) -> String {
        format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
    }

    /// A server's data directory and a home with a context file that names another one.
    fn places() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, port) in [("data", 1), ("other", 2)] {
            let dir = root.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(ENDPOINT_FILE), format!("https://127.0.0.1:{port}\n")).unwrap();
            fs::write(dir.join(CREDENTIALS_FILE), profile(ADMIN_PROFILE, name)).unwrap();
            fs::write(dir.join(CA_FILE), "").unwrap();
        }
        let other = root.path().join("other");
        let file = ContextFile {
            data_dir: Some(other.clone()),
            endpoint: "https://127.0.0.1:9".to_owned(),
            ca_file: other.join(CA_FILE),
            credentials_file: other.join(CREDENTIALS_FILE),
            profile: ADMIN_PROFILE.to_owned(),
            region: "moon-1".to_owned(),
        };
        file.write(&root.path().join("home/.config/munjigi/context.json")).unwrap();
        fs::create_dir(root.path().join("home/.aws")).unwrap();
        fs::write(
            root.path().join("home/.aws/credentials"),
            profile("alice", "alice") + &profile("default", "default"),
        )
        .unwrap();
        root
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_context_file() {
        let root = places();
        let home = root.path().join("home");
        let home = home.to_str().unwrap();
        let flag = Wishes { data_dir: Some(root.path().join("data")), profile: None };
        let none = Wishes::default();
        let with_url = around(&[("HOME", home), ("AWS_ENDPOINT_URL", "https://gate:8443"), ("AWS_REGION", "seoul-1")]);
        let only_home = around(&[("HOME", home)]);

        let found = resolve(&flag, &with_url).unwrap();
        assert_eq!((found.endpoint_text(), found.credentials.access_key_id.as_str()), ("https://127.0.0.1:1", "data"));
        assert_eq!(found.source, Source::DataDir);

        let found = resolve(&none, &with_url).unwrap();
        assert_eq!((found.endpoint_text(), found.credentials.access_key_id.as_str()), ("https://gate:8443", "default"));
        assert_eq!((found.region.as_str(), &found.data_dir), ("seoul-1", &None));

        let found = resolve(&none, &only_home).unwrap();
        assert_eq!((found.endpoint_text(), found.credentials.access_key_id.as_str()), ("https://127.0.0.1:2", "other"));
        assert_eq!(found.region, "moon-1");
    }

    #[test]
    fn profiles_and_keys_in_variables_follow_the_rules_of_the_aws_tools() {
        let root = places();
        let home = root.path().join("home");
        let base = [("HOME", home.to_str().unwrap()), ("AWS_ENDPOINT_URL", "https://gate:8443")];
        let key = |extra: &[(&str, &str)], flag: Option<&str>| {
            let all: Vec<_> = base.iter().chain(extra).copied().collect();
            let wishes = Wishes { data_dir: None, profile: flag.map(str::to_owned) };
            resolve(&wishes, &around(&all)).unwrap().credentials.access_key_id
        };
        assert_eq!(key(&[("AWS_PROFILE", "alice")], None), "alice");
        assert_eq!(
            key(&[("AWS_ACCESS_KEY_ID", "K"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_PROFILE", "alice")], None),
            "K"
        );
        assert_eq!(key(&[("AWS_ACCESS_KEY_ID", "K"), ("AWS_SECRET_ACCESS_KEY", "s")], Some("alice")), "alice");
        assert_eq!(key(&[("AWS_ACCESS_KEY_ID", "K")], None), "default");
    }

    #[test]
    fn the_variables_of_env_lead_back_to_the_data_directory() {
        let root = places();
        let data = root.path().join("data");
        let found = resolve(
            &Wishes::default(),
            &around(&[
                ("AWS_ENDPOINT_URL", "https://127.0.0.1:1"),
                ("AWS_CA_BUNDLE", data.join(CA_FILE).to_str().unwrap()),
                ("AWS_SHARED_CREDENTIALS_FILE", data.join(CREDENTIALS_FILE).to_str().unwrap()),
                ("AWS_PROFILE", ADMIN_PROFILE),
            ]),
        )
        .unwrap();
        assert_eq!(found.data_dir, Some(data));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_next_step() {
        let root = places();
        let home = root.path().join("home");
        let home = home.to_str().unwrap();
        let broken = root.path().join("broken");
        fs::create_dir_all(broken.join("munjigi")).unwrap();
        fs::write(broken.join("munjigi/context.json"), "{\"endpoint\": 7}").unwrap();
        let text = |wishes: Wishes, variables: &[(&str, &str)]| {
            format!("{:#}", resolve(&wishes, &around(variables)).unwrap_err())
        };
        let none = Wishes::default;
        assert!(text(none(), &[]).contains("`munjigi up` starts one here"));
        let empty = Wishes { data_dir: Some(root.path().join("home")), profile: None };
        assert!(text(empty, &[]).contains("is not the data directory of a server"));
        for bad in ["http://127.0.0.1:1", "gate:8443", "", "ftp://x", "https://"] {
            let said = text(none(), &[("HOME", home), ("AWS_ENDPOINT_URL", bad), ("XDG_CONFIG_HOME", "/nonexistent")]);
            assert!(said.contains("URL") || bad.is_empty(), "{bad}: {said}");
        }
        assert!(text(none(), &[("XDG_CONFIG_HOME", broken.to_str().unwrap())]).contains("is damaged"));
        let nobody = Wishes { data_dir: None, profile: Some("bob".to_owned()) };
        let said = text(nobody, &[("HOME", home), ("AWS_ENDPOINT_URL", "https://gate")]);
        assert!(said.contains("no profile `bob`"), "{said}");
    }

    #[test]
    fn the_context_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = places();
        let path = root.path().join("home/.config/munjigi/context.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
