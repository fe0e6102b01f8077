//! The audit record of a call, filled field for field (aws-api E.1, E.2). Limits and escaping are `core::audit`'s.

use munjigi_core::audit::{
    AuditRecord, EVENT_VERSION, EventType, Resource, SessionAttributes, SessionContext, SessionIssuer, TlsDetails,
    UserIdentity, UserType, WebIdentityFederationData, parameters,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Decided, RequestMeta, Via};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Effect, Operation, Service, Wire};
use crate::identity::session_token::Statement;
use crate::identity::{Caller, Principal, PrincipalKind};

/// Who called, as far as is known.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    /// Authenticated.
    Caller(&'a Caller),
    /// Not authenticated; perhaps with a key id that proves nothing.
    Unknown(Option<&'a str>),
}

/// How the call went.
pub(crate) enum Outcome<'a> {
    /// Its output.
    Success(&'a Value),
    /// Its error.
    Failure(&'a ApiError),
}

/// A record being filled.
pub(crate) struct Event<'a> {
    service: Service,
    name: &'a str,
    effect: Effect,
    secret_fields: &'static [&'static str],
    server: &'a Server,
    request: &'a RequestMeta,
    who: Who<'a>,
    parameters: Option<&'a Value>,
    decisions: &'a [Decided],
    extras: Option<&'a Map<String, Value>>,
}

impl<'a> Event<'a> {
    /// Begins the record of an operation.
    pub(crate) fn of<O: Operation>(server: &'a Server, request: &'a RequestMeta, who: Who<'a>) -> Self {
        Self { secret_fields: O::SECRET_FIELDS, ..Self::named(server, request, who, O::SERVICE, O::NAME, O::EFFECT) }
    }

    /// Begins the record of an operation known by name.
    pub(crate) fn named(
        server: &'a Server,
        request: &'a RequestMeta,
        who: Who<'a>,
        service: Service,
        name: &'a str,
        effect: Effect,
    ) -> Self {
        Self {
            service,
            name,
            effect,
            secret_fields: &[],
            server,
            request,
            who,
            parameters: None,
            decisions: &[],
            extras: None,
        }
    }

