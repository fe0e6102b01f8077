//! Every kind of bad certificate, made by the real `ssh-keygen` with an authority that was brought along: refused by the
//! door and by a plain sshd, each with its own reason in the trail.

use std::path::Path;
use std::process::Command;

use crate::faults::user;
use crate::harness::{TestSsh, output, python_tool, success, wait_for};
use crate::ssh_certificates::Stage;

/// Has ssh-keygen make an authority's key.
fn new_authority(path: &Path, options: &[&str]) {
    let mut keygen = Command::new("ssh-keygen");
    success(keygen.args(["-q", "-C", "an authority of ours"]).args(options).arg("-f").arg(path));
}

/// Brings the key along, and waits until the node's sshd believes it.
fn import(stage: &Stage, path: &Path) {
    success(stage.server.munjigi(&["ssh-authority", "rotate", "user", "--import"]).arg(path));
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let key = public.split(' ').nth(1).unwrap().to_owned();
    wait_for("the node to believe the key", || {
        std::fs::read_to_string(stage.file("user_ca.pub")).unwrap().contains(&key).then_some(())
    });
}

/// Changes a letter of the certificate's key id, so that what was signed is something else.
fn alter(certificate: &Path) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let text = std::fs::read_to_string(certificate).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let mut blob = STANDARD.decode(words[1]).unwrap();
    let at = blob.windows(7).position(|bytes| bytes == b"test id").unwrap();
    blob[at] = b'r';
    std::fs::write(certificate, format!("{} {} {}", words[0], STANDARD.encode(blob), words[2])).unwrap();
}

/// A certificate with something wrong.
struct Bad {
    code: &'static str,
    /// Further options of ssh-keygen.
    options: Vec<&'static str>,
    /// Whether OpenSSH's client offers it; where it does not, another does.
    ssh_offers: bool,
}

