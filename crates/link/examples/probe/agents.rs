//! Many idle agents in one process: each registers with a key of its own and keeps its link standing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::wire::enrol::register_message;
use munjigi_core::wire::hello::{Hello, NodeHello, Role, VERSION_MAX, VERSION_MIN, node_link_message};
use munjigi_link::Limits;
use munjigi_link::backoff::Backoff;
use munjigi_link::dial::{DialOptions, Dialed, SignedHeaders, UpgradeToSign, dial};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::place::{Api, Place, SOFTWARE};
use super::{Result, Settings, report};

/// Connections over which nodes are registered.
const REGISTERING: usize = 8;

/// What happened to one of the agents.
enum Change {
    Up,
    Down,
}

/// A registered node.
struct Node {
    id: String,
    key: Ed25519KeyPair,
}

/// Registers `count` nodes, says so, connects them at the next line on standard input (at most `together` handshakes at
/// once), and reports whenever all are connected. A link that breaks is dialled again with the agent's back-off.
/// The first line on standard input holds the activations as JSON: `[["id", "code"], …]`. Ends when it ends.
pub(super) async fn run(place: Place, settings: &Settings) -> Result<()> {
    let count: usize = settings.number("count", 1000)?;
    let together = Arc::new(Semaphore::new(settings.number("together", 32)?));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let first = lines.next_line().await?.ok_or("no activations on standard input")?;
    let activations: Vec<(String, String)> = serde_json::from_str(&first)?;
    let begun = Instant::now();
    let nodes = register(&place, count, &activations).await?;
    report(&json!({ "event": "registered", "count": nodes.len(), "seconds": begun.elapsed().as_secs_f64() }))?;

    lines.next_line().await?;
    let (changes, mut changed) = mpsc::channel(1024);
    let options =
        DialOptions { limits: Limits::agent(), ..DialOptions::new(place.endpoint.clone(), place.roots.clone()) };
    let options = Arc::new(options);
    for node in nodes {
        tokio::spawn(keep(node, Arc::clone(&options), Arc::clone(&together), changes.clone()));
    }
    let (mut up, mut since, mut lowest) = (0, Instant::now(), 0);
    loop {
        tokio::select! {
            change = changed.recv() => match change {
                Some(Change::Up) => {
                    up += 1;
                    if up == count {
                        report(&json!({ "event": "online", "count": up, "lowest": lowest, "seconds": since.elapsed().as_secs_f64() }))?;
                    }
                }
                Some(Change::Down) => {
                    if up == count {
                        (since, lowest) = (Instant::now(), up);
                        report(&json!({ "event": "lost" }))?;
                    }
                    up -= 1;
                    lowest = lowest.min(up);
                }
                None => return Err("every agent has stopped".into()),
            },
            line = lines.next_line() => match line? {
                Some(_) => report(&json!({ "event": "now", "count": up }))?,
                None => return Ok(()),
            },
        }
    }
}

async fn register(place: &Place, count: usize, activations: &[(String, String)]) -> Result<Vec<Node>> {
    let mut tasks = JoinSet::new();
    for lane in 0..REGISTERING.min(count) {
        let place = place.clone();
        let activations = activations.to_vec();
        tasks.spawn(async move {
            let mut api = Api::connect(&place).await?;
            let mut nodes = Vec::new();
            for index in (lane..count).step_by(REGISTERING) {
                // Each activation lets 1000 nodes in.
                let (id, code) = activations.get(index / 1000).ok_or("too few activations")?;
                nodes.push(register_one(&mut api, index, id, code).await?);
            }
            Result::Ok(nodes)
        });
    }
    let lanes: Vec<Vec<Node>> = tasks.join_all().await.into_iter().collect::<Result<_>>()?;
    Ok(lanes.into_iter().flatten().collect())
}

async fn register_one(api: &mut Api, index: usize, activation: &str, code: &str) -> Result<Node> {
    let key = Ed25519KeyPair::generate()?;
    let input = json!({
        "ActivationId": activation,
        "ActivationCode": code,
        "PublicKey": STANDARD.encode(key.public_key()),
        "PublicKeySignature": STANDARD.encode(key.sign(&register_message(activation))),
        "Name": format!("idle-{index}"),
        "Hostname": format!("idle-{index}"),
        "PlatformName": "Debian GNU/Linux",
        "PlatformVersion": "12",
        "PlatformType": "Linux",
        "Architecture": "x86_64",
        "AgentVersion": "0.1.0",
    });
    let answer = api.call("Munjigi.RegisterNode", &input, false).await?;
    let id = answer.get("NodeId").and_then(|id| id.as_str()).ok_or("RegisterNode gave no NodeId")?;
    Ok(Node { id: id.to_owned(), key })
}

/// Keeps one agent's link standing for ever.
async fn keep(node: Node, options: Arc<DialOptions>, together: Arc<Semaphore>, changes: mpsc::Sender<Change>) {
    let mut backoff = Backoff::new();
    loop {
        let begun = Instant::now();
        let permit = together.acquire().await;
        let dialed = connect(&node, &options).await;
        drop(permit);
        if let Ok(mut dialed) = dialed {
            // Whoever counts has ended when nobody receives: then this process ends too.
            let _ = changes.send(Change::Up).await;
            while dialed.connection.accept().await.is_some() {}
            let _ = changes.send(Change::Down).await;
        }
        backoff.after_connection(begun.elapsed());
        tokio::time::sleep(backoff.after_failure().max(Duration::from_millis(1))).await;
    }
}

async fn connect(node: &Node, options: &DialOptions) -> Result<Dialed> {
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        software: SOFTWARE.to_owned(),
        role: Role::Agent.into(),
        node: Some(NodeHello {
            node_id: node.id.clone(),
            epoch: vec![7; 32],
            hostname: "idle".to_owned(),
            agent_version: "0.1.0".to_owned(),
            ..NodeHello::default()
        }),
    };
    let mut dialed = dial(options, &hello, |request| std::future::ready(Ok(sign(node, &request)))).await?;
    dialed.established().await?;
    Ok(dialed)
}

fn sign(node: &Node, request: &UpgradeToSign) -> SignedHeaders {
    let signature = STANDARD.encode(node.key.sign(&node_link_message(&request.binding, &request.hello)));
    let value = format!("Munjigi-Node Credential={}, Signature={signature}", node.id);
    vec![("authorization".to_owned(), value)]
}
