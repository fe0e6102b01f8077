//! An SSH client that says whatever a test wants, before and after keys are exchanged: packets are built by hand, and
//! only their encryption is right. curve25519-sha256 and aes256-gcm (RFC 4253, 8731, 5647).

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use socket2::{Domain, Socket, Type};

/// Numbers of messages (RFC 4250 section 4.1).
pub(crate) mod msg {
    pub(crate) const SERVICE_REQUEST: u8 = 5;
    pub(crate) const SERVICE_ACCEPT: u8 = 6;
    pub(crate) const KEXINIT: u8 = 20;
    pub(crate) const NEWKEYS: u8 = 21;
    pub(crate) const ECDH_INIT: u8 = 30;
    pub(crate) const ECDH_REPLY: u8 = 31;
    pub(crate) const USERAUTH_REQUEST: u8 = 50;
    pub(crate) const USERAUTH_FAILURE: u8 = 51;
    pub(crate) const USERAUTH_SUCCESS: u8 = 52;
    pub(crate) const GLOBAL_REQUEST: u8 = 80;
    pub(crate) const CHANNEL_OPEN: u8 = 90;
    pub(crate) const OPEN_CONFIRMATION: u8 = 91;
    pub(crate) const OPEN_FAILURE: u8 = 92;
    pub(crate) const WINDOW_ADJUST: u8 = 93;
    pub(crate) const DATA: u8 = 94;
    pub(crate) const CHANNEL_REQUEST: u8 = 98;
    pub(crate) const CHANNEL_SUCCESS: u8 = 99;
    pub(crate) const CHANNEL_FAILURE: u8 = 100;
}

/// What this client says of itself.
const VERSION: &[u8] = b"SSH-2.0-test";
/// How long it waits for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// Appends the parts of messages (RFC 4251 section 5).
#[derive(Default, Clone)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl Payload {
    /// Begins a message.
    pub(crate) fn of(kind: u8) -> Self {
        Self(vec![kind])
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn string(self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let mut with_length = self.u32(u32::try_from(value.len()).unwrap());
        with_length.0.extend_from_slice(value);
        with_length
    }

    fn mpint(self, value: &[u8]) -> Self {
        let start = value.iter().position(|byte| *byte != 0).unwrap_or(value.len());
        let value = &value[start..];
        if value.first().is_some_and(|byte| byte & 0x80 != 0) {
            return self.string([&[0], value].concat());
        }
        self.string(value)
    }
}

/// Takes messages apart.
pub(crate) struct Parts<'a>(pub(crate) &'a [u8]);

impl<'a> Parts<'a> {
    pub(crate) fn u32(&mut self) -> u32 {
        let (head, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u32::from_be_bytes(*head)
    }

    pub(crate) fn string(&mut self) -> &'a [u8] {
        let length = self.u32() as usize;
        let (value, rest) = self.0.split_at(length);
        self.0 = rest;
        value
    }
}

/// One direction's cipher.
struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Cipher {
    fn next(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let count = u64::from_be_bytes(self.nonce[4..].try_into().unwrap()).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&count.to_be_bytes());
        nonce
    }
}

/// A connection.
pub(crate) struct RawSsh {
    pub(crate) socket: TcpStream,
    session_id: Vec<u8>,
    server_version: Vec<u8>,
    sending: Option<Cipher>,
    receiving: Option<Cipher>,
}

