//! A slow disk, a failing one and a full one.

use std::sync::atomic::Ordering;

use super::*;

#[tokio::test]
async fn what_waits_for_a_slow_disk_is_bounded() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    let piece = vec![0; 60_000];
    let appended = {
        let _slow = recorder.log().hold();
        let mut at = 0;
        loop {
            match recorder.append(output(at, &piece)) {
                Ok(_) => at += 60_000,
                Err(RecordingError::Overrun) => break at,
                Err(error) => panic!("{error}"),
            }
            assert!(at < 5_000_000, "not bounded");
            assert!(recorder.backlog() as u64 >= at);
        }
    };
    recorder.progress().wait_for(|progress| progress.written_output == appended).await.unwrap();
    assert_eq!(recorder.backlog(), 0);
    recorder.append(output(appended, b"goes on")).unwrap();
    recorder.seal(EndReason::Exited, None).await.unwrap();
    assert!(recordings.verify(&id).await.unwrap().is_whole());
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_appended_and_the_seal_goes_through_a_fresh_descriptor() {
    // (syncs that fail, whether one fails before the seal)
    for (number, (failing, before)) in (0..).zip([(1, true), (1, false)]) {
        let place = place();
        let recordings = recordings(place.path());
        let id = session(number);
        let recorder = recordings.create(&id, &meta(&id), Mode::Strict).await.unwrap();
        recorder.append(output(0, &pattern(0, 3000))).unwrap();
        recorder.progress().wait_for(|progress| progress.durable_output == 3000).await.unwrap();
        recorder.log().failing_syncs.store(failing, Ordering::SeqCst);
        recorder.append(output(3000, &pattern(3000, 3000))).unwrap();
        if before {
            let mut progress = recorder.progress();
            let why = progress.wait_for(|progress| progress.failed.is_some()).await.unwrap().failed.clone().unwrap();
            assert!(why.contains("sync"), "{why}");
            assert!(matches!(recorder.append(output(6000, b"x")), Err(RecordingError::Failed(_))));
            assert_eq!(recorder.progress().borrow().durable_output, 3000, "what failed is never called durable");
        }
        let sealed = recorder.seal(EndReason::RecordingFailed, None).await.unwrap();
        assert_eq!(sealed.bytes_out, 6000);
        let verdict = recordings.verify(&id).await.unwrap();
        assert!(verdict.is_whole());
        assert_eq!(verdict.hash, sealed.hash);
        assert!(lock(&recordings.shared.live).is_empty());
    }
}

#[tokio::test]
async fn a_disk_that_fails_for_good_leaves_an_intact_unsealed_recording() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Strict).await.unwrap();
    recorder.log().failing_syncs.store(usize::MAX, Ordering::SeqCst);
    recorder.append(output(0, b"shown")).unwrap();
    recorder.progress().wait_for(|progress| progress.failed.is_some()).await.unwrap();
    assert!(recorder.seal(EndReason::RecordingFailed, None).await.is_err());
    assert!(recordings.verify(&id).await.unwrap().is_intact());
    assert!(lock(&recordings.shared.live).is_empty(), "nothing is left behind");
    let other = session(2);
    let recorder = recordings.create(&other, &meta(&other), Mode::Strict).await.unwrap();
    recorder.seal(EndReason::Exited, None).await.unwrap();
}

#[tokio::test]
async fn events_out_of_order_end_the_recording_but_not_its_seal() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    recorder.append(output(5, b"a gap before")).unwrap();
    let mut progress = recorder.progress();
    let failed = progress.wait_for(|progress| progress.failed.is_some()).await.unwrap().failed.clone().unwrap();
    assert!(failed.contains("out of order"), "{failed}");
    recorder.seal(EndReason::RecordingFailed, None).await.unwrap();
    assert!(recordings.verify(&id).await.unwrap().is_whole());
}
