//! The checks of `munjigi doctor`, in the order in which a connection needs them: what a failed check makes pointless
//! is left out.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use munjigi_link::DialError;
use munjigi_link::dial::tls_connect;
use nix::sys::statvfs::statvfs;

use super::api::{Api, CallError, QueryService};
use super::context::{self, CA_FILE, CREDENTIALS_FILE, Context, ENDPOINT_FILE, Source};
use super::findings::Findings;
use super::link::dial_options;
use super::text::{bytes, escaped};

/// Clocks that differ more make signatures fail soon: the server allows 300 s.
const SKEW_WARNING_SECS: i64 = 60;
/// See [`SKEW_WARNING_SECS`].
const SKEW_PROBLEM_SECS: i64 = 300;
/// Free space below which recording will soon stop, bytes.
const LOW_SPACE: u64 = 1024 * 1024 * 1024;
/// Free space below which it stops now, bytes.
const NO_SPACE: u64 = 64 * 1024 * 1024;

/// Looks at everything between this program and the server.
pub(crate) async fn client(context: anyhow::Result<Context>) -> Findings {
    let mut findings = Findings::of("client");
    let context = match context {
        Ok(context) => context,
        Err(error) => {
            findings.problem(
                "configuration",
                format!("{error:#}"),
                "`munjigi up`, or --data-dir DIR, or AWS_ENDPOINT_URL",
            );
            return findings;
        }
    };
    let source = match &context.source {
        Source::DataDir => "--data-dir".to_owned(),
        Source::Environment => "AWS_ENDPOINT_URL".to_owned(),
        Source::ContextFile(path) => path.display().to_string(),
    };
    findings.ok("configuration", format!("{} as profile {} (from {source})", context.endpoint_text(), context.profile));
    check_credentials_file(&context, &mut findings);
    check_proxy(&mut findings);
    if connect(&context, &mut findings).await {
        call(context, &mut findings).await;
    }
    findings
}

fn check_credentials_file(context: &Context, findings: &mut Findings) {
    let Some(file) = &context.credentials_file else { return };
    match fs::metadata(file) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => findings.warning(
            "credentials-file",
            format!("{} can be read by others", file.display()),
            format!("chmod 600 {}, and replace the key if others use this machine", file.display()),
        ),
        Ok(_) => findings.ok("credentials-file", file.display().to_string()),
        Err(error) => findings.problem("credentials-file", format!("{}: {error}", file.display()), "restore the file"),
    }
}

fn check_proxy(findings: &mut Findings) {
    let set = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if let Some(name) = set {
        // The address is not shown: it may hold a password.
        findings
            .ok("proxy", format!("{name} is set; the server is dialled through it unless NO_PROXY names the server"));
    }
}

/// Resolves, connects and shakes hands; the link's errors say which of them failed.
async fn connect(context: &Context, findings: &mut Findings) -> bool {
    let options = match dial_options(context) {
        Ok(options) => options,
        Err(error) => {
            findings.problem("certificate", format!("{error:#}"), "copy the server's ca.pem again");
            return false;
        }
    };
    let error = match tls_connect(&options).await {
        Ok(_) => {
            findings
                .ok("connection", format!("{} answers with a certificate of the pinned root", context.endpoint_text()));
            return true;
        }
        Err(error) => error,
    };
    let (check, next_step) = match &error {
        DialError::NameNotResolved { .. } => ("dns", "check the server's name and this machine's resolver"),
        DialError::ConnectionRefused { .. } => match context.data_dir {
            Some(_) => ("port", "start it: `munjigi up`, or `munjigi server --data-dir DIR`"),
            None => ("port", "ask whether the server runs and listens on that port"),
        },
        DialError::TimedOut { .. } | DialError::Unreachable { .. } => {
            ("network", "ask whether a firewall is in between, or whether a proxy must be used (HTTPS_PROXY)")
        }
        DialError::BadProxy { .. }
        | DialError::ProxyNeedsCredentials { .. }
        | DialError::ProxyRefused { .. }
        | DialError::ProxyNotHttp { .. } => ("proxy", "correct HTTPS_PROXY, or name the server in NO_PROXY"),
        DialError::CertificateExpired { .. } | DialError::CertificateNotYetValid { .. } => {
            ("clock", "compare this machine's date with the server's; then look at the server's certificate")
        }
        DialError::CertificateNotTrusted { .. } => {
            ("certificate", "copy ca.pem from the server's data directory again")
        }
        DialError::CertificateWrongName { .. } => {
            ("certificate", "use a name that the certificate holds, or add this one to the server's settings")
        }
        _ => ("connection", "look at the server's log"),
    };
    findings.problem(check, escaped(&error.to_string()), next_step);
    false
}

