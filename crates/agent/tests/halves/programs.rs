//! What programs find when they run, and how they end.

use munjigi_core::grant::Action;
use munjigi_core::session::{Signal, TerminalSize};
use munjigi_core::wire::Frame;
use munjigi_core::wire::message::Pty;
use nix::unistd::{Gid, Pid, Uid};

use crate::agent::{Agent, lives, until, user};
use crate::server::{Server, Session};

fn shell(script: &str) -> Action {
    Action::Command(vec!["sh".into(), "-c".into(), script.into()])
}

pub(crate) async fn a_shell_runs_as_its_user_with_nothing_inherited() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let user = user();
    let mut session = server.on_terminal(&link, &user.name, Action::Shell { profile: String::new() }).await;
    assert!(session.accepted.has_pty && session.accepted.process_id > 1);
    assert_eq!(session.accepted.os_user, user.name);
    // One line each, so that what the terminal echoes cannot be taken for an answer.
    let script = "stty -echo; PS1=; echo begin-$((1+1)); cat /proc/self/status; echo \"argv0=$0\"; echo 'env:'; \
                  tr '\\0' '\\n' </proc/$$/environ; echo; echo fds:; command ls -1 --color=never /proc/$$/fd; echo \"umask=$(umask)\"; \
                  echo \"cwd=$(pwd)\"; echo \"tty=$(tty)\"; \
                  cat /proc/$$/stat; cat /proc/$$/net/dev; echo end-$((1+1)); exit\n";
    session.type_in(script.as_bytes()).await;
    session.until("end-2").await;
    let exit = session.finish().await;
    assert_eq!((exit.code, exit.signal), (Some(0), None));
    let text = session.text().replace('\r', "");
    let text = text.split_once("begin-2").unwrap().1;
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    let ids = |id: u32| format!("{id}\t{id}\t{id}\t{id}");
    assert_eq!(line("Uid:"), ids(user.uid.as_raw()));
    assert_eq!(line("Gid:"), ids(user.gid.as_raw()));
    if Uid::effective().is_root() {
        let name = std::ffi::CString::new(user.name.clone()).unwrap();
        let mut expected = nix::unistd::getgrouplist(&name, user.gid).unwrap();
        expected.sort_by_key(|group| group.as_raw());
        let groups: Vec<Gid> =
            line("Groups:").split_whitespace().map(|group| Gid::from_raw(group.parse().unwrap())).collect();
        assert_eq!(groups, expected);
        if !user.uid.is_root() {
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(line(set), "0000000000000000", "{set}");
            }
        }
    }
    assert_eq!(line("NoNewPrivs:"), "0");
    assert_eq!(line("SigBlk:"), "0000000000000000");
    assert_eq!(line("argv0=-"), user.shell.file_name().unwrap().to_str().unwrap());
    assert_eq!(line("umask="), "0077");
    let environment = text.split_once("env:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let mut names: Vec<&str> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| *name != "MAIL");
    names.sort_unstable();
    assert_eq!(
        names,
        ["HOME", "LANG", "LC_ALL", "LOGNAME", "MUNJIGI_SESSION_ID", "PATH", "SHELL", "TERM", "USER"],
        "{environment}"
    );
    assert!(environment.contains("LANG=ko_KR.UTF-8") && !environment.contains("/evil"));
    assert!(environment.contains("TERM=xterm-256color"));
    let fds = text.split_once("fds:\n").unwrap().1.split_once("umask").unwrap().0;
    let open: Vec<u32> = fds.split_whitespace().map(|fd| fd.parse().unwrap_or_else(|_| panic!("{fds:?}"))).collect();
    // 255 is bash's own second descriptor of the terminal.
    assert!(open.iter().all(|fd| *fd <= 2 || *fd == 255), "{open:?}");
    assert!(line("tty=").starts_with("/dev/pts/"));
    // Own session (field 6 of stat equals the pid) and the host's network namespace.
    let stat = text.lines().find(|line| line.starts_with(&format!("{} (", session.accepted.process_id))).unwrap();
    assert_eq!(
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap(),
        session.accepted.process_id.to_string()
    );
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap().lines().count();
    assert_eq!(text.split_once("Inter-|").unwrap().1.split_once("end-2").unwrap().0.lines().count(), interfaces);
}

