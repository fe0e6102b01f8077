//! From a request signed with a node's own RSA key to that node as the caller: how AWS's agent begins.

use std::sync::Arc;

use munjigi_core::sigv4::{self, MAX_SKEW, Rules, parse_node};
use munjigi_core::time::Timestamp;

use super::authenticate::accepted_regions;
use super::session_token::{StandsFor, Statement};
use super::{Authenticated, Caller, Unauthenticated};
use crate::Server;
use crate::api::error::ApiError;
use crate::store::{AgentKind, StoreError};

/// Verifies a request to a service. A node that is not registered, or runs another agent, and a wrong signature are
/// refused alike.
pub(crate) async fn authenticate_node(
    server: &Server,
    request: &sigv4::Request<'_>,
    service: &str,
    now: Timestamp,
) -> Result<Authenticated, Unauthenticated> {
    let presented = parse_node(request).map_err(|error| Unauthenticated { error: error.into(), presented: None })?;
    let id = presented.node().clone();
    let refused = |error| Unauthenticated { error, presented: Some(id.to_string()) };
    let key = match server.store.node(&id).await {
        Ok(node) if node.agent == AgentKind::Aws => node.public_key,
        Ok(_) | Err(StoreError::NotFound { .. }) => return Err(refused(ApiError::InvalidClientToken)),
        Err(cause) => return Err(refused(ApiError::internal(cause))),
    };
    let region = presented.region().to_owned();
    let regions = accepted_regions(&server.config, &region);
    let verified =
        presented.verify(&key, now, &Rules::new(&regions, service)).map_err(|error| refused(error.into()))?;
    // What the signature stands for holds for this request alone.
    let statement = Statement::new(StandsFor::Node(id.clone()), now, MAX_SKEW);
    let principal =
        server.identities.of_statement(&Arc::new(statement)).ok_or_else(|| refused(ApiError::InvalidClientToken))?;
    Ok(Authenticated {
        caller: Caller::new(principal, None),
        region: verified.region().to_owned(),
        replay_id: verified.replay_id(),
        use_is_due: false,
    })
}
