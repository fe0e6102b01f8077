//! Forwards through the SSH door with OpenSSH's own client: `-L`, `-D`, `-W`, `-R`, sockets, the agent, jumps, and the way
//! through to a node's own sshd.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::unistd::Uid;
use serde_json::{Value, json};

use crate::faults::user;
use crate::forward::{closed, curl, echo, exchange, exchange_much, serving, web};
use crate::harness::ssh::Ran;
use crate::harness::{TestServer, TestSsh, TestSshd, output, success, wait_for};

/// An `ssh -N` in the background; ended when it is dropped.
struct Tunnel {
    child: Child,
}

impl Tunnel {
    fn start(ssh: &TestSsh, arguments: &[&str]) -> Self {
        let mut command = ssh.command("ssh", &["-N", "-o", "ExitOnForwardFailure=yes"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Self { child: command.spawn().unwrap() }
    }

    /// Starts one with `-R 0:…` and returns the port that the node picked.
    fn allocated(ssh: &TestSsh, arguments: &[&str]) -> (Self, u16) {
        let mut command = ssh.command("ssh", &["-N", "-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=INFO"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let tunnel = Self { child };
        let said = lines.find_map(|line| line.strip_prefix("Allocated port ").map(str::to_owned));
        // What it says later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        let said = said.unwrap_or_else(|| panic!("ssh allocated no port"));
        (tunnel, said.split(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a forward to an echo carries bytes.
fn carries(port: u16) {
    wait_for("the forward to carry bytes", || exchange(port, "hello").ok().filter(|heard| heard == "hello"));
}

fn events(server: &TestServer, name: &str) -> Vec<Value> {
    let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", name]));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Serves a socket with what `serve` does to each connection.
fn serving_at(path: &Path, serve: impl Fn(UnixStream) + Send + Sync + Clone + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(socket));
        }
    });
}

fn echo_at(path: &Path) {
    serving_at(path, |socket| {
        let _ = std::io::copy(&mut &socket, &mut &socket);
        let _ = socket.shutdown(Shutdown::Write);
    });
}

fn exchange_at(path: &Path, text: &str) -> std::io::Result<String> {
    let mut socket = UnixStream::connect(path)?;
    socket.write_all(text.as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    socket.read_to_string(&mut heard)?;
    Ok(heard)
}

#[test]
fn an_upload_goes_on_when_the_server_wants_other_keys_in_the_middle() {
    // That is after a gibibyte, when as much is under way as the channel's window allows.
    const BLOCKS: u64 = 1100;
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let counting = serving(|mut socket| {
        let count = std::io::copy(&mut socket, &mut std::io::sink()).unwrap_or(0);
        let _ = write!(socket, "{count}");
    });
    let port = closed();
    let leads = format!("{port}:localhost:{counting}");
    let _tunnel = Tunnel::start(&ssh, &["-l", &user(), "-L", &leads, "web-1.munjigi"]);
    let mut socket = wait_for("the forward to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
    let block = vec![7; 1 << 20];
    for number in 0..BLOCKS {
        socket.write_all(&block).unwrap_or_else(|error| panic!("it broke after {number} MiB: {error}"));
    }
    socket.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, (BLOCKS << 20).to_string());
}

#[test]
fn ports_proxies_sockets_and_standard_input_lead_through_one_session() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let (page, back, port, socks) = (web(), echo(), closed(), closed());
    let (near, far) = (ssh.path("near.sock"), ssh.path("far.sock"));
    echo_at(&far);
    let tunnel = Tunnel::start(
        &ssh,
        &[
            "-l",
            &user(),
            "-L",
            &format!("{port}:localhost:{back}"),
            "-D",
            &socks.to_string(),
            "-L",
            &format!("{}:{}", near.display(), far.display()),
            "web-1.munjigi",
        ],
    );
    carries(port);
    let much = "x".repeat(3_000_000);
    assert!(exchange_much(port, &much) == much);
    assert_eq!(exchange_at(&near, "from socket to socket").unwrap(), "from socket to socket");
    let proxy = format!("socks5h://127.0.0.1:{socks}");
    let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", "40", "--proxy", &proxy];
    let pages = success(curl(&parallel).arg(format!("http://localhost:{page}/[1-40]")));
    for number in 1..=40 {
        assert!(pages.contains(&format!("page /{number}\n")), "page {number} is missing");
    }
    drop(tunnel);
    // All of it was one session, which ended with the connection; each connection stands in the trail with its bytes.
    let ended = wait_for("the session's end", || {
        let ended = events(&server, "EndSession");
        ended.into_iter().find(|event| event.to_string().contains("the SSH connection ended"))
    });
    let session = ended["additionalEventData"]["sessionId"].as_str().unwrap().to_owned();
    let forwards: Vec<_> = server.sessions().into_iter().filter(|one| one["kind"] == "port").collect();
    assert_eq!(forwards.len(), 1, "{forwards:?}");
    let carried = wait_for("the ends of all connections", || {
        let closed = events(&server, "CloseConnection");
        let opened = events(&server, "OpenConnection");
        (closed.len() == opened.len() && closed.len() > 42).then_some(closed)
    });
    assert!(carried.iter().all(|event| event["additionalEventData"]["sessionId"] == session.as_str()));
    let bytes = |event: &Value| event["additionalEventData"]["bytesIn"].as_u64().unwrap();
    assert!(carried.iter().any(|event| bytes(event) == 3_000_000));
    // One connection as standard input and output.
    let stdio = ssh.ssh_with(&["-W", &format!("localhost:{back}"), "web-1.munjigi"], b"there and back");
    assert_eq!(stdio.success(), "there and back");
}

#[test]
fn what_cannot_be_reached_is_said_with_its_reason() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    for (to, why) in [
        (format!("localhost:{}", closed()), ["connect failed", "refused"]),
        ("no-such-host.invalid:80".to_owned(), ["connect failed", "no-such-host.invalid"]),
        ("169.254.169.254:80".to_owned(), ["administratively prohibited", "link-local"]),
        ("localhost:22".to_owned(), ["administratively prohibited", "login service"]),
        ("127.0.0.1:22".to_owned(), ["administratively prohibited", "login service"]),
    ] {
        let ran = ssh.ssh(&["-o", "LogLevel=INFO", "-W", &to, "web-1.munjigi"]);
        assert_eq!(ran.code, Some(255), "{to}: {ran:?}");
        assert!(why.iter().all(|part| ran.err.contains(part)), "{to}: {ran:?}");
    }
    let denied = events(&server, "OpenConnection");
    let codes: Vec<_> = denied.iter().filter_map(|event| event["errorCode"].as_str()).collect();
    for code in ["ConnectionRefused", "HostNotFound", "DestinationDenied"] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    // A login that names no node has nothing to forward through.
    let key = std::fs::read_to_string(ssh.path("id.pub")).unwrap();
    let upload = ["iam", "upload-ssh-public-key", "--user-name", "admin", "--ssh-public-key-body", &key];
    server.aws_json(&upload);
    let ran = ssh.ssh(&["-o", "LogLevel=INFO", "-W", "localhost:80", "gate"]);
    assert!(ran.code == Some(255) && ran.err.contains("names no node"), "{ran:?}");
}

/// Makes a user with a key for `ssh` that may do what the statements say.
fn person(server: &TestServer, ssh: &TestSsh, name: &str, statements: &[Value]) {
    server.aws_json(&["iam", "create-user", "--user-name", name]);
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
    server.aws_json(&put);
    let key = ssh.new_key(name);
    server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", name, "--ssh-public-key-body", &key]);
}

/// Returns the options with which a person logs in at the gate.
fn as_person(ssh: &TestSsh, name: &str) -> String {
    format!("IdentityFile={}", ssh.path(name).display())
}

fn allow(actions: &[&str]) -> Value {
    json!({"Effect": "Allow", "Action": actions, "Resource": "*"})
}

#[test]
fn policy_decides_about_each_channel_and_cuts_what_it_no_longer_allows() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let (allowed, other, port) = (echo(), echo(), closed());
    let only = json!({
        "Effect": "Allow",
        "Action": "munjigi:OpenForward",
        "Resource": "*",
        "Condition": {"NumericEquals": {"munjigi:DestinationPort": allowed.to_string()}}
    });
    person(&server, &ssh, "alice", &[allow(&["munjigi:OpenDynamicForward"]), only]);
    let identity = as_person(&ssh, "alice");
    let at_node = ["-o", &identity, "-o", "LogLevel=INFO", "-l", "web-1"];
    let reach = |to: &str| ssh.ssh_with(&[&at_node[..], &["-W", to, "gate"]].concat(), b"hello");
    assert_eq!(reach(&format!("localhost:{allowed}")).success(), "hello");
    let ran = reach(&format!("localhost:{other}"));
    assert!(ran.code == Some(255) && ran.err.contains("administratively prohibited"), "{ran:?}");
    assert!(ran.err.contains("munjigi:OpenForward"), "{ran:?}");
    // Neither listening nor the agent comes with it.
    let ran =
        ssh.ssh(&[&at_node[..], &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1", "gate"]].concat());
    assert_eq!(ran.code, Some(255), "{ran:?}");
    let tunnel = Tunnel::start(&ssh, &[&at_node[..], &["-L", &format!("{port}:localhost:{allowed}"), "gate"]].concat());
    carries(port);
    let mut standing = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    standing.write_all(b"x").unwrap();
    standing.read_exact(&mut [0]).unwrap();
    server.aws_json(&["iam", "delete-user-policy", "--user-name", "alice", "--policy-name", "p"]);
    let mut rest = Vec::new();
    // An end or a reset: cut in either case.
    let _ = standing.read_to_end(&mut rest);
    assert!(rest.is_empty());
    drop(tunnel);
}

#[test]
fn ports_and_sockets_of_the_node_lead_to_this_machine() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let back = echo();
    let there = ssh.path("there.sock");
    let socket = format!("{}:localhost:{back}", there.display());
    let arguments = ["-l", &user(), "-R", &format!("0:localhost:{back}"), "-R", &socket, "web-1.munjigi"];
    let (tunnel, port) = Tunnel::allocated(&ssh, &arguments);
    // The node is this machine, too: whoever connects to its port is connected from here.
    assert_eq!(exchange(port, "from over there").unwrap(), "from over there");
    let much = "x".repeat(2_000_000);
    assert!(exchange_much(port, &much) == much);
    wait_for("the socket", || there.exists().then_some(()));
    assert_eq!(exchange_at(&there, "by socket").unwrap(), "by socket");
    drop(tunnel);
    wait_for("the node to listen no longer", || TcpListener::bind(("127.0.0.1", port)).ok());
    wait_for("the socket to be gone", || (!there.exists()).then_some(()));
    // A port that somebody has cannot be had.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("{}:localhost:{back}", taken.local_addr().unwrap().port());
    let ran = ssh.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &taken, "web-1.munjigi"]);
    assert_eq!(ran.code, Some(255), "{ran:?}");
}

#[test]
fn a_listener_is_cancelled_over_a_shared_connection() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let (control, back, port) = (ssh.path("c"), echo(), closed());
    let control = format!("ControlPath={}", control.display());
    let _master = Tunnel::start(&ssh, &["-M", "-o", &control, "web-1.munjigi"]);
    let ask = |order: &str, spec: &[&str]| {
        let mut command = ssh.command("ssh", &["-o", &control, "-O", order]);
        output(command.args(spec).arg("web-1.munjigi")).status.success()
    };
    wait_for("the master", || ask("check", &[]).then_some(()));
    let spec = format!("{port}:localhost:{back}");
    assert!(ask("forward", &["-R", &spec]));
    carries(port);
    assert!(ask("cancel", &["-R", &spec]));
    wait_for("the node to listen no longer", || TcpListener::bind(("127.0.0.1", port)).ok());
    assert!(ask("forward", &["-R", &spec]), "it can be had again");
    carries(port);
}

/// An `ssh-agent` with a key; ended when it is dropped.
struct Agent {
    child: Child,
    socket: std::path::PathBuf,
}

impl Agent {
    fn start(ssh: &TestSsh) -> Self {
        let socket = ssh.path("agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let agent = Self { child, socket };
        wait_for("the agent", || UnixStream::connect(&agent.socket).ok());
        success(Command::new("ssh-add").arg("-q").arg(ssh.path("id")).env("SSH_AUTH_SOCK", &agent.socket));
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_agent_is_offered_only_where_policy_allows_it_and_gone_afterwards() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let agent = Agent::start(&ssh);
    let run = |who: &[&str], host: &str, script: &str| {
        let mut command = ssh.command("ssh", who);
        command.args(["-A", host, script]).env("SSH_AUTH_SOCK", &agent.socket);
        let text = command.output().unwrap();
        String::from_utf8(text.stdout).unwrap() + &String::from_utf8_lossy(&text.stderr)
    };
    let offering = format!("IdentityAgent={}", agent.socket.display());
    let administrator = ["-l", &user(), "-o", &offering];
    let said = run(&administrator, "web-1.munjigi", "echo $SSH_AUTH_SOCK; ssh-add -L");
    let (path, key) = said.split_once('\n').unwrap_or_else(|| panic!("{said:?}"));
    let public = std::fs::read_to_string(ssh.path("id.pub")).unwrap();
    assert_eq!(key.split(' ').nth(1), public.split(' ').nth(1), "{said}");
    assert!(path.starts_with("/tmp/munjigi-"), "{said}");
    let directory = Path::new(path).parent().unwrap();
    wait_for("the socket to be gone", || (!directory.exists()).then_some(()));
    // Without the right there is no socket, and everything else goes on.
    let without = json!({"Effect": "Deny", "Action": "munjigi:ForwardAgent", "Resource": "*"});
    person(&server, &ssh, "bob", &[allow(&["*"]), without]);
    let identity = as_person(&ssh, "bob");
    let login = format!("{}%web-1", user());
    let bob = ["-o", &identity, "-o", &offering, "-l", &login];
    let said = run(&bob, "gate", "echo [$SSH_AUTH_SOCK]");
    assert!(said.contains("[]\n") && said.contains("your agent is not offered"), "{said}");
    assert!(said.contains("munjigi:ForwardAgent"), "{said}");
    let opened = events(&server, "OpenConnection");
    let of_agent = |event: &&Value| event["requestParameters"]["endpoint"] == "agent";
    let codes: Vec<_> = opened.iter().filter(of_agent).map(|event| event["errorCode"].as_str()).collect();
    assert!(codes.contains(&Some("AccessDeniedException")), "{opened:?}");
    // By a certificate it is offered only if that permits it, and ports are forwarded only if it permits them.
    for (permit, offered) in [("permit-port-forwarding", false), ("permit-agent-forwarding", true)] {
        let file = ssh.path(permit);
        let wish = ["login", "--os-user", &user(), "--permit", permit, "--file", file.to_str().unwrap()];
        success(&mut server.munjigi(&wish));
        let identity = format!("IdentityFile={}", file.display());
        let who = ["-o", &identity, "-o", &offering, "-l", &login];
        let said = run(&who, "gate", "echo [$SSH_AUTH_SOCK]");
        assert_eq!(!said.contains("[]\n"), offered, "{permit}: {said}");
        assert_eq!(said.contains("permits no forwarding of an agent"), !offered, "{permit}: {said}");
        let ran = ssh.ssh(&[&["-o", "LogLevel=INFO", "-W", "localhost:1"], &who[..], &["gate"]].concat());
        assert_eq!(ran.err.contains("permits no forwarding"), offered, "{permit}: {ran:?}");
    }
}

#[test]
fn a_jump_leads_to_a_recorded_login_of_the_same_person_and_nobody_else() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    person(&server, &ssh, "carol", &[allow(&["*"])]);
    person(&server, &ssh, "dave", &[allow(&["*"])]);
    let jump = |outer: &str, inner: &str, host: &str| {
        let config = format!("Host gate\n  IdentityFile {}\n", ssh.path(outer).display());
        let path = ssh.path("jump");
        let rest = std::fs::read_to_string(ssh.config()).unwrap().replace("/id\n", &format!("/{outer}\n"));
        std::fs::write(&path, config + &rest).unwrap();
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&path).args(["-J", "gate", "-l", &user(), "-o", &as_person(&ssh, inner)]);
        command.args([host, "echo through; exit 7"]);
        ssh.configure(&mut command);
        Ran::of(command, b"")
    };
    for host in ["web-1", "web-1.munjigi"] {
        // `*.munjigi` has a road of its own in that configuration; a jump takes its place.
        let ran = jump("carol", "carol", host);
        assert_eq!((ran.code, ran.out.as_str()), (Some(7), "through\n"), "{ran:?}");
    }
    let recorded = server.sessions();
    assert!(recorded.iter().any(|one| one["owner"].as_str().is_some_and(|owner| owner.ends_with("user/carol"))));
    let ran = jump("carol", "dave", "web-1");
    assert!(ran.code == Some(255) && ran.err.contains("Permission denied"), "{ran:?}");
}

#[test]
fn the_way_through_to_a_nodes_own_sshd_is_audited_and_needs_its_own_right() {
    // The node's own SSH server is on port 22 of its loopback.
    if !Uid::effective().is_root() || TcpListener::bind("127.0.0.1:22").is_err() {
        eprintln!("skipped: needs root and a free port 22");
        return;
    }
    let server = TestServer::start();
    let mut sshd = TestSshd::prepare("ListenAddress 127.0.0.1:22");
    let agent_of = |name: &str, host_key: &str| {
        let lines = format!("sshd_log = 'off'\nssh_host_key = '{}'\n", sshd.path(host_key).display());
        server.agent_configured(name, &[], None, &lines)
    };
    let agent = agent_of("web-1", "host.pub");
    let _mistaken = agent_of("web-2", "own.pub");
    let ssh = TestSsh::of(&server);
    sshd.start();
    let through = json!({"Effect": "Allow", "Action": "munjigi:OpenSshPassthrough", "Resource": "*"});
    person(&server, &ssh, "erin", &[through]);
    person(&server, &ssh, "frank", &[allow(&["munjigi:OpenForward", "munjigi:OpenDynamicForward", "ssm:*"])]);
    let pass = |name: &str| {
        let config = format!("Host gate\n  IdentityFile {}\n", ssh.path(name).display());
        let path = ssh.path("pass");
        let rest = std::fs::read_to_string(ssh.config()).unwrap().replace("/id\n", &format!("/{name}\n"));
        let rest = rest.replace("LogLevel ERROR", "LogLevel INFO");
        std::fs::write(&path, config + &rest).unwrap();
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&path).args(["-J", "gate", "-l", &user(), "-i"]).arg(sshd.path("own"));
        command.args(["web-1.passthrough", "echo sealed; head -c 100000 /dev/zero"]);
        ssh.configure(&mut command);
        Ran::of(command, b"")
    };
    let ran = pass("erin");
    assert!(ran.code == Some(0) && ran.out.starts_with("sealed\n") && ran.out.len() == 100_007, "{ran:?}");
    let closed = wait_for("the end of the connection in the trail", || events(&server, "CloseConnection").pop());
    let details = &closed["additionalEventData"];
    assert!(details["bytesOut"].as_u64().unwrap() > 100_000 && details["sha256Out"].is_string(), "{closed}");
    // The same over our own link.
    let own = sshd.path("own");
    let ran = ssh.ssh(&["-l", &user(), "-i", own.to_str().unwrap(), "web-1.passthrough.munjigi", "echo sealed too"]);
    assert_eq!(ran.success(), "sealed too\n");
    let ran = pass("frank");
    assert!(ran.code == Some(255) && ran.err.contains("munjigi:OpenSshPassthrough"), "{ran:?}");
    // By our own client no question is asked about the host's key: its agent told it.
    let strict = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-i", own.to_str().unwrap()];
    let passed = |ssh: &TestSsh, to: &str| {
        let mut command = ssh.command(crate::harness::binary(), &["ssh", "--passthrough"]);
        command.args(strict).args(["-l", &user(), to, "echo sealed; exit 4"]);
        Ran::of(command, b"")
    };
    let connections = || events(&server, "CloseConnection").len();
    let before = connections();
    let ran = passed(&ssh, "web-1");
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), "sealed\n"), "{ran:?}");
    wait_for("the connection in the trail", || (connections() > before).then_some(()));
    assert!(server.sessions().iter().all(|one| one["kind"] == "port"), "nothing else is recorded of it");
    let ran = passed(&ssh, "web-2");
    assert!(ran.code == Some(255) && ran.err.contains("Host key verification failed"), "{ran:?}");
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", "frank"]);
    let field = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    let ran = passed(&TestSsh::of(&server).acting_as(&field("AccessKeyId"), &field("SecretAccessKey")), "web-1");
    assert!(ran.code == Some(255) && ran.err.contains("munjigi:OpenSshPassthrough"), "{ran:?}");
    // Nor with the configuration that is written once, nor where sshd shows the certificate that the node has for it.
    success(&mut ssh.command(crate::harness::binary(), &["ssh-config", "--write"]));
    let written = |ssh: &TestSsh| {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(ssh.path("munjigi/ssh/config")).args(strict).args(["-l", &user()]);
        command.args(["web-1.passthrough.munjigi", "echo sealed"]);
        ssh.configure(&mut command);
        Ran::of(command, b"").success()
    };
    assert_eq!(written(&ssh), "sealed\n");
    let certificate = agent.data_dir().join("ssh/host-cert.pub");
    wait_for("the certificate", || certificate.is_file().then_some(()));
    let names = success(Command::new("ssh-keygen").arg("-L").arg("-f").arg(&certificate));
    for name in ["web-1", "web-1.munjigi", "web-1.passthrough", "web-1.passthrough.munjigi"] {
        assert!(names.lines().any(|line| line.trim() == name), "{names}");
    }
}

#[test]
fn a_tunnel_ends_with_the_server_and_another_one_stands_when_it_is_back() {
    let mut server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let (back, port) = (echo(), closed());
    let spec = format!("{port}:localhost:{back}");
    let mut tunnel = Tunnel::start(&ssh, &["-L", &spec, "web-1.munjigi"]);
    carries(port);
    server.kill();
    assert_eq!(crate::harness::ssh::end(&mut tunnel.child, "the tunnel").code(), Some(255));
    server.start_again();
    let _tunnel = Tunnel::start(&ssh, &["-L", &spec, "web-1.munjigi"]);
    carries(port);
}
