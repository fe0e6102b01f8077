//! The audit record of a call, field for field as CloudTrail writes it (aws-api E.1, E.2).

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use super::{Decided, RequestMeta, Via};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Effect, Operation, Service, Wire};
use crate::identity::{Caller, PrincipalKind};

/// What a hidden member shows.
const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";
/// Longest text of a member, bytes (T-68).
const MAX_TEXT_BYTES: usize = 4 * 1024;
/// Longest policy document, bytes: cutting one would hide what was granted, and 6144 characters are the most that is
/// stored, beside blanks.
const MAX_DOCUMENT_BYTES: usize = 48 * 1024;
/// Largest input or output in a record, bytes of JSON; both together stay below the record's 256 KiB.
const MAX_PART_BYTES: usize = 112 * 1024;

/// Who called, as far as is known.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    /// Authenticated.
    Caller(&'a Caller),
    /// Not authenticated; perhaps with a key id that proves nothing.
    Unknown(Option<&'a str>),
}

/// How the call went.
pub(crate) enum Outcome<'a> {
    /// Its output.
    Success(&'a Value),
    /// Its error.
    Failure(&'a ApiError),
}

/// A record being filled.
pub(crate) struct Event<'a> {
    service: Service,
    name: &'a str,
    effect: Effect,
    secret_fields: &'static [&'static str],
    server: &'a Server,
    request: &'a RequestMeta,
    who: Who<'a>,
    parameters: Value,
    decisions: &'a [Decided],
    additional: Map<String, Value>,
}

impl<'a> Event<'a> {
    /// Begins the record of an operation.
    pub(crate) fn of<O: Operation>(server: &'a Server, request: &'a RequestMeta, who: Who<'a>) -> Self {
        Self { secret_fields: O::SECRET_FIELDS, ..Self::named(server, request, who, O::SERVICE, O::NAME, O::EFFECT) }
    }

    /// Begins the record of an operation known by name.
    pub(crate) fn named(
        server: &'a Server,
        request: &'a RequestMeta,
        who: Who<'a>,
        service: Service,
        name: &'a str,
        effect: Effect,
    ) -> Self {
        Self {
            service,
            name,
            effect,
            secret_fields: &[],
            server,
            request,
            who,
            parameters: Value::Null,
            decisions: &[],
            additional: Map::new(),
        }
    }

    /// Sets the input.
    pub(crate) fn parameters(mut self, parameters: Value) -> Self {
        self.parameters = parameters;
        self
    }

    /// Sets what was required and decided.
    pub(crate) fn decisions(mut self, decisions: &'a [Decided]) -> Self {
        self.decisions = decisions;
        self
    }

    /// Adds a member of `additionalEventData`.
    pub(crate) fn additional(mut self, name: &str, value: Value) -> Self {
        self.additional.insert(name.to_owned(), value);
        self
    }

    /// Completes the record.
    pub(crate) fn complete(self, outcome: Outcome<'_>) -> Value {
        let deployment = &self.server.deployment;
        let account = deployment.account.as_str();
        let mut cut = Cut::default();
        let parameters = self.shown(self.parameters.clone(), &mut cut);
        let response = match (&outcome, self.effect) {
            (Outcome::Success(output), Effect::Write) => self.shown((*output).clone(), &mut cut),
            _ => Value::Null,
        };
        let mut record = json!({
            "eventVersion": "1.11",
            "userIdentity": identity(self.who, account),
            "eventTime": self.request.time.to_iso_seconds(),
            "eventSource": self.service.event_source(),
            "eventName": self.name,
            "awsRegion": &*deployment.region,
            "sourceIPAddress": self.request.source_ip.to_canonical().to_string(),
            "userAgent": cut.text(&self.request.user_agent, MAX_TEXT_BYTES),
            "requestParameters": parameters,
            "responseElements": response,
            "additionalEventData": self.additional_data(&outcome),
            "requestID": self.request.request_id.to_string(),
            "eventID": uuid::Uuid::new_v4().to_string(),
            "readOnly": self.effect == Effect::Read,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "eventCategory": "Management",
            "recipientAccountId": account,
        });
        let Value::Object(members) = &mut record else { return record };
        if let Outcome::Failure(error) = &outcome {
            members.insert("errorCode".into(), error.code(self.service).into());
            members.insert("errorMessage".into(), cut.text(&error.to_string(), MAX_TEXT_BYTES).into());
        }
        let resources = self.resources(account);
        if !resources.is_empty() {
            members.insert("resources".into(), resources.into());
        }
        if self.service.wire() == Wire::Query {
            members.insert("apiVersion".into(), self.service.api_version().into());
        }
        if let Some(tls) = &self.request.tls {
            let details = json!({
                "tlsVersion": tls.version,
                "cipherSuite": tls.cipher_suite,
                "clientProvidedHostHeader": cut.text(&self.request.host, MAX_TEXT_BYTES),
            });
            members.insert("tlsDetails".into(), details);
        }
        if cut.happened {
            members.insert("addendum".into(), json!({ "reason": "TRUNCATED_FIELDS" }));
        }
        record
    }

