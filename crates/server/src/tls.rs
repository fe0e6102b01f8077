//! The server's certificate: a certification authority of the deployment's own, and a leaf that is renewed at start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::rand;
use munjigi_core::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of the leaf.
const LEAF_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// With less than this left, a third of its life, the leaf is renewed.
const RENEW_BELOW: Duration = Duration::from_secs(30 * 86_400);
/// Certificates begin this long ago, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// The certificates in use.
pub(crate) struct Tls {
    /// For the listener.
    pub(crate) config: Arc<ServerConfig>,
    /// The authority's certificate, for `ca.pem`.
    pub(crate) authority_pem: String,
}

/// What is remembered of the leaf beside its bytes.
#[derive(Serialize, Deserialize, PartialEq)]
struct Leaf {
    expires: Timestamp,
    names: BTreeSet<String>,
    /// Hexadecimal.
    certificate: String,
}

/// Opens the certificates, making or renewing what is needed. `names` are the hosts that the leaf is for.
pub(crate) async fn open(store: &Store, names: &BTreeSet<String>, now: Timestamp) -> anyhow::Result<Tls> {
    let (authority, authority_key) = authority(store, now).await?;
    let stored = store.setting("tls-leaf").await?.and_then(|bytes| serde_json::from_slice::<Leaf>(&bytes).ok());
    let stored_key = store.secret_setting("tls-leaf-key").await?;
    let (leaf, key) = match (stored, stored_key) {
        (Some(leaf), Some(key)) if leaf.names == *names && leaf.expires > now.plus(RENEW_BELOW) => {
            (hex::decode(leaf.certificate).context("the stored certificate is damaged")?, key.expose().clone())
        }
        _ => {
            let issuer = Issuer::from_ca_cert_der(&authority, authority_key)?;
            let key = KeyPair::generate()?;
            let certificate = leaf_params(names, LEAF_LIFE, now)?.signed_by(&key, &issuer)?.der().to_vec();
            let expires = now.plus(LEAF_LIFE);
            let leaf = Leaf { expires, names: names.clone(), certificate: hex::encode(&certificate) };
            // The key first: a leaf without its key is made anew, a key without its leaf as well.
            store.set_setting("tls-leaf", b"").await?;
            store.set_secret_setting("tls-leaf-key", key.serialized_der()).await?;
            store.set_setting("tls-leaf", &serde_json::to_vec(&leaf)?).await?;
            (certificate, key.serialize_der())
        }
    };
    let chain = vec![CertificateDer::from(leaf), authority.clone()];
    let key =
        PrivateKeyDer::try_from(key).map_err(|cause| anyhow::anyhow!("the server's TLS key is damaged: {cause}"))?;
    let config = munjigi_link::tls::server_config(chain, key).context("the server's certificate cannot be used")?;
    Ok(Tls { config, authority_pem: pem(&authority) })
}

/// Makes a certificate of the deployment's authority for some names, with a key of its own; nothing of it is stored.
pub(crate) async fn issue(
    store: &Store,
    names: &BTreeSet<String>,
    life: Duration,
    now: Timestamp,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (authority, authority_key) = authority(store, now).await?;
    let issuer = Issuer::from_ca_cert_der(&authority, authority_key)?;
    let key = KeyPair::generate()?;
    let certificate = leaf_params(names, life, now)?.signed_by(&key, &issuer)?.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|cause| anyhow::anyhow!("a new key: {cause}"))?;
    Ok((vec![certificate, authority], key))
}

async fn authority(store: &Store, now: Timestamp) -> anyhow::Result<(CertificateDer<'static>, KeyPair)> {
    if let (Some(certificate), Some(key)) = (store.setting("ca").await?, store.secret_setting("ca-key").await?) {
        let key = KeyPair::try_from(key.expose().as_slice()).context("the CA key in the database is damaged")?;
        return Ok((CertificateDer::from(certificate), key));
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Munjigi deployment CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    dated(&mut params, now, AUTHORITY_LIFE)?;
    let certificate = params.self_signed(&key)?;
    store.set_secret_setting("ca-key", key.serialized_der()).await?;
    store.set_setting("ca", certificate.der()).await?;
    Ok((certificate.der().clone(), key))
}

fn leaf_params(names: &BTreeSet<String>, life: Duration, now: Timestamp) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Munjigi server");
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().with_context(|| format!("{name:?} is no host name"))?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    dated(&mut params, now, life)?;
    Ok(params)
}

/// Sets validity and a random serial number.
fn dated(params: &mut CertificateParams, now: Timestamp, life: Duration) -> anyhow::Result<()> {
    let since_1970 = Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or_default());
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(BACKDATED);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970 + life;
    let mut serial = [0; 16];
    rand::fill(&mut serial).context("the system has no randomness")?;
    // A serial number is positive.
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
