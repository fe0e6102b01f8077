//! `munjigi forward` with the programs that people put through it: curl, ssh, redis-cli; and what happens to it when the
//! server, the node or the session goes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::faults::user;
use crate::harness::sshd::TestSshd;
use crate::harness::{TestForward, TestServer, free_port, output, success, wait_for};

/// Serves each connection with `serve`, on a port of its own.
pub(crate) fn serving(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(socket));
        }
    });
    port
}

/// Answers with what comes, to the end of it.
pub(crate) fn echo() -> u16 {
    serving(|socket| {
        let _ = std::io::copy(&mut &socket, &mut &socket);
        let _ = socket.shutdown(Shutdown::Write);
    })
}

/// A web page: says which path was asked for, with some weight.
pub(crate) fn web() -> u16 {
    serving(|mut socket| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|count| count == 1) {
            head.push(byte[0]);
        }
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        let body = format!("page {path}\n{}", "x".repeat(20_000));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = socket.write_all((head + &body).as_bytes());
    })
}

/// Returns a port on which nobody listens.
pub(crate) fn closed() -> u16 {
    free_port()
}

pub(crate) fn exchange(port: u16, text: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.write_all(text.as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    socket.read_to_string(&mut heard)?;
    Ok(heard)
}

pub(crate) fn curl(arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "300", "--noproxy", ""]).args(arguments);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy", "all_proxy", "NO_PROXY", "no_proxy"] {
        curl.env_remove(name);
    }
    curl
}

/// What a program says to a SOCKS5 proxy before the address.
fn socks5(port: u16, request: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    socket.write_all(&[5, 1, 0]).unwrap();
    let mut greeting = [0; 2];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, [5, 0]);
    socket.write_all(request).unwrap();
    socket
}

fn reply(socket: &mut TcpStream) -> u8 {
    let mut reply = [0; 10];
    socket.read_exact(&mut reply).unwrap();
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1));
    reply[1]
}

fn by_name(name: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    request.extend_from_slice(name.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    request
}

#[test]
fn curl_loads_sixty_pages_at_once_through_a_port_and_through_a_proxy() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let page = web();
    let forward = TestForward::start(&server, &["web-1", &format!("0:localhost:{page}"), "-D", "0"]);
    let through_port = format!("http://127.0.0.1:{}/[1-60]", forward.port(0));
    // A name that only means something on the node, seen from where it is looked up.
    let through_proxy = format!("http://localhost:{page}/[1-60]");
    let proxies = ["socks5h", "socks4a", "http"].map(|scheme| format!("{scheme}://127.0.0.1:{}", forward.port(1)));
    let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", "60"];
    let mut runs = vec![curl(&parallel)];
    runs[0].arg(&through_port);
    for proxy in &proxies {
        let mut run = curl(&parallel);
        // With --proxytunnel curl says CONNECT to an HTTP proxy.
        run.args(["--proxytunnel", "--proxy", proxy, &through_proxy]);
        runs.push(run);
    }
    for mut run in runs {
        let pages = success(&mut run);
        for number in 1..=60 {
            assert!(pages.contains(&format!("page /{number}\n")), "{run:?}: page {number} is missing");
        }
        assert_eq!(pages.matches('x').count(), 60 * 20_000);
    }
}

