//! Forward sessions through a real server and a real agent: what policy lets them reach, what each refusal says, and
//! what the trail tells of it.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Uid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

use crate::harness::link::{PortClient, TestLink};
use crate::harness::{TestServer, free_port, success, wait_for};

/// Longest wait for a whole test.
const LONG: Duration = Duration::from_secs(360);

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LONG, future).await.unwrap() })
}

/// Listens, and says `word` to whoever asks.
async fn says(word: &'static str) -> u16 {
    says_at(Ipv4Addr::LOCALHOST.into(), word).await
}

async fn says_at(address: IpAddr, word: &'static str) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let asked = socket.read_u8().await;
                drop(socket.write_all(word.as_bytes()).await);
                asked
            });
        }
    });
    port
}

/// Asks whoever listens at an endpoint for its word; the error is the code of the refusal.
async fn heard(link: &TestLink, session: &str, to: &str) -> Result<String, String> {
    match link.reach(session, to).await {
        Ok((mut stream, _)) => {
            stream.write_u8(b'?').await.unwrap();
            stream.flush().await.unwrap();
            let mut word = String::new();
            stream.read_to_string(&mut word).await.unwrap();
            Ok(word)
        }
        Err(refused) => {
            assert!(!refused.message.is_empty());
            Err(refused.code)
        }
    }
}

/// Makes a user with statements of policy; returns its access key and secret.
fn user(server: &TestServer, name: &str, statements: &Value) -> (String, String) {
    server.aws_json(&["iam", "create-user", "--user-name", name]);
    put_policy(server, name, statements);
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", name]);
    let text = |member: &str| key["AccessKey"][member].as_str().unwrap().to_owned();
    (text("AccessKeyId"), text("SecretAccessKey"))
}

fn put_policy(server: &TestServer, name: &str, statements: &Value) {
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
    success(&mut server.aws(&put));
}

/// Returns the trail's events of a name, waiting until `holds`.
fn events(server: &TestServer, name: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    wait_for(name, || {
        let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", name]));
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        holds(&events).then_some(events)
    })
}

fn of_session<'e>(events: &'e [Value], session: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event.to_string().contains(session)).collect()
}

async fn forward(link: &TestLink, endpoints: &[&str], dynamic: bool) -> Result<PortClient, String> {
    link.forward("web-1", endpoints, dynamic).await.map_err(|refused| refused.code)
}

#[test]
fn a_session_reaches_the_endpoints_that_it_was_started_for_and_a_dynamic_one_others_too() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let id = block_on(async {
        let (one, two, other) = (says("one").await, says("two").await, says("other").await);
        let link = TestLink::dial(&server).await;
        let (one, two, other) = (format!(":{one}"), format!("127.0.0.1:{two}"), format!("localhost:{other}"));
        let fixed = link.forward("web-1", &[&one, &two], false).await.unwrap();
        assert_eq!(heard(&link, &fixed.id, &one).await.unwrap(), "one");
        assert_eq!(heard(&link, &fixed.id, &two).await.unwrap(), "two");
        assert_eq!(heard(&link, &fixed.id, &other).await.unwrap_err(), "AccessDeniedException");
        // Which of the two is not said.
        assert_eq!(link.connect(&fixed.id).await.unwrap_err().code, "ValidationException");
        for dynamic in [link.forward("web-1", &[&one], true).await, link.forward("web-1", &[], true).await] {
            let dynamic = dynamic.unwrap();
            for (endpoint, word) in [(&one, "one"), (&other, "other"), (&two, "two"), (&other, "other")] {
                assert_eq!(heard(&link, &dynamic.id, endpoint).await.unwrap(), word);
            }
            assert_eq!(dynamic.end().await.reason, "terminated");
        }
        assert_eq!(forward(&link, &[], false).await.map(|session| session.id).unwrap_err(), "ValidationException");
        let id = fixed.id.clone();
        fixed.end().await;
        id
    });
    // Each connection has its beginning and its end in the trail, and the session's end stands behind them.
    let opened = events(&server, "OpenConnection", |events| of_session(events, &id).len() >= 3);
    let closed = events(&server, "CloseConnection", |events| of_session(events, &id).len() == 2);
    let ended = events(&server, "EndSession", |events| of_session(events, &id).len() == 1);
    for event in of_session(&closed, &id) {
        let details = &event["additionalEventData"];
        assert_eq!((&details["bytesIn"], &details["bytesOut"]), (&json!(1), &json!(3)), "{event}");
        assert!(details["durationSeconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{event}");
        assert!(details["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{event}");
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"?");
        assert_eq!(details["sha256In"], hex::encode(hash), "{event}");
    }
    let refused: Vec<_> =
        of_session(&opened, &id).into_iter().filter(|event| event.get("errorCode").is_some()).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["errorCode"], "AccessDeniedException");
    assert_eq!(of_session(&ended, &id)[0]["additionalEventData"]["connections"]["opened"], 2);
    success(&mut server.munjigi(&["verify"]));
}

