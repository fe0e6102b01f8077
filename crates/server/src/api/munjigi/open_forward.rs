//! `munjigi:OpenForward`: decides about a forward session and prepares it; it runs when its client's stream opens. Asked
//! over the link alone; it is no call of the API.
//!
//! Policy is asked about every endpoint that the start names, and again about each connection (`forwarding.rs`). Where the
//! session is for a target, policy is asked about the target instead of the node, and the node is found here.

use std::sync::Arc;

use munjigi_core::endpoint::{Endpoint, MAX_ENDPOINTS};
use munjigi_core::grant::valid_os_user;
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::{SessionKind, SessionLimits};
use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Server;
use crate::accounts::{self, View};
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Existence, Operation, Requirement, Service};
use crate::api::os_user::{RUN_AS_TAG, choose_user_requirement, default_user, privileged_requirement};
use crate::api::prepare;
use crate::api::ssm::target::{Target, absent_node};
use crate::door;
use crate::forwarding::{self, Reaching};
use crate::gateway::facts::{Forward, Needs, SessionFacts};
use crate::identity::Caller;
use crate::store::{AgentKind, Node, StoredTarget};
use crate::targets::{self, TargetFacts};

/// Most bytes of the endpoints together, so that they fit a grant.
const MAX_ENDPOINT_BYTES: usize = 16 * 1024;
/// Longest word for what a client is.
const MAX_PURPOSE: usize = 16;

/// Opens a forward session.
pub struct OpenForward;

/// What a client of the link wishes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct OpenForwardInput {
    /// Node by id, name, tag or head of an id, or a target by name; 1 to 400 characters.
    pub target: String,
    /// What the connections go to; none only if further ones may be named later, or for a target, which is at one place.
    pub endpoints: Vec<Endpoint>,
    /// Whether connections may name further endpoints.
    pub dynamic: bool,
    /// Whether it is for logging in to the node's own SSH server: then `:22` is the only endpoint.
    #[serde(default)]
    pub passthrough: bool,
    /// Wished OS user, for endpoints that the node reaches as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_user: Option<String>,
    /// Why; 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the client is for.
    pub purpose: String,
}

impl OpenForwardInput {
    fn check(&self) -> Result<(), ApiError> {
        let invalid = |text: &str| Err(ApiError::Validation(text.to_owned()));
        if self.target.is_empty() || self.target.chars().count() > 400 {
            return invalid("the node has 1 to 400 characters: its id, name, tag:Key=Value or the head of its id");
        }
        if self.reason.as_ref().is_some_and(|reason| reason.is_empty() || reason.chars().count() > 256) {
            return invalid("a reason has 1 to 256 characters");
        }
        if self.endpoints.len() > MAX_ENDPOINTS {
            return invalid("a session has at most 64 endpoints; start another one for the rest");
        }
        if self.endpoints.iter().map(|endpoint| endpoint.to_string().len()).sum::<usize>() > MAX_ENDPOINT_BYTES {
            return invalid("the endpoints of a session have at most 16 KiB together");
        }
        if self.passthrough && (self.dynamic || self.endpoints != [Endpoint::own_ssh()] || self.os_user.is_some()) {
            return invalid("to log in to the node's own SSH server, :22 is the only endpoint, without an OS user");
        }
        let word = |text: &str| text.len() <= MAX_PURPOSE && text.bytes().all(|byte| byte.is_ascii_lowercase());
        if self.purpose.is_empty() || !word(&self.purpose) {
            return invalid("the purpose is a word of at most 16 letters a-z");
        }
        if self.os_user.as_deref().is_some_and(|user| !valid_os_user(user)) {
            return invalid(
                "an OS user's name has 1 to 32 characters of a-z, 0-9, _ . - and begins with a letter or _",
            );
        }
        Ok(())
    }
}

/// The prepared session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenForwardOutput {
    /// Its id.
    pub session_id: SessionId,
}