#[test]
fn a_proxy_says_why_there_is_no_connection() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let forward = TestForward::start(&server, &["web-1", "-D", "0"]);
    let port = forward.port(0);
    for (name, to, code) in [
        ("localhost", echo(), 0),
        ("169.254.169.254", 80, 2),
        ("no-such-host.invalid", 80, 4),
        ("localhost", closed(), 5),
        ("-", 80, 4),
    ] {
        assert_eq!(reply(&mut socks5(port, &by_name(name, to))), code, "{name}");
    }
    // BIND and UDP ASSOCIATE, and a kind of address that there is not.
    for (request, code) in [([5, 2, 0, 1], 7), ([5, 3, 0, 1], 7), ([5, 1, 0, 9], 8)] {
        let request = [&request[..], &[127, 0, 0, 1, 0, 80]].concat();
        assert_eq!(reply(&mut socks5(port, &request)), code, "{request:?}");
    }
    let proxy = format!("http://127.0.0.1:{port}");
    let refused = format!("http://localhost:{}/", closed());
    for (url, tunnel, status) in
        [("http://169.254.169.254/", true, "403"), (refused.as_str(), true, "502"), (refused.as_str(), false, "405")]
    {
        let mut run = curl(&["--proxy", &proxy, "--write-out", "%{http_connect} %{http_code}", url]);
        if tunnel {
            run.arg("--proxytunnel");
        }
        let said = String::from_utf8(output(&mut run).stdout).unwrap();
        assert!(said.contains(status), "{url}: {said}");
    }
    // Bytes that came with the request are not lost.
    let mut socket = socks5(port, &[&by_name("localhost", echo())[..], b"early"].concat());
    assert_eq!(reply(&mut socket), 0);
    socket.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "early");
}

#[test]
fn ssh_has_the_forward_as_its_proxy_command() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let mut sshd = TestSshd::prepare("");
    sshd.start();
    let proxy = format!("ProxyCommand={} forward web-1 --stdio 127.0.0.1:%p", crate::harness::binary());
    let mut ssh = sshd.ssh("own", &user(), &["-o", &proxy]);
    server.configure(&mut ssh);
    let said = success(ssh.arg("echo through; head -c 3000000 /dev/zero"));
    assert!(said.starts_with("through\n") && said.len() == 3_000_008, "{} bytes", said.len());
}

/// Starts one connection as standard input and output.
fn stdio(server: &TestServer, to: &str) -> Child {
    let mut command = server.munjigi(&["forward", "web-1", "--stdio", to]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn each_direction_of_standard_input_and_output_has_its_own_end() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    // Ours first: the peer answers after it has heard the end.
    let mut child = stdio(&server, &echo().to_string());
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"there and back").unwrap();
    drop(input);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.stdout.as_slice(), ended.status.code()), (&b"there and back"[..], Some(0)), "{ended:?}");
    // The peer's first: we hear its end, and it goes on listening.
    let (heard_tx, heard) = std::sync::mpsc::sync_channel(1);
    let port = serving(move |mut socket| {
        socket.write_all(b"goodbye").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        let _ = heard_tx.send(rest);
    });
    let mut child = stdio(&server, &port.to_string());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "goodbye");
    let mut input = child.stdin.take().unwrap();
    let much = vec![7; 50_000];
    input.write_all(&much).unwrap();
    drop(input);
    assert!(heard.recv_timeout(Duration::from_secs(120)).unwrap() == much);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // No connection: a reason, and a status that is none of the peer's.
    for (to, why) in [
        (closed().to_string(), "ConnectionRefused"),
        ("169.254.169.254:80".to_owned(), "DestinationDenied"),
        ("no-such-host.invalid:80".to_owned(), "HostNotFound"),
    ] {
        let ended = stdio(&server, &to).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(255) && said.contains(why) && ended.stdout.is_empty(), "{to}: {said}");
    }
}

#[test]
fn redis_is_reached_over_a_port_and_from_socket_to_socket() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let directory = tempfile::Builder::new().prefix("munjigi-redis-").tempdir().unwrap();
    let (there, here) = (directory.path().join("there.sock"), directory.path().join("here.sock"));
    let port = closed().to_string();
    let mut redis = Command::new("redis-server");
    redis.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]).arg(directory.path());
    redis.arg("--unixsocket").arg(&there);
    let mut redis = redis.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("redis", || TcpStream::connect(("127.0.0.1", port.parse().unwrap())).ok().map(drop));
    let sockets = format!("unix:{}:unix:{}", here.display(), there.display());
    let forward = TestForward::start(&server, &["web-1", "--user", &user(), &format!("0:{port}"), &sockets]);
    assert_eq!(std::fs::metadata(&here).unwrap().permissions().mode() & 0o777, 0o600);
    let local = forward.port(0).to_string();
    let ways = [vec!["-p", &local], vec!["-s", here.to_str().unwrap()]];
    for (way, value) in ways.iter().zip(["one", "two"]) {
        assert_eq!(success(Command::new("redis-cli").args(way).args(["set", "key", value])), "OK\n");
        assert_eq!(success(Command::new("redis-cli").args(way).args(["get", "key"])), format!("{value}\n"));
    }
    // Many requests in flight, on many connections.
    let benchmark = ["-n", "2000", "-c", "20", "-P", "16", "-t", "set,get", "-q"];
    success(Command::new("redis-benchmark").args(&ways[0]).args(benchmark));
    drop(forward);
    assert!(!here.exists(), "the socket goes with the forward");
    redis.kill().unwrap();
    redis.wait().unwrap();
}

