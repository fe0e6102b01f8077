//! What every start of a session does once it is allowed: see that there is room, put its facts together, and make
//! trail, recording and row durable before anything is granted (T-62).

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use munjigi_core::document::Separated;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::Epoch;
use munjigi_core::id::SessionId;
use munjigi_core::recording::StartMeta;
use munjigi_core::session::{SessionKind, SessionLimits, SessionStatus, TerminalSize};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Operation};
use crate::config::SessionDefaults;
use crate::door::RequestMeta;
use crate::gateway::facts::{Forward, Needs, SessionFacts};
use crate::gateway::{Prepared, launch};
use crate::identity::Caller;
use crate::identity::session_token::Statement;
use crate::identity::ssh::SshProof;
use crate::pace::PaceLimits;
use crate::recording::{DiskState, Mode};
use crate::service_event::service_event;
use crate::store::{Node, SessionRow};
use crate::{clock, random, sessions};

/// AWS's word for what is to be tried again later.
const TOO_FAST: &str = "ThrottlingException";

/// First size and type (`TERM`) of a session's terminal, as far as they are known.
pub(crate) type Terminal = (Option<TerminalSize>, Option<String>);

/// Refuses a start on a node for which there is no room: on the disk for recordings, among the caller's sessions, or in
/// what a principal may start in a minute (T-92).
pub(crate) async fn room<O: Operation>(call: &Authorized<O>, server: &Server, node: &Node) -> Result<(), ApiError> {
    if server.recordings.disk_state().await.map_err(ApiError::internal)? == DiskState::Full {
        return Err(ApiError::Unavailable("the disk for recordings is full, so no session starts; free some space"));
    }
    let limits = &server.config.limits;
    let (who, most) = (call.caller().principal().arn.as_str(), limits.sessions_per_principal);
    if server.gateway.sessions_of(who) >= most {
        let message = format!("no more than {most} sessions of one principal at once; end some of yours first");
        return Err(ApiError::bad("ServiceQuotaExceededException", message));
    }
    let limits = PaceLimits { starts: limits.starts_per_minute, nodes: limits.nodes_per_minute };
    let Err(refused) = server.pace.start(who, &node.id, limits, Instant::now()) else { return Ok(()) };
    let message = refused.why.to_string();
    if refused.is_news {
        // Each refusal is in the trail as the start that it was; this one is for whoever watches for alarms.
        tracing::warn!(principal = who, node = %node.id, message, "somebody starts more than usual");
        let details = json!({ "principal": who, "target": node.id, "request": O::NAME });
        let failure = Some((TOO_FAST, message.clone()));
        let alarm = server.audit.append(service_event(server, "StartLimitExceeded", details, failure)).await;
        alarm.map_err(|error| ApiError::internal(anyhow::anyhow!("the audit record was not written: {error}")))?;
    }
    Err(ApiError::bad(TOO_FAST, message))
}

/// Returns the facts of a session in which nothing runs and which reaches nothing; the operation fills in the rest.
pub(crate) fn facts<O: Operation>(
    call: &Authorized<O>,
    node: &Node,
    epoch: Epoch,
    kind: SessionKind,
    document: String,
    limits: SessionLimits,
) -> SessionFacts {
    let caller = call.caller();
    let principal = caller.principal();
    let key = caller.access_key();
    let proof = format!("{}\n{}", key.map(ToString::to_string).unwrap_or_default(), call.request().request_id);
    let client = digest(&SHA256, proof.as_bytes()).as_ref().try_into().unwrap_or([0; 32]);
    SessionFacts {
        id: SessionId::new(&principal.name, random::bytes()),
        node: node.id.clone(),
        epoch,
        node_name: node.name.clone(),
        owner: principal.arn.to_string(),
        owner_id: principal.unique_id.clone(),
        credentials: principal.statement().cloned(),
        access_key: key.cloned(),
        ssh: caller.ssh().cloned(),
        os_user: String::new(),
        kind,
        command: Vec::new(),
        by_shell: false,
        profile: String::new(),
        variables: Vec::new(),
        endpoints: Vec::new(),
        forward: None,
        port_properties: BTreeMap::new(),
        separated: None,
        pty: false,
        over_api: false,
        document,
        reason: None,
        started: clock::now(),
        limits,
        privileged: false,
        policy_version: call.identities_version(),
        client,
        record_input: false,
        needs: Needs::default(),
        request: call.request().clone(),
    }
}