impl Operation for OpenForward {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "OpenForward";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"Target": "web-1", "Endpoints": ["db.internal:5432"], "Dynamic": false, "Purpose": "forward"}"#;
    type Input = OpenForwardInput;
    type Output = OpenForwardOutput;

    async fn requirements(input: &Self::Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        input.check()?;
        View::fresh(server).await.map_err(ApiError::internal)?;
        let aim = Aim::of(server, input).await?;
        required(input, server, caller, &aim).await
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let aim = Aim::of(server, input).await?;
        // What was allowed is what starts: node or target may have changed since they were looked at.
        let needed = required(input, server, call.caller(), &aim).await?;
        if !call.decisions().iter().map(|one| &one.requirement).eq(&needed) {
            let message = "the node or target changed while the start was decided; try again";
            return Err(ApiError::bad("TargetNotConnected", message));
        }
        let endpoints = aim.endpoints(input).to_vec();
        let (node, target) = aim.settle(server, input).await?;
        let link = server.gateway.nodes.get(&node.id);
        let not_connected = || ApiError::bad("TargetNotConnected", format!("{} is not connected.", node.id));
        let epoch = link.ok_or_else(not_connected)?.epoch;
        if node.agent == AgentKind::Aws {
            // It looks names up by itself, and nobody could check what it connects to (T-58).
            let what = "runs AWS's agent, which forwards nothing here; install Munjigi's agent on it";
            return Err(ApiError::bad("TargetNotConnected", format!("{} {what}", node.name)));
        }
        prepare::room(call, server, &node).await?;
        let preferences = server.preferences.get(&server.store).await?;
        let defaults = prepare::limits(&server.config.session);
        let demanded = SessionLimits { idle: preferences.idle, maximum: preferences.maximum, ..defaults.clone() };
        let os_user = session_user(input, server, call.caller(), &node).await?;
        if os_user.is_none() && input.endpoints.iter().any(Endpoint::needs_user) {
            return Err(ApiError::Validation(format!(
                "nobody names the OS user that this needs on the node: tag your user with {RUN_AS_TAG}, or name one with \
                 --user"
            )));
        }
        let os_user = os_user.unwrap_or_default();
        if !os_user.is_empty() {
            accounts::ensure(server, &node, &os_user, call.caller().principal()).await?;
        }
        let asked = vec![privileged_requirement(server, &node, &os_user)];
        let privileged =
            !os_user.is_empty() && door::judge(server, call.caller().principal(), asked, call.request()).1.is_ok();
        let chosen_user = chosen_user(input, server, call.caller(), &node).await?.is_some();
        let document = OpenForward::NAME.to_owned();
        let limits = defaults.tightened_by(&demanded);
        let facts = SessionFacts {
            os_user,
            privileged,
            endpoints,
            forward: Some(Forward {
                dynamic: input.dynamic,
                passthrough: input.passthrough,
                purpose: input.purpose.clone(),
                target,
            }),
            reason: input.reason.clone(),
            needs: Needs { chosen_user, ..Needs::default() },
            ..prepare::facts(call, &node, epoch, SessionKind::Port, document, limits)
        };
        let session_id = facts.id.clone();
        let elements = json!({ "sessionId": session_id, "nodeId": facts.node, "osUser": facts.os_user });
        prepare::begin(call, server, facts, elements, (None, None)).await?;
        Ok(OpenForwardOutput { session_id })
    }
}

/// What the text of a wish stands for.
enum Aim {
    /// A node, several or none.
    Node(Target),
    /// A target, which is the session's only endpoint.
    Target(Box<StoredTarget>, [Endpoint; 1]),
    /// No target, where one was named as such.
    NoTarget(TargetName),
}

impl Aim {
    /// Finds it. A target goes before a node of the same name: whoever may put one is trusted with more than a host that
    /// chose its own name. A node's id always means the node.
    async fn of(server: &Server, input: &OpenForwardInput) -> Result<Self, ApiError> {
        let text = input.target.as_str();
        if !input.passthrough
            && NodeId::parse_either(text).is_err()
            && let Some(found) = targets::find(server, text).await.map_err(ApiError::internal)?
        {
            let endpoint = Endpoint::Tcp(found.settings.address.destination().clone());
            return Ok(Self::Target(Box::new(found), [endpoint]));
        }
        if let Some(name) = text.strip_prefix(targets::PREFIX) {
            let name = TargetName::parse(name).map_err(|error| ApiError::Validation(error.to_string()))?;
            return Ok(Self::NoTarget(name));
        }
        if input.endpoints.is_empty() && !input.dynamic {
            let message = "the session would reach nothing: name what it connects to, or a target";
            return Err(ApiError::Validation(message.to_owned()));
        }
        Target::resolve(server, text).await.map(Self::Node)
    }

    /// Returns what the session reaches from its start on.
    fn endpoints<'a>(&'a self, input: &'a OpenForwardInput) -> &'a [Endpoint] {
        match self {
            Self::Node(_) => &input.endpoints,
            Self::Target(_, endpoint) => endpoint,
            Self::NoTarget(_) => &[],
        }
    }