#[test]
fn policy_decides_by_host_port_and_path_when_the_session_starts_and_for_each_connection() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let (good, bad) = (says("good").await, says("bad").await);
        let statements = json!([
            { "Effect": "Allow", "Action": "munjigi:OpenForward", "Resource": "*",
              "Condition": { "NumericEquals": { "munjigi:DestinationPort": good.to_string() } } },
            { "Effect": "Allow", "Action": "munjigi:OpenForward", "Resource": "*",
              "Condition": { "StringLike": { "munjigi:DestinationHost": "*.example" } } },
            { "Effect": "Allow", "Action": "munjigi:OpenDynamicForward", "Resource": "*" },
        ]);
        let (key, secret) = user(&server, "alice", &statements);
        let (good, bad) = (format!(":{good}"), format!(":{bad}"));
        let link = TestLink::dial_as(&server, &key, &secret).await;
        // Every endpoint has to be allowed, and listening is granted by its own name alone.
        for endpoints in [&[bad.as_str()][..], &[&good, &bad], &["unix:/run/x"], &["listen:127.0.0.1:0"]] {
            let refused = forward(&link, endpoints, false).await.map(|session| session.id).unwrap_err();
            assert_eq!(refused, "AccessDeniedException", "{endpoints:?}");
        }
        let dynamic = forward(&link, &[], true).await.unwrap();
        assert_eq!(heard(&link, &dynamic.id, &good).await.unwrap(), "good");
        assert_eq!(heard(&link, &dynamic.id, &bad).await.unwrap_err(), "AccessDeniedException");
        assert_eq!(heard(&link, &dynamic.id, "listen:127.0.0.1:0").await.unwrap_err(), "AccessDeniedException");
        assert_eq!(heard(&link, &dynamic.id, "no-such-host.example:80").await.unwrap_err(), "HostNotFound");
        // Nobody else's session, whatever that one may do.
        let admin = TestLink::dial(&server).await;
        assert_eq!(heard(&admin, &dynamic.id, &good).await.unwrap_err(), "AccessDeniedException");
        dynamic.end().await;
    });
    // What was refused at the start is in the trail with its reason.
    let refused = events(&server, "OpenForward", |events| events.len() >= 5);
    let denied = |event: &&Value| event["errorCode"] == "AccessDeniedException";
    assert_eq!(refused.iter().filter(denied).count(), 4, "{refused:?}");
}

#[test]
fn a_policy_on_addresses_is_judged_once_the_node_has_resolved_the_name() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let (near, far) = (says("near").await, says("far").await);
        let allow = |network: &str| {
            json!([
                { "Effect": "Allow", "Action": "munjigi:Open*Forward", "Resource": "*",
                  "Condition": { "IpAddressIfExists": { "munjigi:DestinationAddress": network } } },
            ])
        };
        let (key, secret) = user(&server, "alice", &allow("127.0.0.0/8"));
        let link = TestLink::dial_as(&server, &key, &secret).await;
        let (name, literal) = (format!("localhost:{near}"), format!("127.0.0.1:{far}"));
        // Whether the name may be reached is not known when the session starts.
        let session = forward(&link, &[&name, &literal], true).await.unwrap();
        assert_eq!(heard(&link, &session.id, &name).await.unwrap(), "near");
        assert_eq!(heard(&link, &session.id, &literal).await.unwrap(), "far");
        assert_eq!(heard(&link, &session.id, "198.51.100.1:80").await.unwrap_err(), "AccessDeniedException");

        put_policy(&server, "alice", &allow("203.0.113.0/24"));
        let refused = forward(&link, &[&literal], false).await.map(|session| session.id).unwrap_err();
        assert_eq!(refused, "AccessDeniedException", "an address is known at once");
        let session = forward(&link, &[&name], false).await.unwrap();
        let refused = link.reach(&session.id, &name).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code, "AccessDeniedException", "{}", refused.message);
    });
}

