//! `ListDocuments`: lists the documents of the account and the built-in ones, by name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Format, Found};
use super::pages::{MaxResults, begin};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{Page, Tag};

/// Documents read at once; each brings its text.
const BATCH: usize = 50;
/// Most filters of one call.
const MAX_FILTERS: usize = 6;

/// The operation.
pub struct ListDocuments;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// The old form of filters; not together with the new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub document_filter_list: Vec<OldFilter>,
    /// How many at most; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 50>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The documents.
    pub document_identifiers: Vec<Identifier>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl Operation for ListDocuments {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ListDocuments";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = "{}";
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:ListDocuments")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let wanted = Wanted::read(input)?;
        let chosen =
            serde_json::to_string(&(&input.filters, &input.document_filter_list)).map_err(ApiError::internal)?;
        let limit = input.max_results.map_or(50, MaxResults::get);
        let paging = begin(call, server, &chosen, input.next_token.as_deref(), limit)?;
        let behind = |found: &Found| paging.after.as_ref().is_none_or(|after| found.name > *after);
        let mut shown: Vec<Identifier> =
            Found::all_built_in().filter(|found| behind(found) && wanted.holds(found)).map(Identifier::new).collect();
        let mut own = 0;
        let mut after = paging.after.clone();
        while own <= limit {
            let page = server.store.list_documents(after.as_deref(), BATCH).await.map_err(refused)?;
            let found = page.items.into_iter().map(|(document, version)| Found::stored(server, document, version));
            let before = shown.len();
            shown.extend(found.filter(|found| wanted.holds(found)).map(Identifier::new));
            own += shown.len() - before;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        let page = Page::cut(shown, limit, |last| last.name.clone());
        let next_token = paging.token(page.next)?;
        Ok(Output { document_identifiers: page.items, next_token })
    }
}

/// A filter: the key holds one of the values.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Filter {
    /// What is looked at.
    pub key: String,
    /// What it may be.
    #[serde(default)]
    pub values: Vec<String>,
}

/// A filter in the old form.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OldFilter {
    /// What is looked at.
    pub key: String,
    /// What it may be.
    pub value: String,
}

/// Filters that were understood.
struct Wanted(Vec<(Key, Vec<String>)>);

enum Key {
    Name,
    Owner,
    DocumentType,
    PlatformTypes,
    TargetType,
    SearchKeyword,
    Tag(String),
}

impl Wanted {
    fn read(input: &Input) -> Result<Self, ApiError> {
        if !input.filters.is_empty() && !input.document_filter_list.is_empty() {
            return Err(ApiError::Validation("use either Filters or DocumentFilterList, not both".to_owned()));
        }
        let old = input.document_filter_list.iter().map(|old| (old.key.as_str(), vec![old.value.clone()]));
        let filters = input.filters.iter().map(|new| (new.key.as_str(), new.values.clone())).chain(old);
        let mut wanted = Vec::new();
        for (key, values) in filters {
            let key = match (key, key.strip_prefix("tag:")) {
                ("Name", _) => Key::Name,
                ("Owner", _) => Key::Owner,
                ("DocumentType", _) => Key::DocumentType,
                ("PlatformTypes", _) => Key::PlatformTypes,
                ("TargetType", _) => Key::TargetType,
                ("SearchKeyword", _) => Key::SearchKeyword,
                (_, Some(tag)) => Key::Tag(tag.to_owned()),
                _ => {
                    return Err(ApiError::bad(
                        "InvalidFilterKey",
                        format!("there is no filter {}", key.escape_debug()),
                    ));
                }
            };
            wanted.push((key, values));
        }
        if wanted.len() > MAX_FILTERS {
            return Err(ApiError::Validation(format!("no more than {MAX_FILTERS} filters")));
        }
        Ok(Self(wanted))
    }

    fn holds(&self, found: &Found) -> bool {
        self.0.iter().all(|(key, values)| values.iter().any(|value| key.holds(found, value)))
    }
}

impl Key {
    fn holds(&self, found: &Found, value: &str) -> bool {
        match self {
            Self::Name => found.name.starts_with(value),
            // Nothing is shared from elsewhere: what is not built in is the account's own.
            Self::Owner => match value {
                "All" => true,
                "Self" | "Private" => !found.is_built_in(),
                "Amazon" | "Public" => found.is_built_in(),
                _ => false,
            },
            Self::DocumentType => found.document_type == value,
            Self::PlatformTypes => found.platforms().contains(&value),
            Self::TargetType => found.target_type.as_deref() == Some(value),
            Self::SearchKeyword => {
                let word = value.to_lowercase();
                let shown = found.version.display_name.as_deref().unwrap_or_default();
                found.name.to_lowercase().contains(&word) || shown.to_lowercase().contains(&word)
            }
            Self::Tag(key) => found.tags.iter().any(|tag| tag.key == *key && tag.value == value),
        }
    }
}

/// A document in the list; members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Identifier {
    name: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_date: Option<EpochTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_name: Option<String>,
    platform_types: Vec<&'static str>,
    document_version: String,
    document_type: String,
    schema_version: &'static str,
    document_format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_type: Option<String>,
    tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
}

impl Identifier {
    fn new(found: Found) -> Self {
        Self {
            platform_types: found.platforms(),
            schema_version: found.schema(),
            document_format: Format::Json,
            created_date: found.created.map(EpochTime),
            display_name: found.version.display_name,
            version_name: found.version.version_name,
            document_version: found.version.version.to_string(),
            name: found.name,
            owner: found.owner,
            document_type: found.document_type,
            target_type: found.target_type,
            tags: found.tags,
            author: found.author,
        }
    }
}
