//! The calls of Session Manager and EC2 Instance Connect by boto3: what they answer, and AWS's own codes for what is wrong.

use std::process::Command;

use crate::harness::{TestServer, python_tool, success};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/aws_calls.py");

#[test]
fn boto3_calls_every_operation_and_gets_awss_own_codes_for_what_is_wrong() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    let mut program = Command::new(python_tool("python3"));
    program.arg(PROGRAM).env("NODE", &agent.node).env("AWS_EC2_METADATA_DISABLED", "true");
    server.configure(&mut program);
    assert_eq!(success(&mut program).trim(), "ok");
}