pub(crate) async fn a_terminal_has_its_size_before_the_first_prompt() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let script = "stty size; stty -a | tr ';' '\\n' | grep -o iutf8; trap 'stty size' WINCH; echo ready; \
                  while :; do sleep 0.02; done";
    let mut session = server.on_terminal(&link, &user().name, shell(script)).await;
    session.until("ready").await;
    let text = session.text();
    assert!(text.starts_with("40 132\r\niutf8\r\n"), "{text}");
    let size = TerminalSize { rows: 50, columns: 90, width_pixels: 0, height_pixels: 0 };
    session.writer.send(&Frame::Resize(size)).await.unwrap();
    session.until("50 90").await;
    session.type_in(b"\x03").await;
    assert_eq!(session.finish().await.signal.as_deref(), Some("INT"));
}

/// The records belong to the machine; the tests' agents are told to leave them alone, and must.
pub(crate) async fn no_login_is_recorded_when_the_node_says_so() {
    let records =
        || ["/var/log/wtmp", "/var/log/lastlog"].map(|path| std::fs::metadata(path).ok().map(|meta| meta.len()));
    let before = records();
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let mut session = server.on_terminal(&link, &user().name, shell("tty")).await;
    assert_eq!(session.finish().await.code, Some(0));
    assert_eq!(records(), before);
}

pub(crate) async fn output_and_errors_stay_apart_and_the_exit_code_comes_last() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let script = "echo out; echo err >&2; echo again >/dev/stdout; test -t 1 && echo terminal; exit 7";
    let mut session = server.command(&link, &user().name, &["sh", "-c", script]).await;
    assert!(!session.accepted.has_pty);
    let exit = session.finish().await;
    assert_eq!((exit.code, exit.signal, exit.detail.as_str()), (Some(7), None, ""));
    assert_eq!(session.text(), "out\nagain\n");
    assert_eq!(session.errors, b"err\n");
    // Its words are its own: nothing is expanded.
    let mut session = server.command(&link, &user().name, &["printf", "%s|", "a b", "$HOME", "*", "안녕", ""]).await;
    assert_eq!(session.finish().await.code, Some(0));
    assert_eq!(session.text(), "a b|$HOME|*|안녕||");
    // A pipeline whose last part outlives its first: its output is waited for.
    let script = "exec 3>&1; { sleep 0.2; echo late; } & echo early";
    let mut session = server.command(&link, &user().name, &["sh", "-c", script]).await;
    assert_eq!(session.finish().await.code, Some(0));
    assert_eq!(session.text(), "early\nlate\n");
}

pub(crate) async fn a_signal_that_ends_the_program_is_named() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let mut session = server.command(&link, &user().name, &["sh", "-c", "kill -SEGV $$"]).await;
    let exit = session.finish().await;
    assert_eq!((exit.code, exit.signal.as_deref()), (None, Some("SEGV")));
}

pub(crate) async fn signals_reach_the_foreground_program() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let script = "trap 'echo got-usr1' USR1; echo ready; while :; do sleep 0.02; done";
    let mut session = server.command(&link, &user().name, &["sh", "-c", script]).await;
    session.until("ready").await;
    session.writer.send(&Frame::Signal(Signal::User1)).await.unwrap();
    session.until("got-usr1").await;
    session.writer.send(&Frame::Signal(Signal::Kill)).await.unwrap();
    assert_eq!(session.finish().await.signal.as_deref(), Some("KILL"));
    // On a terminal the job in front gets it, its shell does not.
    let mut session = server.on_terminal(&link, &user().name, Action::Shell { profile: String::new() }).await;
    session.type_in(b"sh -c 'echo job-$((1+1)); exec sleep 1000'; echo status-$?\n").await;
    session.until("job-2").await;
    session.writer.send(&Frame::Signal(Signal::Terminate)).await.unwrap();
    session.until("status-143").await;
    session.type_in(b"exit 3\n").await;
    assert_eq!(session.finish().await.code, Some(3));
}

