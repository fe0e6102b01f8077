//! What starts nothing: grants that are not exactly right, and accounts that may not be used.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use munjigi_core::grant::{Action, Grant};
use munjigi_core::id::NodeId;
use munjigi_core::trust::KeyId;
use nix::unistd::Uid;

use crate::agent::{Agent, children, user};
use crate::server::{Linked, Server, Session, now};

/// A command that leaves a trace if it runs.
fn trace(agent: &Agent) -> Action {
    let file = trace_file(agent);
    Action::Command(vec!["sh".into(), "-c".into(), format!("echo ran > {}; exec sleep 1000", file.display())])
}

/// A place where every user may write.
fn trace_file(agent: &Agent) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("munjigi-trace-{}", agent.keeper))
}

async fn refused(link: &Linked, signed: Vec<u8>) -> String {
    match Session::start(link, signed, None).await {
        Ok(session) => panic!("{} was started", session.id),
        Err(refused) => {
            assert!(!refused.message.is_empty());
            refused.reason
        }
    }
}

pub(crate) async fn a_grant_that_is_not_exactly_right_starts_nothing() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let good = server.grant(&link, &user().name, trace(&agent), false);
    type Change = fn(&mut Grant);
    let cases: [(Change, &str); 8] = [
        (|g| g.node = NodeId::parse("mi-00000000000000000").unwrap(), "GrantForOtherNode"),
        (|g| g.epoch = [7; 32], "GrantForOtherEpoch"),
        (
            |g| {
                g.not_before = munjigi_core::time::Timestamp::from_secs(now().as_secs() - 3600);
                g.expires = g.not_before.plus(Duration::from_secs(30));
            },
            "GrantNotValidNow",
        ),
        (|g| g.expires = g.not_before.plus(Duration::from_secs(31)), "GrantNotValidNow"),
        (|g| g.action = Action::Command(vec![]), "CommandInvalid"),
        (|g| g.variables = vec![("LD_PRELOAD".into(), "/tmp/x.so".into())], "CommandInvalid"),
        (|g| g.os_user = "no-such-user-here".into(), "OsUserUnknown"),
        (|g| g.pty = true, "TerminalMismatch"),
    ];
    for (number, (change, reason)) in cases.into_iter().enumerate() {
        let mut wrong = good.clone();
        wrong.id = [u8::try_from(number).unwrap(); 16];
        change(&mut wrong);
        assert_eq!(refused(&link, server.sign(&wrong)).await, reason);
    }
    // Altered after it was signed: user, command, anything.
    let signed = server.sign(&good);
    for at in [0, 5, 30, 90, signed.len() / 2, signed.len() - 60, signed.len() - 1] {
        let mut altered = signed.clone();
        altered[at] ^= 1;
        refused(&link, altered).await;
    }
    // A gateway without the grant key signs with another, under the right key's name too.
    let stranger = Ed25519KeyPair::generate().unwrap();
    assert_eq!(
        refused(&link, good.sign(KeyId::of(stranger.public_key().as_ref()), &stranger)).await,
        "GrantKeyUnknown"
    );
    let borrowed = KeyId::of(server.grant_key.public_key().as_ref());
    assert_eq!(refused(&link, good.sign(borrowed, &stranger)).await, "GrantSignatureWrong");
    assert_eq!(refused(&link, Vec::new()).await, "GrantMalformed");
    assert_eq!(children(agent.spawn_half()), [agent.link_half()], "nothing runs");
    assert!(!trace_file(&agent).exists());
    // The good one starts once.
    let mut once = good.clone();
    once.action = Action::Command(vec!["true".into()]);
    let signed = server.sign(&once);
    let mut session = Session::start(&link, signed.clone(), None).await.unwrap();
    assert_eq!(session.finish().await.code, Some(0));
    assert_eq!(refused(&link, signed).await, "GrantReplayed");
}

pub(crate) async fn accounts_that_may_not_log_in_start_nothing() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let root = Uid::effective().is_root();
    let grant = |user: &str| server.grant(&link, user, Action::Command(vec!["true".into()]), false);
    let reason = refused(&link, server.sign(&grant("daemon"))).await;
    assert_eq!(reason, if root { "OsUserNoLogin" } else { "AgentNotPrivileged" });
    if root {
        let mut ordinary = grant("root");
        ordinary.privileged = false;
        assert_eq!(refused(&link, server.sign(&ordinary)).await, "OsUserPrivileged");
    } else {
        assert_eq!(link.hello.only_user, user().name);
        assert_eq!(refused(&link, server.sign(&grant("root"))).await, "AgentNotPrivileged");
    }
    assert_eq!(children(agent.spawn_half()), [agent.link_half()], "nothing runs");
}
