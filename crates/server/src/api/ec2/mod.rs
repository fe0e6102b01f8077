//! Nodes as instances of EC2: just as much as clients of EC2 Instance Connect look at (aws-api C.2 and C.8). Read only.

mod describe_instance_connect_endpoints;
mod describe_instances;
mod describe_tags;
mod filter;
pub(crate) mod place;

pub use describe_instance_connect_endpoints::DescribeInstanceConnectEndpoints;
pub use describe_instances::DescribeInstances;
pub use describe_tags::DescribeTags;

use http::StatusCode;

use super::error::ApiError;

/// Ends a call that only asks whether it would be allowed: it is.
fn dry_run(asked: Option<bool>) -> Result<(), ApiError> {
    if asked != Some(true) {
        return Ok(());
    }
    let message = "Request would have succeeded, but DryRun flag is set.";
    Err(ApiError::refused("DryRunOperation", StatusCode::PRECONDITION_FAILED, message))
}
