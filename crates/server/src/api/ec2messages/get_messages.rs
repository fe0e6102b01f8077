//! `GetMessages`: AWS's agent asks for jobs. There are none; the answer takes its time, so that it does not ask often.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::own_node;
use crate::identity::Caller;

/// How long an empty answer waits. The agent gives up after 20 s.
const DELAY: Duration = Duration::from_secs(15);
/// Calls that may wait at once (T-91); further ones are throttled, which the agent's own back-off takes well.
const MAX_WAITING: usize = 256;
/// Longest id of a request that is repeated in the answer, bytes.
const MAX_REQUEST_ID: usize = 64;

static WAITING: Semaphore = Semaphore::const_new(MAX_WAITING);

/// The operation.
pub struct GetMessages;

/// Its input, as far as it matters here. The agent's versions send more, so unknown members are let be.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Input {
    /// The node.
    pub destination: String,
    /// The agent's name for this request.
    #[serde(default)]
    pub messages_request_id: String,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The node.
    pub destination: String,
    /// The agent's name for this request.
    pub messages_request_id: String,
    /// Always empty.
    pub messages: [(); 0],
}

impl Operation for GetMessages {
    const SERVICE: Service = Service::Ec2Messages;
    const NAME: &'static str = "GetMessages";
    const EFFECT: Effect = Effect::Read;
    const ACCESS: Access = Access::Node;
    const EXAMPLE: &'static str = r#"{"Destination":"mi-00000000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        own_node::named(server, caller, Self::NAME, &input.destination).await?;
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let Input { destination, messages_request_id } = call.input();
        if messages_request_id.len() > MAX_REQUEST_ID {
            return Err(ApiError::Validation(format!("MessagesRequestId has at most {MAX_REQUEST_ID} bytes")));
        }
        let Ok(_waiting) = WAITING.try_acquire() else { return Err(ApiError::Throttled) };
        // A server that stops answers at once.
        let _ = server.stop.run_until_cancelled(tokio::time::sleep(DELAY)).await;
        Ok(Output { destination: destination.clone(), messages_request_id: messages_request_id.clone(), messages: [] })
    }
}
