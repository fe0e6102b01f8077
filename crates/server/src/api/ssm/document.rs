//! Session documents as the operations of SSM name and show them: references, versions, what is needed to touch one,
//! and the built-in ones beside those of the account.

use aws_lc_rs::digest::{SHA256, digest};
use munjigi_core::document::{self, BUILT_IN, BuiltIn, Document, DocumentError};
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::Requirement;
use crate::api::tag;
use crate::api::time::EpochTime;
use crate::store::{DocumentVersion, StoreError, StoredDocument, Tag, VersionRef};

/// The account's preferences: what holds for sessions that name no document.
pub(crate) const PREFERENCES: &str = "SSM-SessionManagerRunShell";
/// The only type of document that is kept.
pub(crate) const SESSION: &str = "Session";
/// Type of documents in audit records.
pub(crate) const RESOURCE_TYPE: &str = "AWS::SSM::Document";
/// Owner of the built-in documents.
const AMAZON: &str = "Amazon";

/// A document by name or ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Its name; `None` when the ARN is of another account or region, where nothing is known.
    name: Option<String>,
    arn: String,
}

impl Reference {
    /// Reads a name or an ARN, which may be that of a built-in document.
    pub(crate) fn read(server: &Server, text: &str) -> Self {
        let here = &server.deployment;
        if !text.starts_with("arn:") {
            return Self { name: Some(text.to_owned()), arn: here.document(text).to_string() };
        }
        let name = text.split_once(":document/").map(|(_, name)| name.to_owned());
        let own = name.as_deref().is_some_and(|name| {
            let with_account = format!("arn:aws:ssm:{}:{}:document/{name}", here.region, here.account);
            text == here.document(name).as_str() || text == with_account
        });
        match name.filter(|_| own) {
            Some(name) => Self { arn: here.document(&name).to_string(), name: Some(name) },
            None => Self { name: None, arn: text.to_owned() },
        }
    }

    /// Returns the name, or the ARN of what is not here.
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.arn)
    }

    /// Requires an action on the document; its tags are condition keys. One that does not exist has the ARN it would
    /// have.
    pub(crate) async fn requirement(&self, server: &Server, action: &'static str) -> Result<Requirement, ApiError> {
        let requirement = Requirement::new(action, &self.arn).of_type(RESOURCE_TYPE).with("ssm:DocumentType", SESSION);
        let Some(name) = self.name.as_ref().filter(|name| document::built_in(name).is_none()) else {
            return Ok(requirement);
        };
        match server.store.document(name, &VersionRef::Default).await {
            Ok((document, _)) => Ok(requirement.resource_tags(tag::pairs(&document.tags))),
            Err(StoreError::NotFound { .. }) => Ok(requirement),
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    /// Returns the name of a document that may be changed; the built-in ones may not.
    pub(crate) fn changeable(&self) -> Result<&str, ApiError> {
        let name = self.name.as_deref().ok_or_else(|| missing(self.shown()))?;
        if document::built_in(name).is_some() {
            return Err(ApiError::bad("InvalidDocumentOperation", format!("{name} is built in and cannot be changed")));
        }
        Ok(name)
    }

    /// Finds the document with one of its versions.
    pub(crate) async fn find(&self, server: &Server, wanted: &VersionRef) -> Result<Found, ApiError> {
        let name = self.name.as_deref().ok_or_else(|| missing(self.shown()))?;
        if let Some(built_in) = document::built_in(name) {
            return match wanted {
                VersionRef::Default | VersionRef::Latest | VersionRef::Number(1) => Ok(Found::built_in(built_in)),
                other => Err(ApiError::bad("InvalidDocumentVersion", format!("{name} has no version {other}"))),
            };
        }
        let (document, version) = server.store.document(name, wanted).await.map_err(refused)?;
        Ok(Found::stored(server, document, version))
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::bad("InvalidDocument", format!("there is no document {name}"))
}

/// Reads which version a call means; by name and number both is refused.
pub(crate) fn version_ref(number: Option<&VersionText>, name: Option<&str>) -> Result<VersionRef, ApiError> {
    match (number, name) {
        (Some(_), Some(_)) => Err(ApiError::Validation("give DocumentVersion or VersionName, not both".to_owned())),
        (None, Some(name)) => Ok(VersionRef::Named(name.to_owned())),
        (Some(number), None) => Ok(number.0.clone()),
        (None, None) => Ok(VersionRef::Default),
    }
}

/// `$LATEST`, `$DEFAULT` or a number from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionText(pub(crate) VersionRef);

impl Serialize for VersionText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for VersionText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = || {
            let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|number| plain && *number > 0)
        };
        match text.as_str() {
            "$LATEST" => Ok(Self(VersionRef::Latest)),
            "$DEFAULT" => Ok(Self(VersionRef::Default)),
            _ => number()
                .map(|number| Self(VersionRef::Number(number)))
                .ok_or_else(|| serde::de::Error::custom("a document version is $LATEST, $DEFAULT or a number from 1")),
        }
    }
}

/// How a document's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// JSON.
    #[serde(rename = "JSON")]
    Json,
    /// YAML.
    #[serde(rename = "YAML")]
    Yaml,
    /// Plain text.
    #[serde(rename = "TEXT")]
    Text,
}

