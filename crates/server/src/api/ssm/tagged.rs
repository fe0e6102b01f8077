//! What carries tags in SSM: nodes and session documents.

use munjigi_core::id::NodeId;

use super::document::Reference;
use super::managed_node::on_node;
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::Requirement;
use crate::store::{StoreError, Tagged};

/// A resource as a tagging call names it.
pub(super) enum Resource {
    Node(NodeId),
    Document(Reference),
}

impl Resource {
    /// Reads type and id; a document's id is its name.
    pub(super) fn read(server: &Server, kind: &str, id: &str) -> Result<Self, ApiError> {
        match kind {
            "ManagedInstance" => {
                let node = NodeId::parse(id).map_err(|error| ApiError::bad("InvalidResourceId", error.to_string()))?;
                Ok(Self::Node(node))
            }
            "Document" if super::names::document_text(id) => Ok(Self::Document(Reference::read(server, id))),
            "Document" => {
                let message = "a document is named by 3 to 128 letters, digits or _-.";
                Err(ApiError::bad("InvalidResourceId", message))
            }
            _ => {
                let kind = kind.escape_debug();
                let message = format!("tags of the type {kind} are not kept here; use ManagedInstance or Document");
                Err(ApiError::bad("InvalidResourceType", message))
            }
        }
    }

    /// Requires an action on it; its tags are condition keys.
    pub(super) async fn requirement(&self, server: &Server, action: &'static str) -> Result<Requirement, ApiError> {
        match self {
            Self::Node(node) => on_node(server, action, node).await,
            Self::Document(document) => document.requirement(server, action).await,
        }
    }

    /// Returns what the store tags. The built-in documents have none.
    pub(super) fn tagged(&self) -> Result<Tagged<'_>, ApiError> {
        match self {
            Self::Node(node) => Ok(Tagged::Node(node)),
            Self::Document(document) => document.changeable().map(Tagged::Document).map_err(|_| untagged(document)),
        }
    }

    /// Turns the store's refusal into that of a tagging call.
    pub(super) fn refused(&self, error: StoreError) -> ApiError {
        match (self, error) {
            (Self::Document(document), StoreError::NotFound { .. }) => untagged(document),
            (_, error) => refused(error),
        }
    }
}

fn untagged(document: &Reference) -> ApiError {
    ApiError::bad("InvalidResourceId", format!("there is no document {} that has tags", document.shown()))
}