    /// Returns input or output as the record shows it: lower-camel names, secrets hidden, long texts cut.
    fn shown(&self, value: Value, cut: &mut Cut) -> Value {
        let shown = show(value, self.secret_fields, cut);
        let size = shown.to_string().len();
        if size > MAX_PART_BYTES {
            cut.happened = true;
            return json!({ "truncated": format!("{size} bytes, SHA-256 {}", sha256_hex(shown.to_string().as_bytes())) });
        }
        shown
    }

    fn resources(&self, account: &str) -> Vec<Value> {
        let mut resources: Vec<Value> = Vec::new();
        for Decided { requirement, .. } in self.decisions.iter().filter(|one| one.requirement.resource != "*") {
            let mut resource = json!({ "accountId": account, "ARN": requirement.resource });
            if let (Some(kind), Value::Object(members)) = (requirement.resource_type, &mut resource) {
                members.insert("type".into(), kind.into());
            }
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
        resources
    }

    fn additional_data(&self, outcome: &Outcome<'_>) -> Value {
        let mut data = self.additional.clone();
        let method = match self.request.via {
            Via::Api => "AuthHeader",
            Via::Link => "Link",
        };
        data.insert("authenticationMethod".into(), method.into());
        data.insert("signatureVersion".into(), "SigV4".into());
        if let Some(id) = &self.request.invocation_id {
            data.insert("invocationId".into(), id.as_str().into());
        }
        if let Outcome::Failure(error) = outcome
            && let Some(reason) = error.reason()
        {
            data.insert("reason".into(), reason.into());
        }
        let statements: Vec<Value> = self
            .decisions
            .iter()
            .flat_map(|one| &one.decision.statements)
            .map(|s| json!({ "policyId": &*s.policy_id, "sid": s.sid.as_deref(), "statement": s.index }))
            .collect();
        if !statements.is_empty() {
            data.insert("matchedStatements".into(), statements.into());
        }
        Value::Object(data)
    }
}

fn identity(who: Who<'_>, account: &str) -> Value {
    let caller = match who {
        Who::Unknown(key) => return json!({ "type": "Unknown", "accessKeyId": key }),
        Who::Caller(caller) => caller,
    };
    let principal = caller.principal();
    if principal.kind != PrincipalKind::User {
        return json!({ "type": "Unknown" });
    }
    json!({
        "type": "IAMUser",
        "principalId": principal.user_id(),
        "arn": principal.arn,
        "accountId": account,
        "accessKeyId": caller.access_key(),
        "userName": &*principal.name,
    })
}

/// Cuts long texts and remembers that it did.
#[derive(Default)]
struct Cut {
    happened: bool,
}

impl Cut {
    fn text(&mut self, text: &str, most: usize) -> String {
        if text.len() <= most {
            return text.to_owned();
        }
        self.happened = true;
        let mut end = most;
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let head = text.get(..end).unwrap_or_default();
        format!("{head}… (truncated, {} bytes, SHA-256 {})", text.len(), sha256_hex(text.as_bytes()))
    }
}

fn show(value: Value, secret_fields: &[&str], cut: &mut Cut) -> Value {
    match value {
        Value::Object(members) => {
            let shown = members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
                let value = match value {
                    _ if secret_fields.contains(&name.as_str()) => HIDDEN.into(),
                    Value::String(text) if name.ends_with("Document") => cut.text(&text, MAX_DOCUMENT_BYTES).into(),
                    value => show(value, secret_fields, cut),
                };
                (lower_camel(&name), value)
            });
            Value::Object(shown.collect())
        }
        Value::Array(values) => values.into_iter().map(|value| show(value, secret_fields, cut)).collect(),
        Value::String(text) => cut.text(&text, MAX_TEXT_BYTES).into(),
        other => other,
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn lower_camel(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
