//! Nodes: who they are, what is known of them, and their registration.

use std::collections::HashMap;
use std::str::FromStr;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use munjigi_core::id::NodeId;
use munjigi_core::secret::Secret;
use munjigi_core::time::Timestamp;

use super::row::{Columns, stored};
use super::{Kind, Page, Store, StoreError, Tag, activations, fold, tags};

/// How many numbers are tried behind a taken name before the registration is refused.
const MAX_SUFFIX: u32 = 10_000;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id, the hash of its public key (T-31).
    pub id: NodeId,
    /// Its name, unique without regard to case.
    pub name: String,
    /// The agent it runs.
    pub agent: AgentKind,
    /// Its public key in the form of that agent.
    pub public_key: Vec<u8>,
    /// What AWS's agent computes of its host's hardware; `None` for ours.
    pub fingerprint: Option<String>,
    /// The activation it registered with.
    pub activation: Option<Uuid>,
    /// The role of that activation.
    pub iam_role: String,
    /// When it registered.
    pub registered: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// What it says of itself.
    pub facts: NodeFacts,
    /// The address it last came from.
    pub ip_address: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// The programs that make a host a node. They prove themselves, and start sessions, in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentKind {
    /// Ours: a raw Ed25519 key, a link, grants.
    #[default]
    Munjigi,
    /// `amazon-ssm-agent`: an RSA key as `SubjectPublicKeyInfo`, a control channel, no grants.
    Aws,
}

impl AgentKind {
    /// Returns the word for it in storage and API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Munjigi => "munjigi",
            Self::Aws => "aws",
        }
    }
}

impl FromStr for AgentKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Munjigi, Self::Aws].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// What a node says of itself; for people and filters, nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// The host's own name.
    pub hostname: String,
    /// E.g. `Debian GNU/Linux`.
    pub platform_name: String,
    /// E.g. `12`.
    pub platform_version: String,
    /// E.g. `x86_64`.
    pub architecture: String,
    /// The agent's version.
    pub agent_version: String,
}

/// The name that a registering node wishes for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeName {
    /// Somebody asked for exactly this one; a taken one is refused (T-31: taking over a name needs an administrator).
    Exact(String),
    /// Only a suggestion, such as the host's name; a taken one gets a number behind it.
    Suggested(String),
}

/// A node that wants to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// The agent it runs.
    pub agent: AgentKind,
    /// The node's public key. Our agent has proved that it has the private one; AWS's does so with its next request.
    pub public_key: Vec<u8>,
    /// The host's fingerprint, from AWS's agent.
    pub fingerprint: Option<String>,
    /// The name it wishes for; `None`: the activation's, or else the host's.
    pub name: Option<NodeName>,
    /// What it says of itself.
    pub facts: NodeFacts,
    /// Where it came from.
    pub ip_address: Option<String>,
    /// Its own tags, over those of the activation.
    pub tags: Vec<Tag>,
}

/// Why a node was not registered. Nothing of the activation was used up.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Wrong id or code, expired, or used up; which of them is not said.
    #[error("the activation is unknown, expired or used up; create a new one with `aws ssm create-activation`")]
    Activation,
    /// Another node has the name.
    #[error("another node is named `{0}`; choose another --name, or deregister that node first")]
    NameTaken(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RegisterError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Node {
    fn read(row: &SqliteRow, tags: Vec<Tag>) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        Ok(Self {
            id: row.parse("id")?,
            name: row.get("name")?,
            agent: row.parse("agent")?,
            public_key: row.get("public_key")?,
            fingerprint: row.get("fingerprint")?,
            activation: row.parse_optional("activation_id")?,
            iam_role: row.get("iam_role")?,
            registered: row.time("registered")?,
            last_seen: row.time("last_seen")?,
            facts: NodeFacts {
                hostname: row.get("hostname")?,
                platform_name: row.get("platform_name")?,
                platform_version: row.get("platform_version")?,
                architecture: row.get("architecture")?,
                agent_version: row.get("agent_version")?,
            },
            ip_address: row.get("ip_address")?,
            tags,
        })
    }
}

