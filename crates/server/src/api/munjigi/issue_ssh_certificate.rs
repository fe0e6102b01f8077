//! `IssueSshCertificate`: a certificate for the caller's own key, good for a few hours, at our SSH door and at every
//! sshd that believes the deployment's authority.
//!
//! Policy is asked for each OS user, with how long and under which conditions; so it can demand a short life, an address
//! or a command. A certificate is no more than its caller: it ends with the caller's credentials at the latest, and when
//! they go, it is revoked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use munjigi_core::grant::valid_os_user;
use munjigi_core::ssh::PublicKey;
use munjigi_core::ssh::certificate::{
    MAX_FORCED_COMMAND, MAX_PRINCIPALS, MAX_SOURCES, PERMIT_AGENT_FORWARDING, PERMIT_PORT_FORWARDING, PERMIT_PTY,
    PERMIT_USER_RC, read_sources, valid_forced_command,
};
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accounts::View;
use crate::api::error::{ApiError, Denial};
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::os_user::RUN_AS_TAG;
use crate::api::time::EpochTime;
use crate::door::{self, RequestMeta};
use crate::identity::session_token::{StandsFor, Statement};
use crate::identity::{Caller, Principal, PrincipalKind};
use crate::ssh_authority::{AuthorityKey, NewCertificate};
use crate::store::{IssuedCertificate, StoreError};
use crate::{Server, targets};

/// The shortest that a certificate is good for.
const MIN_LIFE: Duration = Duration::from_secs(60);
/// What a certificate can permit.
const EXTENSIONS: [&str; 4] = [PERMIT_PTY, PERMIT_PORT_FORWARDING, PERMIT_AGENT_FORWARDING, PERMIT_USER_RC];
/// What it permits if the caller does not say, as far as policy allows it.
const DEFAULT_EXTENSIONS: [&str; 2] = [PERMIT_PTY, PERMIT_PORT_FORWARDING];
const ACTION: &str = "munjigi:IssueSshCertificate";
const OS_USER: &str = "munjigi:OsUser";
const EXTENSION: &str = "munjigi:CertificateExtension";

/// The operation.
pub struct IssueSshCertificate;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The key: one line as in an `.pub` file.
    pub public_key: String,
    /// The OS users; if none, those that the caller's sessions run as when nothing is wished, as far as policy allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os_users: Vec<String>,
    /// How long it is good for; the server's setting if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_seconds: Option<u32>,
    /// The only command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_command: Option<String>,
    /// Addresses and ranges that it may be used from; anywhere if none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_addresses: Vec<String>,
    /// What it permits (`permit-pty` …), each of which policy must allow; if not given, a terminal and port forwarding
    /// as far as policy allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Vec<String>>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The certificate: one line as in a `-cert.pub` file.
    pub certificate: String,
    /// Its serial number.
    pub serial: u64,
    /// Its key id.
    pub key_id: String,
    /// The OS users that it is good for.
    pub os_users: Vec<String>,
    /// What it permits.
    pub extensions: Vec<&'static str>,
    /// When it ends.
    pub expires_at: EpochTime,
    /// `SHA256:…` of the authority that signed it.
    pub authority: String,
    /// Public keys of the authorities that vouch for hosts, for `known_hosts`.
    pub host_authorities: Vec<String>,
}

/// An input that was checked.
struct Wish {
    key: PublicKey,
    os_users: Vec<String>,
    life: Duration,
    force_command: Option<String>,
    sources: Vec<IpNet>,
    /// `None`: the usual ones.
    extensions: Option<Vec<&'static str>>,
}

impl Wish {
    fn read(input: &Input, server: &Server) -> Result<Self, ApiError> {
        let invalid = |message: String| ApiError::Validation(message);
        let settings = &server.config.ssh;
        let life = input.life_seconds.map_or(settings.certificate_life, |seconds| Duration::from_secs(seconds.into()));
        if !(MIN_LIFE..=settings.max_certificate_life).contains(&life) {
            let (least, most) = (MIN_LIFE.as_secs(), settings.max_certificate_life.as_secs());
            return Err(invalid(format!("LifeSeconds must be {least} to {most}")));
        }
        let mut os_users = Vec::new();
        for name in &input.os_users {
            if !valid_os_user(name) {
                let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
                return Err(invalid(format!("`{shown}` is no OS user: 1 to 32 of a-z, 0-9, `_`, `.`, `-`")));
            }
            if !os_users.contains(name) {
                os_users.push(name.clone());
            }
        }
        if os_users.len() > MAX_PRINCIPALS {
            return Err(invalid(format!("no more than {MAX_PRINCIPALS} OS users in one certificate")));
        }
        if input.force_command.as_deref().is_some_and(|command| !valid_forced_command(command)) {
            return Err(invalid(format!("ForceCommand is one line of 1 to {MAX_FORCED_COMMAND} bytes")));
        }
        let sources = match input.source_addresses.as_slice() {
            [] => Vec::new(),
            texts => read_sources(texts.iter().map(String::as_str)).ok_or_else(|| {
                invalid(format!("SourceAddresses are 1 to {MAX_SOURCES} addresses or ranges such as 192.0.2.0/24"))
            })?,
        };
        let known = |name: &String| {
            let found = EXTENSIONS.into_iter().find(|known| known == name);
            found.ok_or_else(|| invalid(format!("Extensions may hold {}", EXTENSIONS.join(", "))))
        };
        let extensions = input.extensions.as_ref().map(|names| names.iter().map(known).collect()).transpose()?;
        let key = PublicKey::parse(&input.public_key).map_err(|error| invalid(format!("PublicKey: {error}")))?;
        Ok(Self { key, os_users, life, force_command: input.force_command.clone(), sources, extensions })
    }