#[test]
fn each_refusal_has_its_own_code_message_and_event() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let (id, said) = block_on(async {
        let statements = json!([
            { "Effect": "Allow", "Action": "munjigi:Open*Forward", "Resource": "*" },
            { "Effect": "Deny", "Action": "munjigi:OpenForward", "Resource": "*",
              "Condition": { "StringEquals": { "munjigi:DestinationHost": "secret.example" } } },
        ]);
        let (key, secret) = user(&server, "alice", &statements);
        let link = TestLink::dial_as(&server, &key, &secret).await;
        let closed = free_port();
        let own = server.address().port();
        let session = forward(&link, &[], true).await.unwrap();
        let (mut said, mut slow) = (Vec::new(), None);
        // A listener whose queue is full answers nobody. What the system lets into it first is its own affair.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let full = full.listen(1).unwrap();
        let at = full.local_addr().unwrap();
        let mut filling = Vec::new();
        for _ in 0..8 {
            let connecting = tokio::net::TcpStream::connect(at);
            match timeout(Duration::from_secs(2), connecting).await {
                Ok(connected) => filling.push(connected),
                Err(_) => {
                    slow = Some(format!(":{}", at.port()));
                    break;
                }
            }
        }
        let mut cases = vec![
            ("secret.example:80".to_owned(), "AccessDeniedException"),
            ("no-such-host.invalid:80".to_owned(), "HostNotFound"),
            (format!(":{closed}"), "ConnectionRefused"),
            (format!(":{own}"), "DestinationDenied"),
        ];
        for form in [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[fd00:ec2::254]",
            "[fd00:ec2::253]",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "[ff02::1]",
            "[::ffff:224.0.0.1]",
            "255.255.255.255",
            "240.0.0.1",
            "0.0.0.0",
            "[::]",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "127.1",
            "2130706433",
            "0x7f000001",
        ] {
            cases.push((format!("{form}:80"), "DestinationDenied"));
        }
        for form in ["127.0.0.1", "localhost", "[::1]"] {
            cases.push((format!("{form}:22"), "DestinationDenied"));
            cases.push((format!("{form}:3389"), "DestinationDenied"));
        }
        cases.extend(slow.map(|slow| (slow, "ConnectionTimedOut")));
        for (endpoint, code) in cases {
            let refused = link.reach(&session.id, &endpoint).await.map(|_| ()).unwrap_err();
            assert_eq!(refused.code, code, "{endpoint}: {}", refused.message);
            said.push((endpoint, code, refused.message));
        }
        let id = session.id.clone();
        session.end().await;
        (id, said)
    });
    let opened = events(&server, "OpenConnection", |events| of_session(events, &id).len() >= said.len());
    let opened = of_session(&opened, &id);
    for (endpoint, code, message) in &said {
        let event = opened.iter().find(|event| {
            let asked =
                event["requestParameters"]["endpoint"].as_str().unwrap().parse::<munjigi_core::endpoint::Endpoint>();
            asked.unwrap() == shown(endpoint)
        });
        let event = event.unwrap_or_else(|| panic!("{endpoint} is not in the trail"));
        assert_eq!(event["errorCode"], *code, "{event}");
        assert_eq!(event["errorMessage"], *message, "{event}");
        assert_eq!(event["userIdentity"]["userName"], "alice", "{event}");
    }
    let texts: std::collections::BTreeSet<_> = said.iter().map(|(_, _, message)| message).collect();
    assert_eq!(texts.len(), said.len(), "each says something of its own");
    success(&mut server.munjigi(&["verify"]));
}