    /// Returns what `action` needs.
    fn requirements(&self, server: &Server, action: &'static str, text: &str) -> Vec<Requirement> {
        match self {
            Self::Node(node) => node.requirements(server, action, text),
            Self::Target(target, _) => {
                // What would be asked if there were none: a node's name may be meant where no target is named as such.
                let absent = match text.strip_prefix(targets::PREFIX) {
                    Some(_) => targets::requirement(server, action, &target.name, None).resource,
                    None => absent_node(server, text),
                };
                let found = targets::requirement(server, action, &target.name, Some(target));
                vec![found.existing(Existence::Named(absent))]
            }
            Self::NoTarget(name) => {
                vec![targets::requirement(server, action, name, None).existing(Existence::Absent)]
            }
        }
    }

    /// Returns the node that the session is on, and the target if it is for one. Only for callers that were allowed.
    async fn settle(self, server: &Server, input: &OpenForwardInput) -> Result<(Node, Option<TargetFacts>), ApiError> {
        match self {
            Self::Node(node) => Ok((node.into_node(&input.target)?, None)),
            Self::NoTarget(name) => Err(ApiError::bad("DoesNotExistException", format!("there is no target {name}"))),
            Self::Target(target, endpoint) => {
                let same = input.endpoints.is_empty() || input.endpoints == endpoint;
                if !same || input.dynamic || input.os_user.is_some() {
                    return Err(ApiError::Validation(format!(
                        "{0} is a target and leads to {1} alone; name a node for anything else",
                        target.name, target.settings.address
                    )));
                }
                let node = targets::node_for(server, &target).await?;
                Ok((node, Some(TargetFacts::of(&target))))
            }
        }
    }
}

/// Returns everything that the start needs: each endpoint, the right to name others later, and to choose an OS user.
async fn required(
    input: &OpenForwardInput,
    server: &Server,
    caller: &Caller,
    aim: &Aim,
) -> Result<Vec<Requirement>, ApiError> {
    let mut required = Vec::new();
    let user = match aim {
        Aim::Node(Target::Node(node)) => session_user(input, server, caller, node).await?.unwrap_or_default(),
        _ => String::new(),
    };
    for endpoint in aim.endpoints(input) {
        let reaching = Reaching::new(endpoint, &user, input.passthrough);
        let needed = reaching.actions().iter().flat_map(|action| aim.requirements(server, action, &input.target));
        required.extend(needed.map(|one| reaching.describe(one)));
    }
    if input.dynamic {
        required.extend(aim.requirements(server, forwarding::DYNAMIC, &input.target));
    }
    if let Aim::NoTarget(_) = aim {
        required.extend(aim.requirements(server, "munjigi:OpenForward", &input.target));
    }
    if let Aim::Node(Target::Node(node)) = aim
        && let Some(wished) = chosen_user(input, server, caller, node).await?
    {
        required.push(choose_user_requirement(server, node, &wished));
    }
    Ok(required)
}

/// Returns the OS user that the session has without a wish; `None` if nobody names one.
pub(crate) async fn usual_user(server: &Server, caller: &Caller, node: &Node) -> Result<Option<String>, ApiError> {
    let preferences = server.preferences.get(&server.store).await?;
    let run_as = preferences.run_as.then_some(preferences.run_as_user.as_str());
    Ok(default_user(server, caller.principal(), node, false, run_as))
}

/// Returns the wished OS user if it is not the one that the session would have anyway.
async fn chosen_user(
    input: &OpenForwardInput,
    server: &Server,
    caller: &Caller,
    node: &Node,
) -> Result<Option<String>, ApiError> {
    let Some(wished) = &input.os_user else { return Ok(None) };
    let usual = usual_user(server, caller, node).await?;
    Ok((usual.as_ref() != Some(wished)).then(|| wished.clone()))
}

/// Returns the session's OS user; `None` if nothing that it may reach needs one, or nobody names one.
async fn session_user(
    input: &OpenForwardInput,
    server: &Server,
    caller: &Caller,
    node: &Node,
) -> Result<Option<String>, ApiError> {
    if let Some(wished) = &input.os_user {
        return Ok(Some(wished.clone()));
    }
    if !input.dynamic && !input.endpoints.iter().any(Endpoint::needs_user) {
        return Ok(None);
    }
    Ok(usual_user(server, caller, node).await?.filter(|user| valid_os_user(user)))
}
