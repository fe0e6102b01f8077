//! From a token, or from `ResumeSession`, to an open data channel: dialling, the open message, and the pauses between
//! attempts.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use munjigi_core::secret::Secret;
use munjigi_core::wire::aws::payload::{MESSAGE_SCHEMA_VERSION, OpenDataChannel};
use munjigi_link::DialError;
use munjigi_link::backoff::Backoff;
use munjigi_link::dial::DialOptions;
use munjigi_link::websocket::{self, Message, WebSocket};
use uuid::Uuid;

use super::calls::{CallFailure, Calls};
use crate::client::api::CallError;
use crate::plugin::VERSION;
use crate::plugin::arguments::Handover;
use crate::plugin::trust;

/// Longest pause between attempts: a person waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Attempts with the token that was handed over, as many as the original makes. After those a new one is asked for.
const FIRST_ATTEMPTS: u32 = 6;

/// Dials, again and again.
pub(crate) struct Dialer {
    place: Rc<Place>,
    /// The token that was handed over, and how often it may still be tried; gone once it was used.
    token: Option<(Secret<String>, u32)>,
    backoff: Backoff,
}

/// What stays the same for all attempts.
struct Place {
    options: DialOptions,
    /// Path and query of the data channel, as they were handed over.
    path: String,
    /// Names this client for its whole life.
    client_id: String,
    calls: Rc<Calls>,
}

/// How an attempt ended.
pub(crate) enum Connected {
    /// The channel is open.
    Open(Box<WebSocket>),
    /// The session is over.
    Over,
    /// It will not succeed, and why.
    Never(String),
    /// It may succeed later; why not now.
    Later(String),
}

/// An attempt on its way.
pub(crate) struct Connecting(Pin<Box<dyn Future<Output = Connected>>>);

impl Connecting {
    /// Waits for its end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Connected> {
        self.0.as_mut().poll(cx)
    }
}

impl Dialer {
    /// Prepares dialling of the data channel that was handed over.
    pub(crate) fn new(handover: &Handover, calls: Rc<Calls>) -> anyhow::Result<Self> {
        let url = &handover.stream_url;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let place = Place {
            options: trust::dial_options(url, trust::of_machine()?)?,
            path: url.path().to_owned() + &query,
            client_id: Uuid::new_v4().to_string(),
            calls,
        };
        Ok(Self {
            place: Rc::new(place),
            token: Some((handover.token.clone(), FIRST_ATTEMPTS)),
            backoff: Backoff::new(),
        })
    }

    /// The first attempt after a connection that served, or the very first.
    pub(crate) fn first(&mut self) -> Connecting {
        self.backoff = Backoff::new();
        self.after(Duration::ZERO)
    }

    /// Another attempt, after a pause.
    pub(crate) fn again(&mut self) -> Connecting {
        let pause = self.backoff.after_failure().min(LONGEST_PAUSE);
        self.after(pause)
    }

    /// Takes note that a channel was opened: the token that was handed over is used up.
    pub(crate) fn opened(&mut self) {
        self.token = None;
    }

    fn after(&mut self, pause: Duration) -> Connecting {
        let place = self.place.clone();
        self.token = self.token.take().and_then(|(token, left)| Some((token, left.checked_sub(1)?)));
        let token = self.token.as_ref().map(|(token, _)| token.clone());
        Connecting(Box::pin(async move {
            tokio::time::sleep(pause).await;
            match token {
                Some(token) => place.begin(&token).await,
                None => place.resume().await,
            }
        }))
    }
}

impl Place {
    async fn begin(&self, token: &Secret<String>) -> Connected {
        match self.dial(token).await {
            Ok(socket) => Connected::Open(Box::new(socket)),
            Err(error) if is_passing(&error) => Connected::Later(error.to_string()),
            Err(error) => Connected::Never(error.to_string()),
        }
    }

    async fn resume(&self) -> Connected {
        let token = match self.calls.resume().await {
            Ok(Some(token)) => token,
            Ok(None) => return Connected::Over,
            Err(CallFailure::Failed(CallError::Refused(refusal))) if refusal.code == "DoesNotExistException" => {
                return Connected::Over;
            }
            Err(CallFailure::Failed(error @ (CallError::Unreachable(_) | CallError::NoAnswer { .. }))) => {
                return Connected::Later(error.to_string());
            }
            Err(CallFailure::Failed(CallError::Refused(refusal))) if is_throttling(&refusal.code) => {
                return Connected::Later(format!("{} ({})", refusal.message, refusal.code));
            }
            Err(error) => return Connected::Never(format!("the session cannot be resumed: {error}")),
        };
        match self.dial(&token).await {
            Ok(socket) => Connected::Open(Box::new(socket)),
            Err(error) => Connected::Later(error.to_string()),
        }
    }

    async fn dial(&self, token: &Secret<String>) -> Result<WebSocket, DialError> {
        let mut socket = websocket::dial(&self.options, &self.path).await?;
        let open = OpenDataChannel {
            message_schema_version: MESSAGE_SCHEMA_VERSION.to_owned(),
            request_id: Uuid::new_v4().to_string(),
            token_value: token.clone(),
            client_id: self.client_id.clone(),
            client_version: Some(VERSION.to_owned()),
            client_instance_id: None,
        };
        let text = serde_json::to_string(&open).map_err(|error| DialError::BadRequest(error.to_string()))?;
        socket.send(Message::Text(text.into())).await.map_err(|error| DialError::from(websocket::reason(error)))?;
        Ok(socket)
    }
}

/// Tells whether the same attempt may succeed in a moment. A server that is not there, or not the one it should be,
/// is no passing matter for a session that was started a moment ago.
fn is_passing(error: &DialError) -> bool {
    match error {
        DialError::Unreachable { .. } | DialError::TimedOut { .. } | DialError::Ended(_) => true,
        DialError::Refused(refusal) => refusal.status >= 500,
        _ => false,
    }
}

fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException" | "Throttling" | "InternalServerError" | "ServiceUnavailable" | "InternalFailure"
    ) || code.starts_with("status 5")
}
