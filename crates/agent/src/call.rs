//! One HTTPS call to the server: POST, JSON, pinned roots, no redirects, bounded in time and size.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use munjigi_link::dial::{DialOptions, tls_connect};
use munjigi_link::tls::PinnedRoots;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::{Position, Url};

/// From the request to the last byte of the answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest answer in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// As the AWS JSON protocol 1.1 demands.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// Calls one of the operations that take no signature of a principal; returns its output.
pub(crate) async fn unsigned<T: DeserializeOwned>(
    server: &Url,
    roots: PinnedRoots,
    operation: &str,
    input: &impl Serialize,
) -> anyhow::Result<T> {
    let body = serde_json::to_vec(input).context("failed to encode the request")?;
    let stream = tls_connect(&DialOptions::new(server.clone(), roots)).await?;
    let request = Request::post("/")
        .header(header::HOST, &server[Position::BeforeHost..Position::AfterPort])
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .header("x-amz-target", operation)
        .body(Full::new(Bytes::from(body)))
        .context("failed to build the request")?;
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        driver.abort();
        let body = body.map_err(|error| anyhow::anyhow!("the server's answer could not be read: {error}"))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    let (status, body) = tokio::time::timeout(ANSWER, exchange)
        .await
        .with_context(|| format!("the server did not answer within {} s", ANSWER.as_secs()))?
        .with_context(|| format!("the call to {server} failed"))?;
    if status != StatusCode::OK {
        bail!("{}", refusal(status, &body));
    }
    serde_json::from_slice(&body).context("the server's answer is not understood; are both of one version?")
}

/// Returns the server's words from an error in the form of the AWS API.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |keys: [&str; 2]| keys.iter().find_map(|key| parsed.get(key)?.as_str().map(plain));
    let code = text(["__type", "Code"]).unwrap_or_else(|| status.to_string());
    let message = text(["message", "Message"]).unwrap_or_else(|| "it gave no reason".to_owned());
    format!("the server refused: {message} ({code})")
}

/// Keeps a server's text from steering the terminal (T-88).
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_the_servers_words_without_control_characters() {
        let body = r#"{"__type":"InvalidActivation","message":"used\u001b[2J up"}"#;
        assert_eq!(
            refusal(StatusCode::BAD_REQUEST, body.as_bytes()),
            "the server refused: used[2J up (InvalidActivation)"
        );
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, b"<html>"),
            "the server refused: it gave no reason (502 Bad Gateway)"
        );
    }
}
