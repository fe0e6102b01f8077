//! A client of our own link: what `munjigi` and its plugin say to open a port session and connections in it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::sigv4::{self, Credentials, SecretKey};
use munjigi_core::time::Timestamp;
use munjigi_core::wire::hello::{Hello, Role, VERSION_MAX, VERSION_MIN};
use munjigi_core::wire::message::{
    Accepted, Connect, End, EndpointWish, ForwardWish, Incoming, Open, OpenSession, PortWish, Refused, open,
};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::dial::{DialOptions, Dialed, SignError, SignedHeaders, UpgradeToSign, dial};
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::tls::PinnedRoots;
use munjigi_link::{BINDING_HEADER, HELLO_HEADER, Limits, Stream};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split};

use super::TestServer;

/// A standing link of the administrator.
pub(crate) struct TestLink(Dialed);

impl TestLink {
    /// Dials.
    pub(crate) async fn dial(server: &TestServer) -> Self {
        let (access_key, secret) = administrator(server);
        Self::dial_as(server, &access_key, &secret).await
    }

    /// Dials with limits of its own.
    pub(crate) async fn dial_within(server: &TestServer, limits: Limits) -> Self {
        let (access_key, secret) = administrator(server);
        Self::dial_as_within(server, &access_key, &secret, limits).await
    }

    /// Dials as somebody else, by an access key.
    pub(crate) async fn dial_as(server: &TestServer, access_key: &str, secret: &str) -> Self {
        Self::dial_as_within(server, access_key, secret, Limits::client()).await
    }

