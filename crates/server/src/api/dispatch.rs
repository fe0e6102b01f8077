//! From an HTTP request to the operation it means (aws-api A.5) and from an outcome to the bytes of the answer.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use uuid::Uuid;

use super::error::ApiError;
use super::operation::{Service, Wire};
use super::query::Form;
use super::replay::Answer;
use super::table::{self, Entry};
use super::{WireInput, json, xml};

/// Content type of json 1.1.
const JSON: &str = "application/x-amz-json-1.1";
/// Content type of query answers.
const XML: &str = "text/xml";
/// Content type of ec2's answers.
const EC2_XML: &str = "text/xml;charset=UTF-8";

/// The operation that a request means, with its input as far as routing had to read it.
pub(crate) struct Routed {
    pub(crate) entry: &'static Entry,
    form: Option<Form>,
}

/// A request that means no operation, with the service whose form the error takes.
#[derive(Debug)]
pub(crate) struct Unrouted {
    pub(crate) service: Service,
    pub(crate) error: ApiError,
}

/// Finds the operation: by `X-Amz-Target`, else by the service of the credential scope and the form's `Action`.
pub(crate) fn route(
    method: &Method,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Routed, Unrouted> {
    if let Some(target) = headers.get("x-amz-target") {
        let unknown = |service, what: String| Unrouted { service, error: ApiError::UnknownOperation(what) };
        let target = target.to_str().unwrap_or_default();
        let service = Service::ALL.into_iter().find_map(|service| {
            let name = target.strip_prefix(service.target_prefix()?)?;
            Some((service, name))
        });
        let Some((service, name)) = service else {
            return Err(unknown(Service::Ssm, format!("no service has the target `{}`", shown(target))));
        };
        let Some(entry) = table::find(service, name) else {
            let name = shown(name);
            let what = format!("{} has no operation `{name}` on this server", service.signing_name());
            return Err(unknown(service, what));
        };
        return Ok(Routed { entry, form: None });
    }

    let scope = scope_service(headers, query);
    let form = match (method, query) {
        (&Method::GET, Some(query)) => Form::parse(query.as_bytes()),
        _ => Form::parse(body),
    };
    let by_scope =
        scope.as_deref().and_then(|name| Service::ALL.into_iter().find(|service| service.signing_name() == name));
    let form = match form {
        Ok(form) => form,
        Err(cause) => {
            let service = by_scope.unwrap_or(Service::Sts);
            return Err(Unrouted { service, error: ApiError::Malformed(cause.to_string()) });
        }
    };
    let by_version = Service::ALL.into_iter().find(|service| service.api_version() == form.version);
    let service = match (scope.as_deref(), by_scope) {
        (_, Some(service)) if service.wire() != Wire::Json => service,
        (None, _) => by_version.unwrap_or(Service::Sts),
        (Some(name), _) => {
            let what = format!("the service `{}` is not served here in the query form", shown(name));
            return Err(Unrouted { service: Service::Sts, error: ApiError::UnknownOperation(what) });
        }
    };
    match table::find(service, &form.action) {
        // SDKs of ec2 each name the version they were made with; the members that are served are in all of them.
        Some(entry) if service.wire() == Wire::Ec2 => match form.with_plain_lists() {
            Ok(form) => Ok(Routed { entry, form: Some(form) }),
            Err(cause) => Err(Unrouted { service, error: ApiError::Malformed(cause.to_string()) }),
        },
        Some(entry) if form.version.is_empty() || form.version == service.api_version() => {
            Ok(Routed { entry, form: Some(form) })
        }
        _ => {
            let what = format!("Could not find operation {} for version {}", shown(&form.action), shown(&form.version));
            Err(Unrouted { service, error: ApiError::UnknownOperation(what) })
        }
    }
}

impl Routed {
    /// Returns the input; for json services the body is read only now, when the caller is authenticated.
    pub(crate) fn input(self, body: &[u8]) -> Result<WireInput, ApiError> {
        match self.form {
            Some(form) => Ok(WireInput::Form(form)),
            None => json::parse(body).map(WireInput::Json).map_err(ApiError::Malformed),
        }
    }
}

/// Writes the answer of a call.
pub(crate) fn answer(service: Service, operation: &str, result: Result<Value, ApiError>, request_id: Uuid) -> Answer {
    let output = match result {
        Ok(output) => output,
        Err(error) => return refusal(service, &error, request_id),
    };
    let (content_type, body) = match service.wire() {
        Wire::Json if output.is_null() => (JSON, "{}".to_owned()),
        Wire::Json => (JSON, output.to_string()),
        Wire::Query => (XML, xml::answer(service, operation, &output, request_id)),
        Wire::Ec2 => (EC2_XML, xml::ec2_answer(service, operation, &output, request_id)),
    };
    Answer { status: http::StatusCode::OK, content_type, body: Bytes::from(body), request_id }
}

/// Writes an error in the service's form.
pub(crate) fn refusal(service: Service, error: &ApiError, request_id: Uuid) -> Answer {
    if let ApiError::Internal(cause) = error {
        tracing::error!(%request_id, cause = format!("{cause:#}"), "a request failed by a fault of the server");
    }
    let (content_type, body) = match service.wire() {
        Wire::Json => {
            let message = error.to_string();
            (JSON, serde_json::json!({ "__type": error.code(service), "message": message }).to_string())
        }
        Wire::Query => (XML, xml::error(service, error, request_id)),
        Wire::Ec2 => (EC2_XML, xml::ec2_error(service, error, request_id)),
    };
    Answer { status: error.status(service), content_type, body: Bytes::from(body), request_id }
}

/// Returns the service named in the credential scope of the `Authorization` header or of a presigned query, believed by
/// nobody yet.
fn scope_service(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    if let Some(header) = headers.get(http::header::AUTHORIZATION) {
        let scope = header.to_str().ok()?.split("Credential=").nth(1)?.split([',', ' ']).next()?;
        return scope.split('/').nth(3).map(str::to_owned);
    }
    let mut parameters = form_urlencoded::parse(query?.as_bytes());
    let (_, scope) = parameters.find(|(name, _)| name == "X-Amz-Credential")?;
    scope.split('/').nth(3).map(str::to_owned)
}

/// Returns a caller's text fit for a message: escaped and short.
fn shown(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn authorization(service: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261121/us-east-1/{service}/aws4_request, Signed…")
            .replace('…', "Headers=host, Signature=00")
    }

    fn check(headers: &HeaderMap, body: &str, expected: Result<&str, (&str, &str)>) {
        let found = route(&Method::POST, None, headers, body.as_bytes());
        match (&found, expected) {
            (Ok(routed), Ok(name)) => assert_eq!(routed.entry.name, name),
            (Err(unrouted), Err((code, part))) => {
                assert_eq!(unrouted.error.code(unrouted.service), code);
                assert!(unrouted.error.to_string().contains(part), "{}", unrouted.error);
            }
            (found, expected) => panic!("{expected:?}, but {:?}", found.as_ref().map(|r| r.entry.name)),
        }
    }

    #[test]
    fn forms_are_routed_by_scope_and_action() {
        let sts = headers(&[("authorization", &authorization("sts"))]);
        check(&sts, "Action=GetCallerIdentity&Version=2011-06-15", Ok("GetCallerIdentity"));
        check(&sts, "Action=GetCallerIdentity&Version=2010-05-08", Err(("InvalidAction", "version 2010-05-08")));
        check(&sts, "Action=Get%0aCaller", Err(("InvalidAction", "Get\\nCaller")));
        check(&sts, "", Err(("MalformedInput", "Action is missing")));
        check(&headers(&[]), "Action=GetCallerIdentity&Version=2011-06-15", Ok("GetCallerIdentity"));
        let ec2 = headers(&[("authorization", &authorization("ec2"))]);
        check(&ec2, "Action=DescribeInstances&Version=2016-11-15&InstanceId.1=i-1", Ok("DescribeInstances"));
        check(&ec2, "Action=RunInstances", Err(("InvalidAction", "RunInstances")));
        let rds = headers(&[("authorization", &authorization("rds"))]);
        check(&rds, "Action=DescribeDBInstances", Err(("InvalidAction", "`rds` is not served")));
        let ssm = headers(&[("authorization", &authorization("ssm"))]);
        check(&ssm, "Action=StartSession", Err(("InvalidAction", "`ssm` is not served")));
    }

    #[test]
    fn targets_decide_over_everything_else() {
        let target = |target: &str| headers(&[("x-amz-target", target), ("authorization", &authorization("sts"))]);
        let no_service = ("UnknownOperationException", "no service has the target");
        check(&target("DynamoDB_20120810.GetItem"), "Action=GetCallerIdentity", Err(no_service));
        check(&target(""), "", Err(no_service));
        check(&target("AmazonSSM.Nothing"), "{}", Err(("UnknownOperationException", "`Nothing`")));
        let mut bytes = HeaderMap::new();
        bytes.insert("x-amz-target", HeaderValue::from_bytes(b"AmazonSSM.\xff").unwrap());
        check(&bytes, "{}", Err(no_service));
    }

    #[test]
    fn errors_take_the_form_and_status_of_their_service() {
        let denied = || ApiError::Denied(super::super::error::Denial { reason: "x", message: "no".into() });
        let signature = |cause| ApiError::Signature(cause);
        use munjigi_core::sigv4::SigV4Error as S;
        for (error, json, query, status) in [
            (denied(), "AccessDeniedException", "AccessDenied", 403),
            (signature(S::NoCredentials), "MissingAuthenticationTokenException", "MissingAuthenticationToken", 403),
            (signature(S::Malformed("x")), "IncompleteSignatureException", "IncompleteSignature", 400),
            (signature(S::Mismatch), "InvalidSignatureException", "SignatureDoesNotMatch", 403),
            (signature(S::WrongScope("x")), "InvalidSignatureException", "SignatureDoesNotMatch", 403),
            (ApiError::InvalidClientToken, "UnrecognizedClientException", "InvalidClientTokenId", 403),
            (ApiError::ExpiredToken, "ExpiredTokenException", "ExpiredToken", 403),
            (ApiError::Validation("x".into()), "ValidationException", "ValidationError", 400),
            (ApiError::Malformed("x".into()), "SerializationException", "MalformedInput", 400),
            (ApiError::Throttled, "ThrottlingException", "Throttling", 400),
            (ApiError::no_such_entity("x"), "NoSuchEntity", "NoSuchEntity", 404),
        ] {
            let in_json = refusal(Service::Ssm, &error, Uuid::nil());
            let body: Value = serde_json::from_slice(&in_json.body).unwrap();
            assert_eq!((in_json.status, body["__type"].as_str()), (StatusCode::BAD_REQUEST, Some(json)));
            let in_query = refusal(Service::Iam, &error, Uuid::nil());
            assert_eq!(in_query.status.as_u16(), status, "{query}");
            let text = std::str::from_utf8(&in_query.body).unwrap();
            assert!(text.contains(&format!("<Code>{query}</Code>")), "{text}");
        }
        let shed = refusal(Service::Ssm, &ApiError::Unavailable("busy"), Uuid::nil());
        assert_eq!(shed.status, StatusCode::SERVICE_UNAVAILABLE);
        let fault = refusal(Service::Ssm, &ApiError::internal(anyhow::anyhow!("disk on fire")), Uuid::nil());
        assert_eq!(fault.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!String::from_utf8_lossy(&fault.body).contains("fire"));
    }

    #[test]
    fn empty_outputs_are_an_object_in_json_and_no_result_in_xml() {
        let json = answer(Service::Ssm, "X", Ok(Value::Null), Uuid::nil());
        assert_eq!((json.content_type, &json.body[..]), ("application/x-amz-json-1.1", &b"{}"[..]));
        let xml = answer(Service::Iam, "X", Ok(Value::Null), Uuid::nil());
        assert_eq!(xml.content_type, "text/xml");
        assert!(!String::from_utf8_lossy(&xml.body).contains("Result>"));
    }
}
