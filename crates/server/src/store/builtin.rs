//! Policies that come with the program, as data, and the administrator of a new deployment.

use sqlx::SqliteConnection;

use munjigi_core::id::base32_id;
use munjigi_core::time::Timestamp;

use super::{NewAccessKey, Store, StoreError, access_keys, fold, policies, users};

/// The built-in policy that allows everything.
pub const ADMINISTRATOR_ACCESS: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
/// The user of a new deployment.
const ADMINISTRATOR: &str = "admin";

struct Builtin {
    name: &'static str,
    description: &'static str,
    document: &'static str,
}

const BUILTIN: [Builtin; 4] = [
    Builtin {
        name: "AdministratorAccess",
        description: "Everything.",
        document: include_str!("builtin/administrator_access.json"),
    },
    Builtin {
        name: "ReadOnlyAccess",
        description: "Look at everything but recordings; change nothing.",
        document: include_str!("builtin/read_only_access.json"),
    },
    Builtin {
        name: "MunjigiOperator",
        description: "Sessions on all nodes, and the caller's own sessions; no identities, no policies.",
        document: include_str!("builtin/munjigi_operator.json"),
    },
    Builtin {
        name: "MunjigiAuditor",
        description: "Audit trail, sessions and recordings of everybody, and their proofs; no sessions of one's own.",
        document: include_str!("builtin/munjigi_auditor.json"),
    },
];

impl Store {
    /// Makes the user `admin` with [`ADMINISTRATOR_ACCESS`] and an access key: the first and only identity of a new
    /// deployment.
    pub async fn create_administrator(&self, now: Timestamp) -> Result<NewAccessKey, StoreError> {
        let mut transaction = self.write().await?;
        let user = users::create(&mut transaction, ADMINISTRATOR, "/", None, &[], now).await?;
        policies::attach(&mut transaction, user.id.as_str(), builtin_id("AdministratorAccess").as_str(), now).await?;
        let key = access_keys::create(&mut transaction, self.master(), ADMINISTRATOR, now).await?;
        transaction.commit().await?;
        Ok(key)
    }
}

/// Writes the built-in policies as this program knows them: a changed document becomes a new default version.
pub(super) async fn refresh(connection: &mut SqliteConnection, now: Timestamp) -> Result<(), StoreError> {
    for builtin in &BUILTIN {
        let id = builtin_id(builtin.name);
        let known: Option<(String, i64)> = sqlx::query_as(
            "SELECT v.document, p.last_version FROM policies p
             JOIN policy_versions v ON v.policy_id = p.id AND v.version = p.default_version WHERE p.id = $1",
        )
        .bind(&id)
        .fetch_optional(&mut *connection)
        .await?;
        let version = match known {
            Some((document, _)) if document == builtin.document => continue,
            Some((_, last)) => last.saturating_add(1),
            None => 1,
        };
        sqlx::query(
            "INSERT INTO policies (id, arn, name, name_key, path, description, builtin, created, updated,
                                   default_version, last_version)
             VALUES ($1, $2, $3, $4, '/', $5, 1, $6, $6, $7, $7)
             ON CONFLICT (id) DO UPDATE SET description = $5, updated = $6, default_version = $7, last_version = $7",
        )
        .bind(&id)
        .bind(format!("arn:aws:iam::aws:policy/{}", builtin.name))
        .bind(builtin.name)
        .bind(fold(builtin.name))
        .bind(builtin.description)
        .bind(now.0)
        .bind(version)
        .execute(&mut *connection)
        .await?;
        policies::add_version(connection, &id, version, builtin.document, now).await?;
    }
    Ok(())
}

/// Derives a built-in policy's id from its name, so that it is the same in every deployment.
fn builtin_id(name: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    base32_id("ANPA", digest.as_ref().get(..17).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use munjigi_core::id::UniqueId;
    use munjigi_core::policy::{Policy, PolicyKind};

    use super::*;

    #[test]
    fn the_built_in_policies_are_policies() {
        for builtin in &BUILTIN {
            let policy = Policy::parse(builtin.document, PolicyKind::Identity).unwrap();
            assert!(policy.statement_count() > 0, "{}", builtin.name);
            assert!(UniqueId::parse(&builtin_id(builtin.name)).is_ok());
        }
    }
}