impl Store {
    /// Registers a node: takes one use of the activation and writes the node, both or neither.
    ///
    /// A node whose first answer got lost asks again with the same key, activation and code and gets the same answer.
    pub async fn register_node(
        &self,
        activation: &Uuid,
        code: &Secret<String>,
        new: &NewNode,
        now: Timestamp,
    ) -> Result<Node, RegisterError> {
        let id = NodeId::from_public_key(&new.public_key);
        let mut transaction = self.write().await?;
        if let Some(known) = find_optional(&mut transaction, &id).await? {
            let again = known.public_key == new.public_key
                && known.activation == Some(*activation)
                && activations::knows_code(&mut transaction, activation, code).await?;
            return if again { Ok(known) } else { Err(RegisterError::Activation) };
        }
        let Some(used) = activations::consume(&mut transaction, activation, code, now).await? else {
            return Err(RegisterError::Activation);
        };
        let wish = new.name.clone().unwrap_or_else(|| {
            NodeName::Suggested(used.request.default_instance_name.unwrap_or_else(|| new.facts.hostname.clone()))
        });
        let name = free_name(&mut transaction, wish).await?;
        sqlx::query(
            "INSERT INTO nodes (id, name, name_key, public_key, activation_id, iam_role, registered, last_seen,
                                hostname, platform_name, platform_version, architecture, agent_version, ip_address,
                                agent, fingerprint)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(id.as_str())
        .bind(&name)
        .bind(fold(&name))
        .bind(&new.public_key)
        .bind(activation.to_string())
        .bind(&used.request.iam_role)
        .bind(now.0)
        .bind(&new.facts.hostname)
        .bind(&new.facts.platform_name)
        .bind(&new.facts.platform_version)
        .bind(&new.facts.architecture)
        .bind(&new.facts.agent_version)
        .bind(&new.ip_address)
        .bind(new.agent.as_str())
        .bind(&new.fingerprint)
        .execute(&mut *transaction)
        .await?;
        tags::put(&mut transaction, id.as_str(), &used.request.tags).await?;
        tags::put(&mut transaction, id.as_str(), &new.tags).await?;
        let node = find(&mut transaction, &id).await?;
        transaction.commit().await?;
        Ok(node)
    }