/// Calls the one operation that everybody may call.
async fn call(context: Context, findings: &mut Findings) {
    let mut api = match Api::new(context) {
        Ok(api) => api,
        Err(error) => return findings.problem("certificate", format!("{error:#}"), "copy the server's ca.pem again"),
    };
    let answer = api.query(QueryService::Sts, "GetCallerIdentity", &[]).await;
    match api.clock_ahead_secs() {
        Some(ahead) if ahead.abs() >= SKEW_PROBLEM_SECS => findings.problem(
            "clock",
            format!("this clock is {ahead} s ahead of the server's"),
            "set this machine's clock (ntp); signatures fail beyond 300 s",
        ),
        Some(ahead) if ahead.abs() >= SKEW_WARNING_SECS => {
            findings.warning("clock", format!("this clock is {ahead} s ahead of the server's"), "set the clock (ntp)");
        }
        Some(ahead) => findings.ok("clock", format!("within {} s of the server's", ahead.abs().max(1))),
        None => {}
    }
    match answer {
        Ok(caller) => {
            findings.ok("credentials", format!("you are {}", escaped(caller.text_at(&["Arn"]).unwrap_or_default())));
            permission(&mut api, findings).await;
        }
        Err(CallError::Refused(refusal)) => findings.problem(
            "credentials",
            escaped(&refusal.message),
            super::api::next_step(&refusal.code, refusal.clock_ahead_secs).unwrap_or_default(),
        ),
        Err(error) => findings.problem("credentials", error.to_string(), "look at the server's log"),
    }
}

async fn permission(api: &mut Api, findings: &mut Findings) {
    use super::api_types::{ListNodes, NodeList};
    match api.munjigi::<_, NodeList>("ListNodes", &ListNodes::default()).await {
        Ok(list) => {
            let online = list.nodes.iter().filter(|node| node.state == "Online").count();
            let found = format!("you may list nodes: {} known, {online} online", list.nodes.len());
            if online == 0 {
                findings.warning("nodes", found, "`munjigi doctor --agent DIR` on a node says why it is not connected");
            } else {
                findings.ok("nodes", found);
            }
        }
        Err(error) => {
            findings.warning(
                "permission",
                error.to_string(),
                "what you may do is decided by policies: `munjigi explain`",
            );
        }
    }
}

/// Looks at a server's data directory.
pub(crate) fn server(data_dir: &Path) -> Findings {
    let mut findings = Findings::of("server");
    if !check_directory(data_dir, "munjigi.db", "munjigi server", &mut findings) {
        return findings;
    }
    for (name, private) in
        [("master.key", true), (CREDENTIALS_FILE, true), ("munjigi.db", true), (CA_FILE, false), (ENDPOINT_FILE, false)]
    {
        check_file(&data_dir.join(name), private, &mut findings);
    }
    check_space(data_dir, &mut findings);
    findings
}

/// Looks at an agent's data directory, and asks what its process says of the link.
pub(crate) fn agent(data_dir: &Path) -> Findings {
    let mut findings = Findings::of("agent");
    if !check_directory(data_dir, "agent.json", "munjigi agent join", &mut findings) {
        return findings;
    }
    check_file(&data_dir.join("node.key"), true, &mut findings);
    match munjigi_agent::status(data_dir) {
        Ok(status) => {
            findings.ok(
                "identity",
                format!("{} ({}) of {}", status.node_id, escaped(&status.name), escaped(&status.server)),
            );
            match (status.process_id, status.online) {
                (None, _) => findings.problem(
                    "process",
                    "the agent does not run",
                    format!("munjigi agent run --data-dir {}", data_dir.display()),
                ),
                (Some(process), true) => {
                    findings.ok("link", format!("process {process} is connected since {}", status.since))
                }
                (Some(process), false) => findings.problem(
                    "link",
                    format!("process {process} is not connected: {}", escaped(&status.why)),
                    "look at the agent's log; `munjigi doctor` with the server's ca.pem checks the way to it",
                ),
            }
            if !status.only_user.is_empty() {
                findings.warning(
                    "user",
                    format!("not root: it serves only the user {}", status.only_user),
                    "run the agent as root if others shall have shells here",
                );
            }
        }
        Err(error) => {
            findings.problem("identity", format!("{error:#}"), "`munjigi agent join --replace` makes a new one")
        }
    }
    check_space(data_dir, &mut findings);
    findings
}

