//! Amazon resource names of the things Munjigi owns (`specs` of IAM, section 8.1), and their parsing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{AccountId, NodeId, SessionId};
use crate::target::TargetName;

/// A resource name: `arn:partition:service:region:account:resource`, where the resource may hold `:` and `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arn(Box<str>);

/// Why a text is no resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an ARN has six parts, `arn:partition:service:region:account:resource`, at most 2048 characters")]
pub struct InvalidArn;

impl Arn {
    /// Parses a resource name; wildcards are no part of one.
    pub fn parse(text: &str) -> Result<Self, InvalidArn> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", partition, service, _, _, resource]
                if !partition.is_empty() && !service.is_empty() && !resource.is_empty() && text.len() <= 2048 =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(InvalidArn),
        }
    }

    /// Returns the name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the account part, which may be empty.
    pub fn account(&self) -> &str {
        self.0.split(':').nth(4).unwrap_or_default()
    }

    /// Returns the part behind the fifth colon.
    pub fn resource(&self) -> &str {
        self.0.splitn(6, ':').nth(5).unwrap_or_default()
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Arn {
    type Err = InvalidArn;
    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        Self::parse(text)
    }
}

impl Serialize for Arn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Arn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Where a deployment's resources live: its account and region. Builds the names of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The account all resources belong to.
    pub account: AccountId,
    /// The region named in regional resources, for example `local-1`.
    pub region: Box<str>,
}

impl Deployment {
    fn iam(&self, kind: &str, path: &str, name: &str) -> Arn {
        Arn(format!("arn:aws:iam::{}:{kind}{path}{name}", self.account).into())
    }

    fn ssm(&self, resource: &str) -> Arn {
        Arn(format!("arn:aws:ssm:{}:{}:{resource}", self.region, self.account).into())
    }

    fn ec2(&self, resource: &str) -> Arn {
        Arn(format!("arn:aws:ec2:{}:{}:{resource}", self.region, self.account).into())
    }

    /// Returns the account's root principal.
    pub fn root(&self) -> Arn {
        self.iam("root", "", "")
    }

    /// Returns the name of a user; `path` begins and ends with `/`.
    pub fn user(&self, path: &str, name: &str) -> Arn {
        self.iam("user", path, name)
    }

    /// Returns the name of a group; `path` begins and ends with `/`.
    pub fn group(&self, path: &str, name: &str) -> Arn {
        self.iam("group", path, name)
    }

    /// Returns the name of a role; `path` begins and ends with `/`.
    pub fn role(&self, path: &str, name: &str) -> Arn {
        self.iam("role", path, name)
    }

    /// Returns the name of a session of a role; the role's path stands nowhere in it.
    pub fn assumed_role(&self, role: &str, session: &str) -> Arn {
        Arn(format!("arn:aws:sts::{}:assumed-role/{role}/{session}", self.account).into())
    }

    /// Returns the name of a virtual MFA device; `path` begins and ends with `/`.
    pub fn mfa(&self, path: &str, name: &str) -> Arn {
        self.iam("mfa", path, name)
    }

    /// Returns the name of an OpenID Connect provider; `host` is its URL without the scheme.
    pub fn oidc_provider(&self, host: &str) -> Arn {
        self.iam("oidc-provider", "/", host)
    }

    /// Returns the name of a managed policy; `path` begins and ends with `/`.
    pub fn policy(&self, path: &str, name: &str) -> Arn {
        self.iam("policy", path, name)
    }

    /// Returns the name of a node.
    pub fn node(&self, node: &NodeId) -> Arn {
        self.ssm(&format!("managed-instance/{node}"))
    }

    /// Returns the name of a node as an instance of EC2; Instance Connect is allowed on it.
    pub fn instance(&self, node: &NodeId) -> Arn {
        self.ec2(&format!("instance/{}", node.instance_id()))
    }

    /// Returns the name of the deployment's tunnel endpoint.
    pub fn tunnel_endpoint(&self, id: &str) -> Arn {
        self.ec2(&format!("instance-connect-endpoint/{id}"))
    }

    /// Returns the name of a session.
    pub fn session(&self, session: &SessionId) -> Arn {
        self.ssm(&format!("session/{session}"))
    }

    /// Returns the name of a target.
    pub fn target(&self, name: &TargetName) -> Arn {
        Arn(format!("arn:aws:munjigi:{}:{}:target/{name}", self.region, self.account).into())
    }

    /// Returns the name of an account rule.
    pub fn account_rule(&self, name: &TargetName) -> Arn {
        Arn(format!("arn:aws:munjigi:{}:{}:account-rule/{name}", self.region, self.account).into())
    }

    /// Returns the name of a group's keys.
    pub fn account_key_file(&self, name: &TargetName) -> Arn {
        Arn(format!("arn:aws:munjigi:{}:{}:account-key-file/{name}", self.region, self.account).into())
    }

    /// Returns the name of a session document; the built-in `AWS-…` documents have no account.
    pub fn document(&self, name: &str) -> Arn {
        if name.starts_with("AWS-") {
            Arn(format!("arn:aws:ssm:{}::document/{name}", self.region).into())
        } else {
            self.ssm(&format!("document/{name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_names_have_the_documented_form() {
        let here = Deployment { account: AccountId::parse("123456789012").unwrap(), region: "local-1".into() };
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        assert_eq!(here.node(&node).as_str(), "arn:aws:ssm:local-1:123456789012:managed-instance/mi-0123456789abcdef0");
        assert_eq!(here.instance(&node).as_str(), "arn:aws:ec2:local-1:123456789012:instance/i-0123456789abcdef0");
        assert_eq!(here.user("/eng/", "alice").as_str(), "arn:aws:iam::123456789012:user/eng/alice");
        assert_eq!(here.root().as_str(), "arn:aws:iam::123456789012:root");
        assert_eq!(here.document("AWS-StartSSHSession").account(), "");
        let target = TargetName::parse("orders-db").unwrap();
        assert_eq!(here.target(&target).as_str(), "arn:aws:munjigi:local-1:123456789012:target/orders-db");
    }

    #[test]
    fn only_six_parts_are_a_resource_name() {
        for bad in ["", "arn:aws:ssm", "arn:aws:ssm:r:a:", "xrn:aws:s:r:a:b", "arn:aws::r:a:b"] {
            assert!(Arn::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Arn::parse("arn:aws:s:r:a:b:c/d").unwrap().resource(), "b:c/d");
    }
}