#[test]
fn each_bad_certificate_is_refused_by_door_and_sshd_with_its_own_reason_in_the_trail() {
    let stage = Stage::new();
    let person = TestSsh::of(&stage.server);
    let me: &'static str = user().leak();
    let authority = stage.sshd.path("authority");
    new_authority(&authority, &["-t", "ed25519", "-N", ""]);
    import(&stage, &authority);
    let stranger = stage.sshd.path("stranger");
    new_authority(&stranger, &["-t", "ed25519", "-N", ""]);

    let bad = |code, options: &[&'static str], ssh_offers| Bad { code, options: options.to_vec(), ssh_offers };
    let now = ["-V", "-1m:+10m"];
    let table = [
        bad("CertificateExpired", &["-n", me, "-V", "-10m:-5m"], true),
        bad("CertificateNotYetValid", &["-n", me, "-V", "+10m:+20m"], true),
        bad("CertificatePrincipalMismatch", &["-n", "somebody-else", now[0], now[1]], true),
        bad("CertificateAuthorityUnknown", &["-n", me, now[0], now[1]], true),
        bad("CertificateRevoked", &["-n", me, now[0], now[1]], true),
        bad("CertificateAltered", &["-n", me, now[0], now[1]], false),
        bad("CertificateOfHost", &["-h", "-n", me, now[0], now[1]], false),
        bad("CertificateWithoutPrincipals", &now, true),
        bad("CertificateSourceAddressMismatch", &["-n", me, "-O", "source-address=192.0.2.1", now[0], now[1]], true),
    ];
    let paramiko = output(Command::new(python_tool("python3")).args(["-c", "import paramiko"])).status.success();
    if !paramiko {
        eprintln!("no paramiko here, so two kinds are left out: run `scripts/deps test`");
    }
    for (number, Bad { code, options, ssh_offers }) in table.iter().enumerate() {
        if !ssh_offers && !paramiko {
            continue;
        }
        let (name, serial) = (code.to_lowercase(), 4001 + u64::try_from(number).unwrap());
        stage.sshd.new_key(&name);
        let key = stage.sshd.path(&name);
        let signer = if *code == "CertificateAuthorityUnknown" { &stranger } else { &authority };
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-I", "test id", "-z", &serial.to_string()]).args(options).arg("-s").arg(signer);
        success(keygen.arg(key.with_extension("pub")));
        let certificate = stage.sshd.path(&format!("{name}-cert.pub"));
        match *code {
            "CertificateAltered" => alter(&certificate),
            "CertificateRevoked" => {
                stage.revoke(serial);
                let mut question = Command::new("ssh-keygen");
                question.arg("-Q").arg("-f").arg(stage.file("revoked_keys")).arg(&certificate);
                wait_for("the node to know", || (!output(&mut question).status.success()).then_some(()));
            }
            _ => {}
        }
        let offer = |port: u16, login: &str| {
            let mut offer = Command::new(python_tool("python3"));
            offer.arg("-B").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/ssh_certificate.py"));
            success(offer.args([&port.to_string(), login]).arg(&key))
        };
        let (at_door, at_sshd) = if *ssh_offers {
            let identity = format!("IdentityFile={}", key.display());
            let certificate = format!("CertificateFile={}", certificate.display());
            let options = ["-o", &identity, "-o", &certificate, "-l", &format!("{me}%web-1")];
            let ran = person.ssh(&[&options[..], &["gate", "echo in"]].concat());
            assert!(ran.code == Some(255) && ran.err.contains("Permission denied"), "{code}: {ran:?}");
            (ran.out, stage.sshd.lets_in(&name).to_string())
        } else {
            (offer(stage.server.address().port(), &format!("{me}%web-1")), offer(stage.sshd.port(), me))
        };
        assert!(!at_door.contains("in\n") && at_sshd != "true" && at_sshd != "in\n", "{code}: {at_door} {at_sshd}");
        // sshd knows no number of what it cannot read.
        let numbered = *code != "CertificateAltered";
        stage.events("AuthenticateSsh", |event| event["errorCode"] == *code);
        let refused = stage.events("SshLoginRefused", |event| {
            event["errorCode"] == *code && (!numbered || event["additionalEventData"]["certificateSerial"] == serial)
        });
        assert_eq!(refused[0]["additionalEventData"]["osUser"], me, "{code}: {refused:?}");
    }
    // The same authority, with nothing wrong: sshd believes it as it did before, and the door only what was issued here.
    stage.sshd.new_key("elsewhere");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-I", "good", "-z", "4999", "-n", me, now[0], now[1], "-s"]).arg(&authority);
    success(keygen.arg(stage.sshd.path("elsewhere.pub")));
    assert!(stage.sshd.lets_in("elsewhere"));
    stage.events("SshLogin", |event| {
        event["errorCode"] == "UnexplainedSshLogin" && event["additionalEventData"]["certificateSerial"] == 4999
    });
}

#[test]
fn an_authority_that_is_brought_signs_and_its_sshds_need_not_be_told() {
    let mut stage = Stage::new();
    stage.login_as_me("before");
    let refused = |path: &Path, wanted: &str| {
        let ran = output(stage.server.munjigi(&["ssh-authority", "rotate", "user", "--import"]).arg(path));
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains(wanted), "{wanted}: {said}");
    };
    let short = stage.sshd.path("short");
    new_authority(&short, &["-t", "rsa", "-b", "2048", "-N", ""]);
    refused(&short, "3072 to 8192 bits; this one has 2048");
    let closed = stage.sshd.path("closed");
    new_authority(&closed, &["-t", "ed25519", "-N", "a passphrase"]);
    refused(&closed, "no terminal");
    refused(&short.with_extension("pub"), "OpenSSH's own form");

    // An sshd that knows nothing of us, and believes an authority that was there before.
    for (name, options) in [("rsa", &["-t", "rsa", "-b", "3072"][..]), ("ecdsa", &["-t", "ecdsa", "-b", "384"])] {
        let authority = stage.sshd.path(&format!("{name}-authority"));
        new_authority(&authority, &[options, &["-N", ""]].concat());
        import(&stage, &authority);
        refused(&authority, "already");
        stage.login_as_me(name);
        let shown =
            success(Command::new("ssh-keygen").arg("-L").arg("-f").arg(stage.sshd.path(&format!("{name}-cert.pub"))));
        let kind = if name == "rsa" { "(using rsa-sha2-512)" } else { "(using ecdsa-sha2-nistp384)" };
        assert!(shown.contains(kind), "{shown}");
        assert!(stage.sshd.lets_in(name) && stage.sshd.lets_in("before"), "{name}");
        let person = TestSsh::of(&stage.server);
        let identity = format!("IdentityFile={}", stage.sshd.path(name).display());
        let certificate = format!("CertificateFile={}-cert.pub", stage.sshd.path(name).display());
        let login = format!("{}%web-1", user());
        let ran = person.ssh(&["-o", &identity, "-o", &certificate, "-l", &login, "gate", "echo in"]);
        assert_eq!(ran.success(), "in\n", "{name}");
    }
    // It is in the trail without the key, and it outlives the server.
    let rotated = stage.events("RotateSshAuthority", |event| event.to_string().contains("HIDDEN_DUE_TO_SECURITY"));
    assert!(!rotated[0].to_string().contains("BEGIN OPENSSH"), "{rotated:?}");
    stage.server.stop();
    stage.server.start_again();
    stage.login_as_me("after");
    assert!(stage.sshd.lets_in("after") && stage.sshd.lets_in("rsa"));
}