    /// Returns what must be allowed whoever the OS user is, with OS user and extension left open.
    fn requirement(&self, principal: &Principal) -> Requirement {
        requirement(principal, self.life, self.force_command.as_deref(), &self.sources)
    }
}

fn requirement(principal: &Principal, life: Duration, command: Option<&str>, sources: &[IpNet]) -> Requirement {
    let life = life.as_secs().to_string();
    let needed = Requirement::new(ACTION, &principal.arn).with("munjigi:CertificateLifeSeconds", life);
    let needed = needed.with_many("munjigi:SourceAddress", sources.iter().map(ToString::to_string));
    match command {
        Some(command) => needed.with("munjigi:ForceCommand", command),
        None => needed,
    }
}

/// Returns what must still be allowed for a certificate that was issued, or it is revoked: what was asked then.
pub(crate) fn standing_requirements(principal: &Principal, issued: &IssuedCertificate) -> Vec<Requirement> {
    let life = issued.expires.since(whole_second(issued.issued));
    let needed = requirement(principal, life, issued.force_command.as_deref(), &issued.sources);
    issued.os_users.iter().map(|os_user| needed.clone().with(OS_USER, os_user).with_open(EXTENSION)).collect()
}

impl Operation for IssueSshCertificate {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "IssueSshCertificate";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"PublicKey":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti","OsUsers":["example"]}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let wish = Wish::read(input, server)?;
        let needed = wish.requirement(caller.principal()).with_open(EXTENSION);
        Ok(match wish.os_users.as_slice() {
            [] => vec![needed.with_open(OS_USER)],
            os_users => os_users.iter().map(|os_user| needed.clone().with(OS_USER, os_user)).collect(),
        })
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let wish = Wish::read(call.input(), server)?;
        let (caller, request) = (call.caller(), call.request());
        let principal = caller.principal();
        let owner_id = principal.unique_id.as_ref().ok_or_else(|| ApiError::internal(anyhow::anyhow!("no id")))?;
        if server.identities.revoked_ssh().entries.contains(&crate::store::Revocation::Key(wish.key.fingerprint())) {
            return Err(ApiError::Validation("the key was revoked; make a new one".to_owned()));
        }
        let os_users = os_users(server, principal, &wish, request).await?;
        let extensions = extensions(server, principal, &wish, &os_users, request)?;
        let statement = statement(caller, request, wish.life)?;
        let key_id = format!("munjigi:{}:{}", principal.arn, request.request_id);
        let new = NewCertificate {
            key: &wish.key,
            key_id: &key_id,
            owner: &principal.arn,
            owner_id,
            os_users: &os_users,
            sources: &wish.sources,
            force_command: wish.force_command.as_deref(),
            extensions: &extensions,
            issued: request.time,
            expires: statement.expires,
        };
        let signed = server.ssh_authority.issue(&new).map_err(ApiError::internal)?;
        let certificate = signed.certificate.to_openssh().map_err(ApiError::internal)?;
        let remembered = IssuedCertificate {
            serial: signed.serial,
            authority: signed.authority,
            key_id: key_id.clone(),
            fingerprint: wish.key.fingerprint(),
            principal_arn: principal.arn.clone(),
            statement: serde_json::to_string(&statement).map_err(ApiError::internal)?,
            os_users: os_users.clone(),
            sources: wish.sources,
            force_command: wish.force_command,
            source_ip: request.source_ip.to_string(),
            issued: request.time,
            expires: statement.expires,
            revoked: None,
        };
        server.store.remember_certificate(&remembered).await.map_err(|error| match error {
            StoreError::Limit { limit, .. } => ApiError::bad(
                "ServiceQuotaExceededException",
                format!("no more than {limit} certificates at once; log out of some, or wait until they end"),
            ),
            error => ApiError::internal(error),
        })?;
        let host = server.ssh_authority.host();
        let host_keys = host.believed(request.time).map(AuthorityKey::public);
        Ok(Output {
            certificate,
            serial: signed.serial,
            key_id,
            os_users,
            extensions,
            expires_at: EpochTime(statement.expires),
            authority: signed.authority.to_string(),
            host_authorities: host_keys
                .map(|key| key.to_openssh().map_err(ApiError::internal))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Returns the OS users: those wished, which were all allowed, else those that are allowed of the usual ones.
async fn os_users(
    server: &Server,
    principal: &Principal,
    wish: &Wish,
    request: &RequestMeta,
) -> Result<Vec<String>, ApiError> {
    if !wish.os_users.is_empty() {
        return Ok(wish.os_users.clone());
    }
    let (mut names, mut denied) = (Vec::new(), None);
    for usual in usual_os_users(server, principal).await? {
        let needed = wish.requirement(principal).with(OS_USER, &usual).with_open(EXTENSION);
        match allowed(server, principal, needed, request) {
            Ok(()) => names.push(usual),
            Err(denial) => denied = denied.or(Some(denial)),
        }
    }
    names.truncate(MAX_PRINCIPALS);
    match denied {
        Some(denial) if names.is_empty() => Err(ApiError::Denied(denial)),
        None if names.is_empty() => {
            let message = "name the OS users: neither the tag SSMSessionRunAs nor an account rule nor the server says as whom \
                           you log in";
            Err(ApiError::Validation(message.to_owned()))
        }
        _ => Ok(names),
    }
}

/// Returns the OS users that a principal's sessions run as when nothing else is wished: that of its tag; else the accounts
/// that rules give it on nodes, and for the nodes where none does, the server's default.
async fn usual_os_users(server: &Server, principal: &Principal) -> Result<BTreeSet<String>, ApiError> {
    if let Some(tagged) = principal.tags.get(RUN_AS_TAG) {
        return Ok(BTreeSet::from([tagged.clone()]).into_iter().filter(|name| valid_os_user(name)).collect());
    }
    let nodes = targets::all_nodes(server).await?;
    View::fresh(server).await.map_err(ApiError::internal)?;
    let given: Vec<Option<String>> = nodes.iter().map(|node| server.accounts.os_user(principal, node)).collect();
    let is_everywhere = !given.is_empty() && given.iter().all(Option::is_some);
    let usual = server.config.session.default_os_user.clone().filter(|_| !is_everywhere);
    Ok(given.into_iter().flatten().chain(usual).filter(|name| valid_os_user(name)).collect())
}

/// Returns what the certificate permits: what was wished, if policy allows all of it for every OS user, else what policy
/// allows of the usual.
fn extensions(
    server: &Server,
    principal: &Principal,
    wish: &Wish,
    os_users: &[String],
    request: &RequestMeta,
) -> Result<Vec<&'static str>, ApiError> {
    let judge = |name: &str| {
        os_users.iter().try_for_each(|os_user| {
            let needed = wish.requirement(principal).with(OS_USER, os_user).with(EXTENSION, name);
            allowed(server, principal, needed, request)
        })
    };
    match &wish.extensions {
        Some(wished) => {
            wished.iter().try_for_each(|name| judge(name)).map_err(ApiError::Denied)?;
            Ok(wished.clone())
        }
        // A forced command forwards nothing.
        None => {
            let forced = wish.force_command.is_some();
            let usual = DEFAULT_EXTENSIONS.into_iter().filter(|name| !forced || *name == PERMIT_PTY);
            Ok(usual.filter(|name| judge(name).is_ok()).collect())
        }
    }
}

fn allowed(server: &Server, principal: &Principal, needed: Requirement, request: &RequestMeta) -> Result<(), Denial> {
    door::judge(server, principal, vec![needed], request).1
}

/// Returns what the certificate's holder stands for: the caller as it is, until the certificate or the caller's own
/// credentials end.
fn statement(caller: &Caller, request: &RequestMeta, life: Duration) -> Result<Statement, ApiError> {
    let now = whole_second(request.time);
    let expires = now.plus(life);
    let principal = caller.principal();
    let statement = match (principal.statement(), &principal.unique_id) {
        (Some(own), _) => Statement { expires: expires.min(whole_second(own.expires)), ..(**own).clone() },
        (None, Some(id)) if principal.kind == PrincipalKind::User && caller.access_key().is_some() => Statement {
            source_key: caller.access_key().cloned(),
            ..Statement::new(StandsFor::User(id.clone()), now, life)
        },
        _ => {
            let message = "log in with an access key to get a certificate".to_owned();
            return Err(ApiError::Validation(message));
        }
    };
    if statement.expires.since(now) < MIN_LIFE {
        return Err(ApiError::Validation("your temporary credentials end too soon for a certificate".to_owned()));
    }
    Ok(statement)
}

/// Returns the instant that a certificate can say: without the fraction, so that everybody sees it end at once.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp(at.as_secs().saturating_mul(1_000_000))
}
