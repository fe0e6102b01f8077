//! Munjigi: server, agent and client in one binary. Here a command is chosen, run, and turned into an exit status.
#![deny(unsafe_code)]

mod cli;
mod client;
mod command;
mod plugin;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use client::text::escaped;
use client::wish::Outcome;
use command::Finish;
use munjigi_core::session::{EndReason, Signal};

/// Our own failures where the status otherwise belongs to the remote program, as `ssh` has it.
const SESSION_FAILED: u8 = 255;
/// As a shell reports a program whose reader has gone.
const OUTPUT_CLOSED: u8 = 141;
/// Our own failures everywhere else. Wrong usage is 2, which the argument parser sees to.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // sshd waits for it at every login.
    if let Some(code) = command::authorized_keys::run_at_once() {
        return code;
    }
    // Before anything uses TLS: the provider is chosen once, by us. It fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    client::terminal::restore_on_panic();
    let mut arguments = std::env::args_os();
    let (finish, own_failure) = if plugin::is_called(arguments.next().as_deref()) {
        log_to_stderr(0);
        (plugin::run(arguments), SESSION_FAILED)
    } else {
        let cli = cli::Cli::parse();
        log_to_stderr(cli.verbose);
        let own_failure = if cli.command.runs_a_session() { SESSION_FAILED } else { FAILED };
        (command::run(cli.command), own_failure)
    };
    let status = match finish {
        Ok(Finish::Done) => 0,
        Ok(Finish::Problems) => FAILED,
        Ok(Finish::Agent(code)) => return code,
        Ok(Finish::Status(status)) => status,
        Ok(Finish::Session(outcome)) => session_status(outcome),
        Err(error) if output_was_closed(&error) => OUTPUT_CLOSED,
        Err(error) => {
            say(&format!("{error:#}"));
            own_failure
        }
    };
    ExitCode::from(status)
}

/// Turns the end of a session into a status, and says on standard error what the status alone does not.
fn session_status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ended { reason, message, exit } => {
            let is_orderly = reason == Some(EndReason::Exited);
            if !is_orderly {
                let why = reason.map_or("the session ended", EndReason::sentence);
                let words = if message.is_empty() { why.to_owned() } else { escaped(&message) };
                say(&words);
            }
            // A session of connections has no program whose status would say that it was ended.
            match exit.map(|exit| status(exit.shell_code())) {
                Some(0) if !is_orderly => SESSION_FAILED,
                found => found.unwrap_or(SESSION_FAILED),
            }
        }
        Outcome::Refused { code, message } => {
            say(&client::api::refusal_text(&code, &message));
            SESSION_FAILED
        }
        Outcome::Detached { session_id } => {
            say(&format!("left the session running; `munjigi attach {session_id}` comes back to it"));
            0
        }
        Outcome::Left { running: Some(id) } => {
            say(&format!("left the session running; `munjigi attach {id}` comes back to it"));
            SESSION_FAILED
        }
        Outcome::Left { running: None } => {
            say("ended the session");
            SESSION_FAILED
        }
        Outcome::OutputClosed => OUTPUT_CLOSED,
        Outcome::Interrupted(signal) => status(128 + number(signal)),
        Outcome::Lost(why) => {
            say(&escaped(&why));
            SESSION_FAILED
        }
    }
}

fn status(code: i32) -> u8 {
    // What a shell would show: the low eight bits.
    (code & 0xff) as u8
}

fn number(signal: Signal) -> i32 {
    i32::from(signal.to_byte())
}

fn output_was_closed(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// A message of ours: one line on standard error. If even that cannot be written there is nobody to tell.
fn say(message: &str) {
    let _ = writeln!(io::stderr().lock(), "munjigi: {message}");
}

/// Warnings only, unless `-v` or `RUST_LOG` ask for more.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).init();
}
