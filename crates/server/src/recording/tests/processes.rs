//! What only a process of its own can show: it is killed, its disk is full, its memory is counted.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use super::*;
use crate::child::{self, Killed, said};

const HERE: &str = "recording::tests::processes";

#[tokio::test]
async fn kill_9_loses_nothing_that_was_called_written() {
    if let Some(place) = child::place() {
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
        let mut command =
            child::command(&format!("{HERE}::kill_9_loses_nothing_that_was_called_written"), place.path());
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
    if let Some(place) = child::place() {
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
        // After room is made, everything is as before: as soon as the last threads have let go of their files.
        for number in 0..SESSIONS {
            std::fs::remove_file(path_of(&place, &session(number))).unwrap();
        }
        let as_before = async {
            let mut number = 1000;
            while recordings.disk_state().await.unwrap() != DiskState::Ok || !place.join("recordings/reserve").exists()
            {
                let id = session(number);
                number += 1;
                if let Ok(recorder) = recordings.create(&id, &meta(&id), Mode::Normal).await {
                    recorder.append(output(0, b"again")).unwrap();
                    recorder.seal(EndReason::Exited, None).await.unwrap();
                    std::fs::remove_file(path_of(&place, &id)).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), as_before).await.expect("the disk never became usable again");
        return;
    }
    let place = place();
    let test = format!("{HERE}::on_a_full_disk_sessions_end_recorded_and_none_starts");
    let Some(mut command) = child::on_small_disk(&test, place.path(), "24m") else {
        eprintln!("skipped: no user namespaces here to mount a small file system in");
        return;
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("1 passed"));
}

/// What a silent session costs, counted in a process that has nothing else.
#[tokio::test]
async fn ten_thousand_silent_recorders_stay_small() {
    /// Half of what a whole session may aim at (G18).
    const MOST_BYTES_EACH: usize = 12 * 1024;
    if let Some(place) = child::place() {
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        let wanted = if child::in_memory(&place) { 10_000 } else { 500 };
        let count = wanted.min(soft.saturating_sub(100));
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
    let output =
        child::command(&format!("{HERE}::ten_thousand_silent_recorders_stay_small"), place.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    println!("{}", said.lines().find(|line| line.contains("bytes each")).expect("the child counted"));
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