#[test]
fn a_port_of_the_node_leads_to_this_machine() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let nobody = format!("0:localhost:{}", closed());
    let forward = TestForward::start(&server, &["web-1", "-R", &format!("0:localhost:{}", echo()), "-R", &nobody]);
    assert_eq!(forward.said["Forwards"][0]["Kind"], "reverse");
    // The node is this machine, too: whoever connects to its port is connected from here.
    assert_eq!(exchange(forward.port(0), "from over there").unwrap(), "from over there");
    assert!(exchange(forward.port(1), "nobody").map_or(true, |heard| heard.is_empty()));
    let much = "x".repeat(2_000_000);
    assert!(exchange_much(forward.port(0), &much) == much);
    let port = forward.port(0);
    drop(forward);
    wait_for("the node to listen no longer", || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
}

/// As [`exchange`], for more than buffers hold.
pub(crate) fn exchange_much(port: u16, text: &str) -> String {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&socket).write_all(text.as_bytes()).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = String::new();
        (&socket).read_to_string(&mut heard).unwrap();
        heard
    })
}

/// Ends what a test has left in the background.
struct Background<'a>(&'a TestServer);

impl Background<'_> {
    fn munjigi(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.munjigi(arguments);
        command.env("XDG_STATE_HOME", self.0.directory().join("state"));
        command
    }

    fn list(&self) -> Vec<Value> {
        serde_json::from_str(&success(&mut self.munjigi(&["forward", "--list", "--output", "json"]))).unwrap()
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        output(&mut self.munjigi(&["forward", "--stop", "all"]));
    }
}

#[test]
fn a_forward_in_the_background_is_ready_listed_used_and_stopped() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let background = Background(&server);
    let echo = format!("0:localhost:{}", echo());
    let start = ["forward", "web-1", &echo, "-D", "0", "--background", "--output", "json"];
    let said: Value = serde_json::from_str(&success(&mut background.munjigi(&start))).unwrap();
    // Whoever started it has ended; it serves.
    let port = u16::try_from(said["Forwards"][0]["Port"].as_u64().unwrap()).unwrap();
    assert_eq!(exchange(port, "still here").unwrap(), "still here");
    let listed = background.list();
    assert_eq!((listed.len(), &listed[0]["Id"], &listed[0]["SessionId"]), (1, &said["Id"], &said["SessionId"]));
    let state = server.directory().join("state/munjigi-forwards");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = state.join(format!("{}.json", said["Id"].as_str().unwrap()));
    assert_eq!((mode(&state), mode(&file)), (0o700, 0o600));
    // It has left the terminal and everything else of its parent.
    let process = listed[0]["Process"]["Id"].as_i64().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let session: i64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, process);
    let variables = success(&mut background.munjigi(&["env", "--forward"]));
    let proxy = said["Forwards"][1]["Port"].as_u64().unwrap();
    assert!(variables.contains(&format!("export ALL_PROXY=socks5h://127.0.0.1:{proxy}\n")), "{variables}");
    assert!(variables.contains(&format!("export HTTPS_PROXY=http://127.0.0.1:{proxy}\n")), "{variables}");
    // A second one, so that `--stop` has to be told which.
    success(&mut background.munjigi(&["forward", "web-1", &echo, "--background"]));
    assert!(!output(&mut background.munjigi(&["forward", "--stop"])).status.success());
    success(&mut background.munjigi(&["forward", "--stop", said["Id"].as_str().unwrap()]));
    assert!(exchange(port, "gone").is_err());
    assert_eq!(background.list().len(), 1);
    wait_for("the session's end", || {
        let sessions = server.sessions();
        let session = sessions.iter().find(|session| session["id"] == said["SessionId"])?;
        session["end"].is_string().then_some(())
    });
    success(&mut background.munjigi(&["forward", "--stop"]));
    assert!(background.list().is_empty() && std::fs::read_dir(&state).unwrap().next().is_none());
    // What cannot be started is said by the one that was asked, and leaves nothing.
    let refused = output(&mut background.munjigi(&["forward", "nowhere", &echo, "--background"]));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(255) && why.contains("nowhere"), "{why}");
    assert!(background.list().is_empty() && std::fs::read_dir(&state).unwrap().next().is_none());
}