/// Makes the start durable and keeps the session until its client comes for it. `elements` are what the audit record
/// shows as the answer.
pub(crate) async fn begin<O: Operation>(
    call: &Authorized<O>,
    server: &Arc<Server>,
    facts: SessionFacts,
    elements: Value,
    terminal: Terminal,
) -> Result<(), ApiError> {
    if let Some(proof) = &facts.ssh {
        let os_user = Some(facts.os_user.as_str()).filter(|user| !user.is_empty());
        proof.allows(&facts.node, os_user)?;
        proof.permits(
            facts.pty,
            facts.forward.as_ref().is_some_and(|forward| forward.purpose == crate::identity::ssh::SSH_PURPOSE),
        )?;
    }
    let meta = start_meta(&facts, terminal);
    let mode = if facts.limits.strict_recording { Mode::Strict } else { Mode::Normal };
    let row = row(call.caller(), call.request(), &facts);
    // T-62: trail, recording and row are durable before any grant is signed. They are separate files, so their waits
    // run together; if one fails, nothing starts.
    let (granted, recorder, stored) = tokio::join!(
        call.record_granted(elements),
        server.recordings.create(&facts.id, &meta, mode),
        server.store.insert_session(&row),
    );
    let recorder = match recorder {
        Ok(recorder) => recorder,
        Err(error) => {
            // The row may be there already: a session that never ran must not stand as one that connects.
            let refusal = ApiError::internal(anyhow::anyhow!("the recording could not be begun: {error}"));
            sessions::unrecorded(server, &facts, error).await;
            return Err(refusal);
        }
    };
    if let Err(error) = granted.and(stored.map_err(ApiError::internal)) {
        launch::abandon(server, &facts, recorder, "the start could not be recorded".to_owned()).await;
        return Err(error);
    }
    server.gateway.keep_prepared(Prepared { facts, recorder });
    Ok(())
}

/// Returns the limits that the server's configuration sets.
pub(crate) fn limits(defaults: &SessionDefaults) -> SessionLimits {
    SessionLimits {
        idle: Some(defaults.idle_timeout),
        idle_counts_output: defaults.idle_counts_output,
        maximum: defaults.maximum_duration,
        resume_window: defaults.resume_window,
        strict_recording: defaults.strict_recording,
    }
}

fn start_meta(facts: &SessionFacts, (terminal, term): Terminal) -> StartMeta {
    StartMeta {
        session: facts.id.clone(),
        kind: facts.kind,
        principal: facts.owner.clone(),
        node: facts.node.clone(),
        node_name: facts.node_name.clone(),
        os_user: facts.os_user.clone(),
        command: facts.command.clone(),
        endpoints: facts.endpoints.clone(),
        terminal,
        term,
        started: facts.started,
        reason: facts.reason.clone(),
    }
}

fn row(caller: &Caller, request: &RequestMeta, facts: &SessionFacts) -> SessionRow {
    SessionRow {
        id: facts.id.clone(),
        owner_arn: facts.owner.clone(),
        owner_id: caller.principal().user_id().to_owned(),
        node: facts.node.clone(),
        node_name: facts.node_name.clone(),
        os_user: facts.os_user.clone(),
        kind: facts.kind,
        document: facts.document.clone(),
        reason: facts.reason.clone(),
        command: (facts.kind == SessionKind::Command).then(|| facts.command.clone()),
        status: SessionStatus::Connecting,
        started: facts.started,
        end: None,
        recording: String::new(),
        source_ip: request.source_ip.to_string(),
        access_key: facts.access_key.clone(),
        limits: facts.limits.clone(),
        decision: json!(Judged {
            credentials: facts.credentials.clone(),
            ssh: facts.ssh.clone(),
            needs: facts.needs,
            epoch: facts.epoch,
            privileged: facts.privileged,
            pty: facts.pty,
            by_shell: facts.by_shell,
            over_api: facts.over_api,
            endpoints: facts.endpoints.clone(),
            forward: facts.forward.clone(),
            port_properties: facts.port_properties.clone(),
            separated: facts.separated.clone(),
            record_input: facts.record_input,
            source_ip: request.source_ip,
            user_agent: request.user_agent.clone(),
            region: request.region.clone(),
            host: request.host.clone(),
        }),
    }
}

/// What is stored with a session so that it can be judged again after a restart.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Judged {
    /// What temporary credentials it was started with stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Arc<Statement>>,
    /// What its owner proved themselves with at the SSH door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Arc<SshProof>>,
    /// What the start needed.
    pub needs: Needs,
    /// The run of the node's agent.
    pub epoch: Epoch,
    /// Whether the OS user may be privileged.
    pub privileged: bool,
    /// Whether there is a terminal.
    pub pty: bool,
    /// Whether the command is one text that the login shell runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_shell: bool,
    /// Whether it was started over the API.
    #[serde(default)]
    pub over_api: bool,
    /// What a port session's connections may go to from its start on.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// What makes it a forward session.
    #[serde(default)]
    pub forward: Option<Forward>,
    /// A port session's properties.
    #[serde(default)]
    pub port_properties: BTreeMap<String, String>,
    /// How a command's errors are kept apart for AWS's clients.
    #[serde(default)]
    pub separated: Option<Separated>,
    /// Whether typed bytes are recorded.
    pub record_input: bool,
    /// The client's address.
    pub source_ip: std::net::IpAddr,
    /// The client's program.
    pub user_agent: String,
    /// The region of its signature.
    pub region: String,
    /// The host name it used.
    pub host: String,
}
