//! Signed calls of the API, exactly as `aws` makes them: JSON 1.1 for our own and SSM, query for IAM and STS. Errors become sentences with a next step here and nowhere else.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use munjigi_core::sigv4;
use munjigi_core::time::Timestamp;
use munjigi_link::DialError;
use munjigi_link::dial::{DialOptions, tls_connect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::clock;
use super::context::Context;
use super::text::escaped;
use super::xml::Element;

/// How long a call may take; the longest wait a call asks the server for is 20 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer read, bytes.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// How far the clocks may differ before a refused signature is blamed on them, seconds. The server allows 300.
const SUSPICIOUS_SKEW_SECS: i64 = 240;
/// What we call ourselves in the audit trail.
pub(crate) const USER_AGENT: &str = concat!("munjigi/", env!("CARGO_PKG_VERSION"));

/// The JSON services, by the prefix of their operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonService {
    /// Our own operations.
    Munjigi,
    /// Systems Manager.
    Ssm,
}

/// The query services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryService {
    /// Identity and access management.
    Iam,
    /// Security token service.
    Sts,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server refused, in its own words, with what to do next.
    #[error("{}", describe(.0))]
    Refused(Refusal),
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(#[from] DialError),
    /// The connection broke, or what came is no answer.
    #[error(
        "the server at {server} gave no usable answer to {operation}: {why}; try again, and look at the server's log"
    )]
    NoAnswer {
        /// Its address.
        server: String,
        /// What was called.
        operation: String,
        /// What was wrong.
        why: String,
    },
    /// The request could not be made.
    #[error("the request could not be made: {0}")]
    Request(String),
}

/// The server's refusal of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For example `AccessDeniedException`.
    pub(crate) code: String,
    /// The server's words.
    pub(crate) message: String,
    /// Id of the request in the audit trail; empty if unknown.
    pub(crate) request_id: String,
    /// How far this machine's clock is ahead of the server's, seconds, where the server told its time.
    pub(crate) clock_ahead_secs: Option<i64>,
}

/// Returns what a person can do about a refusal, by its code; `None` where the server's message says it all.
pub(crate) fn next_step(code: &str, clock_ahead_secs: Option<i64>) -> Option<String> {
    let step = match code {
        "AccessDeniedException" | "AccessDenied" => {
            "ask an administrator for that permission; `munjigi explain` shows which statements decide"
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" => {
            "the server does not know this access key: check --profile, AWS_PROFILE and that the key was not deleted"
        }
        "ExpiredTokenException" | "ExpiredToken" => "the temporary credentials are over: sign in again",
        "InvalidSignatureException" | "SignatureDoesNotMatch" => match clock_ahead_secs {
            Some(ahead) if ahead.abs() > SUSPICIOUS_SKEW_SECS => {
                let direction = if ahead > 0 { "ahead of" } else { "behind" };
                return Some(format!(
                    "this machine's clock is {} s {direction} the server's: set it right",
                    ahead.abs()
                ));
            }
            _ => "the secret does not belong to the access key: check the credentials file",
        },
        "TargetNotConnected" => "`munjigi ls` shows which nodes are online; `munjigi doctor` on the node says why not",
        "InvalidInstanceId" | "InvalidTarget" => "`munjigi ls` shows the nodes that there are",
        "ThrottlingException" | "Throttling" => "the server is busy: try again in a moment",
        "UnknownOperationException" | "InvalidAction" => "the server is older than this program: update the server",
        _ => return None,
    };
    Some(step.to_owned())
}

fn describe(refusal: &Refusal) -> String {
    sentence(&refusal.code, &refusal.message, refusal.clock_ahead_secs)
}

/// Returns the sentence for a refusal that came over the link.
pub(crate) fn refusal_text(code: &str, message: &str) -> String {
    sentence(code, message, None)
}

fn sentence(code: &str, message: &str, clock_ahead_secs: Option<i64>) -> String {
    let mut text = format!("{} ({})", escaped(message.trim_end_matches('.')), escaped(code));
    // A node refuses with the same code and its own reason, which no policy changes.
    let by_policy = !code.starts_with("AccessDenied") || message.contains("not authorized");
    if let Some(step) = next_step(code, clock_ahead_secs).filter(|_| by_policy) {
        text.push_str("; ");
        text.push_str(&step);
    }
    text
}

/// Makes calls to one server as one principal; keeps its connection between calls.
pub(crate) struct Api {
    context: Context,
    options: DialOptions,
    sender: Option<SendRequest<Full<Bytes>>>,
    clock_ahead_secs: Option<i64>,
}

impl Api {
    /// Prepares calls; nothing is dialled yet.
    pub(crate) fn new(context: Context) -> anyhow::Result<Self> {
        let options = super::link::dial_options(&context)?;
        Ok(Self::with_options(context, options))
    }

    /// Prepares calls that dial in another way than the usual one.
    pub(crate) fn with_options(context: Context, options: DialOptions) -> Self {
        Self { context, options, sender: None, clock_ahead_secs: None }
    }

