//! Targets as sessions see them: what one is called in a policy, and which node serves it at the moment.
//!
//! The nearest live node is taken, and among near ones the one with the fewest sessions; when it is gone, the next start
//! finds another. Nothing here decides who may reach a target.

use std::time::Duration;

use munjigi_core::id::NodeId;
use munjigi_core::target::{Selector, TargetAddress, TargetKind, TargetName};
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Requirement, TARGET_KIND};
use crate::api::tag;
use crate::store::{AgentKind, Node, StoreError, StoredTarget};

/// Says that a text names a target, where it could be a node as well.
pub const PREFIX: &str = "target:";
/// Type of targets in audit records.
pub const RESOURCE_TYPE: &str = "Munjigi::Target";
/// Nodes read at once while looking for those that serve a target.
const PAGE: usize = 500;
/// How much farther than the nearest a node may be and still count as near: a fraction and a time, because round trips
/// of the same road differ by so much from one measurement to the next.
const NEAR: (u32, Duration) = (4, Duration::from_millis(2));

/// What a session knows of the target it was opened for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetFacts {
    /// Its id; a namesake made later is another target.
    pub id: String,
    /// Its name.
    pub name: TargetName,
    /// Where it is.
    pub address: TargetAddress,
    /// What it speaks.
    pub kind: TargetKind,
    /// Whether the gateway ends the protocol and records statements.
    pub inspect: bool,
}

impl TargetFacts {
    /// Returns what a session that begins now knows.
    pub fn of(target: &StoredTarget) -> Self {
        Self {
            id: target.id.clone(),
            name: target.name.clone(),
            address: target.settings.address.clone(),
            kind: target.settings.kind,
            inspect: target.settings.inspect,
        }
    }
}

/// Finds the target that a text names, with [`PREFIX`] or without. Text that cannot be a name finds none.
pub async fn find(server: &Server, text: &str) -> Result<Option<StoredTarget>, StoreError> {
    let Ok(name) = TargetName::parse(text.strip_prefix(PREFIX).unwrap_or(text)) else { return Ok(None) };
    match server.store.target(&name).await {
        Ok(target) => Ok(Some(target)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the target that a running session was opened for; `None` when it was deleted, or leads elsewhere or is spoken
/// to in another way by now.
pub async fn present(server: &Server, facts: &TargetFacts) -> Result<Option<StoredTarget>, StoreError> {
    let found = find(server, facts.name.as_str()).await?;
    Ok(found.filter(|target| TargetFacts::of(target) == *facts))
}

/// Returns what `action` on a target needs, with its tags and kind for conditions. One that does not exist has the ARN
/// it would have.
pub fn requirement(
    server: &Server,
    action: &'static str,
    name: &TargetName,
    found: Option<&StoredTarget>,
) -> Requirement {
    let name = found.map_or(name, |target| &target.name);
    let requirement = Requirement::new(action, server.deployment.target(name)).of_type(RESOURCE_TYPE);
    match found {
        Some(target) => {
            requirement.resource_tags(tag::pairs(&target.tags)).with(TARGET_KIND, target.settings.kind.as_str())
        }
        None => requirement,
    }
}

/// Returns the node that serves a target best now. Only for callers that were allowed.
pub async fn node_for(server: &Server, target: &StoredTarget) -> Result<Node, ApiError> {
    let mut nodes = all_nodes(server).await?;
    nodes.retain(|node| serves(node, target));
    let any = !nodes.is_empty();
    let mut live: Vec<(Node, Place)> =
        nodes.into_iter().filter_map(|node| Place::of(server, &node).map(|place| (node, place))).collect();
    let places: Vec<Place> = live.iter().map(|(_, place)| place.clone()).collect();
    if let Some(best) = best(&places) {
        return Ok(live.swap_remove(best).0);
    }
    let name = &target.name;
    let why = if any { "none of its nodes is connected" } else { "no node is registered that it goes through" };
    Err(ApiError::bad("TargetNotConnected", format!("the target {name} cannot be reached: {why}")))
}

/// Returns all registered nodes.
pub(crate) async fn all_nodes(server: &Server) -> Result<Vec<Node>, ApiError> {
    let mut nodes = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = server.store.list_nodes(after.as_deref(), PAGE).await.map_err(ApiError::internal)?;
        nodes.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(nodes);
        }
    }
}

/// Tells whether a node can serve a target, connected or not. AWS's agent has no port sessions that anybody could check
/// (T-58).
pub(crate) fn serves(node: &Node, target: &StoredTarget) -> bool {
    let tags = node.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str()));
    let meant = |one: &Selector| one.matches(node.id.as_str(), &node.name, tags.clone());
    node.agent == AgentKind::Munjigi && target.settings.through.iter().any(meant)
}

/// Where a live node is, and how busy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// `None` where no round trip was measured yet.
    round_trip: Option<Duration>,
    sessions: usize,
    id: NodeId,
}

impl Place {
    fn of(server: &Server, node: &Node) -> Option<Self> {
        let link = server.gateway.nodes.get(&node.id).filter(|link| !link.cancel.is_cancelled())?;
        let sessions = server.gateway.sessions_on(&node.id);
        Some(Self { round_trip: link.round_trip(), sessions, id: node.id.clone() })
    }
}

/// Returns the index of the node to take: of those about as near as the nearest the one with the fewest sessions. A node
/// whose distance is not known counts as far.
fn best(places: &[Place]) -> Option<usize> {
    let nearest = places.iter().filter_map(|place| place.round_trip).min();
    let near = |place: &Place| match (nearest, place.round_trip) {
        (None, _) => true,
        (Some(nearest), Some(own)) => own <= nearest.saturating_add(nearest / NEAR.0).saturating_add(NEAR.1),
        (Some(_), None) => false,
    };
    let candidates = places.iter().enumerate().filter(|(_, place)| near(place));
    candidates.min_by_key(|(_, place)| (place.sessions, place.round_trip, place.id.clone())).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_near_nodes_the_least_busy_one_is_taken() {
        let places = |list: &[(u64, usize)]| -> Vec<Place> {
            let place = |(index, (millis, sessions)): (usize, &(u64, usize))| Place {
                round_trip: (*millis > 0).then(|| Duration::from_millis(*millis)),
                sessions: *sessions,
                id: NodeId::parse(&format!("mi-{index:017x}")).unwrap(),
            };
            list.iter().enumerate().map(place).collect()
        };
        // Milliseconds of round trip, 0 where it is not known, and sessions.
        for (list, taken) in [
            (&[][..], None),
            (&[(0, 5)], Some(0)),
            (&[(0, 5), (0, 4)], Some(1)),
            (&[(10, 9), (40, 0)], Some(0)),
            (&[(10, 9), (12, 8)], Some(1)),
            (&[(10, 9), (15, 8)], Some(0)),
            (&[(1, 9), (3, 8)], Some(1)),
            (&[(100, 1), (125, 0), (130, 0)], Some(1)),
            (&[(0, 0), (300, 7)], Some(1)),
            (&[(12, 3), (10, 3)], Some(1)),
            (&[(10, 3), (10, 3)], Some(0)),
        ] {
            assert_eq!(best(&places(list)), taken, "{list:?}");
        }
    }
}
