//! What the AWS command line hands over when it runs a `session-manager-plugin`: six arguments, one of them by way of
//! a variable of the environment. The same forms as the original takes; what it answers with status 0 and a shrug is an
//! error here.
//!
//! Only reads; nothing is dialled.

use munjigi_core::secret::Secret;
use serde::Deserialize;
use url::Url;

/// Version we give to the AWS command line, four numeric parts. Above 1.2.497.0 the session's token comes in a variable
/// instead of the arguments, where every user of the machine could read it; below 1.2.764.0 the AWS command line warns of
/// an old plugin.
pub(crate) const VERSION: &str = "1.2.1000.0";
/// The argument that stands for the variable with the response; the variable's name may be longer.
const RESPONSE_VARIABLE: &str = "AWS_SSM_START_SESSION_RESPONSE";
/// The only operation a plugin is run for.
const OPERATION: &str = "StartSession";
/// Longest response or request read, bytes. A token has at most 300 characters; parameters may be long.
const MAX_JSON_BYTES: usize = 256 * 1024;

/// What the plugin is asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Nothing: it was run by hand to see whether it is there.
    Presence,
    /// Its version.
    Version,
    /// How it is used.
    Help,
    /// To carry a session that was started.
    Session(Box<Handover>),
}

/// A started session, as the AWS command line hands it over.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The session.
    pub(crate) session_id: String,
    /// Opens the data channel, once.
    pub(crate) token: Secret<String>,
    /// Where the data channel is.
    pub(crate) stream_url: Url,
    /// Region of the calls' signatures.
    pub(crate) region: String,
    /// The profile named by `--profile`.
    pub(crate) profile: Option<String>,
    /// Where StartSession was called; absent in the old form with three arguments.
    pub(crate) endpoint: Option<Url>,
    /// The session document that was named.
    pub(crate) document: Option<String>,
}

/// Why the arguments are of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    /// Neither `--version` nor a session.
    #[error("unknown operation `{0}`: this program is run by `aws ssm start-session`; --version shows its version")]
    UnknownOperation(String),
    /// Neither the old nor the present form.
    #[error(
        "{0} arguments, where `aws ssm start-session` gives six: is that AWS command line too new for this program?"
    )]
    Count(usize),
    /// Another operation than StartSession.
    #[error("invalid operation `{0}`: only StartSession can be handed to this program")]
    InvalidOperation(String),
    /// The variable that was announced is not there.
    #[error(
        "the variable {0} is not set, which should hold the answer to StartSession: run this by `aws ssm start-session`"
    )]
    NoResponse(String),
    /// A JSON argument is not what it should be. Its content is not shown: a token may stand in it.
    #[error("{what} is not usable: {why}")]
    Json {
        /// Which one.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A URL is not what it should be.
    #[error("{what} is not usable: {why}")]
    Address {
        /// Which one.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// The answer to StartSession.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    session_id: String,
    token_value: Option<String>,
    stream_url: Option<String>,
}

/// The request of StartSession, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    target: String,
    #[serde(default)]
    document_name: Option<String>,
}

/// Reads the arguments behind the program's name. `variable` reads the environment.
pub(crate) fn parse(arguments: &[String], variable: impl Fn(&str) -> Option<String>) -> Result<Asked, UsageError> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => Ok(Asked::Presence),
        ["--version"] => Ok(Asked::Version),
        ["--help" | "-h"] => Ok(Asked::Help),
        [first] | [first, _] => Err(UsageError::UnknownOperation((*first).to_owned())),
        [response, region, operation] => {
            session(response, region, operation, &variable).map(|handover| Asked::Session(Box::new(handover)))
        }
        [response, region, operation, profile, request, endpoint] => {
            let mut handover = session(response, region, operation, &variable)?;
            // The original ends in a panic without one; it needs it for encryption with KMS, we to tell a caller who
            // mixed up the arguments.
            let request: Request = json("the request of StartSession", request)?;
            if request.target.is_empty() {
                return Err(bad_json("the request of StartSession", "Target is empty"));
            }
            handover.profile = Some(*profile).filter(|profile| !profile.is_empty()).map(str::to_owned);
            let endpoint = Some(*endpoint).filter(|endpoint| !endpoint.is_empty());
            handover.document = request.document_name;
            handover.endpoint = endpoint.map(|text| address("the endpoint", text, "https")).transpose()?;
            Ok(Asked::Session(Box::new(handover)))
        }
        more => Err(UsageError::Count(more.len())),
    }
}

