//! Nodes and sessions, as AWS Systems Manager has them.

pub mod add_tags_to_resource;
pub mod create_activation;
pub mod create_document;
pub mod delete_activation;
pub mod delete_document;
pub mod deregister_managed_instance;
pub mod describe_activations;
pub mod describe_document;
pub mod describe_document_permission;
pub mod describe_instance_information;
pub mod describe_sessions;
pub(crate) mod document;
#[cfg(test)]
mod document_tests;
mod filter;
pub mod get_connection_status;
pub mod get_document;
pub mod list_document_versions;
pub mod list_documents;
pub mod list_tags_for_resource;
pub(crate) mod managed_node;
pub mod modify_document_permission;
pub(crate) mod names;
pub(crate) mod pages;
pub(crate) mod refuse;
pub mod remove_tags_from_resource;
pub mod start_session;
mod tagged;
pub mod target;
pub mod terminate_session;
#[cfg(test)]
mod tests;
pub mod update_document;
pub mod update_document_default_version;

pub use add_tags_to_resource::AddTagsToResource;
pub use create_activation::CreateActivation;
pub use create_document::CreateDocument;
pub use delete_activation::DeleteActivation;
pub use delete_document::DeleteDocument;
pub use deregister_managed_instance::DeregisterManagedInstance;
pub use describe_activations::DescribeActivations;
pub use describe_document::DescribeDocument;
pub use describe_document_permission::DescribeDocumentPermission;
pub use describe_instance_information::DescribeInstanceInformation;
pub use describe_sessions::DescribeSessions;
pub use get_connection_status::GetConnectionStatus;
pub use get_document::GetDocument;
pub use list_document_versions::ListDocumentVersions;
pub use list_documents::ListDocuments;
pub use list_tags_for_resource::ListTagsForResource;
pub use modify_document_permission::ModifyDocumentPermission;
pub use remove_tags_from_resource::RemoveTagsFromResource;
pub use start_session::StartSession;
pub use terminate_session::TerminateSession;
pub use update_document::UpdateDocument;
pub use update_document_default_version::UpdateDocumentDefaultVersion;