    /// Returns a node by its id.
    pub async fn node(&self, id: &NodeId) -> Result<Node, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, id).await
    }

    /// Returns a node by its name, without regard to case.
    pub async fn node_by_name(&self, name: &str) -> Result<Node, StoreError> {
        let mut transaction = self.readers().begin().await?;
        let row = sqlx::query("SELECT * FROM nodes WHERE name_key = $1")
            .bind(fold(name))
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| StoreError::not_found(Kind::Node, name))?;
        let id: String = Columns::new(&row)?.get("id")?;
        Node::read(&row, tags::list(&mut transaction, &id).await?)
    }

    /// Lists nodes in the order of their ids, behind the id `after`.
    pub async fn list_nodes(&self, after: Option<&str>, limit: usize) -> Result<Page<Node>, StoreError> {
        let after = after.unwrap_or_default();
        let wanted = stored(limit as u64 + 1);
        let mut transaction = self.readers().begin().await?;
        let rows = sqlx::query("SELECT * FROM nodes WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(wanted)
            .fetch_all(&mut *transaction)
            .await?;
        let tag_rows = sqlx::query(
            "SELECT resource, tag_key, value FROM tags
             WHERE resource IN (SELECT id FROM nodes WHERE id > $1 ORDER BY id LIMIT $2) ORDER BY fold_key",
        )
        .bind(after)
        .bind(wanted)
        .fetch_all(&mut *transaction)
        .await?;
        let mut tags_of: HashMap<String, Vec<Tag>> = HashMap::new();
        for row in &tag_rows {
            tags_of.entry(row.try_get("resource")?).or_default().push(tags::read(row)?);
        }
        let nodes = rows.iter().map(|row| {
            let id: String = Columns::new(row)?.get("id")?;
            Node::read(row, tags_of.remove(&id).unwrap_or_default())
        });
        Ok(Page::cut(nodes.collect::<Result<_, _>>()?, limit, |last| last.id.as_str().to_owned()))
    }

    /// Records that a node was heard of and what it says of itself; nothing happens if it is deregistered.
    pub async fn node_seen(
        &self,
        id: &NodeId,
        facts: &NodeFacts,
        ip_address: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "UPDATE nodes SET last_seen = $2, hostname = $3, platform_name = $4, platform_version = $5,
                              architecture = $6, agent_version = $7, ip_address = $8 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(now.0)
        .bind(&facts.hostname)
        .bind(&facts.platform_name)
        .bind(&facts.platform_version)
        .bind(&facts.architecture)
        .bind(&facts.agent_version)
        .bind(ip_address)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Records in one write that nodes are still there.
    pub async fn nodes_alive(&self, ids: &[NodeId], now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for id in ids {
            sqlx::query("UPDATE nodes SET last_seen = $2 WHERE id = $1")
                .bind(id.as_str())
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Replaces the public key of a node, if it is still `former`; its id stays. Returns whether it was.
    pub async fn replace_node_key(&self, id: &NodeId, former: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let replaced = sqlx::query("UPDATE nodes SET public_key = $3 WHERE id = $1 AND public_key = $2")
            .bind(id.as_str())
            .bind(former)
            .bind(new)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(replaced.rows_affected() == 1)
    }

    /// Gives a node that still has its provisional name another one, with a number behind it if it is taken.
    pub async fn name_node(&self, id: &NodeId, provisional: &str, wish: &str) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let name = match free_name(&mut transaction, NodeName::Suggested(wish.to_owned())).await {
            Ok(name) => name,
            // No number is free any more: it keeps the name it has.
            Err(RegisterError::NameTaken(_) | RegisterError::Activation) => return Ok(()),
            Err(RegisterError::Store(error)) => return Err(error),
        };
        sqlx::query("UPDATE nodes SET name = $3, name_key = $4 WHERE id = $1 AND name = $2")
            .bind(id.as_str())
            .bind(provisional)
            .bind(&name)
            .bind(fold(&name))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets a node: its key is worth nothing from now on.
    pub async fn deregister_node(&self, id: &NodeId) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        tags::remove_all(&mut transaction, id.as_str()).await?;
        let removed =
            sqlx::query("DELETE FROM nodes WHERE id = $1").bind(id.as_str()).execute(&mut *transaction).await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::not_found(Kind::Node, id.as_str()));
        }
        Ok(transaction.commit().await?)
    }
}

pub(super) async fn find(connection: &mut SqliteConnection, id: &NodeId) -> Result<Node, StoreError> {
    find_optional(connection, id).await?.ok_or_else(|| StoreError::not_found(Kind::Node, id.as_str()))
}

async fn find_optional(connection: &mut SqliteConnection, id: &NodeId) -> Result<Option<Node>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM nodes WHERE id = $1").bind(id.as_str()).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(None) };
    let tags = tags::list(connection, id.as_str()).await?;
    Node::read(&row, tags).map(Some)
}

async fn free_name(connection: &mut SqliteConnection, wish: NodeName) -> Result<String, RegisterError> {
    let (base, exact) = match wish {
        NodeName::Exact(name) => (name, true),
        NodeName::Suggested(name) => (name, false),
    };
    for number in 1..=MAX_SUFFIX {
        let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        let taken: Option<i64> = sqlx::query_scalar("SELECT 1 FROM nodes WHERE name_key = $1")
            .bind(fold(&name))
            .fetch_optional(&mut *connection)
            .await?;
        if taken.is_none() {
            return Ok(name);
        }
        if exact {
            break;
        }
    }
    Err(RegisterError::NameTaken(base))
}