fn session(
    response: &str,
    region: &str,
    operation: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Handover, UsageError> {
    if operation != OPERATION {
        return Err(UsageError::InvalidOperation(operation.to_owned()));
    }
    let response = if response.starts_with(RESPONSE_VARIABLE) {
        variable(response)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| UsageError::NoResponse(response.to_owned()))?
    } else {
        response.to_owned()
    };
    let what = "the answer to StartSession";
    let Response { session_id, token_value, stream_url } = json(what, &response)?;
    // It stands in paths, on the screen and in requests: only what an id consists of.
    if !is_session_id(&session_id) {
        return Err(bad_json(what, "SessionId is no session id"));
    }
    let present = |member: Option<String>, name: &str| {
        member.filter(|value| !value.is_empty()).ok_or_else(|| bad_json(what, &format!("{name} is missing")))
    };
    let stream_url = present(stream_url, "StreamUrl")?;
    Ok(Handover {
        session_id,
        token: Secret::new(present(token_value, "TokenValue")?),
        stream_url: address("StreamUrl", &stream_url, "wss")?,
        region: region.to_owned(),
        profile: None,
        endpoint: None,
        document: None,
    })
}

/// AWS's ids have other ends than ours, so only what all of them have in common is asked for.
fn is_session_id(text: &str) -> bool {
    (1..=96).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte))
}

fn json<T: for<'a> Deserialize<'a>>(what: &'static str, text: &str) -> Result<T, UsageError> {
    if text.len() > MAX_JSON_BYTES {
        return Err(bad_json(what, &format!("it has more than {MAX_JSON_BYTES} bytes")));
    }
    // serde's own words may quote a value; its category and place may not.
    serde_json::from_str(text).map_err(|error| {
        let why = match error.classify() {
            serde_json::error::Category::Data => "a member is missing or not of its type",
            _ => "it is no JSON",
        };
        bad_json(what, &format!("{why} (line {}, column {})", error.line(), error.column()))
    })
}

fn bad_json(what: &'static str, why: &str) -> UsageError {
    UsageError::Json { what, why: why.to_owned() }
}

