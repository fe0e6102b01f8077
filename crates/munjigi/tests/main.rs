//! Integration tests: the real binary as server, agent and client, with the real programs of others against it.
//!
//! One module per behaviour; `harness` starts and stops things. Every process is ended by the id it was started with,
//! every directory is temporary.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where what it needs is not there"
)]

mod harness;

mod accounts;
mod aws_calls;
mod aws_door;
mod aws_keys;
mod aws_plugin;
mod aws_ports;
mod conformance;
mod contract;
mod copy;
mod documents;
mod faults;
mod forward;
mod forward_policy;
mod hostile;
mod independent_client;
mod instance_connect;
mod lanes;
mod mysql;
mod pace;
mod peers;
mod ports;
mod postgres;
mod rdp;
mod sessions;
mod ssh_bad_certificates;
mod ssh_certificates;
mod ssh_config;
mod ssh_door;
mod ssh_files;
mod ssh_forwards;
mod ssh_hostile;
mod ssh_keys;
mod ssh_peers;
mod ssh_probing;
mod ssh_sessions;
mod ssh_targets;
mod ssm_agent;
mod sts;
mod targets;
mod terminal;
