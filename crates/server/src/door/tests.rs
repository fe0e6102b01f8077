//! The door with operations that misbehave.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{RequestMeta, Via, call};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::testing::TestServer;

#[derive(Debug, Deserialize, Serialize)]
struct Input {
    password: String,
}

/// Panics when it runs.
struct Panics;

impl Operation for Panics {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "Panics";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Caller;
    const SECRET_FIELDS: &'static [&'static str] = &["password"];
    type Input = Input;
    type Output = ();

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, _: &Arc<Server>) -> Result<(), ApiError> {
        if call.input().password.is_empty() { Ok(()) } else { panic!("of {}", Self::NAME) }
    }
}

/// Forgets to say what it needs.
struct Forgetful;

impl Operation for Forgetful {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "Forgetful";
    const EFFECT: Effect = Effect::Write;
    type Input = Input;
    type Output = ();

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(Vec::new())
    }

    async fn run(_: &Authorized<Self>, _: &Arc<Server>) -> Result<(), ApiError> {
        Ok(())
    }
}

fn request() -> RequestMeta {
    RequestMeta {
        request_id: uuid::Uuid::new_v4(),
        time: crate::clock::now(),
        source_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        user_agent: "test\u{1b}[31m".to_owned(),
        referer: None,
        tls: None,
        host: String::new(),
        region: "local-1".to_owned(),
        invocation_id: None,
        via: Via::Link,
    }
}

fn admin(test: &TestServer) -> Caller {
    let key = test.admin.access_key_id.parse().unwrap();
    let (_, principal) = test.server().identities.by_access_key(&key).unwrap();
    Caller::new(principal, Some(key))
}

#[tokio::test]
async fn a_panic_is_a_fault_in_the_trail_and_secrets_are_not() {
    let test = TestServer::start().await;
    let (caller, request) = (admin(&test), request());
    let id = request.request_id.to_string();
    let input = serde_json::from_value(json!({ "password": "hunter2" })).unwrap();
    let error = call::<Panics>(test.server(), &caller, input, request).await.unwrap_err();
    assert_eq!(error.code(Service::Munjigi), "InternalServerError");
    let record = test.trail(&id).pop().unwrap();
    assert!(record.contains("\"errorCode\":\"InternalServerError\""), "{record}");
    assert!(record.contains("HIDDEN_DUE_TO_SECURITY_REASONS") && !record.contains("hunter2"), "{record}");
    assert!(!record.contains('\u{1b}'), "{record}");
    test.stop().await;
}

#[tokio::test]
async fn an_operation_that_requires_nothing_is_open_to_nobody() {
    let test = TestServer::start().await;
    let input = serde_json::from_value(json!({ "password": "" })).unwrap();
    let error = call::<Forgetful>(test.server(), &admin(&test), input, request()).await.unwrap_err();
    assert_eq!(error.code(Service::Munjigi), "InternalServerError");
    test.stop().await;
}
