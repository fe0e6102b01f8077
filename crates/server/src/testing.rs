//! A whole server for tests: in a directory of its own, on a port of its own, with an administrator and a client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use munjigi_core::sigv4::{self, Credentials, SecretKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::api::operation::{Service, Wire};
use crate::identity::session_token::{StandsFor, Statement};
use crate::store::{ActivationRequest, AgentKind, NewNode, NodeFacts};
use crate::{Running, Server, ServerOptions, clock};

/// A server that serves; its directory goes when it does.
pub(crate) struct TestServer {
    pub(crate) running: Running,
    pub(crate) directory: TempDir,
    /// The administrator's key.
    pub(crate) admin: Credentials,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// Returns the request id that the server gave.
    pub(crate) fn request_id(&self) -> &str {
        self.headers["x-amzn-requestid"].to_str().unwrap()
    }

    /// Returns the error code of either wire form; empty without an error.
    pub(crate) fn code(&self) -> &str {
        let between = |open: &str, close: &str| self.text.split(open).nth(1)?.split(close).next();
        between("<Code>", "</Code>").or_else(|| between("\"__type\":\"", "\"")).unwrap_or_default()
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with_settings("").await
    }

    /// Starts one with settings.
    pub(crate) async fn with_settings(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let file = directory.path().join("munjigi.toml");
        // Tests start more than people do.
        let most = "sessions_per_principal = 1000\nstarts_per_minute = 1000000\nnodes_per_minute = 1000000\n";
        let limits = if settings.contains("[limits]") { String::new() } else { format!("\n[limits]\n{most}") };
        std::fs::write(&file, format!("{settings}{limits}")).unwrap();
        let options = ServerOptions { data_dir, config: Some(file), ..ServerOptions::default() };
        let running = Server::start(options).await.unwrap();
        let text = std::fs::read_to_string(directory.path().join("data/admin.credentials")).unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let admin = credentials(&value("aws_access_key_id"), value("aws_secret_access_key"));
        Self { running, directory, admin }
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        self.running.server()
    }

    /// Makes a user without any permission and returns its key.
    pub(crate) async fn user(&self, name: &str) -> Credentials {
        let server = self.server();
        server.store.create_user(name, "/", None, &[], clock::now()).await.unwrap();
        let made = server.store.create_access_key(name, clock::now()).await.unwrap();
        server.identities.reload(&server.store).await.unwrap();
        credentials(made.key.id.as_str(), made.secret.expose().clone())
    }

    /// Issues temporary credentials.
    pub(crate) fn issue(&self, statement: &Statement) -> Credentials {
        let issued = self.server().session_tokens.issue(statement).unwrap();
        Credentials {
            access_key_id: issued.access_key.to_string(),
            secret: issued.secret,
            session_token: Some(issued.token),
        }
    }

    /// Registers a node and issues the credentials of its agent.
    pub(crate) async fn node_credentials(&self) -> Credentials {
        let (store, now) = (&self.server().store, clock::now());
        let request = ActivationRequest {
            description: None,
            default_instance_name: None,
            iam_role: "nodes".to_owned(),
            registration_limit: 1,
            expires: now.plus(Duration::from_secs(3600)),
            created_by: "test".to_owned(),
            tags: Vec::new(),
        };
        let activation = store.create_activation(&request, now).await.unwrap();
        let new = NewNode {
            agent: AgentKind::Aws,
            public_key: vec![7; 32],
            fingerprint: Some("host".to_owned()),
            name: None,
            facts: NodeFacts { hostname: "node".to_owned(), ..NodeFacts::default() },
            ip_address: None,
            tags: Vec::new(),
        };
        let node = store.register_node(&activation.id, &activation.code, &new, now).await.unwrap();
        self.issue(&Statement::new(StandsFor::Node(node.id), now, Duration::from_secs(3600)))
    }

    /// Returns the target of a presigned GET request.
    pub(crate) fn presign(&self, path: &str, query: &str, who: &Credentials, service: &str, life: Duration) -> String {
        let region = &self.server().deployment.region;
        let seconds = u32::try_from(life.as_secs()).unwrap();
        sigv4::presign((self.authority(), path, query), who, (region, service), seconds, clock::now()).unwrap()
    }

    /// Opens a connection with TLS, as a client that trusts `ca.pem` alone.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let pem = std::fs::read(self.directory.path().join("data/ca.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(self.authority()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
    }

    /// Returns host and port.
    pub(crate) fn authority(&self) -> &str {
        self.running.endpoint().strip_prefix("https://").unwrap()
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Answer {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request.map(Full::new)).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        drop(sender);
        let _ = connection.await;
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// Makes the request of a call, signed if there are credentials.
    pub(crate) fn request(
        &self,
        who: Option<&Credentials>,
        service: Service,
        operation: &str,
        input: &serde_json::Value,
    ) -> Request<Bytes> {
        let (body, content_type) = match service.wire() {
            Wire::Json => (input.to_string(), "application/x-amz-json-1.1"),
            Wire::Query | Wire::Ec2 => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("Action", operation).append_pair("Version", service.api_version());
                flatten(&mut form, "", input, if service.wire() == Wire::Ec2 { "" } else { "member." });
                (form.finish(), "application/x-www-form-urlencoded; charset=utf-8")
            }
        };
        let mut headers = vec![("host", self.authority().to_owned()), ("content-type", content_type.to_owned())];
        if let Some(prefix) = service.target_prefix() {
            headers.push(("x-amz-target", format!("{prefix}{operation}")));
        }
        if let Some(who) = who {
            let given: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let request = sigv4::Request { method: "POST", target: "/", headers: &given, body: body.as_bytes() };
            let region = &self.server().deployment.region;
            headers.extend(sigv4::sign(&request, who, region, service.signing_name(), clock::now()).unwrap());
        }
        let mut request = Request::builder().method(Method::POST).uri("/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Bytes::from(body)).unwrap()
    }

    /// Calls an operation.
    pub(crate) async fn call(
        &self,
        who: Option<&Credentials>,
        service: Service,
        operation: &str,
        input: &serde_json::Value,
    ) -> Answer {
        self.send(self.request(who, service, operation, input)).await
    }

    /// Returns the lines of the trail that speak of a request.
    pub(crate) fn trail(&self, request_id: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut directories = vec![self.directory.path().join("data/audit")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else {
                    let content = std::fs::read(entry.path()).unwrap();
                    let text = String::from_utf8_lossy(&content).into_owned();
                    lines.extend(text.lines().filter(|line| line.contains(request_id)).map(str::to_owned));
                }
            }
        }
        lines
    }

    pub(crate) async fn stop(self) {
        self.running.shutdown().await;
    }
}

fn credentials(id: &str, secret: String) -> Credentials {
    Credentials { access_key_id: id.to_owned(), secret: SecretKey::new(secret), session_token: None }
}

/// Writes an input as the parameters of a form.
fn flatten(form: &mut form_urlencoded::Serializer<'_, String>, name: &str, value: &serde_json::Value, list: &str) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        serde_json::Value::Object(members) => {
            members.iter().for_each(|(member, value)| flatten(form, &below(member), value, list));
        }
        serde_json::Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(at, value)| flatten(form, &below(&format!("{list}{}", at + 1)), value, list));
        }
        serde_json::Value::String(text) => drop(form.append_pair(name, text)),
        other => drop(form.append_pair(name, &other.to_string())),
    }
}