    /// Returns where and as whom it calls.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Returns how far this clock was ahead of the server's at the last answer that told its time, seconds.
    pub(crate) fn clock_ahead_secs(&self) -> Option<i64> {
        self.clock_ahead_secs
    }

    /// Calls an operation of a JSON service.
    pub(crate) async fn json<I: Serialize, O: DeserializeOwned>(
        &mut self,
        service: JsonService,
        operation: &str,
        input: &I,
    ) -> Result<O, CallError> {
        let (prefix, scope) = match service {
            JsonService::Munjigi => ("Munjigi", "munjigi"),
            JsonService::Ssm => ("AmazonSSM", "ssm"),
        };
        let body = serde_json::to_vec(input).map_err(|error| CallError::Request(error.to_string()))?;
        let target = format!("{prefix}.{operation}");
        let answer = self.call(operation, scope, "application/x-amz-json-1.1", Some(&target), body.into()).await?;
        if answer.status != 200 {
            return Err(CallError::Refused(json_refusal(&answer)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| self.no_answer(operation, &error.to_string()))
    }

    /// Calls one of our own operations.
    pub(crate) async fn munjigi<I: Serialize, O: DeserializeOwned>(
        &mut self,
        operation: &str,
        input: &I,
    ) -> Result<O, CallError> {
        self.json(JsonService::Munjigi, operation, input).await
    }

    /// Calls an operation of a query service and returns its `…Result` element (empty for operations without one).
    pub(crate) async fn query(
        &mut self,
        service: QueryService,
        operation: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Element, CallError> {
        let (scope, version) = match service {
            QueryService::Iam => ("iam", "2010-05-08"),
            QueryService::Sts => ("sts", "2011-06-15"),
        };
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", operation).append_pair("Version", version).extend_pairs(parameters);
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        let answer = self.call(operation, scope, content_type, None, form.finish().into()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let root = Element::parse(&text).map_err(|error| self.no_answer(operation, &error.to_string()))?;
        if answer.status != 200 {
            return Err(CallError::Refused(query_refusal(&answer, &root)));
        }
        Ok(root.at(&[&format!("{operation}Result")]).cloned().unwrap_or_default())
    }

    async fn call(
        &mut self,
        operation: &str,
        scope: &str,
        content_type: &str,
        target: Option<&str>,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let work = async {
            let request = self.signed_request(scope, content_type, target, body)?;
            let sender = self.connected().await?;
            let response = sender.send_request(request).await;
            self.read(operation, response).await
        };
        match tokio::time::timeout(CALL_TIMEOUT, work).await {
            Ok(answer) => answer,
            Err(_) => {
                self.sender = None;
                Err(self.no_answer(operation, &format!("nothing came within {} s", CALL_TIMEOUT.as_secs())))
            }
        }
    }

    fn signed_request(
        &self,
        scope: &str,
        content_type: &str,
        target: Option<&str>,
        body: Bytes,
    ) -> Result<http::Request<Full<Bytes>>, CallError> {
        let impossible = |error: &dyn std::fmt::Display| CallError::Request(error.to_string());
        let host = super::link::host_header(&self.context.endpoint);
        let mut headers: Vec<(&str, &[u8])> =
            vec![("host", host.as_bytes()), ("content-type", content_type.as_bytes())];
        if let Some(target) = target {
            headers.push(("x-amz-target", target.as_bytes()));
        }
        let to_sign = sigv4::Request { method: "POST", target: "/", headers: &headers, body: &body };
        let signed = sigv4::sign(&to_sign, &self.context.credentials, &self.context.region, scope, clock::now())
            .map_err(|error| impossible(&error))?;
        let mut request = http::Request::post("/").header("user-agent", USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in signed {
            request = request.header(name, value);
        }
        request
            .header("amz-sdk-invocation-id", Uuid::new_v4().to_string())
            .body(Full::new(body))
            .map_err(|error| impossible(&error))
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, CallError> {
        let usable = match self.sender.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = tls_connect(&self.options).await?;
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| self.no_answer("HTTP", &error.to_string()))?;
            // The task ends when the sender is dropped or the server closes; its error reaches the caller by the sender.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an API connection ended");
                }
            });
            self.sender = Some(sender);
        }
        self.sender.as_mut().ok_or_else(|| CallError::Request("no connection".to_owned()))
    }

    async fn read(
        &mut self,
        operation: &str,
        response: hyper::Result<http::Response<hyper::body::Incoming>>,
    ) -> Result<Answer, CallError> {
        let response = response.map_err(|error| {
            self.sender = None;
            self.no_answer(operation, &error.to_string())
        })?;
        let (head, body) = response.into_parts();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let request_id = header("x-amzn-requestid").to_owned();
        let clock_ahead_secs = clock_ahead(header("date"), clock::now());
        self.clock_ahead_secs = clock_ahead_secs.or(self.clock_ahead_secs);
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                self.sender = None;
                return Err(self.no_answer(operation, &error.to_string()));
            }
        };
        Ok(Answer { status: head.status.as_u16(), body, request_id, clock_ahead_secs })
    }

    fn no_answer(&self, operation: &str, why: &str) -> CallError {
        CallError::NoAnswer {
            server: self.context.endpoint_text().to_owned(),
            operation: operation.to_owned(),
            why: escaped(why),
        }
    }
}