/// Reads the text of a document that is to be stored as `name`.
pub(crate) fn check(name: &str, content: &str, format: Option<Format>) -> Result<Document, ApiError> {
    let refuse = |message: String| ApiError::bad("InvalidDocumentContent", message);
    if let Some(Format::Yaml | Format::Text) = format {
        return Err(refuse(
            "session documents are kept in JSON; convert the content and send DocumentFormat JSON".into(),
        ));
    }
    let document = Document::parse(content).map_err(|error| bad_content(&error))?;
    // Sessions that name no document have no parameters to give.
    if name == PREFERENCES
        && (document.session_type() != document::SessionType::StandardStream || !document.parameters().is_empty())
    {
        return Err(refuse(format!(
            "$.sessionType: {PREFERENCES} holds the account's preferences: sessionType Standard_Stream, without parameters"
        )));
    }
    for warning in document.warnings() {
        tracing::warn!(document = name, "{warning}");
    }
    Ok(document)
}

fn bad_content(error: &DocumentError) -> ApiError {
    ApiError::bad(error.code(), error.to_string())
}

/// A document with one of its versions, the account's own or built in.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) document_type: String,
    pub(crate) owner: String,
    /// When this version was made; nothing for built-in documents.
    pub(crate) created: Option<Timestamp>,
    pub(crate) author: Option<String>,
    pub(crate) target_type: Option<String>,
    pub(crate) default_version: u64,
    pub(crate) latest_version: u64,
    pub(crate) version: DocumentVersion,
    pub(crate) tags: Vec<Tag>,
}

impl Found {
    pub(crate) fn stored(server: &Server, document: StoredDocument, version: DocumentVersion) -> Self {
        Self {
            name: document.name,
            document_type: document.document_type,
            owner: server.deployment.account.to_string(),
            created: Some(version.created),
            author: Some(document.created_by),
            target_type: document.target_type,
            default_version: document.default_version,
            latest_version: document.latest_version,
            version,
            tags: document.tags,
        }
    }

    pub(crate) fn built_in(built_in: &BuiltIn) -> Self {
        Self {
            name: built_in.name.to_owned(),
            document_type: built_in.document_type.to_owned(),
            owner: AMAZON.to_owned(),
            created: None,
            author: None,
            target_type: None,
            default_version: 1,
            latest_version: 1,
            version: DocumentVersion {
                version: 1,
                version_name: None,
                display_name: None,
                content: built_in.content.to_owned(),
                created: Timestamp(0),
            },
            tags: Vec::new(),
        }
    }

    /// Returns all built-in documents.
    pub(crate) fn all_built_in() -> impl Iterator<Item = Self> {
        BUILT_IN.iter().map(Self::built_in)
    }

    pub(crate) fn is_built_in(&self) -> bool {
        self.owner == AMAZON
    }

    /// Returns the document as read; `None` for those of other types.
    pub(crate) fn document(&self) -> Option<Document> {
        (self.document_type == SESSION).then(|| Document::parse(&self.version.content).ok()).flatten()
    }

    /// Returns the words for the platforms it has something for.
    pub(crate) fn platforms(&self) -> Vec<&'static str> {
        match self.document() {
            Some(document) => document.platforms().into_iter().map(document::Platform::as_str).collect(),
            None => vec!["Linux", "MacOS"],
        }
    }

    /// Returns the version of its schema.
    pub(crate) fn schema(&self) -> &'static str {
        if self.document_type == SESSION { "1.0" } else { "2.2" }
    }

    /// Describes it as `DescribeDocument` does.
    pub(crate) fn describe(self) -> Description {
        let document = self.document();
        let warnings = document.as_ref().filter(|_| !self.is_built_in()).map(Document::warnings).unwrap_or_default();
        let parameters = document.iter().flat_map(Document::parameters).map(|one| DescribedParameter {
            name: one.name.clone(),
            kind: "String",
            description: Some(one.description.clone()).filter(|text| !text.is_empty()),
            default_value: one.default.clone(),
        });
        Description {
            hash: hex::encode(digest(&SHA256, self.version.content.as_bytes())),
            hash_type: "Sha256",
            platform_types: self.platforms(),
            schema_version: self.schema(),
            parameters: parameters.collect(),
            description: document.map(|document| document.description().to_owned()).filter(|text| !text.is_empty()),
            status: "Active",
            status_information: (!warnings.is_empty()).then(|| warnings.join("; ")),
            created_date: self.created.map(EpochTime),
            document_version: self.version.version.to_string(),
            version_name: self.version.version_name,
            display_name: self.version.display_name,
            latest_version: self.latest_version.to_string(),
            default_version: self.default_version.to_string(),
            document_format: Format::Json,
            name: self.name,
            owner: self.owner,
            author: self.author,
            document_type: self.document_type,
            target_type: self.target_type,
            tags: self.tags,
        }
    }
}

/// A document, described; members as in the AWS model. `StatusInformation` says what its author should know.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Description {
    name: String,
    owner: String,
    hash: String,
    hash_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_date: Option<EpochTime>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_information: Option<String>,
    document_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    parameters: Vec<DescribedParameter>,
    platform_types: Vec<&'static str>,
    document_type: String,
    schema_version: &'static str,
    latest_version: String,
    default_version: String,
    document_format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_type: Option<String>,
    tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
}

/// A parameter, described.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedParameter {
    name: String,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_value: Option<String>,
}
