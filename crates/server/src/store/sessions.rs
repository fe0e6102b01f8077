//! Sessions: one row from before the grant until after the retention, with what is needed to show, resume and re-judge
//! it. States only change as `SessionStatus::may_become` says.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use munjigi_core::id::{AccessKeyId, NodeId, SessionId};
use munjigi_core::session::{EndReason, ExitStatus, SessionKind, SessionLimits, SessionStatus};
use munjigi_core::time::Timestamp;

use super::row::{Columns, json_text, stored};
use super::{Kind, Page, Store, StoreError};

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Who started it: the principal's ARN then.
    pub owner_arn: String,
    /// Who started it: the principal's unchanging id.
    pub owner_id: String,
    /// The node.
    pub node: NodeId,
    /// The node's name then.
    pub node_name: String,
    /// The OS user.
    pub os_user: String,
    /// Shell or command.
    pub kind: SessionKind,
    /// The session document.
    pub document: String,
    /// What the starter said it is for.
    pub reason: Option<String>,
    /// The program and its arguments; `None` for a shell.
    pub command: Option<Vec<String>>,
    /// Where it stands.
    pub status: SessionStatus,
    /// When it was granted.
    pub started: Timestamp,
    /// Its end, once it is over.
    pub end: Option<SessionEnd>,
    /// Its recording, relative to the data directory.
    pub recording: String,
    /// The client's address.
    pub source_ip: String,
    /// The key the client proved itself with.
    pub access_key: Option<AccessKeyId>,
    /// Its limits.
    pub limits: SessionLimits,
    /// What decided it: principal, actions, resources and context values, for judging again.
    pub decision: serde_json::Value,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEnd {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// How its program ended, if it is known.
    pub exit: Option<ExitStatus>,
    /// The final hash of its recording, if it could be sealed.
    pub recording_hash: Option<String>,
    /// Bytes typed.
    pub bytes_in: u64,
    /// Bytes printed, both streams.
    pub bytes_out: u64,
}

/// Which sessions to list; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// Active ones or those of the past; `None`: both.
    pub active: Option<bool>,
    /// Started at this instant or later.
    pub invoked_after: Option<Timestamp>,
    /// Started at this instant or earlier.
    pub invoked_before: Option<Timestamp>,
    /// On this node.
    pub node: Option<NodeId>,
    /// By this principal's ARN, exactly.
    pub owner: Option<String>,
    /// In this state.
    pub status: Option<SessionStatus>,
    /// This one.
    pub id: Option<SessionId>,
}

/// A place in the list of sessions: behind the one that started then with that id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCursor {
    /// Start of the last session seen.
    pub started: Timestamp,
    /// Its id.
    pub id: SessionId,
}

impl SessionCursor {
    /// Returns the cursor as text, for a page token.
    pub fn to_text(&self) -> String {
        format!("{}/{}", self.started.0, self.id)
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Option<Self> {
        let (started, id) = text.split_once('/')?;
        Some(Self { started: Timestamp(started.parse().ok()?), id: SessionId::parse(id).ok()? })
    }
}

impl SessionRow {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let row = Columns::new(row)?;
        let end = match row.get::<Option<i64>>("ended")? {
            Some(time) => {
                let reason: &str = row.get("end_reason")?;
                Some(SessionEnd {
                    time: Timestamp(time),
                    reason: EndReason::parse(reason).ok_or_else(|| row.unreadable("end_reason"))?,
                    exit: row.json_optional("exit_status")?,
                    recording_hash: row.get("recording_hash")?,
                    bytes_in: row.count("bytes_in")?,
                    bytes_out: row.count("bytes_out")?,
                })
            }
            None => None,
        };
        let kind = SessionKind::parse(row.get("kind")?).ok_or_else(|| row.unreadable("kind"))?;
        Ok(Self {
            id: row.parse("id")?,
            owner_arn: row.get("owner_arn")?,
            owner_id: row.get("owner_id")?,
            node: row.parse("node_id")?,
            node_name: row.get("node_name")?,
            os_user: row.get("os_user")?,
            kind,
            document: row.get("document")?,
            reason: row.get("reason")?,
            command: row.json_optional("command")?,
            status: status(&row)?,
            started: row.time("started")?,
            end,
            recording: row.get("recording")?,
            source_ip: row.get("source_ip")?,
            access_key: row.parse_optional("access_key")?,
            limits: row.json("limits")?,
            decision: row.json("decision")?,
        })
    }
}

fn status(row: &Columns<'_>) -> Result<SessionStatus, StoreError> {
    SessionStatus::parse(row.get("status")?).ok_or_else(|| row.unreadable("status"))
}

