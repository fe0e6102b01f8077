//! `[instance_connect]` of `agent.toml`: whether keys are believed that AWS itself pushes to the EC2 instance that the node is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::bail;
use serde::Deserialize;
use url::{Host, Url};

/// Where every EC2 instance finds its metadata service.
const METADATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct InstanceConnect {
    /// Whether sshd is told keys that AWS pushed (`aws ec2-instance-connect send-ssh-public-key` towards AWS); default
    /// false.
    pub(crate) aws: bool,
    /// The instance's metadata service, `http://ADDRESS[:PORT]`; default `http://169.254.169.254`. Always asked directly,
    /// whatever proxies the environment names.
    pub(crate) metadata_url: MetadataUrl,
    /// A PEM file with the roots that AWS's signer may lead to, in the place of the system's; an absolute path.
    pub(crate) trust_file: Option<PathBuf>,
    /// Where the kernel shows what the machine is; default `/sys`. An absolute path.
    pub(crate) hardware: PathBuf,
}

impl Default for InstanceConnect {
    fn default() -> Self {
        Self { aws: false, metadata_url: MetadataUrl(METADATA), trust_file: None, hardware: PathBuf::from("/sys") }
    }
}

impl InstanceConnect {
    /// Refuses paths that depend on where the agent was started.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.trust_file.as_ref().is_some_and(|path| !path.is_absolute()) || !self.hardware.is_absolute() {
            bail!("`trust_file` and `hardware` of [instance_connect] are absolute paths");
        }
        Ok(())
    }
}

/// The address of a metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MetadataUrl(pub(crate) SocketAddr);

impl TryFrom<String> for MetadataUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "`metadata_url` is http://ADDRESS[:PORT], with an address and no name";
        let url = Url::parse(&text).map_err(|_| wrong)?;
        let host = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Err(wrong),
        };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        match url.port_or_known_default() {
            Some(port) if bare && plain => Ok(Self(SocketAddr::new(host, port))),
            _ => Err(wrong),
        }
    }
}
