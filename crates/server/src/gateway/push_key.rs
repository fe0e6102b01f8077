//! A key on its way to a node: signed as a grant, sent over the link, answered by the agent's privileged half.

use std::time::Duration;

use bytes::Bytes;
use munjigi_core::grant::{Action, AuthorizedKey, Grant, MAX_LIFE};
use munjigi_core::id::SessionId;
use munjigi_core::wire::message::{KeyOnNode, Open, open};
use munjigi_core::wire::{Frame, FrameSet};

use super::nodes::NodeLink;
use super::peer::FrameStream;
use crate::{Server, clock};

/// How long the node may take to answer; it only looks an account up.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// What an agent answers to a wish that it does not know.
const UNKNOWN_WISH: &str = "UnsupportedOperation";

/// A key that was allowed.
pub struct Push {
    /// Who pushes: the principal's ARN.
    pub subject: String,
    /// The name that the push's id begins with.
    pub label: String,
    /// The only account it is good for.
    pub os_user: String,
    /// Whether that may be a privileged one (T-54).
    pub privileged: bool,
    /// Version of the policies that decided.
    pub policy_version: u64,
    /// The key and how long it lives.
    pub key: AuthorizedKey,
}

/// Why a node has not taken a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It said no; its own words.
    #[error("{0}")]
    Refused(String),
    /// It did not answer, or its agent is too old.
    #[error("{0}")]
    Unavailable(String),
}

/// Sends a key to a node and waits until the node has it.
pub async fn push(server: &Server, link: &NodeLink, push: Push) -> Result<(), PushError> {
    let node = &link.node;
    let unreachable = || PushError::Unavailable(format!("{node} is not connected."));
    let mut stream = FrameStream::new(link.open().await.map_err(|_| unreachable())?);
    let (key_id, key) = server.keys.grant();
    let grant = Bytes::from(grant(link, push).sign(key_id, key));
    stream.feed(&Frame::Open(Box::new(Open { wish: Some(open::Wish::Key(KeyOnNode { grant })) })));
    let exchange = async {
        stream.writer.flush().await.ok()?;
        stream.reader.read(FrameSet::ANSWER).await.ok()?
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
    match answer {
        Ok(Some(Frame::Accepted(_))) => Ok(()),
        Ok(Some(Frame::Refused(refused))) if refused.code == UNKNOWN_WISH => {
            Err(PushError::Unavailable(format!("the agent on {node} is too old for EC2 Instance Connect; update it")))
        }
        Ok(Some(Frame::Refused(refused))) => Err(PushError::Refused(refused.message)),
        _ => Err(PushError::Unavailable(format!("{node} did not say whether it took the key; try again"))),
    }
}

fn grant(link: &NodeLink, push: Push) -> Grant {
    let now = clock::now();
    Grant {
        id: crate::random::bytes(),
        // No session begins; the name only makes the grant's log lines readable.
        session: SessionId::new(&push.label, crate::random::bytes()),
        node: link.node.clone(),
        epoch: link.epoch,
        subject: push.subject,
        client: [0; 32],
        os_user: push.os_user,
        action: Action::AuthorizedKey(push.key),
        variables: Default::default(),
        pty: false,
        strict_recording: false,
        privileged: push.privileged,
        policy_version: push.policy_version,
        not_before: now,
        expires: now.plus(MAX_LIFE),
    }
}
