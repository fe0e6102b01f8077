//! The agent's two halves as real processes against a stand-in for the server that speaks the real link.
//!
//! This program is the agent as well: `agent run` and `agent link-half` lead into it, as they do in `munjigi`. Hence a
//! small runner of its own; it takes a filter like the usual one.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what failed by panicking, and its runner prints"
)]

mod agent;
mod copying;
mod dying;
mod grants;
mod identity;
mod ports;
mod programs;
mod server;
mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A test: its name and what it does.
type Test = (&'static str, fn());

/// Runs an async test on a runtime of its own.
macro_rules! tests {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), || block_on($module::$name()))),+]
    };
}

const TESTS: &[Test] = tests![
    programs::a_shell_runs_as_its_user_with_nothing_inherited,
    programs::a_terminal_has_its_size_before_the_first_prompt,
    programs::no_login_is_recorded_when_the_node_says_so,
    programs::output_and_errors_stay_apart_and_the_exit_code_comes_last,
    programs::a_signal_that_ends_the_program_is_named,
    programs::signals_reach_the_foreground_program,
    programs::a_documents_profile_and_variables_reach_the_program,
    programs::what_cannot_run_is_reported_as_a_shell_would,
    programs::the_end_of_input_is_an_end_for_pipes_and_terminals,
    programs::what_a_session_leaves_behind_ends_with_it,
    programs::an_ended_session_hangs_up_and_then_kills,
    grants::a_grant_that_is_not_exactly_right_starts_nothing,
    grants::accounts_that_may_not_log_in_start_nothing,
    streams::output_beyond_the_ring_stops_the_program_and_loses_nothing,
    streams::both_ways_full_at_once_stall_nothing,
    streams::a_broken_link_loses_and_doubles_nothing,
    ports::eight_connections_carry_both_ways_and_end_by_halves,
    ports::a_hundred_megabytes_arrive_unchanged_whoever_is_slow,
    ports::what_may_not_be_reached_is_refused_with_its_reason,
    ports::a_node_whose_owner_forwards_nothing_starts_no_port_session,
    ports::an_endpoint_that_is_new_to_a_session_needs_a_grant_of_its_own,
    ports::the_end_of_a_port_session_cuts_its_connections,
    ports::what_breaks_on_one_side_breaks_on_the_other,
    ports::a_port_session_outlives_a_killed_link_half,
    copying::files_go_both_ways_as_the_user_and_nowhere_that_no_grant_names,
    copying::a_copy_ends_with_its_session_and_leaves_nothing_behind,
    dying::a_killed_link_half_loses_and_doubles_nothing,
    dying::a_killed_privileged_half_takes_its_shells_along,
    dying::a_killed_keeper_takes_its_shells_along,
    dying::a_stopped_agent_ends_its_sessions_and_says_zero,
    dying::nothing_listens_and_the_link_half_can_start_nothing,
    identity::joining_running_and_leaving,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["agent", "link-half"] => {
            return agent::as_process(|| munjigi_agent::link_half_main().map(|()| ExitCode::SUCCESS));
        }
        ["agent", "copy-worker"] => {
            return agent::as_process(|| munjigi_agent::copy_worker_main().map(|()| ExitCode::SUCCESS));
        }
        ["agent", "run", directory] => {
            let data_dir = directory.into();
            return agent::as_process(|| munjigi_agent::run(&munjigi_agent::RunOptions { data_dir }));
        }
        _ => {}
    }
    let filters: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    if words.contains(&"--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Test> =
        TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f))).collect();
    println!("\nrunning {} tests", chosen.len());
    let begun = Instant::now();
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(()) => println!("test {name} ... ok"),
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(*name);
            }
        }
    }
    let (passed, out) = (chosen.len() - failed.len(), TESTS.len() - chosen.len());
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {out} filtered out; finished in {:.2}s\n",
        failed.len(),
        begun.elapsed().as_secs_f32()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // The only limit on time: a hang is a failure, whatever the machine's speed.
        tokio::time::timeout(std::time::Duration::from_secs(120), test).await.expect("the test hangs");
    });
}