/// An endpoint as it is shown: the node itself as `localhost`.
fn shown(endpoint: &str) -> munjigi_core::endpoint::Endpoint {
    endpoint.parse::<munjigi_core::endpoint::Endpoint>().unwrap().to_string().parse().unwrap()
}

#[test]
fn a_deny_above_so_many_bytes_cuts_what_runs_and_lets_nothing_new_begin() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let id = block_on(async {
        let statements = json!([
            { "Effect": "Allow", "Action": "munjigi:Open*Forward", "Resource": "*" },
            { "Effect": "Deny", "Action": "munjigi:OpenForward", "Resource": "*",
              "Condition": { "NumericGreaterThan": { "munjigi:TransferredBytes": "1000000" } } },
        ]);
        let (key, secret) = user(&server, "alice", &statements);
        let link = TestLink::dial_as(&server, &key, &secret).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!(":{}", listener.local_addr().unwrap().port());
        let session = forward(&link, &[&endpoint], true).await.unwrap();
        let (mut stream, _) = link.reach(&session.id, &endpoint).await.unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let source = tokio::spawn(async move { while socket.write_all(&[7; 64 * 1024]).await.is_ok() {} });
        // It begins, and is cut.
        let mut bytes = vec![0; 64 * 1024];
        let mut carried = 0;
        let broken = loop {
            match stream.read(&mut bytes).await {
                Ok(0) => panic!("no orderly end"),
                Ok(count) => carried += count,
                Err(error) => break error,
            }
        };
        assert!(carried > 0, "{broken}");
        source.await.unwrap();
        assert_eq!(heard(&link, &session.id, &endpoint).await.unwrap_err(), "AccessDeniedException");
        session.id
    });
    let closed = events(&server, "CloseConnection", |events| of_session(events, &id).len() == 1);
    let details = &of_session(&closed, &id)[0]["additionalEventData"];
    assert!(details["endReason"].as_str().is_some_and(|why| why.starts_with("policy: ")), "{details}");
    assert!(details["bytesOut"].as_u64().is_some_and(|bytes| bytes > 1_000_000), "{details}");
}

#[test]
fn a_connection_ends_when_its_permission_goes_and_the_session_when_its_start_would_be_refused() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let allow = |ports: &[u16], dynamic: bool| {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let condition = json!({ "NumericEquals": { "munjigi:DestinationPort": ports } });
            let open =
                json!({ "Effect": "Allow", "Action": "munjigi:OpenForward", "Resource": "*", "Condition": condition });
            let effect = if dynamic { "Allow" } else { "Deny" };
            json!([open, { "Effect": effect, "Action": "munjigi:OpenDynamicForward", "Resource": "*" }])
        };
        let listeners =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let [one, two] = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap().port());
        let (key, secret) = user(&server, "alice", &allow(&[one, two], true));
        let link = TestLink::dial_as(&server, &key, &secret).await;
        let mut session = forward(&link, &[], true).await.unwrap();
        let (mut first, _) = link.reach(&session.id, &format!(":{one}")).await.unwrap();
        let (mut second, _) = link.reach(&session.id, &format!(":{two}")).await.unwrap();
        let mut far = Vec::new();
        for listener in &listeners {
            far.push(listener.accept().await.unwrap().0);
        }
        put_policy(&server, "alice", &allow(&[two], true));
        assert!(first.read(&mut [0]).await.is_err(), "cut");
        far[1].write_all(b"!").await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'!', "the other one lives");
        put_policy(&server, "alice", &allow(&[two], false));
        assert_eq!(session.ended().await.reason, "revoked");
        assert!(second.read(&mut [0]).await.is_err(), "cut");
    });
}

