//! Where nodes stand in the terms of EC2. A deployment has one of each: zone, network, subnet, tunnel endpoint; their
//! ids are made of the account and region and never change.

use aws_lc_rs::digest::{SHA256, digest};
use munjigi_core::arn::Deployment;

/// The one place of a deployment.
pub(crate) struct Place {
    /// Availability zone: the region and `a`.
    pub(crate) zone: String,
    /// `vpc-…`.
    pub(crate) vpc: String,
    /// `subnet-…`.
    pub(crate) subnet: String,
    /// `eice-…`: the server itself, where tunnels open.
    pub(crate) endpoint: String,
}

impl Place {
    /// Returns the place of a deployment.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let id = |prefix: &str| {
            let text = format!("{prefix}/{}/{}", deployment.account, deployment.region);
            let mut digits = hex::encode(digest(&SHA256, text.as_bytes()));
            digits.truncate(17);
            format!("{prefix}-{digits}")
        };
        let zone = format!("{}a", deployment.region);
        Self { zone, vpc: id("vpc"), subnet: id("subnet"), endpoint: id("eice") }
    }
}