    /// Sets the input.
    pub(crate) fn parameters(mut self, parameters: &'a Value) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// Sets what the operation tells beside its input.
    pub(crate) fn extras(mut self, extras: &'a Map<String, Value>) -> Self {
        self.extras = Some(extras);
        self
    }

    /// Sets what was required and decided.
    pub(crate) fn decisions(mut self, decisions: &'a [Decided]) -> Self {
        self.decisions = decisions;
        self
    }

    /// Completes the record.
    pub(crate) fn complete(self, outcome: Outcome<'_>) -> AuditRecord {
        let deployment = &self.server.deployment;
        let account = deployment.account.to_string();
        let error = match &outcome {
            Outcome::Failure(error) => Some(error),
            Outcome::Success(_) => None,
        };
        let response = match (&outcome, self.effect) {
            (Outcome::Success(output), Effect::Write) if !output.is_null() => Some(self.shown(output)),
            _ => None,
        };
        AuditRecord {
            event_version: EVENT_VERSION.to_owned(),
            user_identity: identity(self.who, &account),
            event_time: self.request.time,
            event_source: self.service.event_source().to_owned(),
            event_name: self.name.to_owned(),
            aws_region: deployment.region.to_string(),
            source_ip_address: self.request.source_ip.to_canonical().to_string(),
            user_agent: Some(self.request.user_agent.clone()),
            error_code: error.map(|error| self.trail_code(error)),
            error_message: error.map(ToString::to_string),
            request_parameters: self.parameters.map(|input| self.shown(input)),
            response_elements: response,
            additional_event_data: Some(self.additional_data(&outcome)),
            request_id: Some(self.request.request_id.to_string()),
            event_id: Uuid::new_v4().to_string(),
            read_only: self.effect == Effect::Read,
            resources: self.resources(&account),
            event_type: EventType::AwsApiCall,
            api_version: (self.service.wire() != Wire::Json).then(|| self.service.api_version().to_owned()),
            management_event: true,
            recipient_account_id: account,
            shared_event_id: None,
            vpc_endpoint_id: None,
            event_category: "Management".to_owned(),
            addendum: None,
            session_credential_from_console: None,
            edge_device_details: None,
            tls_details: self.request.tls.as_ref().map(|tls| TlsDetails {
                tls_version: tls.version.clone(),
                cipher_suite: tls.cipher_suite.clone(),
                client_provided_host_header: self.request.host.clone(),
            }),
        }
    }

    /// Returns an error's code as the trail has it: ec2's begin with whose fault it was.
    fn trail_code(&self, error: &ApiError) -> String {
        let code = error.code(self.service);
        match self.service.wire() {
            Wire::Ec2 if error.is_fault() => format!("Server.{code}"),
            Wire::Ec2 => format!("Client.{code}"),
            Wire::Json | Wire::Query => code.to_owned(),
        }
    }

    /// Returns input or output as the record shows it: lower-camel names, secrets hidden, absent members left out.
    fn shown(&self, value: &Value) -> Value {
        let mut shown = parameters(value, self.secret_fields);
        leave_out_null(&mut shown);
        shown
    }

    fn resources(&self, account: &str) -> Vec<Resource> {
        let mut resources: Vec<Resource> = Vec::new();
        for Decided { requirement, .. } in self.decisions.iter().filter(|one| one.requirement.resource != "*") {
            let resource = Resource {
                account_id: Some(account.to_owned()),
                kind: requirement.resource_type.map(ToOwned::to_owned),
                arn: requirement.resource.clone(),
            };
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
        resources
    }

    fn additional_data(&self, outcome: &Outcome<'_>) -> Value {
        let mut data = self.extras.cloned().unwrap_or_default();
        let proof = match self.who {
            Who::Caller(caller) => caller.ssh(),
            Who::Unknown(_) => None,
        };
        let method = match (proof, self.request.via) {
            (Some(proof), _) => proof.kind.method(),
            (None, Via::Api) => "AuthHeader",
            (None, Via::Link) => "Link",
            (None, Via::Ssh) => "Ssh",
        };
        data.insert("authenticationMethod".into(), method.into());
        match proof {
            Some(proof) => data.insert("ssh".into(), proof.shown()),
            None if self.request.via == Via::Ssh => None,
            None => data.insert("signatureVersion".into(), "SigV4".into()),
        };
        if let Some(id) = &self.request.invocation_id {
            data.insert("invocationId".into(), id.as_str().into());
        }
        if let Outcome::Failure(error) = outcome
            && let Some(reason) = error.reason()
        {
            data.insert("reason".into(), reason.into());
        }
        let statements: Vec<Value> = self
            .decisions
            .iter()
            .flat_map(|one| &one.decision.statements)
            .map(|s| json!({ "policyId": &*s.policy_id, "sid": s.sid.as_deref(), "statement": s.index }))
            .collect();
        if !statements.is_empty() {
            data.insert("matchedStatements".into(), statements.into());
        }
        Value::Object(data)
    }
}

fn identity(who: Who<'_>, account: &str) -> UserIdentity {
    let caller = match who {
        Who::Unknown(key) => {
            return UserIdentity { access_key_id: key.map(ToOwned::to_owned), ..UserIdentity::default() };
        }
        Who::Caller(caller) => caller,
    };
    let principal = caller.principal();
    let named = UserIdentity {
        principal_id: Some(principal.user_id().to_owned()),
        arn: Some(principal.arn.to_string()),
        account_id: Some(account.to_owned()),
        access_key_id: caller.access_key().map(ToString::to_string),
        session_context: principal.statement().map(|statement| session_context(principal, statement, account)),
        ..UserIdentity::default()
    };
    match principal.kind {
        PrincipalKind::User => {
            UserIdentity { kind: UserType::IAMUser, user_name: Some(principal.name.to_string()), ..named }
        }
        PrincipalKind::WebIdentity => match caller.web_identity() {
            Some(web) => UserIdentity {
                kind: UserType::WebIdentityUser,
                principal_id: Some(format!(
                    "{}:{}:{}",
                    web.identity.provider, web.identity.audience, web.identity.subject
                )),
                user_name: Some(web.identity.subject.clone()),
                identity_provider: Some(web.identity.provider.to_string()),
                ..UserIdentity::default()
            },
            None => UserIdentity::default(),
        },
        PrincipalKind::AssumedRole => UserIdentity { kind: UserType::AssumedRole, ..named },
        // As AWS shows its own agent: by the role that its node runs under.
        PrincipalKind::Service => UserIdentity { kind: UserType::AssumedRole, ..named },
        _ => UserIdentity::default(),
    }
}

fn session_context(principal: &Principal, statement: &Statement, account: &str) -> SessionContext {
    let session = principal.role_session();
    let web = session.and_then(|session| session.web_identity.as_ref());
    SessionContext {
        session_issuer: principal.role().map(|role| SessionIssuer {
            kind: "Role".to_owned(),
            principal_id: role.id.to_string(),
            arn: role.arn.to_string(),
            account_id: account.to_owned(),
            user_name: role.name.to_string(),
        }),
        web_id_federation_data: web.map(|web| WebIdentityFederationData {
            federated_provider: web.provider.to_string(),
            attributes: [("sub", &web.subject), ("aud", &web.audience)]
                .map(|(name, value)| (name.to_owned(), Value::String(value.clone())))
                .into_iter()
                .collect(),
        }),
        source_identity: session.and_then(|session| session.source_identity.clone()),
        attributes: Some(SessionAttributes {
            creation_date: statement.issued.to_iso_seconds(),
            mfa_authenticated: statement.mfa.is_some().to_string(),
        }),
        ..SessionContext::default()
    }
}

fn leave_out_null(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(leave_out_null);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_null),
        _ => {}
    }
}
