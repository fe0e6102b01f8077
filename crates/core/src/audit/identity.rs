//! `userIdentity`: who acted, in the members that CloudTrail has for each kind.

use serde::{Deserialize, Serialize};

/// The kind of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UserType {
    /// A user with an access key of its own.
    IAMUser,
    /// A role session.
    AssumedRole,
    /// The account's root.
    Root,
    /// A federated user.
    FederatedUser,
    /// A caller of `AssumeRoleWithWebIdentity`.
    WebIdentityUser,
    /// A caller of `AssumeRoleWithSAML`.
    SAMLUser,
    /// Another account.
    AWSAccount,
    /// A service acting by itself; `invokedBy` names it.
    AWSService,
    /// A user of the identity centre.
    IdentityCenterUser,
    /// Nobody known: authentication failed.
    #[default]
    Unknown,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserIdentity {
    /// The kind of identity.
    #[serde(rename = "type")]
    pub kind: UserType,
    /// Unique id: `AIDA…`, `AROA…:session`, the account, or what the identity provider calls the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<String>,
    /// ARN of the principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Account of the principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Access key that signed; for `Unknown` the one presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Friendly name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// What temporary credentials stand on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_context: Option<SessionContext>,
    /// The service that acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoked_by: Option<String>,
    /// The identity provider of a web identity or SAML user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    /// The person behind an identity centre user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
    /// The credential of an identity centre user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
}

/// What temporary credentials stand on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionContext {
    /// The role that was assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_issuer: Option<SessionIssuer>,
    /// The web identity it was assumed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_id_federation_data: Option<WebIdentityFederationData>,
    /// When and how strongly it was authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<SessionAttributes>,
    /// The source identity that every later session carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// Version of the instance metadata service that delivered the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2_role_delivery: Option<String>,
}

/// The role that issued temporary credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionIssuer {
    /// `Role`, `User` or `Root`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its unique id.
    pub principal_id: String,
    /// Its ARN.
    pub arn: String,
    /// Its account.
    pub account_id: String,
    /// Its name.
    pub user_name: String,
}

/// The web identity behind a role session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebIdentityFederationData {
    /// The provider's name.
    pub federated_provider: String,
    /// Claims that were kept.
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// When and how strongly a session was authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionAttributes {
    /// When the credentials were issued, `2026-11-21T12:00:00Z`.
    pub creation_date: String,
    /// `true` or `false`, as text.
    pub mfa_authenticated: String,
}

/// The person behind an identity centre user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnBehalfOf {
    /// The person's id in the identity store.
    pub user_id: String,
    /// ARN of the identity store.
    pub identity_store_arn: String,
}

impl UserIdentity {
    /// Returns the identity of a caller whom authentication did not accept, with the key id that was presented.
    pub fn unknown(presented_access_key_id: Option<&str>) -> Self {
        Self { access_key_id: presented_access_key_id.map(str::to_owned), ..Self::default() }
    }

    /// Returns the identity of a service acting by itself, for example `munjigi.local`.
    pub fn service(name: &str) -> Self {
        Self { kind: UserType::AWSService, invoked_by: Some(name.to_owned()), ..Self::default() }
    }
}
