//! `ssm:StartSession`: decides and prepares a session; it runs when its client's stream opens.

mod input;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use munjigi_core::command_line::joined;
use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::{Epoch, valid_os_user};
use munjigi_core::id::SessionId;
use munjigi_core::session::SessionKind;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

pub use input::{NativeStart, StartSessionInput};
use plan::Plan;

use super::document::{self, Reference};
use super::target::{Target, node_requirement};
use crate::Server;
use crate::accounts::{self, View};
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::os_user::{RUN_AS_TAG, choose_user_requirement, default_user, privileged_requirement};
use crate::api::prepare;
use crate::door;
use crate::gateway::facts::{Needs, SessionFacts};
use crate::gateway::{Gateway, Prepared, door_aws, launch};
use crate::identity::{Caller, Principal};
use crate::store::{AgentKind, Node};

/// Tells policies that the session document is checked as well; the condition key of AWS for it.
const ACCESS_CHECK: &str = "ssm:SessionDocumentAccessCheck";
/// Names host and port of a port session to policies.
const DESTINATION: [&str; 2] = ["munjigi:DestinationHost", "munjigi:DestinationPort"];
/// Names what a command session runs to policies: one line, as a shell reads it.
const COMMAND: &str = "munjigi:Command";
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
        View::fresh(server).await.map_err(ApiError::internal)?;
        let target = Target::resolve(server, &input.target).await?;
        // What is wrong with a document is said in `run`, to those who may use it.
        let plan = match Plan::make(server, input, prepare::limits(&server.config.session)).await {
            Err(error) if error.is_fault() => return Err(error),
            plan => plan.ok(),
        };
        required(input, server, caller, &target, plan.as_ref()).await
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let plan = Plan::make(server, input, prepare::limits(&server.config.session)).await?;
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
        prepare::room(call, server, &node).await?;
        let facts = facts(call, server, &node, epoch, plan)?;
        if facts.kind != SessionKind::Port {
            accounts::ensure(server, &node, &facts.os_user, call.caller().principal()).await?;
        }
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
        let terminal = match &input.native {
            Some(native) => native.terminal,
            // AWS's clients tell the size when the session runs.
            None => facts.pty.then_some(door_aws::FIRST_SIZE),
        };
        let term = input.native.as_ref().map(|native| native.term.clone()).filter(|term| !term.is_empty());
        let (over_the_api, id) = (input.native.is_none(), facts.id.clone());
        prepare::begin(call, server, facts, elements, (terminal, term)).await?;
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
    let line = plan.and_then(|plan| command_line(plan.kind, &plan.command, plan.by_shell));
    required = required.into_iter().map(|one| running(to(one, destination), line.as_deref())).collect();
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

/// Returns what a command session runs, as policies see it: the text that the login shell gets, or program and arguments
/// with as many quotes as a shell needs.
pub fn command_line(kind: SessionKind, command: &[String], by_shell: bool) -> Option<String> {
    let line = || if by_shell { command.concat() } else { joined(command) };
    (kind == SessionKind::Command).then(line)
}

/// Adds what a command session runs to what it needs.
pub fn running(requirement: Requirement, line: Option<&str>) -> Requirement {
    match line {
        Some(line) => requirement.with(COMMAND, line),
        None => requirement,
    }
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

/// Returns the wished OS user if it is not the one that the session would run as anyway.
fn chosen_user<'i>(
    input: &'i StartSessionInput,
    server: &Server,
    caller: &Caller,
    node: &Node,
    plan: &Plan,
) -> Option<&'i str> {
    let wished = wished_user(input).filter(|_| plan.kind != SessionKind::Port)?;
    default_user(server, caller.principal(), node, plan.elevated, plan.run_as.as_deref())
        .is_none_or(|user| user != wished)
        .then_some(wished)
}

fn wished_user(input: &StartSessionInput) -> Option<&str> {
    input.native.as_ref().map(|native| native.os_user.as_str()).filter(|user| !user.is_empty())
}

/// Returns the OS user that the session runs as; nobody for a port session, in which nothing runs.
fn os_user(call: &Authorized<StartSession>, server: &Server, node: &Node, plan: &Plan) -> Result<String, ApiError> {
    if plan.kind == SessionKind::Port {
        return Ok(String::new());
    }
    let wished = wished_user(call.input()).map(str::to_owned);
    let user =
        wished.or_else(|| default_user(server, call.caller().principal(), node, plan.elevated, plan.run_as.as_deref()));
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
    Ok(SessionFacts {
        os_user,
        command: plan.command,
        by_shell: plan.by_shell,
        profile: plan.profile,
        variables: plan.variables,
        endpoints: plan.destination.map(Endpoint::Tcp).into_iter().collect(),
        port_properties: plan.port_properties,
        separated: plan.separated,
        pty: plan.pty,
        over_api: input.native.is_none(),
        reason: input.reason.clone(),
        privileged,
        record_input: server.config.session.record_input,
        needs: Needs { document: document_checked, chosen_user: chosen, tunnel: None },
        ..prepare::facts(call, node, epoch, plan.kind, plan.document, plan.limits)
    })
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
