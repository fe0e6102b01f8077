//! Keys that AWS itself pushes to the EC2 instance that a node is: a metadata service of the test's own, signatures of the real openssl,
//! a real sshd and the real `ssh`.

use std::process::Command;

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::aws_metadata::{INSTANCE, Push};
use crate::harness::{AwsMetadata, TestSshd, binary, success, wait_for};
use crate::instance_connect::{Stage, setup};

const EVENT: &str = "AwsPushedKey";

fn stage(metadata: &AwsMetadata) -> Stage {
    Stage::with_agent("", &metadata.settings())
}

/// Waits until a login is let in: on a busy machine the metadata service may be too slow for one.
fn is_let_in(stage: &Stage, key: &str) {
    wait_for("the login", || stage.sshd.lets_in(key).then_some(()));
}

fn codes(stage: &Stage) -> Vec<String> {
    let trail = success(&mut stage.server.munjigi(&["audit", "--output", "json"]));
    let events = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .filter(|event| event["eventName"] == EVENT)
        .map(|event| event["errorCode"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_key_that_aws_pushed_lets_its_owner_in_and_the_trail_says_who_that_is() {
    let metadata = AwsMetadata::start();
    let stage = stage(&metadata);
    let key = stage.sshd.new_key("lee");
    // Nothing is pushed: three requests, and no event.
    let asked = wait_for("the question after keys", || {
        assert!(!stage.sshd.lets_in("lee"));
        let requests = metadata.requests();
        requests.iter().any(|request| request.starts_with("HEAD")).then_some(requests)
    });
    let keys = format!("/latest/meta-data/managed-ssh-keys/active-keys/{}/", user());
    assert!(
        asked.contains(&"PUT /latest/api/token".to_owned()) && asked.contains(&format!("HEAD {keys}")),
        "{asked:?}"
    );
    assert!(!asked.iter().any(|request| request.contains("signer") || request.starts_with(&format!("GET {keys}"))));
    assert!(!codes(&stage).contains(&String::new()));
    // A bad one and another's are in the list too.
    let other = stage.sshd.new_key("other");
    metadata.push(&user(), &[Push { altered: true, ..Push::of(&key) }, Push::of(&other), Push::of(&key)]);
    is_let_in(&stage, "lee");
    is_let_in(&stage, "lee");
    let print = success(Command::new("ssh-keygen").arg("-lf").arg(stage.sshd.path("lee.pub")));
    let print = print.split(' ').nth(1).unwrap();
    let told = stage.events(EVENT, |event| event.get("errorCode").is_none());
    let details = &told[0]["additionalEventData"];
    assert_eq!((&details["osUser"], &details["target"]), (&json!(user()), &json!(stage.agent.node)));
    assert_eq!(
        (&details["keyFingerprint"], &details["principalArn"]),
        (&json!(print), &json!("arn:aws:iam::123456789012:user/lee"))
    );
    assert_eq!(details["requestID"], "6c0f0000-0000-4000-8000-000000000001");
    let logins = stage.events("SshLogin", |event| event["additionalEventData"]["keyFingerprint"] == print);
    assert!(logins.iter().all(|login| login.get("errorCode").is_none()), "{logins:?}");
    let allowed = &logins[0]["additionalEventData"]["allowedBy"];
    assert_eq!((&allowed["principalArn"], &allowed["pushedThrough"]), (&details["principalArn"], &json!("AWS")));
    // Who is no sshd has nobody asked, and learns nothing.
    metadata.requests();
    let words: Vec<&str> = key.split(' ').collect();
    let mut ask = Command::new(binary());
    ask.arg("authorized-keys").arg("--socket").arg(stage.sshd.path("keys.sock")).args([&user(), words[0], words[1]]);
    assert_eq!(success(&mut ask), "");
    assert_eq!(metadata.requests(), [""; 0]);
    // Whatever else lets somebody in does so still, and a key of our own server's is asked for first.
    assert!(stage.sshd.lets_in("own"));
    stage.sshd.new_key("kim");
    metadata.requests();
    stage.push("kim");
    assert!(stage.sshd.lets_in("kim"));
    assert_eq!(metadata.requests(), [""; 0]);
}

#[test]
fn whatever_is_wrong_with_a_key_that_aws_pushed_it_is_refused_with_its_own_reason() {
    let metadata = AwsMetadata::start();
    let stage = stage(&metadata);
    let key = stage.sshd.new_key("lee");
    let other = stage.sshd.new_key("other");
    let me = user();
    let refused = |code: &str| {
        wait_for(code, || {
            assert!(!stage.sshd.lets_in("lee"), "{code}");
            codes(&stage).iter().any(|known| known == code).then_some(())
        });
    };
    for (push, code) in [
        (Push { seconds: -5, ..Push::of(&key) }, "PushedKeyExpired"),
        (Push { instance: Some("i-00000000"), ..Push::of(&key) }, "PushedForOtherInstance"),
        (Push { instance: None, ..Push::of(&key) }, "PushedKeyIncomplete"),
        (Push { altered: true, ..Push::of(&key) }, "PushedKeySignatureWrong"),
        (Push::of(&other), "OtherKeyPushed"),
        (Push::of("ssh-dss AAAAB3NzaC1kc3MAAACB"), "PushedKeyNotTaken"),
    ] {
        metadata.push(&me, &[push]);
        refused(code);
    }
    // From here on the key is good and everything around it is not.
    metadata.push(&me, &[Push::of(&key)]);
    metadata.remove_staple("signer.sha1");
    refused("SignerNotKnownGood");
    metadata.staple("signer.sha256", "signer-revoked");
    refused("SignerRevoked");
    metadata.staple("signer.sha256", "signer-delegated");
    metadata.chain("other-chain.pem");
    refused("SignerUnrecognized");
    metadata.chain("chain.pem");
    let root = std::fs::read(metadata.path("signer/root.pem")).unwrap();
    std::fs::copy(metadata.path("signer/other.pem"), metadata.path("signer/root.pem")).unwrap();
    refused("SignerUntrusted");
    std::fs::write(metadata.path("signer/root.pem"), root).unwrap();
    for (name, wrong, right, code) in [
        ("placement/availability-zone", "nowhere", "eu-central-1b", "UnknownAvailabilityZone"),
        ("services/domain", "example.com", "amazonaws.com", "UnknownServicesDomain"),
        ("instance-id", "i-0000000000000000a", INSTANCE, "NotAnInstance"),
    ] {
        metadata.put(name, wrong);
        refused(code);
        metadata.put(name, right);
    }
    std::fs::rename(metadata.path("tree/services"), metadata.path("elsewhere")).unwrap();
    refused("MetadataUnavailable");
    std::fs::rename(metadata.path("elsewhere"), metadata.path("tree/services")).unwrap();
    std::fs::write(metadata.path("slow"), "3").unwrap();
    refused("MetadataTooSlow");
    std::fs::remove_file(metadata.path("slow")).unwrap();
    is_let_in(&stage, "lee");
    // No login that was refused has left a word of a key that was given out.
    let told = stage.events(EVENT, |event| event.get("errorCode").is_none());
    assert!(told.iter().all(|event| event["additionalEventData"]["osUser"] == me), "{told:?}");
}

#[test]
fn the_agent_takes_the_place_of_awss_command_only_where_its_owner_has_it_answer() {
    let metadata = AwsMetadata::start();
    let stage = stage(&metadata);
    let aws = "/usr/share/ec2-instance-connect/eic_run_authorized_keys %u %f";
    let sshd = TestSshd::prepare(&format!("AuthorizedKeysCommand {aws}\nAuthorizedKeysCommandUser nobody"));
    let install = |agent: &[&str]| {
        let mut command = setup(&sshd, &["install", "--program", "/bin/true", "--no-reload"]);
        let said = success(command.args(agent));
        (said, std::fs::read_to_string(sshd.path("sshd_config.d/00-munjigi.conf")).unwrap())
    };
    // An agent of which nothing is known but its socket: AWS's command is asked behind it.
    let (said, file) = install(&["--socket", "/run/munjigi/x.sock"]);
    assert!(
        said.contains("AWS's command is asked") && said.contains("`aws = true` below `[instance_connect]`"),
        "{said}"
    );
    assert!(file.contains(&format!("-- {aws}")), "{file}");
    let (said, file) = install(&["--data-dir", stage.agent.data_dir().to_str().unwrap(), "--no-chain"]);
    assert!(said.contains("left out, as the agent answers for AWS"), "{said}");
    assert!(!file.contains("eic_run_authorized_keys"), "{file}");
}
