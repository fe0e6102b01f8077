//! The system's own programs: run with an argument list, an empty environment and a time limit, from fixed paths.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long one may take; those that change accounts wait for each other's lock on the account files.
const LIMIT: Duration = Duration::from_secs(20);
/// How often it is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(10);
/// Directories that are looked into; no search path that somebody else might have set.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Most bytes that are kept of what a program complains about.
const MAX_COMPLAINT: u64 = 256;

/// Returns where a program is, if it is there.
pub(crate) fn find(name: &str) -> Option<String> {
    PLACES.iter().map(|place| format!("{place}/{name}")).find(|path| Path::new(path).exists())
}

/// Runs a program to its end; an error says what it complained about.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", PLACES.join(":")).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let mut complaint = Vec::new();
                if let Some(errors) = child.stderr.take() {
                    // What cannot be read is left out.
                    let _ = errors.take(MAX_COMPLAINT).read_to_end(&mut complaint);
                }
                let text = String::from_utf8_lossy(&complaint).escape_default().to_string();
                return Err(format!("{program} ended with {status}: {text}"));
            }
            Ok(None) if begun.elapsed() < LIMIT => thread::sleep(PAUSE),
            Ok(None) => {
                // Killed and reaped: nothing of it stays. Errors mean that it ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} did not end within {} s", LIMIT.as_secs()));
            }
            Err(error) => return Err(format!("{program} cannot be waited for: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_complains_about_is_told() {
        assert_eq!(run("/bin/true", &[]), Ok(()));
        let error = run("/bin/sh", &["-c", "echo broken >&2; exit 3"]).unwrap_err();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
        assert!(run("/no/such/program", &[]).is_err());
        assert!(find("sh").is_some() && find("no-such-program").is_none());
    }
}