/// Tries until the forward carries bytes again; it may meanwhile refuse.
fn carries_again(port: u16) {
    wait_for("the forward to carry bytes again", || exchange(port, "again").ok().filter(|heard| heard == "again"));
}

#[test]
fn a_forward_outlives_the_server_the_node_and_its_session() {
    let mut server = TestServer::with_config("[session]\nidle_timeout_seconds = 5\n");
    let mut agent = server.agent("web-1");
    let mut forward = TestForward::start(&server, &["web-1", &format!("0:localhost:{}", echo())]);
    let port = forward.port(0);
    assert_eq!(exchange(port, "hello").unwrap(), "hello");
    server.kill();
    // It waits for the server instead of being refused.
    let waiting = thread::spawn(move || exchange(port, "while it was away"));
    server.start_again();
    assert_eq!(waiting.join().unwrap().unwrap(), "while it was away");
    agent.stop();
    agent.run_again();
    carries_again(port);
    // Nothing goes through it until its session is over: the next connection has another one.
    let ended = |session: &str| {
        let events = success(&mut server.munjigi(&["audit", "--output", "json", "--name", "EndSession"]));
        events.contains(session).then_some(())
    };
    wait_for("the end of the idle session", || ended(forward.session()));
    carries_again(port);
    let sessions = server.sessions();
    assert!(sessions.len() >= 2, "{sessions:?}");
    // Somebody ends it on purpose: it does not come back.
    let active = sessions.iter().find(|session| session["end"].is_null()).unwrap();
    success(&mut server.munjigi(&["kill", active["id"].as_str().unwrap()]));
    assert_eq!(forward.process.wait(), Some(255));
    assert!(exchange(port, "gone").is_err());
}

#[test]
fn more_connections_than_a_session_has_wait_for_their_turn() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let mut forward = TestForward::start(&server, &["web-1", &format!("0:localhost:{}", echo())]);
    let port = forward.port(0);
    let programs: Vec<_> = (0..400)
        .map(|number| {
            let text = format!("connection {number}");
            thread::spawn(move || assert_eq!(exchange(port, &text).unwrap(), text))
        })
        .collect();
    for program in programs {
        program.join().unwrap();
    }
    // Ctrl-C is how it ends in good order.
    forward.process.signal(Signal::SIGINT);
    assert_eq!(forward.process.wait(), Some(0));
}

#[test]
fn what_cannot_be_forwarded_is_said_before_anything_is_started() {
    let server = TestServer::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("{}:db:80", taken.local_addr().unwrap().port());
    for (arguments, code, why) in [
        (vec!["web-1", "x:1:db:80"], 2, "is no address to listen on"),
        (vec!["web-1", "8080:db:99999"], 2, "1 to 65535"),
        (vec!["web-1", &taken], 255, "port 0 takes a free one"),
        (vec!["web-1", "0:db:80"], 255, "web-1"),
        (vec!["web-1", "0", "0:db:80"], 255, "goes with nothing else"),
        (vec!["--stop", "--list"], 2, "cannot be used with"),
        (vec![], 2, "NODE|TARGET"),
    ] {
        let ended = output(server.munjigi(&["forward"]).args(&arguments));
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(code) && said.contains(why), "{arguments:?}: {said}");
    }
    assert!(server.sessions().is_empty());
}
