//! The client in a real terminal: size, Ctrl-C, Hangul, a large paste, the way out, and the terminal afterwards.

use std::io::Write as _;
use std::process::Command;
use std::thread;

use crate::faults::user;
use crate::harness::{Terminal, TestAgent, TestServer, lasting, success, wait_for, wait_until_runs};

fn stage() -> (TestServer, TestAgent) {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    (server, agent)
}

/// A plain shell on the node, without the person's own start-up files.
fn shell(server: &TestServer, rows: u16, columns: u16) -> Terminal {
    let user = user();
    let mut terminal =
        Terminal::start(server, rows, columns, &["shell", "web-1", "--user", &user, "--", "/bin/sh", "-i"]);
    terminal.type_in("PS1='$ '; echo be''gin\n");
    terminal.expect("begin");
    terminal
}

#[test]
fn size_resize_interrupt_hangul_and_exit_status_are_as_on_the_node_itself() {
    let (server, _agent) = stage();
    let mut terminal = shell(&server, 37, 111);
    terminal.type_in("stty size; tty; echo $TERM\n");
    terminal.expect("37 111");
    terminal.expect("/dev/pts/");
    terminal.expect("xterm-256color");
    terminal.resize(50, 132);
    wait_for("the new size", || {
        terminal.master.try_clone().unwrap().write_all(b"stty size\n").unwrap();
        thread::sleep(std::time::Duration::from_millis(100));
        terminal.screen().contains("50 132").then_some(())
    });
    let sleep = lasting();
    terminal.type_in(&format!("{sleep}\n"));
    // The interrupt reaches the program only once it runs in the foreground.
    wait_until_runs(&sleep);
    terminal.type_in("\u{3}");
    terminal.type_in("echo 안녕''하세요\n");
    terminal.expect("안녕하세요");
    terminal.type_in("exit 42\n");
    assert_eq!(terminal.end(), Some(42));
    let id = server.sessions().remove(0)["id"].as_str().unwrap().to_owned();
    let played = success(&mut server.munjigi(&["play", &id, "--text"]));
    assert!(played.contains("안녕하세요") && played.contains("50 132"));
}

#[test]
fn a_paste_of_a_mebibyte_arrives_whole() {
    let (server, _agent) = stage();
    let kept = server.directory().join("pasted");
    let mut terminal = shell(&server, 24, 80);
    // Raw on the node as well: the line discipline would cut lines at 4096 bytes, as in any terminal.
    let total = 1 << 20;
    terminal.type_in(&format!(
        "stty raw -echo; echo re''ady; head -c {total} > {}; stty sane; echo pas''ted\n",
        kept.display()
    ));
    terminal.expect("ready");
    let paste: String = (0..total / 16).map(|n| format!("{n:014} \n")).collect();
    assert_eq!(paste.len(), total);
    terminal.type_in(&paste);
    terminal.expect("pasted");
    assert!(std::fs::read(&kept).unwrap() == paste.as_bytes());
    terminal.type_in("\nexit\n");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn tilde_dot_leaves_and_the_terminal_is_restored() {
    let (server, _agent) = stage();
    let mut terminal = shell(&server, 24, 80);
    terminal.type_in("\r~.");
    assert_eq!(terminal.end(), Some(255));
}

#[test]
fn a_dead_server_ends_with_a_message_when_the_person_leaves() {
    let (mut server, _agent) = stage();
    let mut terminal = shell(&server, 24, 80);
    server.kill();
    terminal.expect("reconnecting");
    terminal.type_in("\r~.");
    assert_eq!(terminal.end(), Some(255));
}

#[test]
fn an_interrupt_reaches_a_program_whose_output_nobody_takes() {
    let (server, _agent) = stage();
    let word = format!("word-{}", std::process::id());
    let command = ["shell", "web-1", "--user", &user(), "--", "yes", &word];
    let mut terminal = Terminal::start_unread(&server, 24, 80, &command);
    let blocked = || {
        let found = crate::harness::output(Command::new("pgrep").args(["-xf", &format!("yes {word}")]));
        let pid = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        Some(rest.split(' ').nth(11)?.to_owned() + rest.split(' ').nth(12)?)
    };
    // It stands still once its processor time no longer grows.
    wait_for("the program to block", || {
        let before = blocked()?;
        thread::sleep(std::time::Duration::from_millis(500));
        (blocked()? == before).then_some(())
    });
    terminal.type_in("\u{3}");
    wait_for("the program's end", || blocked().is_none().then_some(()));
    terminal.read();
    assert_eq!(terminal.end(), Some(130));
}