/// An answer as it came.
struct Answer {
    status: u16,
    body: Bytes,
    request_id: String,
    clock_ahead_secs: Option<i64>,
}

fn json_refusal(answer: &Answer) -> Refusal {
    let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let member = |names: [&str; 2]| {
        names.iter().find_map(|name| value.get(name)).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let full_code = member(["__type", "code"]);
    // `com.amazonaws.ssm#TargetNotConnected:uri` means TargetNotConnected.
    let code = full_code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    refusal(answer, code, member(["message", "Message"]))
}

fn query_refusal(answer: &Answer, root: &Element) -> Refusal {
    let text = |name| root.text_at(&["Error", name]).unwrap_or_default();
    refusal(answer, text("Code"), text("Message").to_owned())
}

fn refusal(answer: &Answer, code: &str, message: String) -> Refusal {
    let (status, request_id) = (answer.status, answer.request_id.clone());
    Refusal {
        code: if code.is_empty() { format!("status {status}") } else { code.to_owned() },
        message: if message.is_empty() { "the server gave no reason".to_owned() } else { message },
        request_id,
        clock_ahead_secs: answer.clock_ahead_secs,
    }
}

/// Compares the server's `Date` header (RFC 9110, `Sun, 22 Nov 2026 01:00:00 GMT`) with our clock.
fn clock_ahead(date: &str, now: Timestamp) -> Option<i64> {
    let server = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    Some(now.as_secs() - server)
}

/// Explains, for the top of a command, which server could not be reached and what starts it.
pub(crate) fn explain_unreachable(error: CallError, context: &Context) -> anyhow::Error {
    let refused = matches!(error, CallError::Unreachable(DialError::ConnectionRefused { .. }));
    match &context.data_dir {
        Some(dir) if refused => {
            anyhow!(error).context(format!("no server runs for {}: `munjigi up` starts it", dir.display()))
        }
        _ => anyhow!(error),
    }
}

/// Attaches the context of a command to a failed call.
pub(crate) trait CallContext<T> {
    /// Says what was attempted, and what starts the server if none runs.
    fn doing(self, context: &Context, what: &'static str) -> anyhow::Result<T>;
}

impl<T> CallContext<T> for Result<T, CallError> {
    fn doing(self, context: &Context, what: &'static str) -> anyhow::Result<T> {
        self.map_err(|error| explain_unreachable(error, context)).context(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer {
            status: 400,
            body: Bytes::copy_from_slice(body.as_bytes()),
            request_id: "r".into(),
            clock_ahead_secs: Some(900),
        }
    }

    #[test]
    fn refusals_of_both_wire_forms_are_read() {
        let json =
            json_refusal(&answer(r#"{"__type":"com.amazonaws.ssm#TargetNotConnected:http://x","message":"gone"}"#));
        assert_eq!((json.code.as_str(), json.message.as_str()), ("TargetNotConnected", "gone"));
        let other = json_refusal(&answer(r#"{"__type":"A","Message":"b"}"#));
        assert_eq!((other.code.as_str(), other.message.as_str()), ("A", "b"));
        let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no user</Message></Error></ErrorResponse>";
        let query = query_refusal(&answer(xml), &Element::parse(xml).unwrap());
        assert_eq!((query.code.as_str(), query.message.as_str()), ("NoSuchEntity", "no user"));
        assert_eq!(json_refusal(&answer("<html>")).code, "status 400");
    }

    #[test]
    fn a_refused_signature_names_the_clock_only_when_the_clock_is_wrong() {
        let step = |ahead| next_step("InvalidSignatureException", ahead).unwrap();
        assert!(step(Some(900)).contains("900 s ahead of"));
        assert!(step(Some(-301)).contains("301 s behind"));
        assert!(step(Some(10)).contains("credentials file"));
        assert!(step(None).contains("credentials file"));
    }

    #[test]
    fn only_a_refusal_by_policy_is_said_to_be_one() {
        assert!(refusal_text("AccessDenied", "User: x is not authorized to perform: y").contains("munjigi explain"));
        assert!(!refusal_text("AccessDeniedException", "OS user `x` may not log in here").contains("explain"));
    }

    #[test]
    fn the_servers_words_cannot_act_on_the_terminal() {
        let refusal = Refusal {
            code: "X".into(),
            message: "a\x1b]52;c;eA==\x07.".into(),
            request_id: String::new(),
            clock_ahead_secs: None,
        };
        assert_eq!(describe(&refusal), "a\\u{1b}]52;c;eA==\\u{7} (X)");
    }

    #[test]
    fn the_date_header_tells_how_far_the_clock_is_off() {
        let now = Timestamp::from_secs(1_795_262_400);
        assert_eq!(clock_ahead("Sat, 21 Nov 2026 12:00:00 GMT", now), Some(0));
        assert_eq!(clock_ahead("Sat, 21 Nov 2026 11:59:00 GMT", now), Some(60));
        assert_eq!(clock_ahead("tomorrow", now), None);
    }
}
