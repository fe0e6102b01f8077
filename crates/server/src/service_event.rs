//! Audit records of what the server itself does or observes, not a call of somebody: ends of sessions, nodes coming
//! and going.

use munjigi_core::audit::{AuditRecord, EVENT_VERSION, EventType, UserIdentity};
use serde_json::Value;
use uuid::Uuid;

use crate::Server;
use crate::clock;

/// Builds the record of such an event. `failure` is its code and text, if it is one.
pub(crate) fn service_event(
    server: &Server,
    name: &str,
    details: Value,
    failure: Option<(&'static str, String)>,
) -> AuditRecord {
    let (error_code, error_message) = failure.map(|(code, text)| (code.to_owned(), text)).unzip();
    AuditRecord {
        event_version: EVENT_VERSION.to_owned(),
        user_identity: UserIdentity::service("munjigi.local"),
        event_time: clock::now(),
        event_source: "munjigi.local".to_owned(),
        event_name: name.to_owned(),
        aws_region: server.deployment.region.to_string(),
        source_ip_address: "munjigi.local".to_owned(),
        user_agent: None,
        error_code,
        error_message,
        request_parameters: None,
        response_elements: None,
        additional_event_data: Some(details),
        request_id: None,
        event_id: Uuid::new_v4().to_string(),
        read_only: false,
        resources: Vec::new(),
        event_type: EventType::AwsServiceEvent,
        api_version: None,
        management_event: true,
        recipient_account_id: server.deployment.account.to_string(),
        shared_event_id: None,
        vpc_endpoint_id: None,
        event_category: "Management".to_owned(),
        addendum: None,
        session_credential_from_console: None,
        edge_device_details: None,
        tls_details: None,
    }
}
