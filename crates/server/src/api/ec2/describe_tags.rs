//! `ec2:DescribeTags`: the tags of nodes, as scripts on hosts ask for them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::describe_instances::shown_tags;
use super::dry_run;
use super::filter::{self, Filter};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::paging::Paging;
use crate::identity::Caller;
use crate::store::Page;

/// Nodes read at once; one page of tags is looked for in at most all of them.
const BATCH: usize = 500;
/// Pages have 5 to 1000 tags.
const PAGE: std::ops::RangeInclusive<u16> = 5..=1000;

/// Lists tags.
pub struct DescribeTags;

/// Members as in the AWS model.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeTagsInput {
    /// Only those that fit all.
    #[serde(rename = "Filter", default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Length of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u16>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// Only tell whether it would be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribeTagsOutput {
    /// The tags.
    pub tag_set: Vec<TagOfResource>,
    /// Where the next page begins.
    pub next_token: Option<String>,
}

/// A tag and what has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagOfResource {
    resource_id: String,
    resource_type: &'static str,
    key: String,
    value: String,
}

impl TagOfResource {
    fn fits(&self, filter: &Filter) -> bool {
        match filter.name.as_str() {
            "resource-id" => filter.fits(&self.resource_id),
            "resource-type" => filter.fits(self.resource_type),
            "key" | "tag-key" => filter.fits(&self.key),
            "value" | "tag-value" => filter.fits(&self.value),
            name => name.strip_prefix("tag:").is_some_and(|key| self.key == key && filter.fits(&self.value)),
        }
    }

    /// Orders tags by node, then key; pages continue behind it.
    fn place(&self) -> String {
        format!("{}\u{1f}{}", self.resource_id.replacen("i-", "mi-", 1), self.key)
    }
}

fn known(name: &str) -> bool {
    ["resource-id", "resource-type", "key", "tag-key", "value", "tag-value"].contains(&name)
        || name.strip_prefix("tag:").is_some_and(|key| !key.is_empty())
}

impl Operation for DescribeTags {
    const SERVICE: Service = Service::Ec2;
    const NAME: &'static str = "DescribeTags";
    const EFFECT: Effect = Effect::Read;
    type Input = DescribeTagsInput;
    type Output = DescribeTagsOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ec2:DescribeTags")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        dry_run(input.dry_run)?;
        filter::check(&input.filters, known)?;
        let limit = match input.max_results {
            Some(count) if !PAGE.contains(&count) => {
                return Err(ApiError::Validation("MaxResults must be 5 to 1000.".to_owned()));
            }
            count => usize::from(count.unwrap_or(*PAGE.end())),
        };
        let parameters = serde_json::to_string(&input.filters).map_err(ApiError::internal)?;
        let paging = Paging::begin(call, server, &[&parameters], input.next_token.as_deref(), limit)
            .map_err(|error| ApiError::Validation(error.to_string()))?;
        let begin = paging.after.as_deref().unwrap_or_default();
        let mut found: Vec<TagOfResource> = Vec::new();
        let mut after: Option<String> = None;
        while found.len() <= limit {
            let page = server.store.list_nodes(after.as_deref(), BATCH).await.map_err(ApiError::internal)?;
            for node in &page.items {
                let mut tags: Vec<TagOfResource> = shown_tags(node)
                    .into_iter()
                    .map(|tag| TagOfResource {
                        resource_id: node.id.instance_id(),
                        resource_type: "instance",
                        key: tag.key,
                        value: tag.value,
                    })
                    .filter(|tag| input.filters.iter().all(|filter| tag.fits(filter)) && tag.place().as_str() > begin)
                    .collect();
                tags.sort_by(|one, other| one.key.cmp(&other.key));
                found.append(&mut tags);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let page = Page::cut(found, limit, TagOfResource::place);
        Ok(DescribeTagsOutput { tag_set: page.items, next_token: paging.token(page.next)? })
    }
}
