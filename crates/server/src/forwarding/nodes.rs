//! Nodes as policy needs them, in memory: every connection asks for one, and they change rarely.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use munjigi_core::id::NodeId;

use crate::store::{Node, StoreError};
use crate::{Server, lock};

/// Most nodes that are kept; at the bound all are read again.
const MAX_NODES: usize = 16 * 1024;

/// The nodes that were asked for since one of them changed.
#[derive(Default)]
pub(crate) struct KnownNodes {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The count of changes that `nodes` belongs to.
    change: u64,
    nodes: HashMap<NodeId, Arc<Node>>,
}

impl KnownNodes {
    /// Returns a node as it is now.
    pub(crate) async fn get(&self, server: &Server, id: &NodeId) -> Result<Arc<Node>, StoreError> {
        // Read before the store, so that what changes in between is read again.
        let change = *server.nodes_changed.borrow();
        {
            let known = lock(&self.known);
            if let Some(node) = known.nodes.get(id).filter(|_| known.change == change) {
                return Ok(node.clone());
            }
        }
        let node = Arc::new(server.store.node(id).await?);
        let mut known = lock(&self.known);
        if known.change != change || known.nodes.len() >= MAX_NODES {
            *known = Known { change, nodes: HashMap::new() };
        }
        known.nodes.insert(id.clone(), node.clone());
        Ok(node)
    }
}