impl Store {
    /// Writes a session that begins; its `end` is not looked at.
    pub async fn insert_session(&self, session: &SessionRow) -> Result<(), StoreError> {
        let command = session.command.as_ref().map(|command| json_text("command", command)).transpose()?;
        let mut transaction = self.write().await?;
        let made = sqlx::query(
            "INSERT INTO sessions (id, owner_arn, owner_id, node_id, node_name, os_user, kind, document, reason,
                                   command, status, started, recording, bytes_in, bytes_out, source_ip, access_key,
                                   limits, decision)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0, $14, $15, $16, $17)",
        )
        .bind(session.id.as_str())
        .bind(&session.owner_arn)
        .bind(&session.owner_id)
        .bind(session.node.as_str())
        .bind(&session.node_name)
        .bind(&session.os_user)
        .bind(session.kind.as_str())
        .bind(&session.document)
        .bind(&session.reason)
        .bind(command)
        .bind(session.status.as_str())
        .bind(session.started.0)
        .bind(&session.recording)
        .bind(&session.source_ip)
        .bind(session.access_key.as_ref().map(AccessKeyId::as_str))
        .bind(json_text("limits", &session.limits)?)
        .bind(json_text("decision", &session.decision)?)
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match error {
            error if StoreError::is_taken(&error) => {
                StoreError::Exists { kind: Kind::Session, name: session.id.as_str().to_owned() }
            }
            error => error.into(),
        })?;
        Ok(transaction.commit().await?)
    }

    /// Moves a session to another state. Returns whether it did: not if it is in that state already, or may not go
    /// there any more.
    pub async fn set_session_status(&self, id: &SessionId, next: SessionStatus) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let now = find(&mut transaction, id).await?.status;
        if !now.may_become(next) {
            return Ok(false);
        }
        sqlx::query("UPDATE sessions SET status = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(next.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Moves sessions to other states in one write. A state that a session may not go to any more is left out.
    pub async fn set_session_statuses(&self, changes: &[(SessionId, SessionStatus)]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for (id, next) in changes {
            let now = find(&mut transaction, id).await?.status;
            if now.may_become(*next) {
                sqlx::query("UPDATE sessions SET status = $2 WHERE id = $1")
                    .bind(id.as_str())
                    .bind(next.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Writes the end of a session: `Terminated`, or `Failed` if it never ran. Returns whether it did: not if the
    /// session is over already.
    pub async fn finish_session(&self, id: &SessionId, end: &SessionEnd) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let now = find(&mut transaction, id).await?.status;
        let next = match end.reason {
            EndReason::StartFailed if now == SessionStatus::Connecting => SessionStatus::Failed,
            _ => SessionStatus::Terminated,
        };
        if !now.may_become(next) {
            return Ok(false);
        }
        let exit = end.exit.as_ref().map(|exit| json_text("exit", exit)).transpose()?;
        sqlx::query(
            "UPDATE sessions SET status = $2, ended = $3, end_reason = $4, exit_status = $5, recording_hash = $6,
                                 bytes_in = $7, bytes_out = $8 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(next.as_str())
        .bind(end.time.0)
        .bind(end.reason.as_str())
        .bind(exit)
        .bind(&end.recording_hash)
        .bind(stored(end.bytes_in))
        .bind(stored(end.bytes_out))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Returns a session.
    pub async fn session(&self, id: &SessionId) -> Result<SessionRow, StoreError> {
        let mut connection = self.readers().acquire().await?;
        find(&mut connection, id).await
    }

    /// Lists sessions, the newest first, behind the place `after`.
    pub async fn list_sessions(
        &self,
        filter: &SessionFilter,
        after: Option<&SessionCursor>,
        limit: usize,
    ) -> Result<Page<SessionRow, SessionCursor>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions
             WHERE ($1 IS NULL OR (status IN ('Connecting', 'Connected', 'Disconnected')) = ($1 = 1))
               AND ($2 IS NULL OR started >= $2) AND ($3 IS NULL OR started <= $3)
               AND ($4 IS NULL OR node_id = $4) AND ($5 IS NULL OR owner_arn = $5)
               AND ($6 IS NULL OR status = $6) AND ($7 IS NULL OR id = $7)
               AND ($8 IS NULL OR started < $8 OR (started = $8 AND id < $9))
             ORDER BY started DESC, id DESC LIMIT $10",
        )
        .bind(filter.active.map(i64::from))
        .bind(filter.invoked_after.map(|time| time.0))
        .bind(filter.invoked_before.map(|time| time.0))
        .bind(filter.node.as_ref().map(NodeId::as_str))
        .bind(&filter.owner)
        .bind(filter.status.map(SessionStatus::as_str))
        .bind(filter.id.as_ref().map(SessionId::as_str))
        .bind(after.map(|after| after.started.0))
        .bind(after.map(|after| after.id.as_str()))
        .bind(stored(limit as u64 + 1))
        .fetch_all(self.readers())
        .await?;
        let sessions = rows.iter().map(SessionRow::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(sessions, limit, |last| SessionCursor { started: last.started, id: last.id.clone() }))
    }

    /// Finds the sessions whose id begins with `prefix`, the newest first; for people who type a part of an id.
    pub async fn sessions_by_prefix(&self, prefix: &str, limit: usize) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE substr(id, 1, length($1)) = $1 ORDER BY started DESC, id DESC LIMIT $2",
        )
        .bind(prefix)
        .bind(stored(limit as u64))
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(SessionRow::read).collect()
    }

    /// Returns all sessions that are not over: after a restart they are taken back or ended.
    pub async fn unfinished_sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions WHERE ended IS NULL ORDER BY started")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(SessionRow::read).collect()
    }
}

async fn find(connection: &mut SqliteConnection, id: &SessionId) -> Result<SessionRow, StoreError> {
    let row = sqlx::query("SELECT * FROM sessions WHERE id = $1").bind(id.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(SessionRow::read).transpose()?.ok_or_else(|| StoreError::not_found(Kind::Session, id.as_str()))
}
