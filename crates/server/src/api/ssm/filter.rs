//! Filters of `DescribeInstanceInformation`, in both forms that clients send.

use munjigi_core::id::NodeId;
use serde::{Deserialize, Serialize};

use super::managed_node::PingStatus;
use crate::api::error::ApiError;
use crate::store::Node;

/// Most values of one filter.
const MAX_VALUES: usize = 100;
/// Most filters of one call.
const MAX_FILTERS: usize = 40;

/// A filter: the key holds one of the values.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Filter {
    /// What is looked at.
    pub key: String,
    /// What it may be.
    pub values: Vec<String>,
}

/// A filter in the old form.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OldFilter {
    /// What is looked at.
    pub key: String,
    /// What it may be.
    pub value_set: Vec<String>,
}

/// A filter that was understood.
pub(super) struct NodeFilter<'i> {
    key: Key<'i>,
    values: &'i [String],
}

enum Key<'i> {
    Id,
    AgentVersion,
    PingStatus,
    PlatformType,
    Activation,
    IamRole,
    ResourceType,
    /// Nodes have no associations here.
    AssociationStatus,
    AnyTag,
    Tag(&'i str),
}

impl<'i> NodeFilter<'i> {
    /// Reads the filters of a call; only one of the forms may be used.
    pub(super) fn read(filters: &'i [Filter], old: &'i [OldFilter]) -> Result<Vec<Self>, ApiError> {
        if !filters.is_empty() && !old.is_empty() {
            let message = "use either Filters or InstanceInformationFilterList, not both";
            return Err(ApiError::Validation(message.to_owned()));
        }
        if filters.len().max(old.len()) > MAX_FILTERS {
            return Err(ApiError::Validation(format!("no more than {MAX_FILTERS} filters")));
        }
        let new = filters.iter().map(|filter| Self::one(&filter.key, &filter.values, true));
        let old = old.iter().map(|filter| Self::one(&filter.key, &filter.value_set, false));
        new.chain(old).collect()
    }

    fn one(key: &'i str, values: &'i [String], tags: bool) -> Result<Self, ApiError> {
        let invalid = |message: String| ApiError::bad("InvalidInstanceInformationFilterValue", message);
        let key = match key {
            "InstanceIds" => Key::Id,
            "AgentVersion" => Key::AgentVersion,
            "PingStatus" => Key::PingStatus,
            "PlatformTypes" => Key::PlatformType,
            "ActivationIds" => Key::Activation,
            "IamRole" => Key::IamRole,
            "ResourceType" => Key::ResourceType,
            "AssociationStatus" => Key::AssociationStatus,
            "tag-key" if tags => Key::AnyTag,
            key => match key.strip_prefix("tag:").filter(|name| tags && !name.is_empty()) {
                Some(name) => Key::Tag(name),
                None => {
                    let shown: String = key.chars().take(64).flat_map(char::escape_default).collect();
                    return Err(ApiError::bad("InvalidFilterKey", format!("there is no filter {shown}")));
                }
            },
        };
        if !(1..=MAX_VALUES).contains(&values.len()) || values.iter().any(String::is_empty) {
            return Err(invalid(format!("a filter has 1 to {MAX_VALUES} values, none of them empty")));
        }
        let known = |words: &[&str]| match values.iter().find(|value| !words.contains(&value.as_str())) {
            Some(_) => Err(invalid(format!("the values of this filter are {}", words.join(", ")))),
            None => Ok(()),
        };
        match key {
            Key::Id => values.iter().try_for_each(|value| match NodeId::parse(value) {
                Ok(_) => Ok(()),
                // Nodes of EC2 have ids of another form; none are here, so the filter is good and finds nothing.
                Err(_) if value.strip_prefix("i-").is_some_and(|id| id.bytes().all(|b| b.is_ascii_alphanumeric())) => {
                    Ok(())
                }
                Err(error) => Err(ApiError::bad("InvalidInstanceId", error.to_string())),
            })?,
            Key::PingStatus => known(&["Online", "ConnectionLost", "Inactive"])?,
            Key::PlatformType => known(&["Windows", "Linux", "MacOS"])?,
            Key::ResourceType => known(&["ManagedInstance", "EC2Instance"])?,
            _ => {}
        }
        Ok(Self { key, values })
    }

