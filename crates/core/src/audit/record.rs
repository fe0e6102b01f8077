//! One audit event as a CloudTrail record, field for field and in CloudTrail's order.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::UserIdentity;
use super::text::{MAX_FIELD_BYTES, MAX_PARAMETER_BYTES, cut, cut_value, to_line};
use crate::time::Timestamp;

/// The record version that is written.
pub const EVENT_VERSION: &str = "1.11";
/// What stands in place of a secret.
pub const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";
/// Longest record, as CloudTrail has it. Longer ones lose their parameters, and the addendum says so.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;

const TRUNCATED: &str = "TRUNCATED";

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The record stays above [`MAX_RECORD_BYTES`] even without its parameters.
    #[error("the audit record is larger than 256 KiB")]
    TooLarge,
    /// The record is no JSON.
    #[error("the audit record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// A call of the API.
    AwsApiCall,
    /// Something the service or an agent did, such as the end of a session.
    AwsServiceEvent,
    /// A sign-in.
    AwsConsoleSignIn,
}

/// One audit event. Times are written as `2026-11-21T12:00:00Z`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// [`EVENT_VERSION`]; readers accept older ones.
    pub event_version: String,
    /// Who acted.
    pub user_identity: UserIdentity,
    /// When, by the server's clock, to the second.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub event_time: Timestamp,
    /// `ssm.amazonaws.com` and so on; `munjigi.local` for what AWS does not have.
    pub event_source: String,
    /// The operation.
    pub event_name: String,
    /// The region.
    pub aws_region: String,
    /// Address of the caller, or the name of the service that called.
    #[serde(rename = "sourceIPAddress")]
    pub source_ip_address: String,
    /// What the caller says it is.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// The wire code of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The text of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// The input, by [`parameters`]; `null` if there is none.
    #[serde(default)]
    pub request_parameters: Option<Value>,
    /// The output of a call that changes something; `null` for reads.
    #[serde(default)]
    pub response_elements: Option<Value>,
    /// What else is worth knowing: matched statements, authentication method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_event_data: Option<Value>,
    /// The request id on the wire.
    #[serde(rename = "requestID", default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A UUID of this event's own.
    #[serde(rename = "eventID")]
    pub event_id: String,
    /// Whether the call changes nothing.
    pub read_only: bool,
    /// What was acted on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// What kind of event it is.
    pub event_type: EventType,
    /// The API version, for services other than json 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Always true.
    pub management_event: bool,
    /// The account that the event belongs to.
    pub recipient_account_id: String,
    /// Joins the two records of a call between accounts.
    #[serde(rename = "sharedEventID", default, skip_serializing_if = "Option::is_none")]
    pub shared_event_id: Option<String>,
    /// The endpoint in a private network that the call came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc_endpoint_id: Option<String>,
    /// Always `Management`.
    pub event_category: String,
    /// What was cut or corrected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addendum: Option<Addendum>,
    /// The text `true` for browser sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_credential_from_console: Option<String>,
    /// Details of an edge device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge_device_details: Option<Value>,
    /// How the connection was protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_details: Option<TlsDetails>,
}

/// A resource that was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Its type, for example `AWS::SSM::ManagedInstance`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(rename = "ARN")]
    pub arn: String,
}

/// How a connection was protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsDetails {
    /// For example `TLSv1.3`.
    pub tls_version: String,
    /// For example `TLS_AES_128_GCM_SHA256`.
    pub cipher_suite: String,
    /// The `Host` header as sent.
    pub client_provided_host_header: String,
}

/// What was cut or corrected in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addendum {
    /// Why: `TRUNCATED`, or CloudTrail's `UPDATED_DATA` and `DELIVERY_DELAY`.
    pub reason: String,
    /// The fields concerned, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_fields: Option<String>,
}

