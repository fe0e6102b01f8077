//! The address of each node for clients that know nodes by address only (EC2 Instance Connect): out of 100.64.0.0/10,
//! given once, never changed, never given to another node.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use sqlx::Row as _;

use munjigi_core::id::NodeId;

use super::{Store, StoreError};

/// 100.64.0.0, the first address of the range for carrier-grade NAT (RFC 6598), which nobody routes.
const FIRST: u32 = 0x6440_0000;
/// Addresses in the range.
const COUNT: u32 = 1 << 22;

impl Store {
    /// Returns the addresses of nodes; those that have none yet get one.
    pub async fn node_addresses(&self, nodes: &[NodeId]) -> Result<HashMap<NodeId, Ipv4Addr>, StoreError> {
        let mut found = HashMap::with_capacity(nodes.len());
        let mut missing = Vec::new();
        let mut connection = self.readers().acquire().await?;
        for node in nodes {
            let address: Option<i64> = sqlx::query_scalar("SELECT address FROM node_addresses WHERE node_id = $1")
                .bind(node.as_str())
                .fetch_optional(&mut *connection)
                .await?;
            match address {
                Some(number) => drop(found.insert(node.clone(), address_of(number)?)),
                None => missing.push(node),
            }
        }
        drop(connection);
        if missing.is_empty() {
            return Ok(found);
        }
        let mut transaction = self.write().await?;
        for node in missing {
            let mut number = preferred(node);
            // The next free one. The range has room for four million nodes, so the search is short.
            for _ in 0..COUNT {
                let written =
                    sqlx::query("INSERT INTO node_addresses (node_id, address) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                        .bind(node.as_str())
                        .bind(i64::from(number))
                        .execute(&mut *transaction)
                        .await?;
                let own: Option<i64> = sqlx::query_scalar("SELECT address FROM node_addresses WHERE node_id = $1")
                    .bind(node.as_str())
                    .fetch_optional(&mut *transaction)
                    .await?;
                // A concurrent call may have been first; then its address is the node's.
                if let Some(own) = own {
                    found.insert(node.clone(), address_of(own)?);
                    break;
                }
                debug_assert_eq!(written.rows_affected(), 0);
                number = number.wrapping_add(1) % COUNT;
            }
        }
        transaction.commit().await?;
        Ok(found)
    }

    /// Returns the node that has an address.
    pub async fn node_by_address(&self, address: Ipv4Addr) -> Result<Option<NodeId>, StoreError> {
        let Some(number) = u32::from(address).checked_sub(FIRST).filter(|number| *number < COUNT) else {
            return Ok(None);
        };
        let row = sqlx::query("SELECT node_id FROM node_addresses WHERE address = $1")
            .bind(i64::from(number))
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let id: String = row.try_get("node_id")?;
        NodeId::parse(&id).map(Some).map_err(|_| StoreError::Unreadable { what: "node_id", row: address.to_string() })
    }
}

/// Where the search for a node's address begins: chosen by its id, so that the same node gets the same address again
/// in another deployment if it can. Neither the first nor the last of a network of 256, which some programs refuse.
fn preferred(node: &NodeId) -> u32 {
    let digits = node.as_str().get(3..11).unwrap_or_default();
    let number = u32::from_str_radix(digits, 16).unwrap_or_default() % COUNT;
    match number & 0xff {
        0 => number + 1,
        0xff => number - 1,
        _ => number,
    }
}

fn address_of(number: i64) -> Result<Ipv4Addr, StoreError> {
    let number = u32::try_from(number).ok().filter(|number| *number < COUNT);
    let unreadable = || StoreError::Unreadable { what: "address", row: "a node's address".to_owned() };
    number.map(|number| Ipv4Addr::from(FIRST + number)).ok_or_else(unreadable)
}
