//! A bundle on its way to a node: numbered, signed, sent in pieces over the link, answered once it is applied.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use munjigi_core::account::bundle::AccountBundle;
use munjigi_core::wire::message::{AccountReport, AccountsOnNode, MAX_ACCOUNT_LINES, Open, open};
use munjigi_core::wire::{Frame, FrameSet, MAX_DATA};
use tokio::time::Instant;

use super::{build, report};
use crate::gateway::nodes::NodeLink;
use crate::gateway::peer::FrameStream;
use crate::store::{Node, NodeAccounts};
use crate::{Server, clock};

/// How long a node may take to apply a bundle: a little longer than its own limit.
const APPLY_LIMIT: Duration = Duration::from_secs(240);
/// A node is told anew what it knows after this time: it believes the keys in it only so long (`offline_grace_hours`).
const REFRESH: Duration = Duration::from_secs(1800);
/// Most times a node is asked for the rest of its changes.
const MORE: usize = 20;

/// Tells a node in the background, unless somebody waits to do so already. A node that does not answer keeps nobody waiting;
/// it is told when it connects again.
pub(super) fn push_soon(server: &Arc<Server>, node: Node) {
    let queued = server.accounts.known(&node.id).queued;
    if queued.swap(true, Ordering::SeqCst) {
        return;
    }
    let (server, tasks) = (server.clone(), server.tasks.clone());
    tasks.spawn(async move {
        let stop = server.stop.clone();
        if let Some(Err(error)) = stop.run_until_cancelled(push(&server, &node, false)).await {
            tracing::warn!(node = %node.id, error = format!("{error:#}"), "a node was not told of its accounts");
        }
        queued.store(false, Ordering::SeqCst);
    });
}

/// Sends a connected node its bundle as it is to be now, and returns its answer. Without `always`, what this run of its
/// agent was told already is not told again. `None`: there is nothing to tell, or the node is not connected.
pub(super) async fn push(server: &Arc<Server>, node: &Node, always: bool) -> anyhow::Result<Option<AccountReport>> {
    let known = server.accounts.known(&node.id);
    let _one = known.pushing.lock().await;
    // What changes from here on is somebody else's to tell.
    known.queued.store(false, Ordering::SeqCst);
    let rows = server.store.accounts_of_node(&node.id).await?;
    let bundle = build::bundle(server, node, &server.accounts.view(), &rows).await?;
    let node = &node.id;
    let Some(link) = server.gateway.nodes.get(node) else { return Ok(None) };
    let content: [u8; 32] = digest(&SHA256, &bundle.content()).as_ref().try_into().unwrap_or([0; 32]);
    let known = server.accounts.known(node);
    let is_told = known.told.is_some_and(|(epoch, told, at)| {
        (epoch, told) == (link.epoch, content) && Instant::now().saturating_duration_since(at) < REFRESH
    });
    if !always && is_told {
        return Ok(known.report);
    }
    let mut told = server.store.account_node(node).await?;
    let nothing = bundle.accounts.is_empty() && bundle.key_files.is_empty();
    if nothing && told.version == 0 {
        return Ok(None);
    }
    for _ in 0..MORE {
        let now = clock::now();
        // Rises also after the database was put back to an older state.
        told.version = u64::try_from(now.0).unwrap_or(0).max(told.version + 1);
        server.store.set_account_node(node, told).await?;
        let (key_id, key) = server.keys.grant();
        let numbered = AccountBundle { version: told.version, issued: now, ..bundle.clone() };
        let report = send(&link, numbered.sign(key_id, key), told).await?;
        let more = report.changes.len() >= MAX_ACCOUNT_LINES;
        told.recorded = report::take(server, node, &report, told.recorded).await?;
        server.store.set_account_node(node, told).await?;
        server.accounts.know(node, |known| {
            known.told = Some((link.epoch, content, Instant::now()));
            known.report = Some(report);
        });
        if !more {
            break;
        }
    }
    Ok(server.accounts.known(node).report)
}

async fn send(link: &NodeLink, signed: Vec<u8>, told: NodeAccounts) -> anyhow::Result<AccountReport> {
    let node = &link.node;
    let mut stream = FrameStream::new(link.open().await.with_context(|| format!("{node} took no stream"))?);
    let total = u32::try_from(signed.len()).context("the account bundle is too large")?;
    let wish = AccountsOnNode { total, recorded: told.recorded };
    let signed = Bytes::from(signed);
    let exchange = async {
        stream.writer.send(&Frame::Open(Box::new(Open { wish: Some(open::Wish::Accounts(wish)) }))).await?;
        let mut offset = 0;
        while offset < signed.len() {
            let end = signed.len().min(offset + MAX_DATA);
            let data = signed.slice(offset..end);
            stream.writer.send(&Frame::Input { offset: offset as u64, data }).await?;
            offset = end;
        }
        anyhow::Ok(stream.reader.read(FrameSet::ANSWER).await?)
    };
    let answer = tokio::time::timeout(APPLY_LIMIT, exchange).await;
    match answer.with_context(|| format!("{node} did not apply its accounts in time"))?? {
        Some(Frame::Accepted(accepted)) => {
            accepted.accounts.with_context(|| format!("{node} answered without a report"))
        }
        Some(Frame::Refused(refused)) => bail!("{node} refused its accounts: {}", refused.message),
        _ => bail!("{node} did not say what became of its accounts"),
    }
}
