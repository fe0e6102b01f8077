//! Targets as the command line sends and reads them.

use munjigi_core::target::{TargetKind, TargetTls, TlsMode};
use serde::{Deserialize, Serialize};

use super::api::{Api, CallContext as _};
use super::api_types::{Epoch, Tag};

/// `PutTarget`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutTarget {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) kind: TargetKind,
    pub(crate) through: Vec<String>,
    /// Those it has stay if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Vec<Tag>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    pub(crate) inspect: bool,
    pub(crate) record_parameters: bool,
    pub(crate) allow_load_local: bool,
    pub(crate) tls: TargetTls,
    /// The stored one stays if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credential: Option<Credential>,
    pub(crate) remove_credential: bool,
}

/// As whom the gateway logs in. Not to be printed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Credential {
    pub(crate) user_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("user_name", &self.user_name).finish_non_exhaustive()
    }
}

/// Output of `PutTarget`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Put {
    pub(crate) target: Target,
}

/// `DeleteTarget`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeleteTarget {
    pub(crate) name: String,
}

/// `DescribeTargets`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeTargets {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TargetList {
    targets: Vec<Target>,
    #[serde(default)]
    next_token: Option<String>,
}

/// A target.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) arn: String,
    /// `HOST:PORT`, as its nodes see it.
    pub(crate) address: String,
    pub(crate) kind: TargetKind,
    #[serde(default)]
    pub(crate) through: Vec<String>,
    /// How many nodes it is reached through.
    #[serde(default)]
    pub(crate) nodes: usize,
    #[serde(default)]
    pub(crate) nodes_online: usize,
    #[serde(default)]
    pub(crate) local_port: Option<u16>,
    #[serde(default)]
    pub(crate) database: Option<String>,
    #[serde(default)]
    pub(crate) inspect: bool,
    #[serde(default)]
    pub(crate) record_parameters: bool,
    #[serde(default)]
    pub(crate) allow_load_local: bool,
    #[serde(default)]
    pub(crate) tls: TargetTls,
    #[serde(default)]
    pub(crate) user_name: Option<String>,
    #[serde(default)]
    pub(crate) has_password: bool,
    #[serde(default)]
    pub(crate) tags: Vec<Tag>,
    pub(crate) created_at: Epoch,
    pub(crate) updated_at: Epoch,
}

impl Target {
    /// Tells whether the program that connects has to speak TLS itself.
    pub(crate) fn client_tls(&self) -> bool {
        self.tls.mode != TlsMode::Off && !self.inspect
    }

    /// Returns the name that the certificate must be for and the authorities that may have signed it, if the program
    /// that connects has to check that itself.
    pub(crate) fn verified(&self) -> Option<(&str, Option<&str>)> {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
        let name = self.tls.server_name.as_deref().unwrap_or(host);
        (self.tls.mode == TlsMode::VerifyFull && !self.inspect).then_some((name, self.tls.ca_pem.as_deref()))
    }
}

/// Asks for one target.
pub(crate) async fn describe(api: &mut Api, name: &str) -> anyhow::Result<Target> {
    let request = DescribeTargets { names: vec![name.to_owned()], next_token: None };
    let found: TargetList =
        api.munjigi("DescribeTargets", &request).await.doing(api.context(), "cannot look the target up")?;
    found.targets.into_iter().next().ok_or_else(|| anyhow::anyhow!("there is no target {name}"))
}

/// Asks for all targets.
pub(crate) async fn list(api: &mut Api) -> anyhow::Result<Vec<Target>> {
    let mut request = DescribeTargets::default();
    let mut targets = Vec::new();
    loop {
        let page: TargetList =
            api.munjigi("DescribeTargets", &request).await.doing(api.context(), "cannot list the targets")?;
        targets.extend(page.targets);
        match page.next_token {
            Some(token) => request.next_token = Some(token),
            None => return Ok(targets),
        }
    }
}
