//! For tests: a started server, and calls through its door as any user.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::WireInput;
use super::error::ApiError;
use super::operation::Service;
use super::{query, table};
use crate::door::{RequestMeta, Via};
use crate::identity::Caller;
use crate::testing::TestServer;
use crate::{Server, clock};

/// A server of its own, called past the wire forms.
pub(crate) struct Desk(TestServer);

impl Desk {
    /// Starts a server with its administrator.
    pub(crate) async fn open() -> Self {
        Self(TestServer::start().await)
    }

    /// Returns the server.
    pub(crate) fn server(&self) -> &Arc<Server> {
        self.0.running.server()
    }

    /// Returns everything in the data directory's audit trail.
    pub(crate) fn trail(&self) -> String {
        let mut all = String::new();
        let mut left = vec![self.0.directory.path().join("data/audit")];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                all.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
            }
        }
        all
    }

    /// Calls an operation as a user, by name.
    pub(crate) async fn call(
        &self,
        user: &str,
        service: Service,
        operation: &str,
        input: Value,
    ) -> Result<Value, ApiError> {
        self.wire(self.caller(user).await, service, operation, WireInput::Json(input)).await
    }

    /// Calls an operation of IAM as the administrator.
    pub(crate) async fn iam(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.call("admin", Service::Iam, operation, input).await
    }

    /// Calls an operation of SSM as the administrator.
    pub(crate) async fn ssm(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.call("admin", Service::Ssm, operation, input).await
    }

    /// Calls an operation that is open to all.
    pub(crate) async fn open_call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.wire(Caller::anonymous(), Service::Munjigi, operation, WireInput::Json(input)).await
    }

    /// Calls an operation of IAM as the administrator with a form, as it comes over the wire.
    pub(crate) async fn form(&self, form: &str) -> Result<Value, ApiError> {
        let form = query::Form::parse(form.as_bytes()).unwrap();
        let operation = form.action.clone();
        self.wire(self.caller("admin").await, Service::Iam, &operation, WireInput::Form(form)).await
    }

    /// Makes a user with one inline policy of one statement.
    pub(crate) async fn user(&self, name: &str, statement: Value) {
        self.iam("CreateUser", json!({ "UserName": name })).await.unwrap();
        let document = json!({ "Version": "2012-10-17", "Statement": statement }).to_string();
        let put = json!({ "UserName": name, "PolicyName": "own", "PolicyDocument": document });
        self.iam("PutUserPolicy", put).await.unwrap();
    }

    /// Stops the server.
    pub(crate) async fn close(self) {
        self.0.running.shutdown().await;
    }

    async fn caller(&self, user: &str) -> Caller {
        let server = self.server();
        let user = server.store.user(user).await.unwrap();
        Caller::new(server.identities.by_unique_id(&user.id).unwrap(), None)
    }

    async fn wire(
        &self,
        caller: Caller,
        service: Service,
        operation: &str,
        input: WireInput,
    ) -> Result<Value, ApiError> {
        let entry = table::find(service, operation).unwrap_or_else(|| panic!("{operation} is not in the table"));
        let meta = RequestMeta {
            request_id: Uuid::new_v4(),
            time: clock::now(),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            user_agent: "test".into(),
            referer: None,
            tls: None,
            host: "localhost".into(),
            region: "local-1".into(),
            invocation_id: None,
            via: Via::Api,
        };
        (entry.invoke)(self.server().clone(), caller, input, meta).await
    }
}

/// Returns the code of a refusal.
pub(crate) fn code(service: Service, result: Result<Value, ApiError>) -> &'static str {
    match result {
        Err(error) => error.code(service),
        Ok(output) => panic!("not refused: {output}"),
    }
}
