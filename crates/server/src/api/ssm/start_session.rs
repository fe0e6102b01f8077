//! `ssm:StartSession`: decides and prepares a session; it runs when its client's stream opens.

mod input;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use munjigi_core::destination::Destination;
use munjigi_core::document::Separated;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::{Epoch, valid_os_user};
use munjigi_core::id::SessionId;
use munjigi_core::recording::StartMeta;
use munjigi_core::session::{SessionKind, SessionLimits, SessionStatus};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

pub use input::{NativeStart, StartSessionInput};
use plan::Plan;

use super::document::{self, Reference};
use super::target::{Target, node_requirement};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::clock;
use crate::config::SessionDefaults;
use crate::door::{self, RequestMeta};
use crate::gateway::facts::{Forward, Needs, SessionFacts};
use crate::gateway::node_aws::AGENTS_OWN_USER;
use crate::gateway::{Gateway, Prepared, door_aws, launch};
use crate::identity::session_token::Statement;
use crate::identity::{Caller, Principal};
use crate::random;
use crate::recording::{DiskState, Mode};
use crate::sessions;
use crate::store::{AgentKind, Node, SessionRow};

/// The principal's tag that names the OS user its sessions run as, as in AWS Session Manager.
const RUN_AS_TAG: &str = "SSMSessionRunAs";
/// Lets a caller choose an OS user other than the one its sessions run as.
const CHOOSE_USER: &str = "munjigi:ChooseOsUser";
/// Lets a session run as root or another privileged OS user (T-54).
const PRIVILEGED_USER: &str = "munjigi:StartPrivilegedSession";
/// Tells policies that the session document is checked as well; the condition key of AWS for it.
const ACCESS_CHECK: &str = "ssm:SessionDocumentAccessCheck";
/// Names host and port of a port session to policies.
const DESTINATION: [&str; 2] = ["munjigi:DestinationHost", "munjigi:DestinationPort"];
const DEFAULT_DOCUMENT: &str = document::PREFERENCES;
const INTERACTIVE: &str = "AWS-StartInteractiveCommand";
const NON_INTERACTIVE: &str = "AWS-StartNonInteractiveCommand";
const PORT: &str = "AWS-StartPortForwardingSession";
const REMOTE_PORT: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// Starts a session.
pub struct StartSession;

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartSessionOutput {
    /// The new session.
    pub session_id: SessionId,
    /// Where its data channel opens.
    pub stream_url: String,
    /// Opens it, once, within a minute.
    pub token_value: String,
}

impl Operation for StartSession {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "StartSession";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["TokenValue"];
    const EXAMPLE: &'static str = r#"{"Target": "web-1"}"#;
    type Input = StartSessionInput;
    type Output = StartSessionOutput;

