//! Either half, or the keeper, dies; the agent is stopped; what the halves cannot do.

use std::time::{Duration, Instant};

use munjigi_core::grant::Action;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::agent::{Agent, children, lives, until, user};
use crate::server::Server;

/// Prints numbered lines without end, then what is typed never matters.
const COUNT: &str = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo $i; done";

pub(crate) async fn a_killed_link_half_loses_and_doubles_nothing() {
    let mut server = Server::start().await;
    let (agent, mut link) = Agent::start(&mut server).await;
    let script = format!("stty raw -echo; echo ready; {COUNT}; head -c 30; echo over");
    let action = Action::Command(vec!["sh".into(), "-c".into(), script]);
    let mut session = server.on_terminal(&link, &user().name, action).await;
    session.until("ready").await;
    let mut keys = 0_u8;
    for _ in 0..3 {
        let goal = session.received + 60_000;
        while session.received < goal {
            assert!(session.step().await.is_some());
        }
        for _ in 0..10 {
            session.type_in(&[b'a' + keys % 26]).await;
            keys += 1;
        }
        let before = agent.link_half();
        kill(before, Signal::SIGKILL).unwrap();
        link = server.linked().await;
        assert_ne!(agent.link_half(), before);
        session.rejoin(&mut link).await;
        session.resend(|offset| b'a' + u8::try_from(offset % 26).unwrap()).await;
    }
    assert_eq!(session.finish().await.code, Some(0));
    let numbers: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    let typed: String = (0..30).map(|key: u8| char::from(b'a' + key % 26)).collect();
    let (text, expected) = (session.text().replace("\r\n", "\n"), format!("ready\n{numbers}{typed}over\n"));
    let differs = text.bytes().zip(expected.bytes()).position(|(is, should)| is != should).unwrap_or(text.len());
    let around = text.get(differs.saturating_sub(20)..(differs + 20).min(text.len()));
    assert!(text == expected, "differs at {differs} of {}: {around:?}", expected.len());
}

/// Starts a shell with a background child that is deaf to SIGHUP and left the session; returns both.
async fn shell_with_a_stray(server: &Server, link: &crate::server::Linked) -> (crate::server::Session, Vec<Pid>) {
    let script = "setsid sh -c 'trap \"\" HUP TERM; echo stray=$$.; exec >/dev/null 2>&1; while :; do sleep 1; done' & \
                  trap '' HUP TERM; echo shell=$$.; while :; do sleep 0.05; done";
    let action = Action::Command(vec!["sh".into(), "-c".into(), script.into()]);
    let mut session = server.on_terminal(link, &user().name, action).await;
    session.until("stray=").await;
    session.until("shell=").await;
    while session.text().matches('.').count() < 2 {
        assert!(session.step().await.is_some());
    }
    let text = session.text();
    let pid = |key: &str| {
        let digits = text.split_once(key).unwrap().1.split_once('.').unwrap().0;
        Pid::from_raw(digits.parse().unwrap())
    };
    let pids = vec![pid("shell="), pid("stray=")];
    assert!(pids.iter().all(|pid| lives(*pid)));
    (session, pids)
}

pub(crate) async fn a_killed_privileged_half_takes_its_shells_along() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let (mut session, pids) = shell_with_a_stray(&server, &link).await;
    // The keeper gives up on a half that dies at once.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (half, link_half, killed) = (agent.spawn_half(), agent.link_half(), Instant::now());
    kill(half, Signal::SIGKILL).unwrap();
    while session.exit.is_none() {
        assert!(session.step().await.is_some());
    }
    assert!(session.exit.as_ref().unwrap().detail.contains("privileged half"), "the recording can say why");
    until("shell and stray are gone", || pids.iter().all(|pid| !lives(*pid))).await;
    until("the link half is gone", || !lives(link_half)).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "T-79");
    // It comes back as another run, with nothing from before.
    let again = server.linked().await;
    assert_ne!(again.hello.epoch, link.hello.epoch);
    assert!(again.hello.sessions.is_empty());
    assert_ne!(agent.spawn_half(), half);
    let mut session = server.command(&again, &user().name, &["echo", "again"]).await;
    assert_eq!(session.finish().await.code, Some(0));
}

pub(crate) async fn a_killed_keeper_takes_its_shells_along() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let (_session, pids) = shell_with_a_stray(&server, &link).await;
    let (half, link_half) = (agent.spawn_half(), agent.link_half());
    kill(agent.keeper, Signal::SIGKILL).unwrap();
    until("shell and stray are gone", || pids.iter().all(|pid| !lives(*pid))).await;
    until("both halves are gone", || !lives(half) && !lives(link_half)).await;
}

pub(crate) async fn a_stopped_agent_ends_its_sessions_and_says_zero() {
    let mut server = Server::start().await;
    let (mut agent, link) = Agent::start(&mut server).await;
    let script = "trap 'echo bye; exit 4' HUP; echo ready; while :; do sleep 0.02; done";
    let mut session = server.command(&link, &user().name, &["sh", "-c", script]).await;
    session.until("ready").await;
    kill(agent.keeper, Signal::SIGTERM).unwrap();
    let exit = session.finish().await;
    assert_eq!(exit.code, Some(4));
    assert!(exit.detail.contains("stopped"), "{}", exit.detail);
    assert_eq!(agent.ended().await.code(), Some(0));
    let status = munjigi_agent::status(agent.directory.path()).unwrap();
    assert_eq!((status.process_id, status.online), (None, false));
}

pub(crate) async fn nothing_listens_and_the_link_half_can_start_nothing() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let (half, link_half) = (agent.spawn_half(), agent.link_half());
    let status = |pid: Pid, key: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
    };
    assert_eq!(status(link_half, "Seccomp:"), "2");
    assert_eq!(status(link_half, "NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(status(link_half, set), "0000000000000000", "{set}");
    }
    if Uid::effective().is_root() {
        assert!(!status(link_half, "Uid:").split_whitespace().any(|uid| uid == "0"));
        let network = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let own = network(nix::unistd::getpid());
        assert_eq!(network(link_half), own);
        if network(half) != own {
            let interfaces = std::fs::read_to_string(format!("/proc/{half}/net/dev")).unwrap();
            assert!(!interfaces.contains("eth"), "the privileged half has no network");
        }
        for pid in [half, link_half, agent.keeper] {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let sockets: Vec<String> = open
                .filter_map(|fd| {
                    std::fs::read_link(fd.path())
                        .ok()?
                        .to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')
                        .map(str::to_owned)
                })
                .collect();
            assert!(sockets.iter().all(|inode| !listening().contains(inode)), "{pid} listens");
        }
    }
    assert_eq!(children(link_half), []);
    drop(link);
}

/// Returns the inodes of all listening sockets of this network namespace.
fn listening() -> Vec<String> {
    let mut inodes = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        // State 0A is LISTEN; a bound UDP socket is 07.
        let bound = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        inodes.extend(bound.filter(|f| f.get(3).is_some_and(|s| *s == "0A" || *s == "07")).map(|f| f[9].to_owned()));
    }
    let text = std::fs::read_to_string("/proc/net/unix").unwrap();
    let lines = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Flag 10000 is a listening socket.
    inodes.extend(lines.filter(|f| f.get(3).is_some_and(|flags| *flags == "00010000")).map(|f| f[6].to_owned()));
    inodes
}
