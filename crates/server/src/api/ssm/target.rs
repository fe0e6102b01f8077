//! Which node a person means: by id, name, tag or the head of an id.

use munjigi_core::id::NodeId;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::Requirement;
use crate::store::{Node, StoreError};

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
            let begins = |node: &Node| node.id.as_str().get(3..).is_some_and(|id| id.starts_with(head));
            return find(server, begins).await;
        }
        Ok(Self::Unknown)
    }

    /// Returns what `action` on the target needs. What does not exist needs what it would if it did, so that nobody
    /// learns without permission which nodes there are.
    pub fn requirements(&self, server: &Server, action: &'static str, text: &str) -> Vec<Requirement> {
        let of = |node: &Node| node_requirement(server, action, node);
        match self {
            Self::Node(node) => vec![of(node)],
            Self::Ambiguous(nodes) => nodes.iter().take(SHOWN).map(of).collect(),
            Self::Unknown => {
                let here = &server.deployment;
                let arn = format!("arn:aws:ssm:{}:{}:managed-instance/{text}", here.region, here.account);
                vec![Requirement::new(action, arn).of_type("AWS::SSM::ManagedInstance")]
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

/// Returns what `action` on a node needs, with the node's tags for conditions.
pub fn node_requirement(server: &Server, action: &'static str, node: &Node) -> Requirement {
    Requirement::new(action, server.deployment.node(&node.id))
        .of_type("AWS::SSM::ManagedInstance")
        .resource_tags(node.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())))
}

fn one(found: Result<Node, StoreError>) -> Result<Target, ApiError> {
    match found {
        Ok(node) => Ok(Target::Node(Box::new(node))),
        Err(StoreError::NotFound { .. }) => Ok(Target::Unknown),
        Err(error) => Err(ApiError::internal(error)),
    }
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
    Ok(match found.len() {
        0 => Target::Unknown,
        1 => found.pop().map_or(Target::Unknown, |node| Target::Node(Box::new(node))),
        _ => Target::Ambiguous(found),
    })
}
