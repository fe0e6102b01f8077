//! Policy documents: checked by the policy engine before they are stored, percent-encoded in answers.

use munjigi_core::policy::{Policy, PolicyKind, size};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Server;
use crate::api::error::ApiError;
use crate::identity::trust;
use crate::store::{InlinePolicy, StoreError, Trust};

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a document as answers of IAM carry it; botocore decodes it (aws-api A.3).
pub(super) fn encoded(document: &str) -> String {
    utf8_percent_encode(document, RESERVED).to_string()
}

/// Reads a document, or refuses it with its place as `MalformedPolicyDocument`.
pub(super) fn parse(document: &str, kind: PolicyKind) -> Result<Policy, ApiError> {
    Policy::parse(document, kind).map_err(|error| ApiError::bad(error.code(), error.to_string()))
}

/// Checks a trust policy and looks up whom it names.
pub(super) fn check_trust(server: &Server, document: &str) -> Result<Trust, ApiError> {
    parse(document, PolicyKind::Trust)?;
    if size::characters(document) > size::TRUST_POLICY {
        let message =
            format!("Cannot exceed quota for ACLSizePerRole: {} characters in a trust policy", size::TRUST_POLICY);
        return Err(ApiError::refused("LimitExceeded", http::StatusCode::CONFLICT, message));
    }
    let id_of = |arn: &str| match server.identities.by_arn(arn) {
        Some(user) => user.unique_id.clone(),
        None => server.identities.role_by_arn(arn).map(|role| role.id.clone()),
    };
    trust::resolve(document, server.deployment.account.as_str(), id_of).map_err(|name| {
        ApiError::bad("MalformedPolicyDocument", format!("Invalid principal in policy: \"AWS\":\"{name}\""))
    })
}

/// Checks the document of a managed policy.
pub(super) fn check_managed(document: &str) -> Result<(), ApiError> {
    parse(document, PolicyKind::Identity)?;
    if size::characters(document) > size::MANAGED_POLICY {
        return Err(limit("managed policy", size::MANAGED_POLICY));
    }
    Ok(())
}

/// Checks that all inline policies of a user, group or role together are small enough.
pub(super) fn fits(all: &[InlinePolicy], limit: usize) -> Result<(), StoreError> {
    let total: usize = all.iter().map(|policy| size::characters(&policy.document)).sum();
    if total > limit {
        let what = "characters in all inline policies together, not counting white space";
        return Err(StoreError::Limit { what, limit: limit as u64 });
    }
    Ok(())
}

fn limit(what: &str, limit: usize) -> ApiError {
    let message = format!("Cannot exceed quota for PolicySize: {limit} characters in a {what}");
    ApiError::refused("LimitExceeded", http::StatusCode::CONFLICT, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_encoded_for_every_reader() {
        assert_eq!(encoded("{\"a\": \"b+c~d 한\"}"), "%7B%22a%22%3A%20%22b%2Bc~d%20%ED%95%9C%22%7D");
    }

    #[test]
    fn a_bad_document_is_refused_with_its_place() {
        let error = check_managed("{\n  \"Statement\": 7\n}").unwrap_err();
        assert!(error.to_string().starts_with("line 2, column"), "{error}");
        let long = format!(
            r#"{{"Statement":{{"Sid":"{}","Effect":"Allow","Action":"*","Resource":"*"}}}}"#,
            "x".repeat(size::MANAGED_POLICY)
        );
        assert!(check_managed(&long).unwrap_err().to_string().contains("6144"));
    }
}