/// Parses a URL of the encrypted scheme: tokens and keystrokes travel on it (T-35).
fn address(what: &'static str, text: &str, scheme: &str) -> Result<Url, UsageError> {
    let bad = |why| UsageError::Address { what, why };
    let url = Url::parse(text).map_err(|_| bad("it is no URL"))?;
    if !url.has_host() || url.host_str() == Some("") {
        return Err(bad("it names no host"));
    }
    if url.scheme() != scheme {
        return Err(bad(if scheme == "wss" {
            "it does not begin with wss://"
        } else {
            "it does not begin with https://"
        }));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str = r#"{"SessionId":"alice-0123456789abcdef0","TokenValue":"tok-secret","StreamUrl":"wss://gate:8443/v1/data-channel/alice-0123456789abcdef0?role=publish_subscribe"}"#;
    const REQUEST: &str = r#"{"Target":"web-1","Parameters":{"command":["id"]}}"#;

    fn parsed(arguments: &[&str]) -> Result<Asked, UsageError> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        parse(&arguments, |name| {
            (name == "AWS_SSM_START_SESSION_RESPONSE" || name == "AWS_SSM_START_SESSION_RESPONSE_7")
                .then(|| RESPONSE.to_owned())
        })
    }

    fn handover(arguments: &[&str]) -> Handover {
        match parsed(arguments) {
            Ok(Asked::Session(handover)) => *handover,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_the_original_is_taken() {
        for response in [RESPONSE, "AWS_SSM_START_SESSION_RESPONSE", "AWS_SSM_START_SESSION_RESPONSE_7"] {
            let six = handover(&[response, "seoul-1", "StartSession", "ops", REQUEST, "https://gate:8443"]);
            assert_eq!(six.session_id, "alice-0123456789abcdef0");
            assert_eq!(six.token.expose(), "tok-secret");
            assert_eq!(six.stream_url.host_str(), Some("gate"));
            assert_eq!((six.region.as_str(), six.profile.as_deref()), ("seoul-1", Some("ops")));
            assert_eq!(six.endpoint.unwrap().as_str(), "https://gate:8443/");
            let three = handover(&[response, "seoul-1", "StartSession"]);
            assert!(three.profile.is_none() && three.endpoint.is_none());
        }
        assert!(handover(&[RESPONSE, "r", "StartSession", "", REQUEST, ""]).profile.is_none());
        assert!(matches!(parsed(&[]), Ok(Asked::Presence)));
        assert!(matches!(parsed(&["--version"]), Ok(Asked::Version)));
        assert!(matches!(parsed(&["--help"]), Ok(Asked::Help)));
    }

    #[test]
    fn what_the_original_takes_silently_is_an_error_that_says_what_is_wrong() {
        let full = |response: &str, operation: &str, request: &str, endpoint: &str| {
            parsed(&[response, "r", operation, "", request, endpoint]).unwrap_err().to_string()
        };
        assert!(parsed(&["-v"]).unwrap_err().to_string().contains("unknown operation `-v`"));
        assert!(parsed(&["a", "b"]).unwrap_err().to_string().contains("unknown operation"));
        for count in [4, 5, 7, 8] {
            let said = parsed(&vec![RESPONSE; count]).unwrap_err().to_string();
            assert!(said.contains(&format!("{count} arguments")), "{said}");
        }
        let url = "https://gate";
        assert!(full(RESPONSE, "ResumeSession", REQUEST, url).contains("invalid operation `ResumeSession`"));
        assert!(full("AWS_SSM_START_SESSION_RESPONSE_9", "StartSession", REQUEST, url).contains("is not set"));
        for (response, word) in [
            ("{", "no JSON"),
            ("[]", "member"),
            ("{}", "member"),
            (r#"{"SessionId":"../x","TokenValue":"t","StreamUrl":"wss://g/x"}"#, "no session id"),
            (r#"{"SessionId":"a-0123456789abcdef0","StreamUrl":"wss://g/x"}"#, "TokenValue is missing"),
            (r#"{"SessionId":"a-0123456789abcdef0","TokenValue":"t"}"#, "StreamUrl is missing"),
            (r#"{"SessionId":"a-0123456789abcdef0","TokenValue":"t","StreamUrl":"https://g"}"#, "wss://"),
            (r#"{"SessionId":"a-0123456789abcdef0","TokenValue":"t","StreamUrl":"ws://g/x"}"#, "wss://"),
        ] {
            let said = full(response, "StartSession", REQUEST, url);
            assert!(said.contains(word), "{said}");
        }
        for request in ["{}", "[]", r#"{"Target":7}"#, r#"{"Target":""}"#] {
            assert!(full(RESPONSE, "StartSession", request, url).contains("the request of StartSession"));
        }
        for (endpoint, word) in [("gate", "no URL"), ("http://gate", "https://"), ("https://", "no URL")] {
            let said = full(RESPONSE, "StartSession", REQUEST, endpoint);
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn no_error_and_no_debug_output_shows_the_token() {
        let damaged = RESPONSE.replace("\"tok-secret\"", "[\"tok-secret\"]");
        let said = format!("{:?}", parsed(&[&damaged, "r", "StartSession"]).unwrap_err());
        assert!(!said.contains("tok-secret"), "{said}");
        assert!(!format!("{:?}", handover(&[RESPONSE, "r", "StartSession"])).contains("tok-secret"));
    }

    #[test]
    fn the_version_is_one_the_aws_command_line_hands_tokens_to_by_variable() {
        let parts: Vec<u32> = VERSION.split('.').map(|part| part.parse().unwrap()).collect();
        assert!(parts.len() == 4 && parts > vec![1, 2, 497, 0] && parts >= vec![1, 2, 764, 0]);
    }

    #[test]
    fn a_quarter_million_mutated_answers_neither_panic_nor_pass_unchecked() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..1 << 18 {
            let mut bytes = RESPONSE.as_bytes().to_vec();
            for _ in 0..1 + next() % 4 {
                let at = (next() % bytes.len() as u64) as usize;
                match next() % 3 {
                    0 => bytes[at] = next() as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, b"{}[]\",:\\/"[(next() % 9) as usize]),
                }
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(Asked::Session(handover)) = parsed(&[&text, "r", "StartSession"]) {
                assert!(is_session_id(&handover.session_id) && handover.stream_url.has_host());
            }
        }
    }
}
