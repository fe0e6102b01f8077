//! Which node a person means: by id, name, tag or the head of an id.

use munjigi_core::id::NodeId;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Existence, Requirement};
use crate::store::{Node, StoreError};

/// Type of nodes in audit records.
const RESOURCE_TYPE: &str = "AWS::SSM::ManagedInstance";
/// Shortest head of an id that is looked for, in hexadecimal digits.
const LEAST_PREFIX: usize = 3;
/// Nodes read at once while looking for a tag or a head.
const PAGE: usize = 500;
/// Candidates listed for an ambiguous target.
const SHOWN: usize = 10;

/// What a target text stands for.
#[derive(Debug, Clone)]
pub enum Target {
    /// Exactly this node.
    Node(Box<Node>),
    /// Several nodes.
    Ambiguous(Vec<Node>),
    /// None.
    Unknown,
}

impl Target {
    /// Finds the nodes that `text` names: an id, a name, `tag:Key=Value` or `Key=Value`, or the head of an id.
    pub async fn resolve(server: &Server, text: &str) -> Result<Self, ApiError> {
        if let Ok(id) = NodeId::parse_either(text) {
            return one(server.store.node(&id).await);
        }
        if let Self::Node(node) = one(server.store.node_by_name(text).await)? {
            return Ok(Self::Node(node));
        }
        if let Some((key, value)) = text.strip_prefix("tag:").unwrap_or(text).split_once('=') {
            let tagged = |node: &Node| node.tags.iter().any(|tag| tag.key == key && tag.value == value);
            return find(server, tagged).await;
        }
        let head = text.strip_prefix("mi-").or_else(|| text.strip_prefix("i-")).unwrap_or(text);
        if head.len() >= LEAST_PREFIX && head.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return with_head(server, &format!("mi-{head}")).await;
        }
        Ok(Self::Unknown)
    }

    /// Returns what `action` on the target needs. What does not exist needs what it would if it did, so that nobody
    /// learns without permission which nodes there are.
    pub fn requirements(&self, server: &Server, action: &'static str, text: &str) -> Vec<Requirement> {
        let absent = absent_node(server, text);
        // An id cannot be guessed: who asks for one knows it.
        let by_id = NodeId::parse_either(text).is_ok();
        let existing = |there: Existence| if by_id { Existence::Open } else { there };
        let of =
            |node: &Node| node_requirement(server, action, node).existing(existing(Existence::Named(absent.clone())));
        match self {
            Self::Node(node) => vec![of(node)],
            Self::Ambiguous(nodes) => nodes.iter().take(SHOWN).map(of).collect(),
            Self::Unknown => {
                let needed = Requirement::new(action, absent.clone()).of_type(RESOURCE_TYPE);
                vec![needed.existing(existing(Existence::Absent))]
            }
        }
    }

    /// Returns the node, or the error that says which there are. Only for callers that were allowed.
    pub fn into_node(self, text: &str) -> Result<Node, ApiError> {
        match self {
            Self::Node(node) => Ok(*node),
            Self::Unknown => Err(ApiError::bad("TargetNotConnected", format!("{text} is not connected."))),
            Self::Ambiguous(nodes) => {
                let shown: Vec<String> =
                    nodes.iter().take(SHOWN).map(|node| format!("{} ({})", node.name, node.id)).collect();
                let more = nodes.len().saturating_sub(SHOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let list = shown.join(", ");
                Err(ApiError::bad("AmbiguousTarget", format!("{text} names several nodes, choose one: {list}{more}")))
            }
        }
    }
}

/// Returns the ARN that a node of this name would have, were it an id.
pub fn absent_node(server: &Server, text: &str) -> String {
    let here = &server.deployment;
    format!("arn:aws:ssm:{}:{}:managed-instance/{text}", here.region, here.account)
}

/// Returns what `action` on a node needs, with the node's tags for conditions.
pub fn node_requirement(server: &Server, action: &'static str, node: &Node) -> Requirement {
    Requirement::new(action, server.deployment.node(&node.id))
        .of_type(RESOURCE_TYPE)
        .resource_tags(node.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())))
}

fn one(found: Result<Node, StoreError>) -> Result<Target, ApiError> {
    match found {
        Ok(node) => Ok(Target::Node(Box::new(node))),
        Err(StoreError::NotFound { .. }) => Ok(Target::Unknown),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Finds the nodes whose id begins so. They stand together, so this takes no longer where there are none.
async fn with_head(server: &Server, head: &str) -> Result<Target, ApiError> {
    let mut found: Vec<Node> = Vec::new();
    let mut after = Some(head.to_owned());
    while let Some(last) = after {
        let page = server.store.list_nodes(Some(&last), PAGE).await.map_err(ApiError::internal)?;
        let read = page.items.len();
        found.extend(page.items.into_iter().filter(|node| node.id.as_str().starts_with(head)));
        after = page.next.filter(|next| read > 0 && next.starts_with(head));
    }
    Ok(several(found))
}

async fn find(server: &Server, wanted: impl Fn(&Node) -> bool) -> Result<Target, ApiError> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = server.store.list_nodes(after.as_deref(), PAGE).await.map_err(ApiError::internal)?;
        found.extend(page.items.into_iter().filter(&wanted));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(several(found))
}

fn several(mut found: Vec<Node>) -> Target {
    match found.len() {
        0 => Target::Unknown,
        1 => found.pop().map_or(Target::Unknown, |node| Target::Node(Box::new(node))),
        _ => Target::Ambiguous(found),
    }
}
