//! Pages of SSM lists: `MaxResults` and `NextToken`.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::refuse::bad_token;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Operation};
use crate::api::paging::Paging;

/// How many entries a page may have: `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MaxResults<const MIN: u16, const MAX: u16>(u16);

impl<const MIN: u16, const MAX: u16> MaxResults<MIN, MAX> {
    /// Returns the count.
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl<'de, const MIN: u16, const MAX: u16> Deserialize<'de> for MaxResults<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = u64::deserialize(deserializer)?;
        let good = u16::try_from(count).ok().filter(|count| (MIN..=MAX).contains(count));
        good.map(Self).ok_or_else(|| de::Error::custom(format!("MaxResults must be {MIN} to {MAX}")))
    }
}

/// Reads where the page begins and how long it is. `parameters` are those that choose what is listed.
pub(crate) fn begin<'s, O: Operation>(
    call: &Authorized<O>,
    server: &'s Server,
    parameters: &str,
    token: Option<&str>,
    limit: usize,
) -> Result<Paging<'s>, ApiError> {
    Paging::begin(call, server, &[parameters], token, limit).map_err(bad_token)
}
