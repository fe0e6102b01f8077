//! What a session over SSH is like, with OpenSSH's own client: the terminal that it had, the one command that a certificate
//! is for, and what is said when there is nothing to run.

use crate::faults::user;
use crate::harness::raw_ssh::{Payload, RawSsh, msg};
use crate::harness::ssh::Ran;
use crate::harness::{Terminal, TestServer, TestSsh, success, wait_for};
use crate::ssh_hostile;

fn server() -> TestServer {
    TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()))
}

/// Registers the person's key for the administrator.
fn register(server: &TestServer, ssh: &TestSsh) {
    let key = std::fs::read_to_string(ssh.path("id.pub")).unwrap();
    server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", "admin", "--ssh-public-key-body", &key]);
}

#[test]
fn the_terminal_on_the_node_is_what_the_persons_is() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let (here, there) = (ssh.path("here"), ssh.path("there"));
    // The person's shell sets its terminal, and has it back as it was afterwards.
    let settings = "erase '#' kill '@' intr '^G' eof undef -echoctl -ixon tostop -onlcr -echok speed 9600";
    let script = format!(
        "was=$(stty -g); stty {settings} && stty -a > '{here}' && ssh -F '{config}' -t web-1.munjigi \"stty -a > '{there}'\"; \
         code=$?; stty \"$was\"; echo; echo done $code",
        here = here.display(),
        there = there.display(),
        config = ssh.config().display()
    );
    let terminal = Terminal::run(&ssh.command("sh", &["-c", &script]), 33, 101);
    terminal.expect("done 0");
    assert_eq!(terminal.end(), Some(0));
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (here, there) = (read(here), read(there));
    assert!(here.contains("erase = #") && here.contains("speed 9600") && here.contains("-ixon"), "{here}");
    assert_eq!(there, here);
}

#[test]
fn a_break_does_not_disturb() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let mut terminal = Terminal::run(&ssh.command("ssh", &["-t", "web-1.munjigi", "exec sh"]), 24, 80);
    terminal.type_in("PS1=; echo be''gun\r");
    terminal.expect("begun");
    terminal.type_in("~B");
    terminal.type_in("echo af''ter\r");
    terminal.expect("after");
    terminal.type_in("exit 3\r");
    assert_eq!(terminal.end(), Some(3));
}

#[test]
fn a_break_is_answered_as_sshd_does() {
    let server = server();
    let _agent = server.agent("web-1");
    ssh_hostile::register(&server);
    let mut raw = ssh_hostile::logged_in(&server);
    let channel = raw.open("session", 0, 1 << 20, &[]).unwrap().unwrap();
    let request = |kind: &str| Payload::of(msg::CHANNEL_REQUEST).u32(channel).string(kind).byte(1);
    let answered = |raw: &mut RawSsh, request: Payload| {
        raw.send(&request.0).unwrap();
        loop {
            match raw.receive().unwrap()[0] {
                msg::CHANNEL_SUCCESS => break true,
                msg::CHANNEL_FAILURE => break false,
                _ => {}
            }
        }
    };
    assert!(!answered(&mut raw, request("break").u32(500)), "there is no terminal");
    let pty = request("pty-req").string("xterm").u32(80).u32(24).u32(0).u32(0).string([0]);
    assert!(answered(&mut raw, pty));
    assert!(answered(&mut raw, request("break").u32(500)));
    assert!(answered(&mut raw, request("exec").string("sleep 1000")));
    assert!(answered(&mut raw, request("break").u32(0)));
}

#[test]
fn a_certificate_for_one_command_runs_it_whatever_is_asked_for_and_forwards_nothing() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let me = user();
    let forced = "printf 'ran: %s\\n' \"${SSH_ORIGINAL_COMMAND-nothing}\"; exit 5";
    let identity = ssh.path("forced");
    let mut login = server.munjigi(&["login", "--os-user", &me, "--force-command", forced, "--file"]);
    success(login.arg(&identity));
    let login = format!("{me}%web-1");
    let identity = identity.display();
    let (key, certificate) = (format!("IdentityFile={identity}"), format!("CertificateFile={identity}-cert.pub"));
    let options = ["-o", &key, "-o", &certificate, "-o", "LogLevel=INFO", "-l", &login];
    let run = |arguments: &[&str]| ssh.ssh(&[&options[..], arguments].concat());
    for (asked, told) in [
        (&["-T", "gate"][..], "nothing"),
        (&["gate", "cat /etc/shadow"], "cat /etc/shadow"),
        (&["-tt", "gate", "id; whoami"], "id; whoami"),
        (&["-s", "gate", "sftp"], "internal-sftp"),
        (&["gate", "scp -t /tmp"], "scp -t /tmp"),
        (&["gate", "rsync --server -e.LsfxC . /srv"], "rsync --server -e.LsfxC . /srv"),
    ] {
        let ran = run(asked);
        let out = ran.out.replace('\r', "");
        assert_eq!((ran.code, out.as_str()), (Some(5), format!("ran: {told}\n").as_str()), "{asked:?}: {ran:?}");
    }
    for forward in [&["-W", "localhost:80", "gate"][..], &["-W", "web-1:22", "gate"]] {
        let ran = run(forward);
        assert!(ran.code == Some(255) && ran.err.contains("for one command and forwards nothing"), "{ran:?}");
    }
    let socket = ssh.path("socket");
    for forward in ["0:localhost:1".to_owned(), format!("{}:localhost:1", socket.display())] {
        let ran = run(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &forward, "gate"]);
        assert_eq!(ran.code, Some(255), "{forward}: {ran:?}");
    }
    assert!(!socket.exists());
}

#[test]
fn a_login_that_names_no_node_is_told_how_to_name_one() {
    let server = server();
    let agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    register(&server, &ssh);
    // As whoever one is here, and with a command.
    for arguments in [&["-T", "gate"][..], &["-l", "kim", "gate", "true"], &["-l", "kim", "-tt", "gate"]] {
        let ran = ssh.ssh(arguments);
        assert!(ran.code == Some(1) && ran.out.is_empty(), "{ran:?}");
        assert!(ran.err.contains("named no node") && ran.err.contains("ssh -J this-server OSUSER@NODE"), "{ran:?}");
    }
    assert!(server.sessions().is_empty());
    // A node that there is has another story.
    drop(agent);
    let ran = wait_for("the node to be gone", || {
        let ran = ssh.ssh(&["-l", "web-1", "gate", "true"]);
        (ran.code != Some(0)).then_some(ran)
    });
    assert!(ran.code == Some(255) && ran.err.contains("not connected"), "{ran:?}");
    assert!(!ran.err.contains("named no node"), "{ran:?}");
    // Whoever may do nothing learns nothing about which nodes there are.
    server.aws_json(&["iam", "create-user", "--user-name", "eve"]);
    let key = ssh.new_key("eve");
    server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", "eve", "--ssh-public-key-body", &key]);
    let identity = format!("IdentityFile={}", ssh.path("eve").display());
    let as_eve = |node: &str| {
        let ran = Ran::of(ssh.command("ssh", &["-o", &identity, "-l", node, "gate", "true"]), b"");
        assert_eq!(ran.code, Some(255), "{ran:?}");
        ran.err
    };
    for node in ["web-1", "web-9"] {
        let said = as_eve(node);
        assert!(said.contains("not authorized") && !said.contains("named no node"), "{said}");
    }
}
