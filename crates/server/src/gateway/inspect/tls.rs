//! TLS on both sides of a connection with eyes. There is no way to leave verification out (T-86): a target with a
//! certificate of its own making is trusted by storing that certificate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::target::{TargetSettings, TlsMode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::gateway::nodes::NodeStream;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// The roots that this machine trusts, read once.
static SYSTEM_ROOTS: OnceCell<Vec<CertificateDer<'static>>> = OnceCell::const_new();

/// Why there is no TLS. The texts are for the person who asked, and for whoever keeps the target.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The stored certificates, or the name, cannot be used.
    #[error("the TLS settings of the target cannot be used: {0}")]
    Settings(String),
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    /// It took too long.
    #[error("the TLS handshake took more than {} s", HANDSHAKE_LIMIT.as_secs())]
    TimedOut,
}

/// Begins TLS with a client.
pub(super) async fn accept(config: Arc<ServerConfig>, client: NodeStream) -> Result<NodeStream, TlsError> {
    let accepted = timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(config).accept(client)).await;
    Ok(Box::new(accepted.map_err(|_| TlsError::TimedOut)??))
}

/// Begins TLS with a target.
pub(super) async fn connect(settings: &TargetSettings, target: NodeStream) -> Result<NodeStream, TlsError> {
    // `require` may do without a name; an address is not sent to the server either.
    let name = settings.tls_name().unwrap_or("127.0.0.1");
    let name = ServerName::try_from(name.to_owned()).map_err(|error| TlsError::Settings(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config(settings).await?));
    let connected = timeout(HANDSHAKE_LIMIT, connector.connect(name, target)).await;
    Ok(Box::new(connected.map_err(|_| TlsError::TimedOut)??))
}

async fn config(settings: &TargetSettings) -> Result<ClientConfig, TlsError> {
    let bad = |error: &dyn std::fmt::Display| TlsError::Settings(error.to_string());
    let trusted = match &settings.tls.ca_pem {
        Some(pem) => CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(&format!("the stored certificates are damaged ({error})")))?,
        None => SYSTEM_ROOTS.get_or_init(system_roots).await.clone(),
    };
    let mut roots = RootCertStore::empty();
    let (usable, _left_out) = roots.add_parsable_certificates(trusted.iter().cloned());
    if usable == 0 {
        return Err(bad(&"no certificate of an authority is known here that could be trusted; store the target's"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = Verifier {
        inner: verifier.map_err(|error| bad(&error))?,
        provider: provider.clone(),
        // System roots are authorities, never a server's own certificate.
        pinned: settings.tls.ca_pem.as_ref().map(|_| trusted).unwrap_or_default(),
        any_name: settings.tls.mode != TlsMode::VerifyFull,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| bad(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

async fn system_roots() -> Vec<CertificateDer<'static>> {
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    loaded.map(|loaded| loaded.certs).unwrap_or_default()
}

/// The library's verifier, with two things that its own does not offer: a certificate that is itself stored is good
/// whatever signed it, and under `require` the name does not count.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    pinned: Vec<CertificateDer<'static>>,
    any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            if !self.any_name {
                verify_server_name(&certificate, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified before the name.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use munjigi_core::target::{TargetKind, TargetTls};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Authority {
        certificate: rcgen::Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: Issuer::from_ca_cert_der(certificate.der(), key).unwrap(), certificate }
    }

    fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    fn settings(mode: TlsMode, name: &str, ca_pem: Option<String>) -> TargetSettings {
        TargetSettings {
            address: "db.internal:5432".parse().unwrap(),
            kind: TargetKind::Postgres,
            through: Vec::new(),
            local_port: None,
            database: None,
            inspect: true,
            record_parameters: false,
            allow_load_local: false,
            tls: TargetTls { mode, server_name: Some(name.to_owned()), ca_pem },
        }
    }

    /// Tries a handshake, and says what the client's side says.
    async fn attempt(server: &Arc<ServerConfig>, settings: &TargetSettings) -> Result<(), String> {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let accepting = tokio::spawn(accept(server.clone(), Box::new(far)));
        let connected = connect(settings, Box::new(near)).await.map_err(|error| error.to_string());
        let accepted = accepting.await.unwrap();
        let mut near = connected?;
        let mut far = accepted.unwrap();
        near.write_all(b"hello").await.unwrap();
        near.flush().await.unwrap();
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        Ok(())
    }

    #[tokio::test]
    async fn a_target_is_trusted_by_its_authority_and_name_or_by_its_stored_certificate() {
        let (good, other) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["db.internal".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &good.issuer).unwrap();
        let by_authority = server(vec![leaf.der().clone()], &key);
        let mut params = CertificateParams::new(vec!["db.internal".to_owned()]).unwrap();
        // As `openssl req -x509` makes them.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own_making = params.self_signed(&key).unwrap();
        let by_itself = server(vec![own_making.der().clone()], &key);
        let (good, other, own) = (good.certificate.pem(), other.certificate.pem(), own_making.pem());
        for (server, mode, name, ca, trusted) in [
            (&by_authority, TlsMode::VerifyFull, "db.internal", Some(&good), true),
            (&by_authority, TlsMode::VerifyFull, "other.internal", Some(&good), false),
            (&by_authority, TlsMode::VerifyFull, "db.internal", Some(&other), false),
            (&by_authority, TlsMode::VerifyFull, "db.internal", None, false),
            (&by_authority, TlsMode::Require, "other.internal", Some(&good), true),
            (&by_authority, TlsMode::Require, "10.0.0.7", Some(&good), true),
            (&by_authority, TlsMode::Require, "db.internal", Some(&other), false),
            (&by_authority, TlsMode::Require, "db.internal", None, false),
            (&by_itself, TlsMode::VerifyFull, "db.internal", Some(&own), true),
            (&by_itself, TlsMode::VerifyFull, "other.internal", Some(&own), false),
            (&by_itself, TlsMode::Require, "other.internal", Some(&own), true),
            (&by_itself, TlsMode::Require, "db.internal", Some(&good), false),
        ] {
            let outcome = attempt(server, &settings(mode, name, ca.cloned())).await;
            assert_eq!(outcome.is_ok(), trusted, "{mode:?} {name}: {outcome:?}");
        }
        let broken = settings(TlsMode::Require, "db.internal", Some("-----BEGIN CERTIFICATE-----\nAA\n".to_owned()));
        assert!(attempt(&by_itself, &broken).await.unwrap_err().contains("settings of the target"));
    }
}