pub(crate) async fn a_documents_profile_and_variables_reach_the_program() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let profile = "PS1=\necho \"$SSM_place\"-$((40+2))\n".to_owned();
    let mut grant = server.grant(&link, &user().name, Action::Shell { profile }, true);
    grant.variables = vec![("SSM_place".into(), "서울 $(id)".into())];
    let pty = Pty { term: "xterm-256color".into(), rows: 40, columns: 132, ..Pty::default() };
    let mut session = Session::start(&link, server.sign(&grant), Some(pty)).await.unwrap();
    session.until("서울 $(id)-42").await;
    session.type_in(b"exit 5\n").await;
    assert_eq!(session.finish().await.code, Some(5));
}

pub(crate) async fn what_cannot_run_is_reported_as_a_shell_would() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    for (program, code, why) in [
        ("no-such-program", 127, "command not found"),
        ("/no/such/file", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/", 126, "permission denied"),
    ] {
        let mut session = server.command(&link, &user().name, &[program]).await;
        assert_eq!(session.finish().await.code, Some(code), "{program}");
        assert_eq!(String::from_utf8_lossy(&session.errors), format!("munjigi: {program}: {why}\n"));
        assert_eq!(session.text(), "");
    }
    until("only the link half is left", || crate::agent::children(agent.spawn_half()).len() == 1).await;
}

pub(crate) async fn the_end_of_input_is_an_end_for_pipes_and_terminals() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let mut session = server.command(&link, &user().name, &["sh", "-c", "wc -c; exec cat"]).await;
    session.type_in(b"hello").await;
    session.end_input().await;
    assert_eq!(session.finish().await.code, Some(0));
    assert_eq!(session.text().trim(), "5");
    assert_eq!(session.input_acked, 5);
    for input in [&b"line\n"[..], b"no line end"] {
        let mut session = server.on_terminal(&link, &user().name, shell("cat >/dev/null; echo over")).await;
        session.type_in(input).await;
        session.end_input().await;
        assert_eq!(session.finish().await.code, Some(0));
        assert!(session.text().ends_with("over\r\n"));
    }
}

pub(crate) async fn what_a_session_leaves_behind_ends_with_it() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    // Deaf to SIGHUP, in a session of its own, its parent gone, without any of the session's descriptors.
    let script = "(trap '' HUP; setsid sh -c 'trap \"\" HUP; echo $$; exec >/dev/null 2>&1 </dev/null; \
                  while :; do sleep 1; done' & ) ; sleep 0.3; exit 0";
    let mut session = server.command(&link, &user().name, &["sh", "-c", script]).await;
    assert_eq!(session.finish().await.code, Some(0));
    let left = Pid::from_raw(session.text().trim().parse().unwrap());
    until("what was left behind is gone", || !lives(left)).await;
}

pub(crate) async fn an_ended_session_hangs_up_and_then_kills() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let mut polite = server
        .command(
            &link,
            &user().name,
            &["sh", "-c", "trap 'echo bye; exit 5' HUP; echo ready; while :; do sleep 0.02; done"],
        )
        .await;
    polite.until("ready").await;
    polite.end("terminated").await;
    assert_eq!(polite.finish().await.code, Some(5));
    assert_eq!(polite.text(), "ready\nbye\n");
    let mut deaf = server
        .command(&link, &user().name, &["sh", "-c", "trap '' HUP TERM; echo ready; while :; do sleep 0.02; done"])
        .await;
    deaf.until("ready").await;
    deaf.end("terminated").await;
    let exit = deaf.finish().await;
    assert_eq!(exit.signal.as_deref(), Some("KILL"));
    assert!(exit.detail.contains("the server ended the session"), "{}", exit.detail);
}
