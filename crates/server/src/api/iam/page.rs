//! Pages of IAM lists: `Marker` in, `Marker` out.

use super::names::{Marker, MaxItems};
use super::refuse::bad_marker;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Operation};
use crate::api::paging::Paging;

/// Entries of a page when the caller does not say (aws-api C.9).
const DEFAULT_ITEMS: u16 = 100;

/// Reads where the page begins and how long it is. `parameters` are those that choose what is listed.
pub(super) fn begin<'s, O: Operation>(
    call: &Authorized<O>,
    server: &'s Server,
    parameters: &[&str],
    marker: Option<&Marker>,
    max_items: Option<MaxItems>,
) -> Result<Paging<'s>, ApiError> {
    let limit = usize::from(max_items.map_or(DEFAULT_ITEMS, |MaxItems(count)| count));
    Paging::begin(call, server, parameters, marker.map(|marker| &**marker), limit).map_err(bad_marker)
}
