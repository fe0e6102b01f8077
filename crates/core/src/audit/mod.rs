//! The audit record (CloudTrail form), its hash chain and signed checkpoints, as bytes.