    async fn dial_as_within(server: &TestServer, access_key: &str, secret: &str, limits: Limits) -> Self {
        let credentials = Credentials {
            access_key_id: access_key.to_owned(),
            secret: SecretKey::new(secret.to_owned()),
            session_token: None,
        };
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            software: "test/1".to_owned(),
            role: Role::Client.into(),
            node: None,
        };
        let roots = PinnedRoots::from_pem(&std::fs::read(server.data_dir().join("ca.pem")).unwrap()).unwrap();
        let options = DialOptions { limits, ..DialOptions::new(server.url(None).parse().unwrap(), roots) };
        let sign = |request: UpgradeToSign| std::future::ready(sign(&request, &credentials));
        let mut dialed = dial(&options, &hello, sign).await.unwrap();
        dialed.established().await.unwrap();
        Self(dialed)
    }

    /// Opens a port session; an empty host is the node itself.
    pub(crate) async fn port_session(&self, node: &str, host: &str, port: u16) -> Result<PortClient, Refused> {
        let port = Some(PortWish { host: host.to_owned(), port: port.into() });
        self.session(OpenSession { target: node.to_owned(), port, ..OpenSession::default() }).await
    }

    /// Opens a forward session to endpoints as the API writes them.
    pub(crate) async fn forward(&self, node: &str, endpoints: &[&str], dynamic: bool) -> Result<PortClient, Refused> {
        let endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
        let purpose = "test".to_owned();
        self.forward_wish(node, ForwardWish { endpoints, dynamic, purpose, ..ForwardWish::default() }).await
    }

    /// Opens a forward session that acts as an OS user.
    pub(crate) async fn forward_as(
        &self,
        node: &str,
        endpoints: &[&str],
        os_user: &str,
    ) -> Result<PortClient, Refused> {
        let endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
        let (os_user, purpose) = (os_user.to_owned(), "test".to_owned());
        self.forward_wish(node, ForwardWish { endpoints, os_user, purpose, ..ForwardWish::default() }).await
    }

    async fn forward_wish(&self, node: &str, forward: ForwardWish) -> Result<PortClient, Refused> {
        let forward = Some(forward);
        self.session(OpenSession { target: node.to_owned(), forward, ..OpenSession::default() }).await
    }

    async fn session(&self, wish: OpenSession) -> Result<PortClient, Refused> {
        let (read, write) = split(self.0.connection.opener().open().await.unwrap());
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let open = Open { wish: Some(open::Wish::Session(wish)) };
        writer.send(&Frame::Open(Box::new(open))).await.unwrap();
        match reader.read(FrameSet::ANSWER).await.unwrap().unwrap() {
            Frame::Accepted(accepted) => Ok(PortClient { id: accepted.session_id, reader, writer }),
            Frame::Refused(refused) => Err(refused),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a connection of a port session.
    pub(crate) async fn connect(&self, session: &str) -> Result<(Stream, Accepted), Refused> {
        self.wish(Connect { session_id: session.to_owned(), ..Connect::default() }).await
    }

    /// As [`Self::connect`]; `None` if it was refused in any way, the reset of its stream included.
    pub(crate) async fn try_connect(&self, session: &str) -> Option<Stream> {
        let mut stream = self.0.connection.opener().open().await.ok()?;
        let wish = open::Wish::Connect(Connect { session_id: session.to_owned(), ..Connect::default() });
        let mut first = BytesMut::new();
        Frame::Open(Box::new(Open { wish: Some(wish) })).encode(&mut first).unwrap();
        stream.write_all(&first).await.ok()?;
        stream.flush().await.ok()?;
        let mut reader = FrameReader::new(stream);
        match reader.read(FrameSet::ANSWER).await {
            Ok(Some(Frame::Accepted(_))) => Some(reader.into_parts().0),
            _ => None,
        }
    }

    /// Opens a connection to an endpoint as the API writes it.
    pub(crate) async fn reach(&self, session: &str, to: &str) -> Result<(Stream, Accepted), Refused> {
        let (session_id, endpoint) = (session.to_owned(), Some(endpoint(to)));
        self.wish(Connect { session_id, endpoint, ..Connect::default() }).await
    }

    /// Takes up the next connection that somebody makes to a port on which a node listens for this client.
    pub(crate) async fn incoming(&mut self) -> (Incoming, Stream) {
        let mut reader = FrameReader::new(self.0.connection.accept().await.unwrap());
        let Frame::Open(open) = reader.read(FrameSet::OPENING).await.unwrap().unwrap() else { panic!("no open") };
        let Some(open::Wish::Incoming(incoming)) = open.wish else { panic!("{open:?}") };
        let mut answer = BytesMut::new();
        Frame::Accepted(Box::default()).encode(&mut answer).unwrap();
        let stream = reader.get_mut();
        stream.write_all(&answer).await.unwrap();
        stream.flush().await.unwrap();
        (incoming, reader.into_parts().0)
    }

    async fn wish(&self, wish: Connect) -> Result<(Stream, Accepted), Refused> {
        let mut stream = self.0.connection.opener().open().await.unwrap();
        let wish = open::Wish::Connect(wish);
        let mut first = BytesMut::new();
        Frame::Open(Box::new(Open { wish: Some(wish) })).encode(&mut first).unwrap();
        stream.write_all(&first).await.unwrap();
        stream.flush().await.unwrap();
        let mut reader = FrameReader::new(stream);
        match reader.read(FrameSet::ANSWER).await.unwrap().unwrap() {
            Frame::Accepted(accepted) => {
                let (stream, early) = reader.into_parts();
                assert!(early.is_empty(), "the destinations of these tests wait to be spoken to");
                Ok((stream, *accepted))
            }
            Frame::Refused(refused) => Err(refused),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the administrator's key.
fn administrator(server: &TestServer) -> (String, String) {
    let file = std::fs::read_to_string(server.data_dir().join("admin.credentials")).unwrap();
    let mut pairs = file.lines().filter_map(|line| line.split_once('='));
    let mut value = |name: &str| pairs.find(|(key, _)| key.trim() == name).unwrap().1.trim().to_owned();
    (value("aws_access_key_id"), value("aws_secret_access_key"))
}

fn endpoint(text: &str) -> EndpointWish {
    (&text.parse::<Endpoint>().unwrap()).into()
}

/// The client's end of a port session's own stream.
pub(crate) struct PortClient {
    /// The session.
    pub(crate) id: String,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
}

impl PortClient {
    /// Ends the session.
    pub(crate) async fn end(mut self) -> End {
        self.writer.send(&Frame::End(End::default())).await.unwrap();
        self.ended().await
    }

    /// Waits for the session's end.
    pub(crate) async fn ended(&mut self) -> End {
        loop {
            match self.reader.read(FrameSet::TO_CLIENT).await.unwrap().unwrap() {
                Frame::End(end) => return end,
                // Notices, and offsets of input that there is none of.
                Frame::Notice(_) | Frame::InputAck(0) | Frame::InputWanted(0) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn sign(request: &UpgradeToSign, credentials: &Credentials) -> Result<SignedHeaders, SignError> {
    let headers: [(&str, &[u8]); 3] = [
        ("host", request.host.as_bytes()),
        (BINDING_HEADER, request.binding_header.as_bytes()),
        (HELLO_HEADER, request.hello.as_bytes()),
    ];
    let to_sign = sigv4::Request { method: request.method, target: request.path, headers: &headers, body: &[] };
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let now = Timestamp(i64::try_from(micros).unwrap());
    let signed = sigv4::sign(&to_sign, credentials, "local-1", "munjigi", now)?;
    Ok(signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
