//! CloudTrail: the audit trail as AWS's tools read it.

pub mod lookup_events;

pub use lookup_events::LookupEvents;
