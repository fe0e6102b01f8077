//! People's accounts: rules, who has which local name, each node's accounts, and what each node was told.

use std::collections::BTreeMap;

use munjigi_core::account::pairs::{Pair, Pairs};
use munjigi_core::account::plan::Row;
use munjigi_core::account::rule::{KeyFileSettings, RuleSettings};
use munjigi_core::id::NodeId;
use munjigi_core::target::TargetName;
use munjigi_core::time::Timestamp;

use super::row::{Columns, json_text, stored};
use super::{Kind, Store, StoreError, fold, quota};

/// An account rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRule {
    /// Its name; rules count in the order of their names.
    pub name: TargetName,
    /// What it says.
    pub settings: RuleSettings,
    /// When it was made.
    pub created: Timestamp,
    /// When it was put last.
    pub updated: Timestamp,
}

/// Keys of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKeyFile {
    /// The group's name.
    pub name: TargetName,
    /// What it holds.
    pub settings: KeyFileSettings,
    /// When it was put last.
    pub updated: Timestamp,
}

/// What a node was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeAccounts {
    /// Version of the newest bundle that was made for it.
    pub version: u64,
    /// Number of its newest change that is in the trail.
    pub recorded: u64,
}

impl Store {
    /// Makes a rule, or makes one what it shall be.
    pub async fn put_account_rule(
        &self,
        name: &TargetName,
        settings: &RuleSettings,
        now: Timestamp,
    ) -> Result<StoredRule, StoreError> {
        let mut transaction = self.write().await?;
        let key = fold(name.as_str());
        let others: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM account_rules WHERE name_key <> $1")
            .bind(&key)
            .fetch_one(&mut *transaction)
            .await?;
        if others >= stored(quota::ACCOUNT_RULES) {
            return Err(StoreError::Limit { what: "account rules", limit: quota::ACCOUNT_RULES });
        }
        sqlx::query(
            "INSERT INTO account_rules (name, name_key, settings, created, updated) VALUES ($1, $2, $3, $4, $4)
             ON CONFLICT (name_key) DO UPDATE SET name = $1, settings = $3, updated = $4",
        )
        .bind(name.as_str())
        .bind(&key)
        .bind(json_text("settings", settings)?)
        .bind(now.0)
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query("SELECT *, name_key AS id FROM account_rules WHERE name_key = $1")
            .bind(&key)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        read_rule(&row)
    }

    /// Returns all rules in the order of their names.
    pub async fn account_rules(&self) -> Result<Vec<StoredRule>, StoreError> {
        let rows = sqlx::query("SELECT *, name_key AS id FROM account_rules ORDER BY name_key")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(read_rule).collect()
    }

    /// Deletes a rule.
    pub async fn delete_account_rule(&self, name: &TargetName) -> Result<(), StoreError> {
        self.delete_named("DELETE FROM account_rules WHERE name_key = $1", Kind::AccountRule, name).await
    }

