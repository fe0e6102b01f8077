//! Who asks, and whom the `Principal` element of a resource policy names.

use serde::{Deserialize, Serialize};

/// The kinds of caller; the spelling in JSON is that of the decision cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrincipalKind {
    /// A user with long-term or session credentials.
    #[serde(rename = "IAMUser")]
    User,
    /// A session of a role.
    AssumedRole,
    /// A session a user made for somebody else (GetFederationToken).
    FederatedUser,
    /// The account's root: it needs no identity policy.
    Root,
    /// A service acting for itself; its ARN is its name, for example `ssm.amazonaws.com`.
    Service,
    /// Somebody an identity provider vouches for, before a role is assumed; the ARN is the provider's.
    WebIdentity,
    /// Nobody in particular.
    Anonymous,
}

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What kind of caller it is.
    pub kind: PrincipalKind,
    /// The caller's own ARN: of the user, of the role *session*, of the root; for services their name, for web
    /// identities their provider.
    pub arn: String,
    /// Twelve digits; empty for callers without an account.
    pub account: String,
    /// The ARN behind a session: of the role for role sessions, of the user for federated users; otherwise `None`.
    pub source_arn: Option<String>,
    /// The unchanging id of the user (`AIDA…`) or, for sessions, of the role (`AROA…`); stored resource policies
    /// name it, so that a re-created namesake does not inherit a grant.
    pub unique_id: Option<String>,
}

/// How far an Allow in a resource policy reaches for a caller, from nothing to everything (section 7, step 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// The statement does not speak of this caller.
    None,
    /// It names the caller's account, whose administrators decide.
    Account,
    /// It names the role, or everybody: boundary and session policies still limit.
    Limited,
    /// It names the caller itself: nothing but a Deny stands against it.
    Direct,
}

/// One compiled name in a `Principal` element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PrincipalPattern {
    Everybody,
    Account(Box<str>),
    /// A user, role, session or federated user.
    Arn(Box<str>),
    /// The unique id of a user or role.
    UniqueId(Box<str>),
    Service(Box<str>),
    Federated(Box<str>),
    /// A canonical user id; no caller here has one.
    CanonicalUser,
}

impl PrincipalPattern {
    /// Compiles one value of the element's `kind`; the error is a sentence.
    pub(super) fn parse(kind: &str, text: &str) -> Result<Self, String> {
        let shown = super::error::shown(text);
        if kind == "AWS" && text == "*" {
            return Ok(Self::Everybody);
        }
        if text.is_empty() || text.contains(['*', '?']) || text.chars().any(char::is_whitespace) {
            return Err(format!("principal `{shown}` is empty or holds a wildcard or a blank; name it in full"));
        }
        match kind {
            "AWS" => Self::aws(text).ok_or_else(|| {
                format!("principal `{shown}` is no account, user, role, session or unique id of one; write its ARN")
            }),
            "Service" => Ok(Self::Service(text.into())),
            "Federated" => Ok(Self::Federated(text.into())),
            "CanonicalUser" => Ok(Self::CanonicalUser),
            _ => Err(format!(
                "principal kind `{}` does not exist; use AWS, Service, Federated or CanonicalUser",
                super::error::shown(kind)
            )),
        }
    }

    fn aws(text: &str) -> Option<Self> {
        if is_account(text) {
            return Some(Self::Account(text.into()));
        }
        if crate::id::UniqueId::parse(text).is_ok() {
            return Some(Self::UniqueId(text.into()));
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, service, "", account, resource] = parts.as_slice() else { return None };
        if !(partition.starts_with("aws") && is_account(account)) {
            return None;
        }
        let (kind, name) = resource.split_once('/').unwrap_or((resource, ""));
        match (*service, kind) {
            ("iam", "root") if *resource == "root" => Some(Self::Account((*account).into())),
            ("iam", "user" | "role") | ("sts", "federated-user") if !name.is_empty() => Some(Self::Arn(text.into())),
            ("sts", "assumed-role") if name.split('/').filter(|part| !part.is_empty()).count() == 2 => {
                Some(Self::Arn(text.into()))
            }
            _ => None,
        }
    }

    /// Tells how this name reaches the caller.
    fn reach(&self, caller: &Principal) -> Reach {
        use PrincipalKind as K;
        let limited_when_session =
            if matches!(caller.kind, K::AssumedRole | K::FederatedUser) { Reach::Limited } else { Reach::Direct };
        match self {
            Self::Everybody => limited_when_session,
            Self::Account(account) => match caller.kind {
                K::User | K::AssumedRole | K::FederatedUser | K::Root if **account == *caller.account => Reach::Account,
                _ => Reach::None,
            },
            Self::Arn(arn) => match caller.kind {
                K::Service | K::WebIdentity | K::Anonymous | K::Root => Reach::None,
                _ if **arn == *caller.arn => Reach::Direct,
                _ if caller.source_arn.as_deref() == Some(&**arn) => Reach::Limited,
                _ => Reach::None,
            },
            Self::UniqueId(id) if caller.unique_id.as_deref() == Some(&**id) => limited_when_session,
            Self::Service(name) if caller.kind == K::Service && **name == *caller.arn => Reach::Direct,
            Self::Federated(provider) if caller.kind == K::WebIdentity && **provider == *caller.arn => Reach::Direct,
            Self::UniqueId(_) | Self::Service(_) | Self::Federated(_) | Self::CanonicalUser => Reach::None,
        }
    }
}

/// The compiled `Principal` or `NotPrincipal` of a statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PrincipalElement {
    Named(Box<[PrincipalPattern]>),
    /// Everybody who is not listed in full (only with Deny).
    Not(Box<[PrincipalPattern]>),
}

impl PrincipalElement {
    /// Tells how far the statement reaches for a caller; [`Reach::None`] when it does not speak of it.
    pub(super) fn reach(&self, caller: &Principal) -> Reach {
        match self {
            Self::Named(names) => names.iter().map(|name| name.reach(caller)).max().unwrap_or(Reach::None),
            Self::Not(names) if spares(names, caller) => Reach::None,
            Self::Not(_) => Reach::Direct,
        }
    }
}

/// Tells whether a NotPrincipal list holds every identity of the caller: account, role if any, and its own ARN. A
/// list that forgets one of them denies the caller nevertheless.
fn spares(names: &[PrincipalPattern], caller: &Principal) -> bool {
    use PrincipalKind as K;
    let lists = |wanted: Reach| names.iter().any(|name| name.reach(caller) == wanted);
    if names.contains(&PrincipalPattern::Everybody) {
        return true;
    }
    match caller.kind {
        K::User => lists(Reach::Account) && lists(Reach::Direct),
        K::AssumedRole => lists(Reach::Account) && lists(Reach::Limited) && lists(Reach::Direct),
        K::FederatedUser => lists(Reach::Account) && lists(Reach::Direct),
        K::Root => lists(Reach::Account),
        K::Service | K::WebIdentity => lists(Reach::Direct),
        K::Anonymous => false,
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}