    async fn requirements(input: &Self::Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        input.check()?;
        let target = Target::resolve(server, &input.target).await?;
        // What is wrong with a document is said in `run`, to those who may use it.
        let plan = match Plan::make(server, input, limits(&server.config.session)).await {
            Err(error) if error.is_fault() => return Err(error),
            plan => plan.ok(),
        };
        required(input, server, caller, &target, plan.as_ref()).await
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let plan = Plan::make(server, input, limits(&server.config.session)).await?;
        let target = Target::resolve(server, &input.target).await?;
        // What was allowed is what starts: a document may have changed since it was looked at.
        let needed = required(input, server, call.caller(), &target, Some(&plan)).await?;
        if !call.decisions().iter().map(|one| &one.requirement).eq(&needed) {
            let message = "the node or the document changed while the start was decided; try again";
            return Err(ApiError::bad("InvalidDocument", message));
        }
        let node = target.into_node(&input.target)?;
        let link = server.gateway.nodes.get(&node.id);
        let not_connected = || ApiError::bad("TargetNotConnected", format!("{} is not connected.", node.id));
        let epoch = link.ok_or_else(not_connected)?.epoch;
        if node.agent == AgentKind::Aws && plan.kind == SessionKind::Port {
            // It looks names up by itself, and nobody could check what it connects to (T-58).
            let what = "runs AWS's agent, which has shells and commands here but no port sessions";
            return Err(ApiError::bad(
                "InvalidDocument",
                format!("{} {what}; install Munjigi's agent on it", node.name),
            ));
        }
        if server.recordings.disk_state().await.map_err(ApiError::internal)? == DiskState::Full {
            return Err(ApiError::Unavailable(
                "the disk for recordings is full, so no session starts; free some space",
            ));
        }
        let most = server.config.limits.sessions_per_principal;
        if server.gateway.sessions_of(call.caller().principal().arn.as_str()) >= most {
            let message = format!("no more than {most} sessions of one principal at once; end some of yours first");
            return Err(ApiError::bad("ServiceQuotaExceededException", message));
        }
        let facts = facts(call, server, &node, epoch, plan)?;
        let output = StartSessionOutput {
            session_id: facts.id.clone(),
            stream_url: door_aws::stream_url(&call.request().host, &facts.id),
            token_value: server.gateway.channels.tokens.issue(&facts.id, call.caller(), Instant::now()),
        };
        let elements = json!({
            "sessionId": output.session_id,
            "streamUrl": output.stream_url,
            "tokenValue": "HIDDEN_DUE_TO_SECURITY_REASONS",
            "osUser": facts.os_user,
        });
        let meta = start_meta(&facts, input.native.as_ref());
        let mode = if facts.limits.strict_recording { Mode::Strict } else { Mode::Normal };
        let row = row(call.caller(), call.request(), &facts);
        // T-62: trail, recording and row are durable before any grant is signed. They are separate files, so their
        // waits run together; if one fails, nothing starts.
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
        let over_the_api = input.native.is_none();
        let id = facts.id.clone();
        server.gateway.keep_prepared(Prepared { facts, recorder });
        if over_the_api {
            expire(server, id);
        }
        Ok(output)
    }
}

/// Returns everything that a start needs.
async fn required(
    input: &StartSessionInput,
    server: &Server,
    caller: &Caller,
    target: &Target,
    plan: Option<&Plan>,
) -> Result<Vec<Requirement>, ApiError> {
    let destination = plan.and_then(|plan| plan.destination.as_ref());
    let mut required = target.requirements(server, "ssm:StartSession", &input.target);
    // A document given by name must be allowed explicitly; the default one only if a policy that would allow the
    // node asks for it (iam-policy 8.2).
    let demanded = required.iter().any(|one| demands_document_check(server, caller.principal(), &one.resource));
    if input.document_name.is_some() || demanded {
        required = required.into_iter().map(|one| one.with(ACCESS_CHECK, "true")).collect();
        let name = input.document_name.as_deref().unwrap_or(DEFAULT_DOCUMENT);
        required.push(document_requirement(server, name).await?);
    }
    required = required.into_iter().map(|one| to(one, destination)).collect();
    if let (Target::Node(node), Some(plan)) = (target, plan)
        && let Some(wished) = chosen_user(input, server, caller, node, plan)
    {
        required.push(choose_user_requirement(server, node, wished));
    }
    Ok(required)
}

/// Adds where a port session goes to what it needs.
pub fn to(requirement: Requirement, destination: Option<&Destination>) -> Requirement {
    let Some(destination) = destination else { return requirement };
    let [host, port] = DESTINATION;
    let name = if destination.is_node() { "localhost" } else { destination.host() };
    requirement.with(host, name).with(port, destination.port().to_string())
}

/// Returns what a document given by name needs: it must be allowed explicitly (iam-policy 8.2).
pub async fn document_requirement(server: &Server, name: &str) -> Result<Requirement, ApiError> {
    let requirement = Reference::read(server, name).requirement(server, "ssm:StartSession").await?;
    Ok(requirement.with(ACCESS_CHECK, "true"))
}