impl AuditRecord {
    /// Returns the record as one line of JSON without a line break: fields from outside cut to their limits (T-68),
    /// the whole at most [`MAX_RECORD_BYTES`].
    pub fn to_json(&self) -> Result<String, AuditError> {
        let mut record = self.clone();
        let mut cut_fields = record.cut_fields();
        record.note(&cut_fields);
        let json = to_line(&record)?;
        if json.len() <= MAX_RECORD_BYTES {
            return Ok(json);
        }
        for (field, name) in [
            (&mut record.response_elements, "responseElements"),
            (&mut record.additional_event_data, "additionalEventData"),
            (&mut record.request_parameters, "requestParameters"),
        ] {
            if field.as_ref().is_some_and(|value| value.to_string().len() > MAX_PARAMETER_BYTES) {
                *field = Some(Value::String(TRUNCATED.to_owned()));
                cut_fields.push(name);
            }
        }
        if record.resources.len() > 100 {
            record.resources.truncate(100);
            cut_fields.push("resources");
        }
        record.note(&cut_fields);
        let json = to_line(&record)?;
        if json.len() > MAX_RECORD_BYTES { Err(AuditError::TooLarge) } else { Ok(json) }
    }

    fn note(&mut self, cut_fields: &[&'static str]) {
        if !cut_fields.is_empty() {
            let mut names = cut_fields.to_vec();
            names.sort_unstable();
            names.dedup();
            self.addendum = Some(Addendum { reason: TRUNCATED.to_owned(), updated_fields: Some(names.join(",")) });
        }
    }

    /// Cuts every text to its limit and returns the fields that were longer.
    fn cut_fields(&mut self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let identity = &mut self.user_identity;
        let texts = [
            (Some(&mut self.event_name), "eventName"),
            (Some(&mut self.event_source), "eventSource"),
            (Some(&mut self.aws_region), "awsRegion"),
            (Some(&mut self.source_ip_address), "sourceIPAddress"),
            (self.user_agent.as_mut(), "userAgent"),
            (self.error_code.as_mut(), "errorCode"),
            (self.error_message.as_mut(), "errorMessage"),
            (self.request_id.as_mut(), "requestID"),
            (identity.principal_id.as_mut(), "userIdentity"),
            (identity.arn.as_mut(), "userIdentity"),
            (identity.access_key_id.as_mut(), "userIdentity"),
            (identity.user_name.as_mut(), "userIdentity"),
            (identity.invoked_by.as_mut(), "userIdentity"),
            (identity.identity_provider.as_mut(), "userIdentity"),
            (self.tls_details.as_mut().map(|tls| &mut tls.client_provided_host_header), "tlsDetails"),
        ];
        for (text, name) in texts {
            if text.is_some_and(|text| cut(text, MAX_FIELD_BYTES)) {
                names.push(name);
            }
        }
        for resource in &mut self.resources {
            if cut(&mut resource.arn, MAX_FIELD_BYTES) {
                names.push("resources");
            }
        }
        for (value, name) in [
            (&mut self.request_parameters, "requestParameters"),
            (&mut self.response_elements, "responseElements"),
            (&mut self.additional_event_data, "additionalEventData"),
        ] {
            if value.as_mut().is_some_and(|value| cut_value(value, MAX_PARAMETER_BYTES)) {
                names.push(name);
            }
        }
        names
    }
}

/// Returns an input or output as it stands in a record: member names begin with a small letter, and the members named
/// in `secret` (by wire name, at any depth) hold [`HIDDEN`].
pub fn parameters(value: &Value, secret: &[&str]) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| {
                let shown = if secret.contains(&name.as_str()) && !member.is_null() {
                    Value::String(HIDDEN.to_owned())
                } else {
                    parameters(member, secret)
                };
                (lower_first(name), shown)
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| parameters(item, secret)).collect(),
        other => other.clone(),
    }
}

/// Abbreviations stay as they are: `SSHKey`, as AWS writes it.
fn lower_first(name: &str) -> String {
    if name.bytes().take(2).all(|letter| letter.is_ascii_uppercase()) {
        return name.to_owned();
    }
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}

fn write_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_iso_seconds())
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    Timestamp::parse_iso(&text).ok_or_else(|| serde::de::Error::custom("eventTime is no instant"))
}