impl RawSsh {
    /// Connects and says nothing.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        Self::connect_from(None, to)
    }

    /// As [`Self::connect`], from this address of the machine.
    pub(crate) fn connect_from(from: Option<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, session_id: Vec::new(), server_version: Vec::new(), sending: None, receiving: None })
    }

    /// Exchanges version lines.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        self.socket.write_all(&[VERSION, b"\r\n"].concat())?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") {
            self.socket.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        self.server_version = line.trim_ascii_end().to_vec();
        Ok(())
    }

    /// Connects, and exchanges version lines and keys.
    pub(crate) fn exchanged(to: SocketAddr) -> io::Result<Self> {
        let mut ssh = Self::connect(to)?;
        ssh.greet()?;
        ssh.exchange()?;
        Ok(ssh)
    }

    /// Exchanges keys. Whether the server is who it says it is does not matter here.
    pub(crate) fn exchange(&mut self) -> io::Result<()> {
        let ours = kexinit();
        self.send(&ours)?;
        let theirs = self.receive_kind(msg::KEXINIT)?;
        let private = PrivateKey::generate(&X25519).unwrap();
        let public = private.compute_public_key().unwrap();
        self.send(&Payload::of(msg::ECDH_INIT).string(public.as_ref()).0)?;
        let reply = self.receive_kind(msg::ECDH_REPLY)?;
        let mut parts = Parts(&reply[1..]);
        let (host_key, server_public) = (parts.string(), parts.string());
        let secret = agree(&private, UnparsedPublicKey::new(&X25519, server_public), (), |secret| Ok(secret.to_vec()));
        let secret = Payload::default().mpint(&secret.unwrap()).0;
        let exchanged = Payload::default()
            .string(VERSION)
            .string(&self.server_version)
            .string(&ours)
            .string(&theirs)
            .string(host_key)
            .string(public.as_ref())
            .string(server_public);
        let hash = digest(&SHA256, &[exchanged.0.as_slice(), &secret].concat());
        self.receive_kind(msg::NEWKEYS)?;
        self.send(&[msg::NEWKEYS])?;
        self.session_id = hash.as_ref().to_vec();
        let derive = |letter: u8| {
            let input = [secret.as_slice(), hash.as_ref(), &[letter], &self.session_id].concat();
            digest(&SHA256, &input).as_ref().to_vec()
        };
        let cipher = |iv: u8, key: u8| Cipher {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derive(key)).unwrap()),
            nonce: derive(iv)[..12].try_into().unwrap(),
        };
        (self.sending, self.receiving) = (Some(cipher(b'A', b'C')), Some(cipher(b'B', b'D')));
        Ok(())
    }

    /// Logs in with an Ed25519 key, by its seed.
    pub(crate) fn log_in(&mut self, user: &str, seed: &[u8; 32]) -> io::Result<()> {
        self.send(&Payload::of(msg::SERVICE_REQUEST).string("ssh-userauth").0)?;
        self.receive_kind(msg::SERVICE_ACCEPT)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
        let blob = Payload::default().string("ssh-ed25519").string(pair.public_key().as_ref()).0;
        let request = Payload::of(msg::USERAUTH_REQUEST)
            .string(user)
            .string("ssh-connection")
            .string("publickey")
            .byte(1)
            .string("ssh-ed25519")
            .string(&blob);
        let signed = [Payload::default().string(&self.session_id).0, request.0.clone()].concat();
        let signature = Payload::default().string("ssh-ed25519").string(pair.sign(&signed).as_ref()).0;
        self.send(&request.string(signature).0)?;
        self.receive_kind(msg::USERAUTH_SUCCESS).map(drop)
    }

    /// Opens a channel; returns the server's number of it.
    pub(crate) fn open(
        &mut self,
        kind: &str,
        number: u32,
        window: u32,
        rest: &[u8],
    ) -> io::Result<Result<u32, String>> {
        let mut open = Payload::of(msg::CHANNEL_OPEN).string(kind).u32(number).u32(window).u32(32 * 1024);
        open.0.extend_from_slice(rest);
        self.send(&open.0)?;
        loop {
            let answer = self.receive()?;
            let mut parts = Parts(&answer[1..]);
            match answer[0] {
                msg::OPEN_CONFIRMATION if parts.u32() == number => return Ok(Ok(parts.u32())),
                msg::OPEN_FAILURE if parts.u32() == number => {
                    let code = parts.u32();
                    let text = String::from_utf8_lossy(parts.string()).into_owned();
                    return Ok(Err(format!("{code} {text}")));
                }
                _ => {}
            }
        }
    }

    /// Sends one packet.
    pub(crate) fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let packet = self.packet(payload);
        self.socket.write_all(&packet)
    }

    /// Builds one packet as it goes over the wire, and counts it as sent.
    pub(crate) fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        // Without the length, which is not encrypted with this cipher, a multiple of 16; in the clear 8 would do.
        let beside = if self.sending.is_some() { 1 } else { 5 };
        let mut padding = 16 - (payload.len() + beside) % 16;
        if padding < 4 {
            padding += 16;
        }
        let length = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes();
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend_from_slice(payload);
        body.resize(body.len() + padding, 0);
        if let Some(cipher) = &mut self.sending {
            let nonce = cipher.next();
            cipher.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut body).unwrap();
        }
        [length.as_slice(), &body].concat()
    }

    /// Receives one packet's payload.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let count = u32::from_be_bytes(length) as usize;
        let tag = if self.receiving.is_some() { 16 } else { 0 };
        let mut body = vec![0; count + tag];
        self.socket.read_exact(&mut body)?;
        if let Some(cipher) = &mut self.receiving {
            let nonce = cipher.next();
            cipher.key.open_in_place(nonce, Aad::from(length), &mut body).unwrap();
            body.truncate(count);
        }
        let padding = body[0] as usize;
        Ok(body[1..body.len() - padding].to_vec())
    }

    /// Receives packets until one of this kind comes.
    pub(crate) fn receive_kind(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let payload = self.receive()?;
            if payload.first() == Some(&kind) {
                return Ok(payload);
            }
        }
    }

    /// Waits until the server has closed the connection; what it says until then does not matter.
    pub(crate) fn wait_for_end(&mut self) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let waits = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind());
                    assert!(!waits, "the connection stands after {PATIENCE:?}");
                    return;
                }
            }
        }
    }
}

/// Returns the first message of an exchange of keys.
pub(crate) fn kexinit() -> Vec<u8> {
    let mut payload = Payload::of(msg::KEXINIT);
    payload.0.extend_from_slice(&[7; 16]);
    for names in ["curve25519-sha256", "ssh-ed25519"] {
        payload = payload.string(names);
    }
    for _ in 0..2 {
        payload = payload.string("aes256-gcm@openssh.com");
    }
    for _ in 0..2 {
        payload = payload.string("hmac-sha2-256-etm@openssh.com");
    }
    for names in ["none", "none", "", ""] {
        payload = payload.string(names);
    }
    payload.byte(0).u32(0).0
}