/// Returns what starting a session on a node needs, with the document's check or without.
pub fn start_requirement(server: &Server, node: &Node, document_checked: bool) -> Requirement {
    let requirement = node_requirement(server, "ssm:StartSession", node);
    if document_checked { requirement.with(ACCESS_CHECK, "true") } else { requirement }
}

fn demands_document_check(server: &Server, principal: &Principal, resource: &str) -> bool {
    door::allow_demands(server, principal, "ssm:StartSession", resource, ACCESS_CHECK)
}

/// Returns what choosing an OS user needs.
pub fn choose_user_requirement(server: &Server, node: &Node, os_user: &str) -> Requirement {
    node_requirement(server, CHOOSE_USER, node).with("munjigi:OsUser", os_user)
}

/// Returns what running as a privileged OS user needs (T-54).
pub fn privileged_requirement(server: &Server, node: &Node, os_user: &str) -> Requirement {
    node_requirement(server, PRIVILEGED_USER, node).with("munjigi:OsUser", os_user)
}

/// Returns the wished OS user if it is not the one that the session would run as anyway.
fn chosen_user<'i>(
    input: &'i StartSessionInput,
    server: &Server,
    caller: &Caller,
    node: &Node,
    plan: &Plan,
) -> Option<&'i str> {
    let wished = wished_user(input).filter(|_| plan.kind != SessionKind::Port)?;
    default_user(server, caller.principal(), node, plan).is_none_or(|user| user != wished).then_some(wished)
}

fn wished_user(input: &StartSessionInput) -> Option<&str> {
    input.native.as_ref().map(|native| native.os_user.as_str()).filter(|user| !user.is_empty())
}

/// Returns the OS user that a principal's sessions run as on a node when nothing else is wished: root if the document
/// is for root, else the principal's tag, the document's account, and only without run-as what node and server give.
fn default_user(server: &Server, principal: &Principal, node: &Node, plan: &Plan) -> Option<String> {
    if plan.elevated {
        return Some("root".to_owned());
    }
    let tagged = principal.tags.get(RUN_AS_TAG).cloned();
    if let Some(account) = &plan.run_as {
        return tagged.or_else(|| Some(account.clone())).filter(|user| !user.is_empty());
    }
    let only = || server.gateway.nodes.get(&node.id).and_then(|link| link.only_user);
    let configured = || server.config.session.default_os_user.clone();
    // As in AWS Session Manager, where nobody says otherwise. AWS's agent makes it with every right, and there it is
    // judged as a privileged user; ours makes it without any (T-54).
    tagged.or_else(only).or_else(configured).or_else(|| Some(AGENTS_OWN_USER.to_owned()))
}

/// Returns the OS user that the session runs as; nobody for a port session, in which nothing runs.
fn os_user(call: &Authorized<StartSession>, server: &Server, node: &Node, plan: &Plan) -> Result<String, ApiError> {
    if plan.kind == SessionKind::Port {
        return Ok(String::new());
    }
    let wished = wished_user(call.input()).map(str::to_owned);
    let user = wished.or_else(|| default_user(server, call.caller().principal(), node, plan));
    user.filter(|user| valid_os_user(user)).ok_or_else(|| {
        ApiError::Validation(match plan.run_as {
            Some(_) => format!(
                "the preferences demand that sessions run as a named OS user (runAsEnabled), and none is named: tag your \
                 user with {RUN_AS_TAG}, or set runAsDefaultUser in the document"
            ),
            None => format!("your tag {RUN_AS_TAG} holds no OS user's name: correct it, or name one with --user"),
        })
    })
}

