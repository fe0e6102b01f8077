//! The policy engine: IAM documents and a request in, a decision with its reasons out.
