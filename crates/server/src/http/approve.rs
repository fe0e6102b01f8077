//! The page on which somebody approves an SSH login (`GET /approve/CODE`). It is the same for every code and knows
//! nothing: what there is to approve, and approving it, are API calls that the page signs with the access key that is
//! typed in. The key never leaves the browser.
//!
//! Everything is in one answer. Its content policy lets exactly this script and this style run, talk to this server
//! alone, and nobody put the page into a frame.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::header::{HeaderName, X_FRAME_OPTIONS};
use http::{HeaderValue, Response};
use http_body_util::Full;

use super::Body;

/// Where the page is; the code stands behind it.
pub(super) const PATH: &str = "/approve/";
const PAGE: &str = include_str!("approve/page.html");
const STYLE: &str = include_str!("approve/page.css");
const SCRIPT: &str = include_str!("approve/page.js");

/// Makes the page. `region` is the one that signatures name; it is made of letters, digits and hyphens.
pub(super) fn page(region: &str) -> Response<Body> {
    let text = PAGE.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT).replace("{{region}}", region);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    if let Ok(policy) = HeaderValue::from_str(&content_policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn content_policy() -> String {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_what_its_policy_allows_and_nothing_from_elsewhere() {
        let page = page("local-1");
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        // What would end the elements early would change what is hashed.
        assert!(!SCRIPT.contains("</") && !STYLE.contains('<') && !SCRIPT.contains("{{"));
        assert_eq!(PAGE.matches("<script").count() + PAGE.matches("<style").count(), 2);
        for attribute in [" src=", " href=", " action=", " onclick=", " style="] {
            assert!(!PAGE.contains(attribute), "{attribute}");
        }
        for kept in ["localStorage", "sessionStorage", "document.cookie", "indexedDB", "innerHTML"] {
            assert!(!SCRIPT.contains(kept), "{kept}");
        }
    }
}