fn facts(
    call: &Authorized<StartSession>,
    server: &Server,
    node: &Node,
    epoch: Epoch,
    plan: Plan,
) -> Result<SessionFacts, ApiError> {
    let (input, caller) = (call.input(), call.caller());
    let principal = caller.principal();
    let os_user = os_user(call, server, node, &plan)?;
    let asked = vec![privileged_requirement(server, node, &os_user)];
    let runs = plan.kind != SessionKind::Port;
    let privileged = runs && door::judge(server, principal, asked, call.request()).1.is_ok();
    let chosen = chosen_user(input, server, caller, node, &plan).is_some();
    let document_checked =
        call.decisions().iter().any(|one| one.requirement.resource_type == Some(document::RESOURCE_TYPE));
    let key = caller.access_key();
    let proof = format!("{}\n{}", key.map(ToString::to_string).unwrap_or_default(), call.request().request_id);
    let client = digest(&SHA256, proof.as_bytes()).as_ref().try_into().unwrap_or([0; 32]);
    Ok(SessionFacts {
        id: SessionId::new(&principal.name, random::bytes()),
        node: node.id.clone(),
        epoch,
        node_name: node.name.clone(),
        owner: principal.arn.to_string(),
        owner_id: principal.unique_id.clone(),
        credentials: principal.statement().cloned(),
        access_key: key.cloned(),
        os_user,
        kind: plan.kind,
        command: plan.command,
        profile: plan.profile,
        variables: plan.variables,
        endpoints: plan.destination.map(Endpoint::Tcp).into_iter().collect(),
        forward: None,
        port_properties: plan.port_properties,
        separated: plan.separated,
        pty: plan.pty,
        over_api: input.native.is_none(),
        document: plan.document,
        reason: input.reason.clone(),
        started: clock::now(),
        limits: plan.limits,
        privileged,
        policy_version: call.identities_version(),
        client,
        record_input: server.config.session.record_input,
        needs: Needs { document: document_checked, chosen_user: chosen, tunnel: None },
        request: call.request().clone(),
    })
}

pub(crate) fn limits(defaults: &SessionDefaults) -> SessionLimits {
    SessionLimits {
        idle: Some(defaults.idle_timeout),
        idle_counts_output: defaults.idle_counts_output,
        maximum: defaults.maximum_duration,
        resume_window: defaults.resume_window,
        strict_recording: defaults.strict_recording,
    }
}

pub(crate) fn start_meta(facts: &SessionFacts, native: Option<&NativeStart>) -> StartMeta {
    StartMeta {
        session: facts.id.clone(),
        kind: facts.kind,
        principal: facts.owner.clone(),
        node: facts.node.clone(),
        node_name: facts.node_name.clone(),
        os_user: facts.os_user.clone(),
        command: facts.command.clone(),
        endpoints: facts.endpoints.clone(),
        terminal: match native {
            Some(native) => native.terminal,
            // AWS's clients tell the size when the session runs.
            None => facts.pty.then_some(door_aws::FIRST_SIZE),
        },
        term: native.map(|native| native.term.clone()).filter(|term| !term.is_empty()),
        started: facts.started,
        reason: facts.reason.clone(),
    }
}

pub(crate) fn row(caller: &Caller, request: &RequestMeta, facts: &SessionFacts) -> SessionRow {
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
            needs: facts.needs,
            epoch: facts.epoch,
            privileged: facts.privileged,
            pty: facts.pty,
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
pub struct Judged {
    /// What temporary credentials it was started with stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Arc<Statement>>,
    /// What the start needed.
    pub needs: Needs,
    /// The run of the node's agent.
    pub epoch: Epoch,
    /// Whether the OS user may be privileged.
    pub privileged: bool,
    /// Whether there is a terminal.
    pub pty: bool,
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

/// Ends the session if no client comes for it.
fn expire(server: &Arc<Server>, id: SessionId) {
    let server = server.clone();
    let tasks = server.tasks.clone();
    tasks.spawn(async move {
        let stop = server.stop.clone();
        if stop.run_until_cancelled(tokio::time::sleep(Gateway::prepared_life())).await.is_none() {
            return;
        }
        if let Some(Prepared { facts, recorder }) = server.gateway.take_prepared(&id) {
            let message = "no client came for the session within a minute".to_owned();
            launch::abandon(&server, &facts, recorder, message).await;
        }
    });
}
