//! `PutTarget`: makes a target, or makes one what it shall be; doing it twice is doing it once.
//!
//! A credential is taken and never given back. Whoever may put a target decides where its connections go and through
//! which nodes, so policies can ask for the destination here too.

use std::sync::Arc;

use munjigi_core::secret::Secret;
use munjigi_core::target::{
    MAX_WORD_BYTES, Selector, TargetAddress, TargetKind, TargetName, TargetSettings, TargetTls, valid_word,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::target::{Shown, refused};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::managed_node::tags_changed;
use crate::api::ssm::start_session::to;
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::{self, CredentialChange};
use crate::targets;

/// Longest password in bytes: tokens that stand for passwords are longer than passwords.
const MAX_PASSWORD_BYTES: usize = 4096;

/// The operation.
pub struct PutTarget;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: TargetName,
    /// Where it is, as its nodes see it: `HOST:PORT`; `localhost` is the node itself.
    pub address: TargetAddress,
    /// What it speaks.
    pub kind: TargetKind,
    /// The nodes it is reached through: names, ids, or tags (`Key=Value`, with commas where all must be there).
    pub through: Vec<Selector>,
    /// Its tags; those it has stay if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagList>,
    /// The port that clients listen on where nobody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// The database that is opened where nobody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whether the gateway ends the protocol, logs in with the credential and records every statement.
    #[serde(default)]
    pub inspect: bool,
    /// Whether it records values bound to statements too.
    #[serde(default)]
    pub record_parameters: bool,
    /// Whether the server may ask the client for files.
    #[serde(default)]
    pub allow_load_local: bool,
    /// How its TLS is spoken.
    #[serde(default)]
    pub tls: TargetTls,
    /// As whom the gateway logs in; what is stored stays if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Removes the stored credential.
    #[serde(default)]
    pub remove_credential: bool,
}

/// As whom the gateway logs in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Credential {
    /// The user of the database.
    pub user_name: String,
    /// Its password, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
}

/// A password on its way into the store.
#[derive(Debug)]
pub struct Password(Secret<String>);

/// Says that there is one, for the audit record.
impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("HIDDEN_DUE_TO_SECURITY_REASONS")
    }
}

/// Errors of serde show what they found, which may be a password in the wrong place; this one's show nothing.
impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        struct Given {
            user_name: String,
            #[serde(default)]
            password: Option<Text>,
        }
        struct Text(Secret<String>);
        impl<'de> Deserialize<'de> for Text {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
            }
        }
        let given = Given::deserialize(deserializer)
            .map_err(|_| de::Error::custom("Credential must hold UserName and, if the user has one, Password"))?;
        if !valid_word(&given.user_name) {
            return Err(de::Error::custom(format!(
                "UserName must have 1 to {MAX_WORD_BYTES} bytes and no control characters"
            )));
        }
        let good = |password: &Text| {
            let text = password.0.expose();
            (1..=MAX_PASSWORD_BYTES).contains(&text.len()) && !text.contains('\0')
        };
        if given.password.as_ref().is_some_and(|password| !good(password)) {
            let message = format!("Password must have 1 to {MAX_PASSWORD_BYTES} bytes and no NUL");
            return Err(de::Error::custom(message));
        }
        Ok(Self { user_name: given.user_name, password: given.password.map(|text| Password(text.0)) })
    }
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The target as it is now.
    pub target: Shown,
}

impl Input {
    fn settings(&self) -> TargetSettings {
        TargetSettings {
            address: self.address.clone(),
            kind: self.kind,
            through: self.through.clone(),
            local_port: self.local_port,
            database: self.database.clone(),
            inspect: self.inspect,
            record_parameters: self.record_parameters,
            allow_load_local: self.allow_load_local,
            tls: self.tls.clone(),
        }
    }

    fn change(&self) -> Result<CredentialChange<'_>, ApiError> {
        match (&self.credential, self.remove_credential) {
            (Some(_), true) => {
                Err(ApiError::Validation("a credential is either given or removed, not both".to_owned()))
            }
            (None, true) => Ok(CredentialChange::Remove),
            (None, false) => Ok(CredentialChange::Keep),
            (Some(given), false) => {
                let password = given.password.as_ref().map(|password| &password.0);
                Ok(CredentialChange::Set { user_name: &given.user_name, password })
            }
        }
    }
}

impl Operation for PutTarget {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "PutTarget";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["Password"];
    const EXAMPLE: &'static str =
        r#"{"Name":"example","Address":"db.internal:5432","Kind":"postgres","Through":["Role=bastion"]}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        const ACTION: &str = "munjigi:PutTarget";
        let found = targets::find(server, input.name.as_str()).await.map_err(refused)?;
        let needed = targets::requirement(server, ACTION, &input.name, found.as_ref());
        let new = to(needed.clone(), Some(input.address.destination())).with("munjigi:TargetKind", input.kind.as_str());
        let new = match &input.tags {
            Some(tags) => new.request_tags(tags.pairs()),
            None => new,
        };
        // Whoever changes one must be allowed what it was, too.
        let old = found.map(|old| to(needed, Some(old.settings.address.destination())));
        Ok(old.into_iter().chain([new]).collect())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let (settings, credential) = (input.settings(), input.change()?);
        let has_user = match credential {
            CredentialChange::Set { .. } => true,
            CredentialChange::Remove => false,
            CredentialChange::Keep => {
                let found = targets::find(server, input.name.as_str()).await.map_err(refused)?;
                found.is_some_and(|target| target.user_name.is_some())
            }
        };
        settings.check(has_user).map_err(|error| ApiError::Validation(error.to_string()))?;
        if let Some(pem) = &settings.tls.ca_pem {
            check_certificates(pem)?;
        }
        let tags = input.tags.as_deref();
        let put = store::PutTarget { name: &input.name, settings: &settings, credential, tags };
        let target = server.store.put_target(&put, call.request().time).await.map_err(refused)?;
        tags_changed(server);
        let nodes = targets::all_nodes(server).await?;
        Ok(Output { target: Shown::of(server, target, &nodes) })
    }
}

/// Checks that text holds certificates that can be trusted as authorities.
fn check_certificates(pem: &str) -> Result<(), ApiError> {
    let refuse = || ApiError::Validation("CaPem must hold certificates in PEM, and nothing else".to_owned());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| refuse())?).map_err(|_| refuse())?;
    }
    if roots.is_empty() { Err(refuse()) } else { Ok(()) }
}