    /// Tells whether a node fits.
    pub(super) fn holds(&self, node: &Node, status: PingStatus) -> bool {
        let is = |actual: &str| self.values.iter().any(|value| value == actual);
        match self.key {
            Key::Id => is(node.id.as_str()),
            Key::AgentVersion => is(&node.facts.agent_version),
            Key::PingStatus => is(status.as_str()),
            Key::PlatformType => is("Linux"),
            Key::Activation => node.activation.is_some_and(|activation| is(&activation.to_string())),
            Key::IamRole => is(&node.iam_role),
            Key::ResourceType => is("ManagedInstance"),
            Key::AssociationStatus => false,
            Key::AnyTag => node.tags.iter().any(|tag| is(&tag.key)),
            Key::Tag(name) => node.tags.iter().any(|tag| tag.key == name && is(&tag.value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use munjigi_core::time::Timestamp;

    use super::*;
    use crate::store::{AgentKind, NodeFacts, Tag};

    fn node() -> Node {
        Node {
            id: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            name: "web".into(),
            agent: AgentKind::Munjigi,
            public_key: Vec::new(),
            fingerprint: None,
            activation: Some(uuid::Uuid::nil()),
            iam_role: "nodes".into(),
            registered: Timestamp(0),
            last_seen: Timestamp(0),
            facts: NodeFacts { agent_version: "0.1.0".into(), ..NodeFacts::default() },
            ip_address: None,
            tags: vec![Tag { key: "Env".into(), value: "prod".into() }],
        }
    }

    #[test]
    fn each_filter_finds_and_passes_over() {
        for (key, value, found) in [
            ("InstanceIds", "mi-0123456789abcdef0", true),
            ("InstanceIds", "i-0123456789abcdef0", false),
            ("AgentVersion", "0.1.0", true),
            ("PingStatus", "Online", true),
            ("PingStatus", "Inactive", false),
            ("PlatformTypes", "Linux", true),
            ("PlatformTypes", "Windows", false),
            ("ActivationIds", "00000000-0000-0000-0000-000000000000", true),
            ("IamRole", "nodes", true),
            ("ResourceType", "EC2Instance", false),
            ("AssociationStatus", "Success", false),
            ("tag-key", "Env", true),
            ("tag:Env", "prod", true),
            ("tag:Env", "test", false),
            ("tag:Other", "prod", false),
        ] {
            let filters = [Filter { key: key.into(), values: vec![value.into()] }];
            let read = NodeFilter::read(&filters, &[]).unwrap();
            assert_eq!(read[0].holds(&node(), PingStatus::Online), found, "{key}={value}");
        }
    }

    #[test]
    fn filters_that_mean_nothing_are_refused() {
        let read = |key: &str, values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).into()).collect();
            let new = [Filter { key: key.into(), values: values.clone() }];
            let code = |result: Result<Vec<NodeFilter<'_>>, ApiError>| {
                result.err().map(|error| error.code(crate::api::operation::Service::Ssm))
            };
            let old = [OldFilter { key: key.into(), value_set: values }];
            (code(NodeFilter::read(&new, &[])), code(NodeFilter::read(&[], &old)))
        };
        let value = Some("InvalidInstanceInformationFilterValue");
        assert_eq!(read("PingStatus", &["Up"]), (value, value));
        assert_eq!(read("PingStatus", &[]), (value, value));
        assert_eq!(read("InstanceIds", &["web"]), (Some("InvalidInstanceId"), Some("InvalidInstanceId")));
        assert_eq!(read("Color", &["red"]), (Some("InvalidFilterKey"), Some("InvalidFilterKey")));
        assert_eq!(read("tag:Env", &["prod"]), (None, Some("InvalidFilterKey")));
        let new = [Filter { key: "IamRole".into(), values: vec!["a".into()] }];
        let old = [OldFilter { key: "IamRole".into(), value_set: vec!["a".into()] }];
        assert!(NodeFilter::read(&new, &old).is_err());
    }
}
