//! From an OpenID Connect token to a caller: the provider is registered, the token is its own, for one of the audiences,
//! and of this hour (T-43).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use munjigi_core::jwt::{self, Claims, JwtError};
use munjigi_core::policy::{PolicySet, PrincipalKind};
use munjigi_core::time::Timestamp;

use super::session_token::WebIdentity;
use super::{Caller, Principal};
use crate::Server;
use crate::api::error::ApiError;
use crate::store::StoreError;

/// How far the provider's clock may be off.
const SKEW: Duration = Duration::from_secs(60);
/// Longest subject (the model of `AssumeRoleWithWebIdentity`).
const MAX_SUBJECT: usize = 255;

/// A caller that a provider vouches for.
#[derive(Debug, Clone, PartialEq)]
pub struct WebCaller {
    /// Whom it vouches for.
    pub identity: WebIdentity,
    /// The provider's URL without the scheme: how condition keys of its claims begin.
    pub host: String,
    /// How the person proved themselves.
    pub amr: Vec<String>,
}

/// Verifies a token.
pub(crate) async fn prove(server: &Server, token: &str, now: Timestamp) -> Result<Caller, ApiError> {
    let invalid = |why: &str| ApiError::bad("InvalidIdentityToken", why);
    let claimed = jwt::unproven_claims(token).map_err(|error| invalid(&error.to_string()))?;
    let Some(host) = claimed.iss.strip_prefix("https://") else {
        return Err(invalid("No OpenIDConnect provider found in your account for the token's issuer"));
    };
    let arn = server.deployment.oidc_provider(host);
    let provider = match server.store.oidc_provider(&arn).await {
        Ok((provider, _)) => provider,
        Err(StoreError::NotFound { .. }) => {
            let message = format!("No OpenIDConnect provider found in your account for {}", claimed.iss.escape_debug());
            return Err(invalid(&message));
        }
        Err(error) => return Err(ApiError::internal(error)),
    };
    let claims = match jwt::verify(token, &*keys(server, &provider.url, false).await?) {
        // The provider may have begun to use a new key.
        Err(JwtError::UnknownKey) => jwt::verify(token, &*keys(server, &provider.url, true).await?),
        verified => verified,
    };
    let claims = claims.map_err(|error| invalid(&error.to_string()))?;
    check_times(&claims, now)?;
    let audience = audience(&claims, &provider.client_ids).ok_or_else(|| invalid("Incorrect token audience"))?;
    if claims.sub.is_empty() || claims.sub.chars().count() > MAX_SUBJECT {
        let message = "the token's subject must have 1 to 255 characters";
        return Err(ApiError::refused("IDPRejectedClaim", StatusCode::FORBIDDEN, message));
    }
    let principal = Principal {
        kind: PrincipalKind::WebIdentity,
        arn: arn.clone(),
        unique_id: None,
        name: claims.sub.as_str().into(),
        path: "/".into(),
        tags: BTreeMap::new(),
        policies: PolicySet::default(),
        session: None,
    };
    let identity = WebIdentity { provider: arn, audience, subject: claims.sub };
    Ok(Caller::of_web_identity(Arc::new(principal), WebCaller { identity, host: host.to_owned(), amr: claims.amr }))
}

async fn keys(server: &Server, url: &str, anew: bool) -> Result<Arc<jwt::Jwks>, ApiError> {
    server.oidc.keys(url, anew).await.map_err(|cause| {
        tracing::warn!(provider = url, cause = format!("{cause:#}"), "the keys of an OIDC provider cannot be had");
        ApiError::bad(
            "IDPCommunicationError",
            format!("Couldn't retrieve verification key from your identity provider: {cause}"),
        )
    })
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), ApiError> {
    let (now, skew) = (now.as_epoch_seconds(), SKEW.as_secs_f64());
    // What is no number is not later than anything.
    let is_on_time = claims.exp > now - skew;
    if !is_on_time {
        return Err(ApiError::bad(
            "ExpiredTokenException",
            "Token expired: current date/time must be before the expiration date/time",
        ));
    }
    for from in [claims.nbf, claims.iat].into_iter().flatten() {
        let has_begun = from <= now + skew;
        if !has_begun {
            return Err(ApiError::bad("InvalidIdentityToken", "the token is not good yet; compare the clocks"));
        }
    }
    Ok(())
}

/// Returns the audience that is one of the provider's client ids. Of several audiences the one counts that the token was
/// made for, `azp`.
fn audience(claims: &Claims, client_ids: &[String]) -> Option<String> {
    let known = |name: &&String| client_ids.contains(name);
    match (claims.aud.all(), &claims.azp) {
        ([only], None) => Some(only).filter(known).cloned(),
        (all, Some(azp)) if all.contains(azp) || all.len() == 1 => {
            let all_known = all.iter().any(|name| client_ids.contains(name));
            Some(azp).filter(known).filter(|_| all_known).cloned()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use munjigi_core::jwt::Audience;

    fn claims(aud: &[&str], azp: Option<&str>) -> Claims {
        Claims {
            iss: "https://i".into(),
            sub: "s".into(),
            aud: Audience::Many(aud.iter().map(|name| (*name).to_owned()).collect()),
            exp: 1000.0,
            nbf: Some(500.0),
            iat: None,
            azp: azp.map(str::to_owned),
            amr: Vec::new(),
        }
    }

    #[test]
    fn the_audience_must_be_a_client_of_the_provider() {
        let ids = ["ci".to_owned(), "web".to_owned()];
        for (aud, azp, found) in [
            (&["ci"][..], None, Some("ci")),
            (&["other"], None, None),
            (&["ci", "web"], None, None),
            (&["ci", "web"], Some("web"), Some("web")),
            (&["ci", "web"], Some("other"), None),
            (&["ci"], Some("ci"), Some("ci")),
            (&["other"], Some("ci"), None),
            (&[], None, None),
        ] {
            assert_eq!(audience(&claims(aud, azp), &ids).as_deref(), found, "{aud:?} {azp:?}");
        }
    }

    #[test]
    fn a_token_is_good_from_its_beginning_to_its_end() {
        let code = |seconds| match check_times(&claims(&["ci"], None), Timestamp::from_secs(seconds)) {
            Ok(()) => "",
            Err(error) => error.code(crate::api::operation::Service::Sts),
        };
        assert_eq!((code(439), code(440)), ("InvalidIdentityToken", ""));
        assert_eq!((code(1059), code(1060)), ("", "ExpiredTokenException"));
        let mut odd = claims(&["ci"], None);
        odd.exp = f64::NAN;
        assert!(check_times(&odd, Timestamp::from_secs(1)).is_err());
    }
}
