//! What goes wrong while dialling is told apart, in words that help; the way through a proxy; the round trips.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::harness::{Authority, TestServer, Verdict, dial_client, options, quick_limits, receive, send, within};
use munjigi_link::DialError;
use munjigi_link::dial::{DialOptions, ProxyChoice};
use rcgen::CertificateParams;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// A listener whose connections go to `serve`; stops on drop.
struct Listener {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp));
            }
        });
        Self { address, task }
    }

    /// A TLS server whose handshakes are all it does.
    async fn tls(config: Arc<ServerConfig>) -> Self {
        Self::start(move |tcp| {
            let acceptor = TlsAcceptor::from(config.clone());
            async move {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    let _end = tls.read(&mut [0; 1]).await;
                }
            }
        })
        .await
    }
}

fn tls_config(
    authority: &Authority,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let (chain, key) = authority.issue(names, change);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

async fn refused(options: &DialOptions) -> DialError {
    match dial_client(options).await {
        Ok(mut dialed) => within(dialed.established()).await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_root_name_or_time_is_told_apart() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let both = [&rustls::version::TLS13];
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    let cases: [(&Authority, &str, Change, &str); 4] = [
        (&theirs, "localhost", Box::new(|_| ()), "not signed by the pinned root"),
        (&ours, "other.example", Box::new(|_| ()), "for another name"),
        (&ours, "localhost", Box::new(move |c| c.not_after = year(2001)), "has expired"),
        (&ours, "localhost", Box::new(move |c| c.not_before = year(2999)), "not valid yet"),
    ];
    for (authority, name, change, words) in cases {
        let listener = Listener::tls(tls_config(authority, &[name], change, &both)).await;
        let error = refused(&options(listener.address, &ours)).await;
        assert!(error.to_string().contains(words), "{error}");
        let named = matches!(
            error,
            DialError::CertificateNotTrusted { .. }
                | DialError::CertificateWrongName { .. }
                | DialError::CertificateExpired { .. }
                | DialError::CertificateNotYetValid { .. }
        );
        assert!(named, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_12_plain_http_silence_and_empty_ports_are_told_apart() {
    let authority = Authority::new();
    let old = Listener::tls(tls_config(&authority, &["localhost"], |_| (), &[&rustls::version::TLS12])).await;
    let error = refused(&options(old.address, &authority)).await;
    assert!(matches!(error, DialError::TlsVersion { .. }), "{error:?}");

    let http = Listener::start(|mut tcp| async move {
        let _greeting = tcp.read(&mut [0; 4096]).await;
        let _answer = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let error = refused(&options(http.address, &authority)).await;
    assert!(matches!(error, DialError::NotTls { .. }), "{error:?}");

    let mute = Listener::start(|mut tcp| async move {
        let mut sink = Vec::new();
        let _end = tcp.read_to_end(&mut sink).await;
    })
    .await;
    let mut impatient = options(mute.address, &authority);
    impatient.timeouts.tls = std::time::Duration::from_millis(50);
    let error = refused(&impatient).await;
    assert!(matches!(error, DialError::TimedOut { step: "the TLS handshake with", .. }), "{error:?}");

    let empty = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(&options(empty, &authority)).await;
    assert!(matches!(error, DialError::ConnectionRefused { .. }), "{error:?}");

    let nowhere =
        DialOptions { server: Url::parse("https://no-such-host.invalid").unwrap(), ..options(empty, &authority) };
    let error = refused(&nowhere).await;
    assert!(matches!(error, DialError::NameNotResolved { .. }), "{error:?}");
}

#[tokio::test]
async fn only_plain_https_addresses_are_dialled_and_no_password_is_shown() {
    let authority = Authority::new();
    for url in [
        "http://localhost:1",
        "wss://localhost:1",
        "https://u:secret@localhost:1",
        "https://localhost:1/path",
        "https://localhost:1/?q",
        "data:text,secret",
    ] {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let error = refused(&DialOptions { server: Url::parse(url).unwrap(), ..options(address, &authority) }).await;
        assert!(matches!(error, DialError::BadUrl { .. }), "{url}: {error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// A CONNECT proxy that wants the given `Proxy-Authorization`; notes what was asked of it.
async fn proxy(wanted: Option<&'static str>, asked: Arc<Mutex<Vec<String>>>) -> Listener {
    Listener::start(move |mut tcp| {
        let asked = asked.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = tcp.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            asked.lock().unwrap().push(head.clone());
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let allowed = wanted.is_none_or(|wanted| head.contains(&format!("Proxy-Authorization: {wanted}\r\n")));
            if !allowed {
                let _sent = tcp.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
                return;
            }
            let Ok(mut server) = TcpStream::connect(target).await else {
                let _sent = tcp.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
                return;
            };
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let _end = tokio::io::copy_bidirectional(&mut tcp, &mut server).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_passes_a_proxy_with_and_without_credentials() {
    let mut server = TestServer::start().await;
    for (userinfo, wanted) in [("", None), ("me:p%40ss@", Some("Basic bWU6cEBzcw=="))] {
        let asked = Arc::default();
        let proxy = proxy(wanted, Arc::clone(&asked)).await;
        let url = Url::parse(&format!("http://{userinfo}{}", proxy.address)).unwrap();
        let options = DialOptions { proxy: ProxyChoice::Explicit(url), ..server.options() };
        let mut dialed = dial_client(&options).await.unwrap();
        within(dialed.established()).await.unwrap();
        let mut there = within(server.links.recv()).await.unwrap();
        let mut stream = dialed.connection.opener().open().await.unwrap();
        send(&mut stream, b"through").await;
        assert_eq!(receive(&mut within(there.accept()).await.unwrap(), 7).await, b"through");
        let asked = asked.lock().unwrap();
        assert!(asked[0].starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.address.port())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let server = TestServer::start().await;
    let strict = proxy(Some("Basic other"), Arc::default()).await;
    let with = |text: String, base: DialOptions| DialOptions {
        proxy: ProxyChoice::Explicit(Url::parse(&text).unwrap()),
        ..base
    };
    let error = refused(&with(format!("http://u:secret@{}", strict.address), server.options())).await;
    assert!(matches!(error, DialError::ProxyNeedsCredentials { .. }), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");

    let open = proxy(None, Arc::default()).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(&with(format!("http://{}", open.address), options(closed, &server.authority))).await;
    assert!(matches!(error, DialError::ProxyRefused { status: 502, .. }), "{error:?}");

    let error = refused(&with(format!("http://{closed}"), server.options())).await;
    assert!(matches!(error, DialError::ConnectionRefused { .. }), "{error:?}");
}

/// Carries one connection and counts how often the direction of its bytes turns from server to client back to
/// client to server: each such turn is a round trip that the client waited for.
async fn counting_relay(server: SocketAddr, client_turns: Arc<Mutex<u32>>) -> Listener {
    Listener::start(move |mut client| {
        let turns = client_turns.clone();
        async move {
            let mut server = TcpStream::connect(server).await.unwrap();
            let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
            let mut from_client = false;
            loop {
                tokio::select! {
                    // The client's bytes first: those it sent without waiting belong to its running turn.
                    biased;
                    read = client.read(&mut up) => {
                        let Ok(length @ 1..) = read else { return };
                        if !from_client { *turns.lock().unwrap() += 1; }
                        from_client = true;
                        if server.write_all(&up[..length]).await.is_err() { return }
                    }
                    // A distance, so that everything the client sends without waiting comes in the same turn.
                    () = async {
                        let _readable = server.readable().await;
                        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
                    } => {
                        let Ok(length @ 1..) = server.read(&mut down).await else { return };
                        from_client = false;
                        if client.write_all(&down[..length]).await.is_err() { return }
                    }
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_link_with_an_answer_to_its_first_stream_costs_three_round_trips() {
    let mut server = TestServer::start_with(Verdict::Accept, quick_limits()).await;
    let turns = Arc::new(Mutex::new(0));
    let relay = counting_relay(server.address, turns.clone()).await;
    let dialed = dial_client(&options(relay.address, &server.authority)).await.unwrap();
    let mut stream = dialed.connection.opener().open().await.unwrap();
    send(&mut stream, b"run this").await;
    let mut there = within(server.links.recv()).await.unwrap();
    let mut accepted = within(there.accept()).await.unwrap();
    assert_eq!(receive(&mut accepted, 8).await, b"run this");
    send(&mut accepted, b"done").await;
    assert_eq!(receive(&mut stream, 4).await, b"done");
    // The client's turns: its TLS hello; Finished, request and first stream together. TCP's own makes three (G3).
    assert_eq!(*turns.lock().unwrap() + 1, 3);
}
