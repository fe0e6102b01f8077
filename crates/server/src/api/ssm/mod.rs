//! Nodes and sessions, as AWS Systems Manager has them.

pub mod add_tags_to_resource;
pub mod create_activation;
pub mod delete_activation;
pub mod deregister_managed_instance;
pub mod describe_activations;
pub mod describe_instance_information;
pub mod describe_sessions;
mod filter;
pub mod get_connection_status;
pub mod list_tags_for_resource;
pub(crate) mod managed_node;
pub(crate) mod names;
pub(crate) mod pages;
pub(crate) mod refuse;
pub mod remove_tags_from_resource;
pub mod start_session;
pub mod target;
pub mod terminate_session;
#[cfg(test)]
mod tests;

pub use add_tags_to_resource::AddTagsToResource;
pub use create_activation::CreateActivation;
pub use delete_activation::DeleteActivation;
pub use deregister_managed_instance::DeregisterManagedInstance;
pub use describe_activations::DescribeActivations;
pub use describe_instance_information::DescribeInstanceInformation;
pub use describe_sessions::DescribeSessions;
pub use get_connection_status::GetConnectionStatus;
pub use list_tags_for_resource::ListTagsForResource;
pub use remove_tags_from_resource::RemoveTagsFromResource;
pub use start_session::StartSession;
pub use terminate_session::TerminateSession;
