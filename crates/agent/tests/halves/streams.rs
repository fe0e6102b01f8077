//! Back-pressure, both ways at once, and links that break in the middle.

use std::time::Duration;

use munjigi_core::grant::Action;
use munjigi_core::wire::Frame;
use tokio::time::timeout;

use crate::agent::{Agent, user};
use crate::server::Server;

/// Numbered lines, about 1.4 MB.
const NUMBERS: u32 = 200_000;

fn numbered() -> String {
    (1..=NUMBERS).map(|number| format!("{number}\n")).collect()
}

/// Returns a process's resident size in KiB.
fn resident(pid: nix::unistd::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub(crate) async fn output_beyond_the_ring_stops_the_program_and_loses_nothing() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let script = format!("seq 1 {NUMBERS}; echo done >&2");
    let mut session = server.command(&link, &user().name, &["sh", "-c", &script]).await;
    // Read without acknowledging: the agent may forget nothing, so it stops after about one ring.
    let mut quiet = 0;
    while quiet < 3 {
        match timeout(Duration::from_millis(200), session.read()).await {
            Ok(read) => assert!(read.is_some()),
            Err(_) => quiet += 1,
        }
    }
    assert!(session.received > 512 * 1024 && session.received <= 1024 * 1024, "{}", session.received);
    assert!(session.errors.is_empty(), "the program is stopped");
    assert!(resident(agent.link_half()) < 24 * 1024);
    // Another session is not slowed.
    let mut other = server.command(&link, &user().name, &["echo", "here"]).await;
    assert_eq!(other.finish().await.code, Some(0));
    session.writer.send(&Frame::OutputAck(session.received)).await.unwrap();
    assert_eq!(session.finish().await.code, Some(0));
    assert!(session.text() == numbered());
    assert_eq!(session.errors, b"done\n");
}

pub(crate) async fn both_ways_full_at_once_stall_nothing() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let mut session = server.command(&link, &user().name, &["cat"]).await;
    let sent = numbered().repeat(4);
    let bytes = sent.as_bytes();
    while session.input_acked < bytes.len() as u64 {
        // As a client does it: at most 256 KiB unacknowledged.
        while session.sent < bytes.len() as u64 && session.sent - session.input_acked <= 224 * 1024 {
            let from = usize::try_from(session.sent).unwrap();
            let part = bytes[from..bytes.len().min(from + 32 * 1024)].to_vec();
            session.type_in(&part).await;
        }
        assert!(session.step().await.is_some());
    }
    session.end_input().await;
    assert_eq!(session.finish().await.code, Some(0));
    assert!(session.text() == sent);
}

pub(crate) async fn a_broken_link_loses_and_doubles_nothing() {
    let mut server = Server::start().await;
    let (_agent, mut link) = Agent::start(&mut server).await;
    let script = format!("stty raw -echo; echo ready; seq 1 {NUMBERS}; head -c 40; echo; echo over");
    let action = Action::Command(vec!["sh".into(), "-c".into(), script]);
    let mut session = server.on_terminal(&link, &user().name, action).await;
    session.until("ready").await;
    let mut keys = 0_u8;
    for _ in 0..4 {
        let goal = session.received + 200_000;
        while session.received < goal {
            assert!(session.step().await.is_some());
        }
        for _ in 0..10 {
            session.type_in(&[b'a' + keys % 26]).await;
            keys += 1;
        }
        drop(link);
        link = server.linked().await;
        assert!(link.hello.sessions.contains(&session.id));
        session.rejoin(&mut link).await;
        // What the agent did not take is sent again, what it took is not: as a server does after `InputAck`.
        session.resend(|offset| b'a' + u8::try_from(offset % 26).unwrap()).await;
    }
    assert_eq!(session.finish().await.code, Some(0));
    let typed: String = (0..40).map(|key: u8| char::from(b'a' + key % 26)).collect();
    let text = session.text();
    let expected = format!("ready\n{}{typed}\nover\n", numbered());
    assert!(text.replace("\r\n", "\n") == expected, "{}", &text[text.len() - 200..]);
    assert_eq!(session.exit.as_ref().unwrap().output_end, session.received);
}
