//! The node's account bundle on its way from the server to the privileged half, and the answer back. This half only carries
//! it: it can neither make nor change one.

use std::time::Duration;

use munjigi_core::account::bundle::MAX_BUNDLE_BYTES;
use munjigi_core::wire::message::{Accepted, AccountReport, AccountsOnNode};
use munjigi_core::wire::{Frame, FrameKind, FrameSet};
use prost::Message as _;
use tokio::time::timeout;

use super::dialing::{refusal, refuse};
use super::session::Attached;
use super::spawn_client::{SpawnClient, StartRefused};

/// How long the bundle may be on its way, and its answer.
const TRANSFER: Duration = Duration::from_secs(60);
/// Room for key id and signature around a bundle.
const MOST: usize = MAX_BUNDLE_BYTES + 256;
const PIECES: FrameSet = FrameSet::of(&[FrameKind::Input]);

/// Takes a bundle and answers once it is applied.
pub(super) async fn take(mut attached: Attached, wish: &AccountsOnNode, spawn: &SpawnClient) {
    let report = async {
        let bundle = timeout(TRANSFER, read(&mut attached, wish.total))
            .await
            .ok()
            .flatten()
            .ok_or_else(|| refusal("ValidationException", "the account bundle did not come whole"))?;
        match spawn.accounts(wish.recorded, &bundle).await {
            Ok(report) => report,
            Err(error) => Err(refusal("InternalServerError", &error.to_string())),
        }
    };
    match report.await.and_then(|report| decoded(&report)) {
        Ok(report) => {
            let accepted = Accepted { accounts: Some(report), ..Accepted::default() };
            let answer = async {
                attached.writer.send(&Frame::Accepted(Box::new(accepted))).await?;
                attached.writer.close().await
            };
            // A server that does not listen any more asks again.
            let _ = timeout(TRANSFER, answer).await;
        }
        Err(why) => refuse(attached, why).await,
    }
}

fn decoded(report: &[u8]) -> Result<AccountReport, StartRefused> {
    AccountReport::decode(report).map_err(|_| refusal("InternalServerError", "the report on the accounts is damaged"))
}

/// Reads the pieces; they follow each other without a gap.
async fn read(attached: &mut Attached, total: u32) -> Option<Vec<u8>> {
    let total = usize::try_from(total).ok().filter(|total| *total <= MOST)?;
    let mut bundle = Vec::with_capacity(total);
    while bundle.len() < total {
        let Ok(Some(Frame::Input { offset, data })) = attached.reader.read(PIECES).await else { return None };
        if offset != bundle.len() as u64 || data.is_empty() || bundle.len() + data.len() > total {
            return None;
        }
        bundle.extend_from_slice(&data);
    }
    Some(bundle)
}