fn check_directory(dir: &Path, holds: &str, maker: &str, findings: &mut Findings) -> bool {
    let shown = dir.display();
    let meta = match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            findings.problem(
                "directory",
                format!("{shown} is no directory"),
                format!("give the directory of `{maker}`"),
            );
            return false;
        }
        Err(error) => {
            findings.problem(
                "directory",
                format!("{shown}: {error}"),
                format!("`{maker} --data-dir {shown}` makes it"),
            );
            return false;
        }
    };
    if !dir.join(holds).exists() {
        findings.problem(
            "directory",
            format!("{shown} holds no `{holds}`"),
            format!("give the directory of `{maker}`"),
        );
        return false;
    }
    let (mode, owner) = (meta.permissions().mode() & 0o777, meta.uid());
    if mode & 0o077 != 0 {
        findings.problem(
            "directory",
            format!("{shown} is open to others (mode {mode:o})"),
            format!("chmod 700 {shown}"),
        );
    } else if owner != nix::unistd::geteuid().as_raw() {
        findings.warning("directory", format!("{shown} belongs to user {owner}, not to you"), "ask as that user");
    } else {
        findings.ok("directory", format!("{shown} is private"));
    }
    true
}

fn check_file(path: &Path, private: bool, findings: &mut Findings) {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(meta) if private && meta.permissions().mode() & 0o077 != 0 => {
            findings.problem(
                "file",
                format!("{shown} is open to others"),
                format!("chmod 600 {shown}, and think about who read it"),
            );
        }
        Ok(_) => findings.ok("file", shown.to_string()),
        Err(error) => findings.problem("file", format!("{shown}: {error}"), "restore it from a backup"),
    }
}

fn check_space(dir: &Path, findings: &mut Findings) {
    let Ok(space) = statvfs(dir) else { return };
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    let found = format!("{} free for {}", bytes(free), dir.display());
    if free < NO_SPACE {
        findings.problem("disk", found, "make room: without it nothing can be recorded, so no session starts");
    } else if free < LOW_SPACE {
        findings.warning("disk", found, "make room soon");
    } else {
        findings.ok("disk", found);
    }
}

/// Tells whether the context belongs to a data directory here, which is then looked at too.
pub(crate) fn local_server(context: &anyhow::Result<Context>) -> Option<std::path::PathBuf> {
    let context: &context::Context = context.as_ref().ok()?;
    context.data_dir.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::findings::Health;

    #[test]
    fn open_files_and_missing_ones_are_named_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        assert_eq!(server(&dir).list[0].health, Health::Problem);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(server(&dir).list[0].found.contains("holds no `munjigi.db`"));
        for (name, mode) in [("munjigi.db", 0o600), ("master.key", 0o644), ("ca.pem", 0o644), ("endpoint", 0o644)] {
            fs::write(dir.join(name), "").unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let findings = server(&dir).list;
        let problems: Vec<_> = findings.iter().filter(|finding| finding.health == Health::Problem).collect();
        let files: Vec<_> = problems.iter().filter(|finding| finding.check == "file").collect();
        assert_eq!(files.len(), 2, "{problems:?}");
        assert!(files[0].next_step.contains("chmod 600") && files[1].found.contains("admin.credentials"));
        assert!(problems.iter().all(|finding| !finding.next_step.is_empty()));
    }

    #[tokio::test]
    async fn a_server_that_does_not_run_is_a_problem_of_the_port() {
        let root = tempfile::tempdir().unwrap();
        let findings = client(Err(anyhow::anyhow!("no server is known"))).await.list;
        assert_eq!((findings[0].check, findings[0].health), ("configuration", Health::Problem));
        assert_eq!(agent(root.path()).list[0].health, Health::Problem);
    }
}
