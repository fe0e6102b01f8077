//! `cloudtrail:LookupEvents`: audit events by attribute and time, newest first (aws-api, part C).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::paging::Paging;
use crate::api::time::EpochTime;
use crate::audit::{Attribute, AttributeKey, Filter, Found};
use crate::identity::Caller;

/// Most events of one answer, and the default.
const MOST: u32 = 50;
/// Longest value of an attribute.
const MOST_VALUE_CHARS: usize = 2000;

/// Looks events up.
pub struct LookupEvents;

/// Members as in the AWS model.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct LookupEventsInput {
    /// At most one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup_attributes: Option<Vec<LookupAttribute>>,
    /// Not before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<EpochTime>,
    /// Not after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<EpochTime>,
    /// `insight` asks for events that there are none of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_category: Option<String>,
    /// 1 to 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u32>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// An attribute with the value it must have.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LookupAttribute {
    attribute_key: String,
    attribute_value: String,
}

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LookupEventsOutput {
    /// Newest first.
    pub events: Vec<LookedUp>,
    /// Where the next page begins; also an empty page may have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// An event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LookedUp {
    event_id: String,
    event_name: String,
    /// `true` or `false` as text.
    read_only: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    event_time: EpochTime,
    event_source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    resources: Vec<ResourceShown>,
    /// The whole record as JSON.
    cloud_trail_event: String,
}

/// A resource of an event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<String>,
    resource_name: String,
}

impl From<Found> for LookedUp {
    fn from(found: Found) -> Self {
        let record = found.record;
        let resource = |resource: munjigi_core::audit::Resource| ResourceShown {
            resource_type: resource.kind,
            resource_name: resource.arn,
        };
        Self {
            event_id: record.event_id,
            event_name: record.event_name,
            read_only: if record.read_only { "true" } else { "false" },
            access_key_id: record.user_identity.access_key_id,
            event_time: EpochTime(record.event_time),
            event_source: record.event_source,
            username: record.user_identity.user_name,
            resources: record.resources.into_iter().map(resource).collect(),
            cloud_trail_event: found.json,
        }
    }
}

impl Operation for LookupEvents {
    const SERVICE: Service = Service::CloudTrail;
    const NAME: &'static str = "LookupEvents";
    const EFFECT: Effect = Effect::Read;
    type Input = LookupEventsInput;
    type Output = LookupEventsOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("cloudtrail:LookupEvents")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let filter = filter(input)?;
        let limit = input.max_results.unwrap_or(MOST);
        if !(1..=MOST).contains(&limit) {
            return Err(ApiError::bad("InvalidMaxResultsException", "MaxResults must be between 1 and 50"));
        }
        let binding = format!("{filter:?}");
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let invalid = || ApiError::bad("InvalidNextTokenException", "the NextToken is not one of this request");
        let paging =
            Paging::begin(call, server, &[&binding], input.next_token.as_deref(), limit).map_err(|_| invalid())?;
        let before = paging.after.as_deref().map(str::parse::<u64>).transpose().map_err(|_| invalid())?;
        if input.event_category.is_some() {
            return Ok(LookupEventsOutput { events: Vec::new(), next_token: None });
        }
        let page = server.audit.lookup(filter, before, paging.limit).await.map_err(ApiError::internal)?;
        Ok(LookupEventsOutput {
            next_token: paging.token(page.next.map(|next| next.to_string()))?,
            events: page.events.into_iter().map(LookedUp::from).collect(),
        })
    }
}

fn filter(input: &LookupEventsInput) -> Result<Filter, ApiError> {
    let invalid = |why: &str| ApiError::bad("InvalidLookupAttributesException", why);
    let given = input.lookup_attributes.as_deref().unwrap_or_default();
    if given.len() > 1 {
        return Err(invalid("one lookup attribute can be given at a time"));
    }
    if input.event_category.as_deref().is_some_and(|category| category != "insight") {
        return Err(ApiError::bad("InvalidEventCategoryException", "EventCategory can only be `insight`"));
    }
    let mut attributes = Vec::new();
    for LookupAttribute { attribute_key, attribute_value } in given {
        let key = match attribute_key.as_str() {
            "EventId" => AttributeKey::EventId,
            "EventName" => AttributeKey::EventName,
            "ReadOnly" => AttributeKey::ReadOnly,
            "Username" => AttributeKey::Username,
            "ResourceType" => AttributeKey::ResourceType,
            "ResourceName" => AttributeKey::ResourceName,
            "EventSource" => AttributeKey::EventSource,
            "AccessKeyId" => AttributeKey::AccessKeyId,
            _ => return Err(invalid("the lookup attribute's key is none of CloudTrail's")),
        };
        if attribute_value.is_empty() || attribute_value.chars().count() > MOST_VALUE_CHARS {
            return Err(invalid("the lookup attribute's value must have 1 to 2000 characters"));
        }
        attributes.push(Attribute { key, value: attribute_value.clone() });
    }
    let (since, until) = (input.start_time.map(|time| time.0), input.end_time.map(|time| time.0));
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        return Err(ApiError::bad("InvalidTimeRangeException", "StartTime is behind EndTime"));
    }
    Ok(Filter { attributes, since, until, errors_only: false })
}