    async fn delete_named(&self, statement: &'static str, kind: Kind, name: &TargetName) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let done = sqlx::query(statement).bind(fold(name.as_str())).execute(&mut *transaction).await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::not_found(kind, name.as_str()));
        }
        Ok(transaction.commit().await?)
    }

    /// Puts a group's keys in place of those it has.
    pub async fn put_account_key_file(
        &self,
        name: &TargetName,
        settings: &KeyFileSettings,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let key = fold(name.as_str());
        let others: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM account_key_files WHERE name_key <> $1")
            .bind(&key)
            .fetch_one(&mut *transaction)
            .await?;
        if others >= stored(quota::ACCOUNT_KEY_FILES) {
            return Err(StoreError::Limit { what: "key files", limit: quota::ACCOUNT_KEY_FILES });
        }
        sqlx::query(
            "INSERT INTO account_key_files (name, name_key, settings, updated) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name_key) DO UPDATE SET name = $1, settings = $3, updated = $4",
        )
        .bind(name.as_str())
        .bind(&key)
        .bind(json_text("settings", settings)?)
        .bind(now.0)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Returns all key files in the order of their names.
    pub async fn account_key_files(&self) -> Result<Vec<StoredKeyFile>, StoreError> {
        let rows = sqlx::query("SELECT *, name_key AS id FROM account_key_files ORDER BY name_key")
            .fetch_all(self.readers())
            .await?;
        let read = |row| {
            let row = Columns::new(row)?;
            let (name, settings) = (row.parse("name")?, row.json("settings")?);
            Ok(StoredKeyFile { name, settings, updated: row.time("updated")? })
        };
        rows.iter().map(read).collect()
    }

    /// Deletes a group's keys.
    pub async fn delete_account_key_file(&self, name: &TargetName) -> Result<(), StoreError> {
        self.delete_named("DELETE FROM account_key_files WHERE name_key = $1", Kind::AccountKeyFile, name).await
    }

    /// Returns who has which local name.
    pub async fn account_pairs(&self) -> Result<Pairs, StoreError> {
        let rows =
            sqlx::query("SELECT *, os_user AS id FROM account_pairs ORDER BY uid").fetch_all(self.readers()).await?;
        let read = |row| {
            let row = Columns::new(row)?;
            let uid = row.count("uid")?;
            Ok::<_, StoreError>(Pair {
                principal: row.get("principal")?,
                form: row.get("form")?,
                os_user: row.get("os_user")?,
                uid: u32::try_from(uid).map_err(|_| row.unreadable("uid"))?,
                released: row.get::<Option<i64>>("released")?.map(Timestamp),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map(Pairs)
    }

    /// Puts the pairs that differ; those that are not there any more go.
    pub async fn set_account_pairs(&self, old: &Pairs, new: &Pairs) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        for gone in old.0.iter().filter(|pair| !new.0.contains(pair)) {
            sqlx::query("DELETE FROM account_pairs WHERE principal = $1 AND form = $2")
                .bind(&gone.principal)
                .bind(&gone.form)
                .execute(&mut *transaction)
                .await?;
        }
        for pair in new.0.iter().filter(|pair| !old.0.contains(pair)) {
            sqlx::query(
                "INSERT INTO account_pairs (principal, form, os_user, uid, released) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(&pair.principal)
            .bind(&pair.form)
            .bind(&pair.os_user)
            .bind(i64::from(pair.uid))
            .bind(pair.released.map(|at| at.0))
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Returns every node's accounts, by the node's id.
    pub async fn node_accounts(&self) -> Result<BTreeMap<String, Vec<Row>>, StoreError> {
        let rows = sqlx::query("SELECT *, os_user AS id FROM node_accounts ORDER BY node, os_user")
            .fetch_all(self.readers())
            .await?;
        let mut nodes: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in &rows {
            let row = Columns::new(row)?;
            nodes.entry(row.get("node")?).or_default().push(row.json("state")?);
        }
        Ok(nodes)
    }

    /// Returns a node's accounts.
    pub async fn accounts_of_node(&self, node: &NodeId) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query("SELECT *, os_user AS id FROM node_accounts WHERE node = $1 ORDER BY os_user")
            .bind(node.as_str())
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Columns::new(row)?.json("state")).collect()
    }

    /// Puts a node's accounts in place of those it has.
    pub async fn set_node_accounts(&self, node: &NodeId, rows: &[Row]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM node_accounts WHERE node = $1").bind(node.as_str()).execute(&mut *transaction).await?;
        for row in rows {
            sqlx::query("INSERT INTO node_accounts (node, os_user, state) VALUES ($1, $2, $3)")
                .bind(node.as_str())
                .bind(&row.os_user)
                .bind(json_text("state", row)?)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets the accounts of nodes that are not registered any more.
    pub async fn forget_accounts_of_gone_nodes(&self) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for statement in [
            "DELETE FROM node_accounts WHERE node NOT IN (SELECT id FROM nodes)",
            "DELETE FROM account_nodes WHERE node NOT IN (SELECT id FROM nodes)",
        ] {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Returns what a node was told.
    pub async fn account_node(&self, node: &NodeId) -> Result<NodeAccounts, StoreError> {
        let row = sqlx::query("SELECT *, node AS id FROM account_nodes WHERE node = $1")
            .bind(node.as_str())
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(NodeAccounts::default()) };
        let row = Columns::new(&row)?;
        Ok(NodeAccounts { version: row.count("version")?, recorded: row.count("recorded")? })
    }

    /// Notes what a node was told.
    pub async fn set_account_node(&self, node: &NodeId, told: NodeAccounts) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO account_nodes (node, version, recorded) VALUES ($1, $2, $3)
             ON CONFLICT (node) DO UPDATE SET version = $2, recorded = $3",
        )
        .bind(node.as_str())
        .bind(stored(told.version))
        .bind(stored(told.recorded))
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }
}

fn read_rule(row: &sqlx::sqlite::SqliteRow) -> Result<StoredRule, StoreError> {
    let row = Columns::new(row)?;
    Ok(StoredRule {
        name: row.parse("name")?,
        settings: row.json("settings")?,
        created: row.time("created")?,
        updated: row.time("updated")?,
    })
}

#[cfg(test)]
impl Store {
    /// Makes every rule unreadable, as damage to the database would.
    pub(crate) async fn damage_account_rules(&self) {
        let mut transaction = self.write().await.unwrap();
        sqlx::query("UPDATE account_rules SET settings = '{'").execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
}
