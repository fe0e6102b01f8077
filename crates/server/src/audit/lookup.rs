//! Finding events: newest first for `LookupEvents`, oldest first for following the trail.

use munjigi_core::audit::AuditRecord;
use munjigi_core::time::Timestamp;

use super::AuditError;
use super::segment::{Walked, walk};
use super::trail::{Located, Trail};

/// One call scans at most so many bytes of the trail; the page then says where to go on.
const MOST_SCANNED_BYTES: u64 = 32 * 1024 * 1024;
/// A page holds at most about so many bytes of records.
const MOST_PAGE_BYTES: usize = 1024 * 1024;

/// What an event must be like; the default lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// All of these must hold.
    pub attributes: Vec<Attribute>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Not after this.
    pub until: Option<Timestamp>,
    /// Only refused and failed calls.
    pub errors_only: bool,
}

/// A lookup attribute with the value it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Which one.
    pub key: AttributeKey,
    /// Its value.
    pub value: String,
}

/// The lookup attributes of CloudTrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeKey {
    /// `eventID`.
    EventId,
    /// `eventName`.
    EventName,
    /// `readOnly`, as `true` or `false`.
    ReadOnly,
    /// The user's name or ARN, or a role session's name.
    Username,
    /// Type of a resource.
    ResourceType,
    /// ARN of a resource, or the last part of one.
    ResourceName,
    /// `eventSource`.
    EventSource,
    /// The access key that signed.
    AccessKeyId,
}

/// An event that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its number in the trail.
    pub sequence: u64,
    /// The record.
    pub record: AuditRecord,
    /// The record as it stands in the trail.
    pub json: String,
}

/// Some events.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The events.
    pub events: Vec<Found>,
    /// Where the next page begins: newest first, events below this number; oldest first, from it on. `None`, only
    /// newest first, if there are no more.
    pub next: Option<u64>,
    /// Whether the end was reached: the oldest event, or the newest.
    pub at_end: bool,
}

/// Scans from the newest event below `before` backwards.
pub(super) fn backwards(trail: &Trail, filter: &Filter, before: Option<u64>, most: usize) -> Result<Page, AuditError> {
    let mut page = Page { events: Vec::new(), next: None, at_end: false };
    let newest = *trail.durable.borrow();
    let mut before = before.unwrap_or(u64::MAX).min(newest.saturating_add(1));
    let (mut scanned, mut bytes) = (0, 0);
    while let Some(located) = trail.locate(before.saturating_sub(1))? {
        if may_hold(filter, &located) {
            scanned += located.end - located.block.offset;
            let mut found = Vec::new();
            scan(trail, &located, |sequence, json| {
                if sequence < before {
                    found.extend(passes(filter, sequence, json));
                }
            })?;
            for event in found.into_iter().rev() {
                bytes += event.json.len();
                before = event.sequence;
                page.events.push(event);
                if page.events.len() >= most || bytes >= MOST_PAGE_BYTES {
                    page.next = (before > 1).then_some(before);
                    page.at_end = before <= 1;
                    return Ok(page);
                }
            }
        }
        before = located.block.first;
        if scanned >= MOST_SCANNED_BYTES && before > 1 {
            page.next = Some(before);
            return Ok(page);
        }
    }
    page.at_end = true;
    Ok(page)
}

/// Scans from an event's number on forwards.
pub(super) fn forwards(trail: &Trail, filter: &Filter, from: u64, most: usize) -> Result<Page, AuditError> {
    let mut page = Page { events: Vec::new(), next: None, at_end: false };
    let mut from = from.max(1);
    let (mut scanned, mut bytes) = (0, 0);
    while let Some(located) = trail.locate(from)? {
        // The block's last event is known only after reading it, unless all of it is left out.
        let mut last = from;
        let mut full = false;
        let wanted = may_hold(filter, &located);
        scanned += located.end - located.block.offset;
        scan(trail, &located, |sequence, json| {
            if sequence < from || full {
                return;
            }
            last = sequence;
            if let Some(event) = wanted.then(|| passes(filter, sequence, json)).flatten() {
                bytes += event.json.len();
                page.events.push(event);
                full = page.events.len() >= most || bytes >= MOST_PAGE_BYTES;
            }
        })?;
        from = last + 1;
        if full || scanned >= MOST_SCANNED_BYTES {
            break;
        }
    }
    page.next = Some(from);
    page.at_end = from > *trail.durable.borrow();
    Ok(page)
}

fn may_hold(filter: &Filter, located: &Located) -> bool {
    filter.since.is_none_or(|since| located.block.newest >= since)
        && filter.until.is_none_or(|until| located.block.oldest <= until)
}

fn scan(trail: &Trail, located: &Located, mut take: impl FnMut(u64, &str)) -> Result<(), AuditError> {
    let file = trail.file(located.segment)?;
    let walked = walk(&file, located.block.offset, located.end, |line, _| {
        take(line.link.sequence, line.record);
        true
    });
    match walked.map_err(AuditError::io("read the trail"))? {
        Walked::End { .. } => Ok(()),
        Walked::Broken(error) => Err(AuditError::Damaged(
            format!("an event near number {}: {error}; run `munjigi verify`", located.block.first).into(),
        )),
    }
}

/// Returns the event if it passes.
fn passes(filter: &Filter, sequence: u64, json: &str) -> Option<Found> {
    if !filter.attributes.iter().all(|attribute| may_match(attribute, json)) {
        return None;
    }
    let record: AuditRecord = serde_json::from_str(json).ok()?;
    let time = record.event_time;
    let passes = filter.since.is_none_or(|since| time >= since)
        && filter.until.is_none_or(|until| time <= until)
        && (!filter.errors_only || record.error_code.is_some())
        && filter.attributes.iter().all(|attribute| matches(attribute, &record));
    passes.then(|| Found { sequence, record, json: json.to_owned() })
}

/// Tells quickly that a record cannot have an attribute: values of plain characters stand in it as they are.
fn may_match(attribute: &Attribute, json: &str) -> bool {
    let plain = attribute.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/@+=,".contains(&b));
    !plain || json.contains(&attribute.value)
}

fn matches(attribute: &Attribute, record: &AuditRecord) -> bool {
    let value = attribute.value.as_str();
    let identity = &record.user_identity;
    match attribute.key {
        AttributeKey::EventId => record.event_id == value,
        AttributeKey::EventName => record.event_name == value,
        AttributeKey::ReadOnly => value == if record.read_only { "true" } else { "false" },
        AttributeKey::Username => {
            let session = identity.principal_id.as_deref().and_then(|id| id.split_once(':')).map(|(_, name)| name);
            [identity.user_name.as_deref(), identity.arn.as_deref(), session].contains(&Some(value))
        }
        AttributeKey::ResourceType => record.resources.iter().any(|resource| resource.kind.as_deref() == Some(value)),
        AttributeKey::ResourceName => record.resources.iter().any(|resource| {
            resource.arn == value
                || resource.arn.rsplit(['/', ':']).next() == Some(value).filter(|name| !name.is_empty())
        }),
        AttributeKey::EventSource => record.event_source == value,
        AttributeKey::AccessKeyId => identity.access_key_id.as_deref() == Some(value),
    }
}
