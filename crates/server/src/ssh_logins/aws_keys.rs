//! Keys that AWS itself pushed to the EC2 instance that a node is, as the node's agent reports them: each into the trail, one that
//! was not good with its reason.

use std::net::{IpAddr, Ipv4Addr};

use munjigi_core::grant::valid_os_user;
use munjigi_core::id::NodeId;
use munjigi_core::instance_connect::Distrust;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{AwsKeyReport, SshLogin};
use serde_json::{Value, json};

use super::{Unreported, store};
use crate::door::failures;
use crate::service_event::service_event;
use crate::{Server, clock};

/// Longest ARN, and longest id of a request to AWS.
const MAX_ARN: usize = 2048;
const MAX_REQUEST: usize = 128;

/// Tells whether an agent makes such reports.
pub(super) fn well_formed(key: &AwsKeyReport) -> bool {
    let known = key.reason.is_empty() || Distrust::from_code(&key.reason).is_some();
    let print = key.fingerprint.is_empty() || Fingerprint::parse(&key.fingerprint).is_some();
    valid_os_user(&key.os_user) && print && known && well_formed_push(&key.caller, &key.request_id)
}

/// Tells whether texts may be AWS's word on a push; they are shown as they are.
pub(super) fn well_formed_push(caller: &str, request_id: &str) -> bool {
    let is_good = |text: &str, longest| text.len() <= longest && !text.chars().any(char::is_control);
    is_good(caller, MAX_ARN) && is_good(request_id, MAX_REQUEST)
}

/// Writes into the trail that a node's sshd was told a key that AWS pushed, or that it was not good.
pub(super) async fn reported(server: &Server, node: &NodeId, key: &AwsKeyReport) -> Result<(), Unreported> {
    let at = Timestamp(key.read_micros.min(clock::now().0));
    let mut details = json!({ "target": node, "osUser": key.os_user, "lookupTime": at.to_iso_seconds() });
    let expires = (key.expires_micros > 0).then(|| Timestamp(key.expires_micros).to_iso_seconds());
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    if let Value::Object(members) = &mut details {
        let optional = [
            ("keyFingerprint", present(&key.fingerprint)),
            ("principalArn", present(&key.caller)),
            ("requestID", present(&key.request_id)),
            ("expires", expires),
        ];
        members.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    }
    let Some(reason) = Distrust::from_code(&key.reason) else {
        return store(server, "AwsPushedKey", details, None).await;
    };
    let message = format!("sshd on {node} asked for keys that AWS pushed for `{}`: {reason}", key.os_user);
    let event = service_event(server, "AwsPushedKey", details, Some((reason.code(), message)));
    // Anybody can offer keys as often as they like: of a flood the first of each kind, and the number of the rest.
    failures::record(server, IpAddr::V4(Ipv4Addr::UNSPECIFIED), event).await;
    Ok(())
}

/// What the node says of a login by a key that AWS pushed: nobody else knows of it.
pub(super) fn allowed_by(login: &SshLogin) -> Option<Value> {
    let known = !login.aws_caller.is_empty() || !login.aws_request_id.is_empty();
    known
        .then(|| json!({ "requestID": login.aws_request_id, "principalArn": login.aws_caller, "pushedThrough": "AWS" }))
}

#[cfg(test)]
mod tests {
    use munjigi_core::wire::message::{Logins, MAX_AWS_KEYS};

    use super::super::reported;
    use super::*;
    use crate::testing::TestServer;

    const PRINT: &str = "SHA256:mFRzXW2ipoLyfnBNqhP3/CKSPvnbWcBGnX7uPIcgCBo";

    fn report(logins: Vec<SshLogin>, aws_keys: Vec<AwsKeyReport>) -> Logins {
        Logins { logins, missed: 0, aws_keys }
    }

    #[tokio::test]
    async fn a_key_that_aws_pushed_and_its_login_stand_in_the_trail_and_a_bad_one_with_its_reason() {
        let test = TestServer::start().await;
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        let key = AwsKeyReport {
            read_micros: clock::now().0,
            os_user: "alice".into(),
            fingerprint: PRINT.into(),
            caller: "arn:aws:iam::123456789012:user/lee".into(),
            request_id: "r-1".into(),
            expires_micros: clock::now().0,
            reason: String::new(),
        };
        let reason = Distrust::BadSignature.code();
        let (caller, request_id) = (String::new(), String::new());
        let bad = AwsKeyReport { caller, request_id, expires_micros: 0, reason: reason.into(), ..key.clone() };
        let through = SshLogin {
            read_micros: clock::now().0,
            os_user: "alice".into(),
            address: "192.0.2.7".into(),
            port: 50022,
            method: "publickey".into(),
            fingerprint: PRINT.into(),
            aws_caller: key.caller.clone(),
            aws_request_id: key.request_id.clone(),
            ..SshLogin::default()
        };
        let aws_keys = vec![key.clone(), bad];
        reported(test.server(), &node, report(vec![through], aws_keys)).await.unwrap();
        let lines = test.trail("AwsPushedKey");
        assert_eq!(lines.len(), 2, "{lines:?}");
        for part in ["user/lee", "r-1", PRINT, "\"osUser\":\"alice\""] {
            assert!(lines[0].contains(part) && !lines[0].contains("errorCode"), "{part}: {}", lines[0]);
        }
        assert!(lines[1].contains(&format!("\"errorCode\":\"{reason}\"")), "{}", lines[1]);
        let logins = test.trail("\"eventName\":\"SshLogin\"");
        assert!(logins.len() == 1 && logins[0].contains("\"pushedThrough\":\"AWS\""), "{logins:?}");
        type Change = fn(&mut AwsKeyReport);
        let changes: [Change; 5] = [
            |key| key.os_user = "../x".into(),
            |key| key.fingerprint = "SHA256:x".into(),
            |key| key.caller = "a\nb".into(),
            |key| key.request_id = "r".repeat(MAX_REQUEST + 1),
            |key| key.reason = "Because".into(),
        ];
        for change in changes {
            let mut bad = key.clone();
            change(&mut bad);
            let refused = reported(test.server(), &node, report(vec![], vec![bad])).await;
            assert!(matches!(refused, Err(Unreported::Malformed(_))));
        }
        let many = report(vec![], vec![key; MAX_AWS_KEYS + 1]);
        assert!(reported(test.server(), &node, many).await.is_err());
        assert_eq!(test.trail("AwsPushedKey").len(), 2);
        test.stop().await;
    }
}
