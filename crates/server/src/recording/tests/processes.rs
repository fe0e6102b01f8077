//! What only a process of its own can show: it is killed, its disk is full, its memory is counted. Each test starts
//! this test program again for one test, which acts as the child if the variable says so.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::*;

const CHILD: &str = "MUNJIGI_TEST_CHILD_PLACE";

/// Returns the place to work in if this process is a child.
fn child_place() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// The command that runs a test of this module as a child.
fn child(test: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("recording::tests::processes::{test}")]);
    command.env(CHILD, place).stdin(Stdio::null());
    command
}

/// A child that is ended whatever happens to the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_called_written() {
    if let Some(place) = child_place() {
        let recordings = recordings(&place);
        let recorder = recordings.create(&session(1), &meta(&session(1)), Mode::Normal).await.unwrap();
        let mut progress = recorder.progress();
        let mut at = 0;
        loop {
            print(&recorder, at, at + 40_000, 1009).await;
            at += 40_000;
            let written = progress.borrow_and_update().written_output;
            let mut out = std::io::stdout().lock();
            writeln!(out, "written {written}").unwrap();
            out.flush().unwrap();
        }
    }
    for round in 1..=5 {
        let place = place();
        let mut command = child("kill_9_loses_nothing_that_was_called_written", place.path());
        let mut running = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut written = 0;
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        while written < 500_000 * round {
            let line = lines.next().unwrap().unwrap();
            if let Some(number) = line.strip_prefix("written ") {
                written = number.parse().unwrap();
            }
        }
        drop(running);
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("written ").and_then(|number| number.parse().ok()) {
                written = number;
            }
        }
        let recordings = recordings(place.path());
        let (recorder, recovered) = recordings.reopen(&session(1), Mode::Normal).await.unwrap();
        assert!(recovered.output_end >= written, "{} < {written}", recovered.output_end);
        print(&recorder, recovered.output_end, recovered.output_end + 1000, 1000).await;
        recorder.seal(EndReason::Exited, None).await.unwrap();
        assert!(recordings.verify(&session(1)).await.unwrap().is_whole());
        let (_, bytes, _) = read_output(recordings.reader(&session(1), ReadFrom::Start).await.unwrap()).await;
        assert!(bytes == pattern(0, bytes.len()));
    }
}

/// Sessions that print until the disk is full end with a sealed recording of all that was taken.
#[tokio::test]
async fn on_a_full_disk_sessions_end_recorded_and_none_starts() {
    const SESSIONS: u64 = 20;
    if let Some(place) = child_place() {
        let recordings = recordings(&place);
        let mut recorders = Vec::new();
        for number in 0..SESSIONS {
            let recorder = recordings.create(&session(number), &meta(&session(number)), Mode::Normal).await.unwrap();
            recorders.push((recorder, 0));
        }
        while recorders.iter().all(|(recorder, _)| recorder.progress().borrow().failed.is_none()) {
            for (recorder, at) in &mut recorders {
                if recorder.backlog() < 64 * 1024 && recorder.append(output(*at, &pattern(*at, 50_000))).is_ok() {
                    *at += 50_000;
                }
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(recordings.disk_state().await.unwrap(), DiskState::Full);
        let late = session(999);
        let refused = recordings.create(&late, &meta(&late), Mode::Normal).await;
        assert!(matches!(refused, Err(RecordingError::DiskFull)));
        for (number, (recorder, at)) in (0..).zip(recorders) {
            let sealed = recorder.seal(EndReason::RecordingFailed, None).await.unwrap();
            assert_eq!(sealed.bytes_out, at, "session {number}");
            assert!(recordings.verify(&session(number)).await.unwrap().is_whole());
        }
        // After room is made, everything is as before. The last threads may hold a file for a moment.
        for number in 0..SESSIONS {
            std::fs::remove_file(path_of(&place, &session(number))).unwrap();
        }
        while recordings.disk_state().await.unwrap() != DiskState::Ok {
            tokio::task::yield_now().await;
        }
        let recorder = recordings.create(&late, &meta(&late), Mode::Normal).await.unwrap();
        recorder.append(output(0, b"again")).unwrap();
        recorder.seal(EndReason::Exited, None).await.unwrap();
        assert!(place.join("recordings/reserve").exists());
        return;
    }
    let place = place();
    let test = child("on_a_full_disk_sessions_end_recorded_and_none_starts", place.path());
    // A mount namespace of its own: the small file system is gone with the child.
    let script = "mount -t tmpfs -o size=24m tmpfs \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(place.path());
    command.arg(test.get_program()).args(test.get_args()).env(CHILD, place.path()).stdin(Stdio::null());
    if Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .status()
        .is_ok_and(|s| s.success())
    {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    } else {
        eprintln!("skipped: no user namespaces here to mount a small file system in");
    }
}

/// What a silent session costs, counted in a process that has nothing else.
#[tokio::test]
async fn ten_thousand_silent_recorders_stay_small() {
    /// Half of what a whole session may aim at (G18).
    const MOST_BYTES_EACH: usize = 12 * 1024;
    if let Some(place) = child_place() {
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        let count = 10_000.min(soft.saturating_sub(100));
        let recordings = Arc::new(recordings(&place));
        let warm = recordings.create(&session(99_999), &meta(&session(99_999)), Mode::Normal).await.unwrap();
        let before = resident_bytes();
        let mut recorders = vec![warm];
        for number in 0..count {
            let recorder = recordings.create(&session(number), &meta(&session(number)), Mode::Normal).await.unwrap();
            print(&recorder, 0, 20_000, 20_000).await;
            recorders.push(recorder);
        }
        for recorder in recorders.iter().skip(1) {
            recorder.progress().wait_for(|progress| progress.durable_output == 20_000).await.unwrap();
        }
        let each = (resident_bytes() - before) / recorders.len();
        println!("{count} recorders, {each} bytes each");
        assert!(each <= MOST_BYTES_EACH, "{each} bytes each");
        return;
    }
    let place = place();
    let output = child("ten_thousand_silent_recorders_stay_small", place.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("bytes each"));
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