#[test]
fn a_socket_of_the_node_is_reached_as_the_os_user() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let directory = server.directory().join("sockets");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(server.directory(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let own = nix::unistd::User::from_uid(Uid::effective()).unwrap().unwrap();
    block_on(async {
        let path = directory.join("한글.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let endpoint = format!("unix:{}", path.display());
        let link = TestLink::dial(&server).await;
        let session = as_user(&link, &[&endpoint], &own.name).await;
        let (mut stream, accepted) = link.reach(&session.id, &endpoint).await.unwrap();
        assert_eq!(accepted.address, endpoint);
        let (mut socket, _) = listener.accept().await.unwrap();
        assert_eq!(socket.peer_cred().unwrap().uid(), own.uid.as_raw());
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        socket.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping");
        socket.write_all(b"pong").await.unwrap();
        drop(socket);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
        session.end().await;

        let absent = format!("unix:{}", directory.join("absent").display());
        let plain = directory.join("plain");
        std::fs::write(&plain, b"").unwrap();
        let plain = format!("unix:{}", plain.display());
        let session = as_user(&link, &[&absent, &plain], &own.name).await;
        assert_eq!(heard_code(&link, &session.id, &absent).await, "HostNotFound");
        assert_eq!(heard_code(&link, &session.id, &plain).await, "ConnectionRefused");
        session.end().await;

        let Some(other) = ordinary_user() else { return eprintln!("no ordinary OS user here; the rest is left out") };
        let session = as_user(&link, &[&endpoint], &other.name).await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(heard_code(&link, &session.id, &endpoint).await, "DestinationDenied");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (_stream, _) = link.reach(&session.id, &endpoint).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        assert_eq!(socket.peer_cred().unwrap().uid(), other.uid.as_raw());
        session.end().await;
    });
}

#[test]
fn a_node_listens_for_a_session_where_policy_grants_it_by_name() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    let id = block_on(async {
        let statements = json!([
            { "Effect": "Allow", "Action": ["munjigi:OpenForward", "munjigi:OpenDynamicForward"], "Resource": "*" },
            { "Effect": "Allow", "Action": "munjigi:OpenReverseForward", "Resource": "*",
              "Condition": { "IpAddress": { "munjigi:ListenAddress": "127.0.0.1/32" } } },
        ]);
        let (key, secret) = user(&server, "alice", &statements);
        let mut link = TestLink::dial_as(&server, &key, &secret).await;
        let session = forward(&link, &["listen:127.0.0.1:0"], true).await.unwrap();
        // Another loopback address by the condition, the network by the missing action.
        for other in ["listen:[::1]:0", "listen:0.0.0.0:0", "listen:192.0.2.1:0"] {
            assert_eq!(heard_code(&link, &session.id, other).await, "AccessDeniedException", "{other}");
        }
        let (held, accepted) = link.reach(&session.id, "listen:127.0.0.1:0").await.unwrap();
        let address: SocketAddr = accepted.address.parse().unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0 && accepted.listener != 0, "{accepted:?}");
        // The halves themselves listen nowhere.
        for half in [agent.spawn_half(), agent.link_half()] {
            assert!(!listens(half, address.port()), "{half}");
        }
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (incoming, mut stream) = link.incoming().await;
        assert_eq!((&incoming.session_id, incoming.listener), (&session.id, accepted.listener));
        assert_eq!(incoming.address, socket.local_addr().unwrap().to_string());
        socket.write_all(b"ping").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping");
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
        // A port that is taken is refused with its reason.
        let taken = link.reach(&session.id, &format!("listen:{address}")).await.map(|_| ()).unwrap_err();
        assert_eq!(taken.code, "ConnectionRefused", "{}", taken.message);
        // The node listens for as long as the stream lasts.
        drop(held);
        let gone = async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(120), gone).await.unwrap();
        let id = session.id.clone();
        session.end().await;
        id
    });
    let opened = events(&server, "OpenConnection", |events| of_session(events, &id).len() >= 5);
    let refused = of_session(&opened, &id).into_iter().filter(|event| event["errorCode"] == "AccessDeniedException");
    assert_eq!(refused.count(), 3);
}

/// Tells whether a process holds a listening socket at a port.
fn listens(process: nix::unistd::Pid, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap_or_default();
    let wanted = format!(":{port:04X}");
    let sockets: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.get(1).is_some_and(|at| at.ends_with(&wanted)) && row.get(3) == Some(&"0A"))
        .filter_map(|row| row.get(9).map(|inode| format!("socket:[{inode}]")))
        .collect();
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let held = descriptors.filter_map(|one| std::fs::read_link(one.ok()?.path()).ok());
    held.into_iter().any(|one| sockets.iter().any(|socket| one.to_string_lossy() == *socket))
}

