//! The API: one file per operation, one table of all, and the two wire forms around them.
//!
//! An operation knows its input, output, needed permissions and what it does; it knows neither signatures nor
//! framing, audit or status codes.

pub mod cloudtrail;
#[cfg(test)]
pub(crate) mod desk;
pub(crate) mod dispatch;
pub mod ec2;
pub mod ec2_instance_connect;
pub mod ec2messages;
pub mod error;
pub mod iam;
mod json;
pub mod munjigi;
#[cfg(test)]
pub(crate) mod mutate;
pub mod operation;
pub(crate) mod os_user;
mod paging;
pub(crate) mod prepare;
mod query;
pub(crate) mod replay;
pub(crate) mod serve;
pub mod ssm;
pub mod sts;
pub mod table;
pub(crate) mod tag;
#[cfg(test)]
mod tests;
mod text;
pub mod time;
mod xml;

use serde::de::DeserializeOwned;
use serde_json::Value;

use error::ApiError;
use operation::Wire;

/// An input as it came over the wire, not yet of the operation's type.
pub(crate) enum WireInput {
    /// Of a json 1.1 service.
    Json(Value),
    /// Of a query service.
    Form(query::Form),
}

impl WireInput {
    /// Reads the input as the type of an operation whose service has that wire form.
    pub(crate) fn read<T: DeserializeOwned>(self, wire: Wire) -> Result<T, ApiError> {
        match self {
            Self::Json(value) => serde_json::from_value(value).map_err(|cause| ApiError::Validation(cause.to_string())),
            // Nothing routes a form to a json service; to know it here leaves out a reader of forms for each operation.
            Self::Form(_) if wire == Wire::Json => Err(ApiError::Malformed("the service takes JSON".to_owned())),
            Self::Form(form) => form.into_input().map_err(|cause| ApiError::Validation(cause.to_string())),
        }
    }
}