async fn heard_code(link: &TestLink, session: &str, to: &str) -> String {
    link.reach(session, to).await.map(|_| ()).unwrap_err().code
}

async fn as_user(link: &TestLink, endpoints: &[&str], os_user: &str) -> PortClient {
    link.forward_as("web-1", endpoints, os_user).await.map_err(|refused| refused.message).unwrap()
}

/// Returns an OS user that is no administrator and may log in, if the agent can become one here.
fn ordinary_user() -> Option<nix::unistd::User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let names = passwd.lines().filter_map(|line| line.split(':').next());
    let users = names.filter_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    let shell = |shell: &Path| shell.file_name().is_some_and(|name| name != "nologin" && name != "false");
    let mut good = users.filter(|user| (1000..60_000).contains(&user.uid.as_raw()) && shell(&user.shell));
    good.find(|user| user.name.bytes().all(|byte| byte.is_ascii_lowercase() || b"-_0123456789".contains(&byte)))
}

#[test]
fn a_name_that_changes_what_it_stands_for_is_judged_each_time_by_what_is_connected_to() {
    if !Uid::effective().is_root() {
        return eprintln!("a resolver of the test's own needs a mount namespace, and that root; left out");
    }
    let server = TestServer::start();
    let hosts = server.directory().join("hosts");
    let say = |text: &str| std::fs::write(&hosts, text).unwrap();
    say("127.0.0.1 localhost\n");
    let mut agent = server.agent("web-1");
    agent.stop();
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    agent.run_under(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    block_on(async {
        let Some(own) = own_address() else { return eprintln!("this machine has no address of its own; left out") };
        let port = says_at(own, "here").await;
        let network = format!("{own}/32");
        let statements = json!([
            { "Effect": "Allow", "Action": "munjigi:OpenDynamicForward", "Resource": "*" },
            { "Effect": "Allow", "Action": "munjigi:OpenForward", "Resource": "*",
              "Condition": { "StringLike": { "munjigi:DestinationHost": "free*" } } },
            { "Effect": "Allow", "Action": "munjigi:OpenForward", "Resource": "*",
              "Condition": { "IpAddress": { "munjigi:DestinationAddress": network } } },
        ]);
        let (key, secret) = user(&server, "alice", &statements);
        let link = TestLink::dial_as(&server, &key, &secret).await;
        let session = forward(&link, &[], true).await.unwrap();
        let (free, bound) = (format!("free.test:{port}"), format!("bound.test:{port}"));
        let ask = async |endpoint: &str| heard(&link, &session.id, endpoint).await;
        say(&format!("{own} free.test\n{own} bound.test\n"));
        assert_eq!(ask(&free).await.unwrap(), "here");
        assert_eq!(ask(&bound).await.unwrap(), "here");
        // The same names stand for something else now; what was granted was the name, not where it leads.
        for forbidden in
            ["169.254.169.254", "127.0.0.1", "::1", "::ffff:127.0.0.1", "fd00:ec2::254", "224.0.0.1", "0.0.0.0"]
        {
            say(&format!("{forbidden} free.test\n{forbidden} bound.test\n"));
            assert_eq!(ask(&free).await.unwrap_err(), "DestinationDenied", "{forbidden}");
            assert_eq!(ask(&bound).await.unwrap_err(), "DestinationDenied", "{forbidden}");
        }
        // One bad address condemns the name.
        say(&format!("{own} free.test\n169.254.169.254 free.test\n"));
        assert_eq!(ask(&free).await.unwrap_err(), "DestinationDenied");
        // Allowed by the node's rules, but not by the policy on addresses.
        say("198.51.100.7 bound.test\n");
        assert_eq!(ask(&bound).await.unwrap_err(), "AccessDeniedException");
        // Of several addresses only those that policy allows are tried.
        say(&format!("198.51.100.7 bound.test\n{own} bound.test\n"));
        assert_eq!(ask(&bound).await.unwrap(), "here");
        say("127.0.0.1 localhost\n");
        assert_eq!(ask(&free).await.unwrap_err(), "HostNotFound");
        session.end().await;
    });
}

/// Returns an address of this machine that is not its loopback.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it only chooses the address that a packet would come from.
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().map(|at| at.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}
